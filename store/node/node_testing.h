// A node in a simulated world, and a client that speaks frames: for tests of the node.
//
// Clock and disk are simulated; the wire is the memory transport. The node's threads are real, so
// the client waits for answers and never for time.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "proto/frame.h"
#include "proto/messages.h"
#include "proto/model_profile.h"
#include "store/node/node.h"
#include "store/transfer/transport_memory.h"
#include "store/world/disk_simulated.h"

namespace kedge {

struct TestBlock {
  BlockHeader header;
  std::vector<uint8_t> encoded;
  std::vector<uint8_t> payload;
};

inline std::vector<uint8_t> TestBytes(uint64_t seed, size_t bytes) {
  Random random(seed * 0x9e3779b97f4a7c15ull + 1);
  std::vector<uint8_t> out(bytes);
  size_t at = 0;
  for (; at + 8 <= bytes; at += 8) {
    const uint64_t word = random.Next();
    std::memcpy(out.data() + at, &word, 8);
  }
  for (; at < bytes; ++at) out[at] = static_cast<uint8_t>(random.Next());
  return out;
}

// Digests of `payload` under the header's name, then the encoding.
inline void SealTestBlock(TestBlock& block) {
  for (uint32_t part = 0; part < block.header.parts.size(); ++part) {
    const auto bytes = std::span<const uint8_t>(block.payload)
                           .subspan(block.header.part_offset(part), block.header.parts[part].bytes);
    block.header.parts[part].digest =
        PartDigest(block.header.key, block.header.variant, part, bytes);
  }
  block.encoded = *EncodeBlockHeader(block.header);
}

// An opaque value: one part.
inline TestBlock MakeTestBlock(uint64_t number, size_t bytes = 10'000, uint64_t content = 0) {
  TestBlock block;
  const std::vector<uint8_t> key = TestBytes(number + 1'000'000, 32);
  std::copy(key.begin(), key.end(), block.header.key.bytes.begin());
  block.header.placement = PlacementOf(block.header.key);
  block.header.variant = Variant::Raw();
  block.payload = TestBytes(content == 0 ? number : content, bytes);
  block.header.parts.resize(1);
  block.header.parts[0].bytes = static_cast<uint32_t>(bytes);
  SealTestBlock(block);
  return block;
}

// Keys and values of two layers: four parts of 2 KiB.
inline TestBlock MakeLayeredTestBlock(uint64_t number) {
  TestBlock block = MakeTestBlock(number, 4 * 2048);
  block.header.keyspace = Keyspace::kPrefix;
  block.header.shape = KvShape::KeysAndValues(2, 2, 16, 32, DType::kF16);
  block.header.parts.assign(4, PartEntry{2048, {}});
  SealTestBlock(block);
  return block;
}

// Two layers of keys and values that can be quantized, of the model TestProfile is of. Four parts
// of 4 KiB.
inline TestBlock MakeModelTestBlock(uint64_t number, uint64_t tenant = 0) {
  TestBlock block = MakeTestBlock(number, 4 * 4096);
  block.header.keyspace = Keyspace::kPrefix;
  block.header.shape = KvShape::KeysAndValues(2, 2, 32, 32, DType::kF16);
  block.header.model = ModelId::Of("test/model", "", "", 1e4);
  block.header.tenant = tenant;
  block.header.rope = RopeState::kRotated;
  for (size_t at = 1; at < block.payload.size(); at += 2) block.payload[at] &= 0xbf;  // below 2
  block.header.parts.assign(4, PartEntry{4096, {}});
  SealTestBlock(block);
  return block;
}

// Each chain and whether it passes.
inline ModelProfile TestProfile(const std::map<std::string, bool>& chains) {
  const ProfiledModel model{.weights_id = "test/model",
                            .adapter_id = "",
                            .rope_scaling = "",
                            .rope_theta = 1e4,
                            .layers = 2,
                            .kv_heads = 2,
                            .head_size = 32,
                            .dtype = DType::kF16};
  std::vector<GateRecord> gate;
  for (const auto& [chain, passed] : chains) {
    GateRecord record;
    record.chain = chain;
    record.task = kGateMean;
    record.points_lost = passed ? 0.25 : 12.5;
    record.bar = 2;
    record.questions = 100;
    record.passed = passed;
    gate.push_back(record);
  }
  return *ModelProfile::Make(model, {}, gate);
}

struct TestWorld {
  SimulatedClock clock;
  SimulatedDisk disk;
  Disk* ssd = &disk;  // what the node gets
  MemoryNetwork network;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<Node> node;
  uint64_t host_bytes = kHostExtentBytes;
  bool with_ssd = false;
  NodeOptions options;
  std::optional<ModelProfile> profile;
  bool allow_unprofiled = false;

