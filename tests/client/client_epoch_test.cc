// A member list that changes under the client: frames with an old epoch are answered with the new
// list, and the client asks again. The node is one that only knows these answers.
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "client/client_limits.h"
#include "client/engine.h"
#include "client/get.h"
#include "client/lookup.h"
#include "client/put.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "store/transfer/transport_memory.h"
#include "store/world/executor.h"

namespace kedge {
namespace {

// Says welcome with epoch 1. Answers what comes with an older epoch than its own by kStaleEpoch,
// and knows no block.
class FakeNode final : public TransportHandler {
 public:
  struct Seen {
    FrameType type;
    uint64_t epoch;
  };

  uint64_t epoch = 2;         // of the node, from the welcome on
  uint64_t raise_by = 0;      // with each answer: the list never stands still
  bool old_answers = false;   // claims an epoch before the client's
  bool wants_blocks = false;  // gives slot 5 to every put, whatever its epoch

  std::vector<Seen> seen() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return seen_;
  }
  uint64_t Count(FrameType type) {
    uint64_t count = 0;
    for (const Seen& frame : seen()) count += frame.type == type;
    return count;
  }
  void WaitFor(FrameType type) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] {
      for (const Seen& frame : seen_) {
        if (frame.type == type) return true;
      }
      return false;
    });
  }

 private:
  void OnAccepted(Connection&) override {}
  void OnSent(Connection&, uint64_t, const absl::Status&) override {}
  void OnClosed(Connection&, const absl::Status&) override {}
  void OnMessage(Connection& connection, std::span<const uint8_t> head,
                 std::span<const uint8_t> payload) override {
    const absl::StatusOr<Frame> frame = DecodeFrame(head, payload.size());
    ASSERT_TRUE(frame.ok()) << frame.status();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      seen_.push_back({frame->header.type, frame->header.epoch});
      changed_.notify_all();
    }
    std::vector<uint8_t> body;
    if (frame->header.type == FrameType::kHello) {
      WelcomeBody welcome;
      welcome.session = 1;
      welcome.epoch = 1;
      welcome.node_id = "fake";
      welcome.members = {{"fake", "memory://node", ""}};
      EncodeWelcome(welcome, body);
      return Reply(connection, *frame, FrameType::kWelcome, body);
    }
    const bool slot = wants_blocks && frame->header.type == FrameType::kPutBegin;
    if (frame->header.epoch < epoch && !slot) {
      ErrorBody error;
      error.code = ResultCode::kStaleEpoch;
      error.text = "frame.epoch is old";
      error.epoch = old_answers ? 0 : epoch;
      error.members = {{"fake", "memory://node", ""}};
      epoch += raise_by;
      EncodeError(error, body);
      return Reply(connection, *frame, FrameType::kError, body);
    }
    switch (frame->header.type) {
      case FrameType::kMatch:
        EncodeMatchReply({.items = {MatchItem{}}}, body);
        return Reply(connection, *frame, FrameType::kMatchReply, body);
      case FrameType::kGet:
        EncodeGetItem({.code = ResultCode::kAbsent}, body);
        return Reply(connection, *frame, FrameType::kGetItem, body);
      case FrameType::kPutBegin:
        EncodePutReady({{{slot ? ResultCode::kOk : ResultCode::kExists, slot ? 5u : 0u}}}, body);
        return Reply(connection, *frame, FrameType::kPutReady, body);
      case FrameType::kRemove:
        EncodeRemoveReply({{ResultCode::kAbsent}}, body);
        return Reply(connection, *frame, FrameType::kRemoveReply, body);
      default:
        return;
    }
  }
  static void Reply(Connection& connection, const Frame& request, FrameType type,
                    const std::vector<uint8_t>& body) {
    FrameHeader header;
    header.type = type;
    header.request = request.header.request;
    header.body_bytes = static_cast<uint32_t>(body.size());
    std::vector<uint8_t> head(FrameHeadBytes(0, header.body_bytes));
    EncodeFrame(header, {}, body, head);
    (void)connection.Send(head, {}, 0);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Seen> seen_;
};

class ClientEpochTest : public testing::Test {
 protected:
  void Start() {
    listener_ = network_.MakeTransport(node_, *executor_, clock_);
    ASSERT_TRUE(listener_->Listen("memory://node").ok());
    engine_ = *Engine::Open({.address = "memory://node",
                             .client_name = "epoch",
                             .make_transport = [this](TransportHandler& handler) {
                               return network_.MakeTransport(handler, *executor_, clock_);
                             }});
    ASSERT_TRUE(engine_->WaitConnected(10'000).ok());
  }
  void TearDown() override {
    engine_->Close();
    listener_->Shutdown();
    executor_->Shutdown();
  }

  ResultCode Run(const std::shared_ptr<Operation>& operation) {
    engine_->Run(operation);
    operation->Wait(UINT32_MAX);
    ItemResult item;
    operation->CopyItems({&item, 1});
    return item.code;
  }
  int64_t Deadline() const { return engine_->NowUs() + 10'000'000; }
  std::shared_ptr<Operation> Exists() {
    return std::make_shared<LookupOperation>(LookupOperation::Question{.keys = {{key_, 1}}},
                                             Deadline());
  }
  std::shared_ptr<Operation> Remove() {
    return std::make_shared<RemoveOperation>(std::vector<KeyItem>{{key_, 1}}, Deadline());
  }
  std::shared_ptr<Operation> Get() {
    GetOperation::Question question;
    question.items.resize(1);
    question.items[0].key = key_;
    question.items[0].to.Add(memory_.data(), memory_.size());
    return std::make_shared<GetOperation>(std::move(question), 1 << 20, Deadline());
  }
  std::shared_ptr<Operation> Put() {
    PutOperation::Question question;
    question.variant = Variant::Raw();
    question.items.resize(1);
    question.items[0].header.key = key_;
    question.items[0].header.variant = Variant::Raw();
    question.items[0].header.parts = {{static_cast<uint32_t>(memory_.size()), {}}};
    question.items[0].extents = {{0, memory_.data(), memory_.size()}};
    return std::make_shared<PutOperation>(std::move(question), 1 << 20, Deadline());
  }

  RealClock clock_;
  FakeNode node_;
  MemoryNetwork network_;
  const std::unique_ptr<Executor> executor_ = MakeThreadExecutor("epoch", 2);
  std::unique_ptr<Transport> listener_;
  std::shared_ptr<Engine> engine_;
  BlockKey key_{{1, 2, 3}};
  std::vector<uint8_t> memory_ = std::vector<uint8_t>(10'000, 7);
};

TEST_F(ClientEpochTest, EveryVerbAsksAgainWithTheNewEpoch) {
  Start();
  for (uint64_t epoch : {2, 3, 4, 5}) {
    node_.epoch = epoch;
    switch (epoch) {
      case 2:
        EXPECT_EQ(Run(Exists()), ResultCode::kAbsent);
        break;
      case 3:
        EXPECT_EQ(Run(Get()), ResultCode::kAbsent);
        break;
      case 4:
        EXPECT_EQ(Run(Put()), ResultCode::kExists);
        break;
      default:
        EXPECT_EQ(Run(Remove()), ResultCode::kAbsent);
    }
    const std::vector<FakeNode::Seen> seen = node_.seen();
    ASSERT_EQ(seen.size(), 1 + 2 * (epoch - 1)) << "the question, and once more";
    EXPECT_EQ(seen[seen.size() - 2].epoch, epoch - 1);
    EXPECT_EQ(seen[seen.size() - 1].epoch, epoch);
    EXPECT_EQ(seen[seen.size() - 1].type, seen[seen.size() - 2].type);
  }
}

TEST_F(ClientEpochTest, AListThatNeverStandsStillEndsTheRequest) {
  node_.raise_by = 1;
  node_.epoch = 100;
  Start();
  EXPECT_EQ(Run(Exists()), ResultCode::kStaleEpoch);
  EXPECT_EQ(node_.Count(FrameType::kMatch), 1 + kStaleEpochRetries);
  EXPECT_EQ(Run(Get()), ResultCode::kStaleEpoch);
  EXPECT_EQ(node_.Count(FrameType::kGet), 1 + kStaleEpochRetries);
  EXPECT_EQ(Run(Put()), ResultCode::kStaleEpoch);
  EXPECT_EQ(node_.Count(FrameType::kPutBegin), 1 + kStaleEpochRetries);
  EXPECT_EQ(Run(Remove()), ResultCode::kStaleEpoch);
  EXPECT_EQ(node_.Count(FrameType::kRemove), 1 + kStaleEpochRetries);
}

TEST_F(ClientEpochTest, AnAnswerFromThePastDoesNotTurnTheClientBack) {
  node_.old_answers = true;
  Start();
  EXPECT_EQ(Run(Exists()), ResultCode::kStaleEpoch);
  for (const FakeNode::Seen& frame : node_.seen()) {
    if (frame.type == FrameType::kHello) continue;
    EXPECT_EQ(frame.epoch, 1u);
  }
}

TEST_F(ClientEpochTest, APutThatHadBegunGivesItsSlotBack) {
  node_.wants_blocks = true;
  Start();
  EXPECT_EQ(Run(Put()), ResultCode::kStaleEpoch);
  node_.WaitFor(FrameType::kPutAbort);
  EXPECT_EQ(node_.Count(FrameType::kPutBegin), 1u);
}

}  // namespace
}  // namespace kedge