  explicit TestWorld(MemoryFaults faults = {}) : network(faults) {}
  ~TestWorld() { Stop(); }

  absl::Status Start() {
    executor = MakeThreadExecutor("node", 2);
    NodeParts parts;
    parts.clock = &clock;
    parts.executor = executor.get();
    parts.disk = ssd;
    parts.host = *HostTier::Create({.capacity_bytes = host_bytes});
    parts.profiles = std::make_unique<ProfileSet>();
    if (profile) (void)parts.profiles->Add(*profile);
    if (allow_unprofiled) parts.profiles->AllowUnprofiled();
    if (with_ssd) {
      parts.ssd_index = MakeMemoryIndex();
      if (options.ssd.directory.empty()) options.ssd.directory = "/ssd";
      if (options.ssd.capacity_bytes == 0)
        options.ssd.capacity_bytes = 4 * options.ssd.segment_bytes;
    }
    parts.make_transport = [this](TransportHandler& handler) {
      return network.MakeTransport(handler, *executor, clock);
    };
    auto created = Node::Create(options, std::move(parts));
    if (!created.ok()) return created.status();
    node = *std::move(created);
    return node->Listen("memory://node").status();
  }
  void Stop() {
    if (node) node->Shutdown();
    if (executor) executor->Shutdown();
    node.reset();
    executor.reset();
  }
  // Everything that is posted has run.
  uint64_t Flush() {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<DrainReport> result;
    node->Drain(1000, [&](DrainReport report) {
      const std::lock_guard<std::mutex> lock(mutex);
      result = report;
      changed.notify_all();
    });
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return result.has_value(); });
    return result->flushed_blocks;
  }
};

class TestClient final : public TransportHandler {
 public:
  struct Message {
    FrameHeader header;
    std::vector<uint8_t> body;
    std::vector<uint8_t> payload;
  };
  struct GetResult {
    ResultCode code = ResultCode::kInternal;
    TierId tier = TierId::kNone;
    BlockHeader header;
    std::vector<uint8_t> payload;  // whole size; bytes outside of the range are zero
    uint64_t received = 0;
    std::string text;
  };

  // Connects; says hello unless told not to.
  explicit TestClient(TestWorld& world, bool hello = true)
      : transport_(world.network.MakeTransport(*this, *world.executor, world.clock)) {
    OnLoop([&] { connection_ = *transport_->Connect("memory://node"); });
    if (hello) Hello();
  }
  ~TestClient() override { transport_->Shutdown(); }

  void Hello() {
    std::vector<uint8_t> body;
    EncodeHello({"test", "1"}, body);
    const Message reply = Ask(FrameType::kHello, body);
    if (reply.header.type != FrameType::kWelcome) return;
    WelcomeBody welcome;
    if (DecodeWelcome(reply.body, welcome).ok()) session_ = welcome.session;
  }
  uint64_t session() const { return session_; }
  void set_session(uint64_t session) { session_ = session; }
  // Variants that gets and matches accept from now on.
  void set_accepted(const std::vector<const char*>& names) {
    accepted_.clear();
    for (const char* name : names) accepted_.push_back(*Variant::Parse(name));
  }
  void set_epoch(uint64_t epoch) { epoch_ = epoch; }
  // Called on the client's loop with each message, before anything else; what it sends with
  // SendFromHook goes out at once. Set while nothing is under way.
  void set_hook(std::function<void(const FrameHeader&)> hook) { hook_ = std::move(hook); }
  void SendFromHook(uint64_t request, FrameType type) {
    (void)connection_->Send(HeadOf(request, type, {}, 0, 0), {}, 0);
  }

  // Sends a frame; answers its request number.
  uint64_t Send(FrameType type, const std::vector<uint8_t>& body,
                std::span<const uint8_t> payload = {}, uint32_t deadline_ms = 0) {
    const uint64_t request = ++last_request_;
    SendAs(request, type, body, payload, deadline_ms);
    return request;
  }
  void SendAs(uint64_t request, FrameType type, const std::vector<uint8_t>& body,
              std::span<const uint8_t> payload = {}, uint32_t deadline_ms = 0) {
    SendRaw(HeadOf(request, type, body, payload.size(), deadline_ms), payload);
  }
  void SendRaw(const std::vector<uint8_t>& head, std::span<const uint8_t> payload = {}) {
    OnLoop([&] {
      if (connection_ != nullptr) (void)connection_->Send(head, payload, 0);
    });
  }
  // The first answer to a request; of type kGoodbye when the connection ended.
  Message Wait(uint64_t request) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return closed_ || !inbox_[request].empty(); });
    if (inbox_[request].empty()) return Message{.header = {.type = FrameType::kGoodbye}};
    Message message = std::move(inbox_[request].front());
    inbox_[request].erase(inbox_[request].begin());
    return message;
  }
  Message Ask(FrameType type, const std::vector<uint8_t>& body) { return Wait(Send(type, body)); }
  void WaitClosed() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return closed_; });
  }
  // The node has handled what was sent before, and run what time was due.
  void Ping() { Ask(FrameType::kPing, {}); }

  // --- Verbs
  std::vector<PutReadyItem> Begin(const std::vector<const TestBlock*>& blocks,
                                  bool say_part_bytes = true,
                                  uint8_t durability = kDurabilityDefault) {
    PutBeginBody begin;
    begin.variant = blocks[0]->header.variant;
    begin.durability = durability;
    for (const TestBlock* block : blocks) {
      begin.items.push_back({block->header.key, block->header.placement, block->payload.size(),
                             static_cast<uint16_t>(block->header.parts.size()),
                             say_part_bytes ? block->header.parts[0].bytes : 0});
    }
    std::vector<uint8_t> body;
    EncodePutBegin(begin, body);
    PutReadyBody ready;
    (void)DecodePutReady(Ask(FrameType::kPutBegin, body).body, ready);
    return ready.items;
  }
  void Chunk(uint64_t slot, uint64_t offset, std::span<const uint8_t> bytes) {
    std::vector<uint8_t> body;
    EncodeChunk({slot, offset}, body);
    Send(FrameType::kChunk, body, bytes);
  }
  uint64_t SendCommit(uint64_t slot, const TestBlock& block,
                      uint8_t durability = kDurabilityDefault) {
    PutCommitBody commit;
    commit.slot = slot;
    commit.durability = durability;
    commit.header = block.encoded;
    std::vector<uint8_t> body;
    EncodePutCommit(commit, body);
    return Send(FrameType::kPutCommit, body);
  }
  PutDoneBody WaitDone(uint64_t request) {
    PutDoneBody done;
    (void)DecodePutDone(Wait(request).body, done);
    return done;
  }
  PutDoneBody Commit(uint64_t slot, const TestBlock& block,
                     uint8_t durability = kDurabilityDefault) {
    return WaitDone(SendCommit(slot, block, durability));
  }
  ResultCode Put(const TestBlock& block, uint8_t durability = kDurabilityDefault) {
    const PutReadyItem ready = Begin({&block}, true, durability).at(0);
    if (ready.code != ResultCode::kOk) return ready.code;
    for (size_t at = 0; at < block.payload.size(); at += kPayloadBytesMax) {
      const size_t bytes = std::min<size_t>(kPayloadBytesMax, block.payload.size() - at);
      Chunk(ready.slot, at, std::span(block.payload).subspan(at, bytes));
    }
    return Commit(ready.slot, block, durability).code;
  }
  MatchReplyBody Match(const std::vector<const TestBlock*>& blocks, uint16_t flags = 0,
                       uint32_t lease_ms = 0) {
    MatchBody match;
    match.flags = flags;
    match.lease_ms = lease_ms;
    match.variants = accepted_;
    for (const TestBlock* block : blocks) {
      match.items.push_back({block->header.key, block->header.placement});
    }
    std::vector<uint8_t> body;
    EncodeMatch(match, body);
    MatchReplyBody reply;
    (void)DecodeMatchReply(Ask(FrameType::kMatch, body).body, reply);
    return reply;
  }
  void Release(uint64_t lease) {
    ReleaseBody release{{lease}};
    std::vector<uint8_t> body;
    EncodeRelease(release, body);
    Send(FrameType::kRelease, body);
    Ping();
  }
  uint64_t SendGet(const std::vector<const TestBlock*>& blocks, uint16_t part_begin = 0,
                   uint16_t part_count = 0, uint64_t capacity = kBlockBytesMax,
                   uint32_t deadline_ms = 0) {
    GetBody get;
    get.part_begin = part_begin;
    get.part_count = part_count;
    get.variants = accepted_;
    for (const TestBlock* block : blocks) {
      get.items.push_back({block->header.key, block->header.placement, capacity});
    }
    std::vector<uint8_t> body;
    EncodeGet(get, body);
    return Send(FrameType::kGet, body, {}, deadline_ms);
  }
  // Collects until every item has its answer and, when kOk, `want` (or all) bytes.
  std::vector<GetResult> WaitGet(uint64_t request, size_t items, uint64_t want = UINT64_MAX) {
    std::vector<GetResult> results(items);
    size_t open = items;
    std::map<uint64_t, std::vector<std::pair<uint64_t, std::vector<uint8_t>>>> early;
    const auto add = [&](GetResult& result, uint64_t offset, const std::vector<uint8_t>& bytes) {
      if (offset + bytes.size() > result.payload.size()) return;
      std::copy(bytes.begin(), bytes.end(), result.payload.begin() + offset);
      result.received += bytes.size();
      if (result.received == std::min<uint64_t>(want, result.payload.size())) --open;
    };
    while (open > 0) {
      const Message message = Wait(request);
      if (message.header.type == FrameType::kGetItem) {
        GetItemBody body;
        if (!DecodeGetItem(message.body, body).ok()) break;
        GetResult& result = results.at(body.item);
        result.code = body.code;
        result.tier = body.tier;
        result.text = body.text;
        if (body.code != ResultCode::kOk) {
          --open;
          continue;
        }
        result.header = *DecodeBlockHeader(body.header);
        result.payload.resize(result.header.payload_bytes());
        add(result, body.payload_offset, message.payload);
        for (const auto& [offset, bytes] : early[body.item]) add(result, offset, bytes);
      } else if (message.header.type == FrameType::kChunk) {
        ChunkBody body;
        if (!DecodeChunk(message.body, body).ok()) break;
        GetResult& result = results.at(body.target);
        if (result.payload.empty()) {
          early[body.target].emplace_back(body.offset, message.payload);
        } else {
          add(result, body.offset, message.payload);
        }
      } else {
        break;
      }
    }
    return results;
  }
  std::vector<GetResult> GetAll(const std::vector<const TestBlock*>& blocks) {
    return WaitGet(SendGet(blocks), blocks.size());
  }
  // Code and, when kOk, whether these are the block's bytes.
  ResultCode Get(const TestBlock& block, TierId* tier = nullptr) {
    const GetResult result = GetAll({&block}).at(0);
    if (tier != nullptr) *tier = result.tier;
    if (result.code == ResultCode::kOk && result.payload != block.payload) {
      return ResultCode::kInternal;
    }
    return result.code;
  }
  ResultCode Remove(const TestBlock& block) {
    RemoveBody remove{{{block.header.key, block.header.placement}}};
    std::vector<uint8_t> body;
    EncodeRemove(remove, body);
    RemoveReplyBody reply;
    (void)DecodeRemoveReply(Ask(FrameType::kRemove, body).body, reply);
    return reply.codes.empty() ? ResultCode::kInternal : reply.codes[0];
  }

 private:
  std::vector<uint8_t> HeadOf(uint64_t request, FrameType type, const std::vector<uint8_t>& body,
                              size_t payload_bytes, uint32_t deadline_ms) const {
    FrameHeader header;
    header.type = type;
    header.request = request;
    header.session = session_;
    header.epoch = epoch_;
    header.deadline_ms = deadline_ms;
    header.body_bytes = static_cast<uint32_t>(body.size());
    header.payload_bytes = static_cast<uint32_t>(payload_bytes);
    std::vector<uint8_t> head(FrameHeadBytes(0, header.body_bytes));
    EncodeFrame(header, {}, body, head);
    return head;
  }
  void OnAccepted(Connection&) override {}
  void OnMessage(Connection&, std::span<const uint8_t> head,
                 std::span<const uint8_t> payload) override {
    const absl::StatusOr<Frame> frame = DecodeFrame(head, payload.size());
    if (!frame.ok()) return;
    if (hook_) hook_(frame->header);
    const std::lock_guard<std::mutex> lock(mutex_);
    inbox_[frame->header.request].push_back({frame->header,
                                             {frame->body.begin(), frame->body.end()},
                                             {payload.begin(), payload.end()}});
    changed_.notify_all();
  }
  void OnSent(Connection&, uint64_t, const absl::Status&) override {}
  void OnClosed(Connection&, const absl::Status&) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    connection_ = nullptr;
    closed_ = true;
    changed_.notify_all();
  }
  template <typename F>
  void OnLoop(F&& work) {
    bool done = false;
    transport_->Post([&] {
      work();
      const std::lock_guard<std::mutex> lock(mutex_);
      done = true;
      changed_.notify_all();
    });
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return done; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, std::vector<Message>> inbox_;
  bool closed_ = false;
  Connection* connection_ = nullptr;
  uint64_t session_ = 0;
  uint64_t epoch_ = 0;
  std::vector<Variant> accepted_;
  uint64_t last_request_ = 0;
  std::function<void(const FrameHeader&)> hook_;
  std::unique_ptr<Transport> transport_;
};

// A node in its world, for tests.
class NodeTest : public testing::Test {
 protected:
  void Start() {
    const absl::Status status = world_.Start();
    ASSERT_TRUE(status.ok()) << status;
  }
  void StartWithSsd(uint8_t durability = kDurabilityHost) {
    world_.with_ssd = true;
    world_.options.durability = durability;
    Start();
  }
  void Restart() {
    world_.Stop();
    Start();
  }
  uint64_t HostUsed() { return world_.node->Status().host_used_bytes; }
  // Time passes (100 ms and more, the sweep's period), and the node notices.
  void Pass(TestClient& client, int64_t ms) {
    client.Ping();  // what was sent before has been handled
    world_.clock.AdvanceUs(ms * 1000);
    while (world_.node->Status().last_sweep_ms != world_.clock.NowMs()) client.Ping();
  }
  // Receipts of the last messages come a little after the bytes.
  uint64_t PinsLeft(TestClient& client) {
    for (int i = 0; i < 1000 && world_.node->map().stats().pinned_blocks != 0; ++i) client.Ping();
    return world_.node->map().stats().pinned_blocks;
  }
  // Moves everything out of host memory that the SSD has.
  void EvictAll() {
    while (const auto victim = world_.node->map().Coldest()) {
      world_.node->map().EvictHost(victim->id);
    }
  }

  TestWorld world_;
};

}  // namespace kedge
