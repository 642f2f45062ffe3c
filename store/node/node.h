// One Kedge node. The only place where the parts meet; the constructor is the wiring diagram.
//
//   transport loop   every frame: sessions, leases, slots, answers. All state below "Loop only"
//   belongs to it executor         SSD reads and appends (store/tier/mover.h); they come back to
//   the loop by Transport::Post any thread       status, metrics, Inspect, Verify, Remove of the
//   control service: block map and counters are thread-safe
//
// One verb, one file: node_hello.cc, node_match.cc, node_get.cc, node_put.cc (what
// waits: node_put_wait.cc), node_anchor.cc, node_mix.cc, node_near.cc, node_remove.cc,
// node_variants.cc;
// node_sweep.cc is what time does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "proto/near_messages.h"
#include "store/block/block_map.h"
#include "store/block/lease.h"
#include "store/block/near_index.h"
#include "store/node/anchor_store.h"
#include "store/node/get_stream.h"
#include "store/node/mix_queue.h"
#include "store/node/node_metrics.h"
#include "store/node/put_slot.h"
#include "store/node/put_wait.h"
#include "store/node/session.h"
#include "store/tier/host_room.h"
#include "store/tier/mover.h"
#include "store/tier/profile_set.h"
#include "store/tier/recode_policy.h"
#include "store/tier/recoder.h"
#include "store/tier/ssd_index.h"
#include "store/tier/tier_host.h"
#include "store/tier/tier_ssd.h"
#include "store/transfer/transport.h"
#include "store/world/clock.h"
#include "store/world/disk.h"
#include "store/world/executor.h"
#include "store/world/limits.h"
#include "store/world/metrics.h"
#include "store/world/random.h"

namespace kedge {

const char* KedgeVersion();  // "0.1.0"

struct NodeOptions {
  std::string node_id = "node";
  uint64_t epoch = 1;
  uint8_t durability =
      kDurabilityHost;  // of puts that leave it to the node. kDurabilitySsd needs an SSD
  uint32_t lease_ms_max = kLeaseMsMax;
  uint32_t put_idle_ms = kPutIdleMs;
  uint32_t sessions_max = kSessionsMax;
  uint32_t silence_ms =
      kSilenceMs;        // a session with no frame for so long, and something under way, ends
  SsdTier::Options ssd;  // with NodeParts::ssd_index
  uint64_t pool_memory_bytes = kPoolMemoryBytesDefault;  // of anchors in memory, to be mixed
  // Donors of the near index (store/block/near_index.h); its memory is taken with the first one.
  uint32_t near_donors_max = kNearDonorsDefault;  // 0: none is kept
  RecodePolicy recode;                            // what the SSD holds in place of what was put
  uint64_t seed = 1;  // of session, slot and lease ids; EntropySeed() outside of tests
};

// What a node is made of. The world (clock, executor, disk) is the caller's and must outlive the
// node; the parts are the node's.
struct NodeParts {
  const Clock* clock = nullptr;
  Executor* executor = nullptr;
  Disk* disk = nullptr;  // with an SSD
  std::unique_ptr<HostTier> host;
  std::unique_ptr<SsdIndex> ssd_index;   // null: no SSD tier
  std::unique_ptr<ProfileSet> profiles;  // null: none, and no lossy block is taken
  std::function<absl::StatusOr<std::unique_ptr<Transport>>(TransportHandler&)> make_transport;
};

struct DrainReport {
  uint64_t flushed_blocks = 0;
  uint64_t left_blocks = 0;  // the deadline came first
};

// What one variant takes; bytes are of payloads.
struct VariantStatus {
  std::string variant;
  BlockMap::VariantStats stats;
};

struct NodeStatus {
  std::string node_id;
  bool draining = false;
  std::vector<std::string> reasons;  // why the health is not OK
  int64_t uptime_ms = 0;
  int64_t last_sweep_ms = 0;  // of the node's clock
  uint64_t epoch = 0;
  uint64_t sessions = 0;
  uint64_t leases = 0;
  uint64_t puts_open = 0;
  uint64_t write_backlog = 0;
  BlockMap::Stats blocks;
  std::vector<VariantStatus> variants;  // that are held
  uint64_t host_capacity_bytes = 0;
  uint64_t host_used_bytes = 0;
  bool has_ssd = false;
  uint64_t ssd_capacity_bytes = 0;
  uint64_t ssd_used_bytes = 0;
};

struct VerifyResult {
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  std::vector<std::string> damaged;  // one line each
};

class Node final : private TransportHandler {
 public:
  // Recovers the SSD tier. Errors are those of SsdTier::Open and of make_transport.
  static absl::StatusOr<std::unique_ptr<Node>> Create(NodeOptions options, NodeParts parts);
  // Needs Shutdown and then Executor::Shutdown before.
  ~Node() override;

  // Opens a data address ("tcp://127.0.0.1:0"); returns the bound one. Before traffic starts.
  absl::StatusOr<std::string> Listen(const std::string& address);

  // What clients are told of the control service; any thread, before traffic starts.
  void SetControlAddress(const std::string& address);

  // Any thread. Says goodbye to the sessions, admits no put from now on, lets running ones finish,
  // writes what is unsaved to the SSD; all of it until `deadline_ms` from now. `done` runs once, on
  // some thread; may be called again.
  void Drain(int64_t deadline_ms, std::function<void(DrainReport)> done);
  bool draining() const { return draining_.load(std::memory_order_relaxed); }
  // Ends all connections and the loop. Not from the loop. Idempotent.
  void Shutdown();

  // --- Any thread
  NodeStatus Status() const;
  const SsdTier::RecoveryReport& recovery() const { return recovery_; }
  // Everything that is known about a key, pinned while `see` looks.
  struct Inspected {
    BlockInfo info;
    BlockHeader header;
    int64_t lease_ms_left = 0;
  };
  absl::StatusOr<std::vector<Inspected>> Inspect(const BlockKey& key);
  // Checks every part of these keys (all when empty), on each tier that holds them; blocks the
  // caller. A damaged copy is dropped and counted.
  VerifyResult Verify(std::span<const BlockKey> keys);
  // Number of variants; NOT_FOUND; FAILED_PRECONDITION when in use and not `force`. Durable when it
  // answers OK. `done` runs once, inside the call or on an executor thread.
  void Remove(const BlockKey& key, bool force, std::function<void(absl::StatusOr<uint32_t>)> done);
  // The same for one variant; the others stay.
  void RemoveVariant(const BlockKey& key, const Variant& variant, bool force,
                     std::function<void(absl::StatusOr<uint32_t>)> done);
  void VisitMetrics(MetricsVisitor& visitor) const;
  const NodeMetrics& metrics() const { return metrics_; }
  BlockMap& map() { return map_; }

 private:
  Node(NodeOptions options, NodeParts parts);
  absl::Status Open();

  // TransportHandler
  void OnAccepted(Connection& connection) override;
  void OnMessage(Connection& connection, std::span<const uint8_t> head,
                 std::span<const uint8_t> payload) override;
  void OnSent(Connection& connection, uint64_t cookie, const absl::Status& status) override;
  void OnClosed(Connection& connection, const absl::Status& why) override;

  // Frames (node.cc)
  void OnBadFrame(Session& session, const absl::Status& why);
  bool CheckSession(Session& session, const FrameHeader& header);
  void Dispatch(Session& session, const Frame& frame, std::span<const uint8_t> payload);
  // True when the body parsed; else the error went out.
  bool BodyOk(Session& session, const FrameHeader& header, const absl::Status& status);
  // Sends head_ made of `type` and body_. The request's header gives request, trace and so on.
  void Reply(Session& session, const FrameHeader& request, FrameType type);
  void ReplyError(Session& session, const FrameHeader& request, ResultCode code, std::string text);
  std::span<const uint8_t> MakeHead(const Session& session, const FrameHeader& request,
                                    FrameType type, uint32_t payload_bytes);
  void CloseSoon(Session& session, std::string why);
  void EndSession(Session& session);
  Session* FindSession(uint64_t id);

  // Verbs: one file each
  void OnHello(Session& session, const Frame& frame);
  void OnMatch(Session& session, const Frame& frame);
  void OnRelease(Session& session, const Frame& frame);
  void OnGet(Session& session, const Frame& frame);
  void OnCancel(Session& session, const Frame& frame);
  void OnPutBegin(Session& session, const Frame& frame);
  void OnPutChunk(Session& session, const Frame& frame, std::span<const uint8_t> payload);
  void OnPutCommit(Session& session, const Frame& frame);
  void OnPutAbort(Session& session, const Frame& frame);
  void OnRemove(Session& session, const Frame& frame);
  void OnAnchorInsert(Session& session, const Frame& frame);
  void OnMix(Session& session, const Frame& frame);
  void OnMixUsed(Session& session, const Frame& frame);

  // Anchors (node_anchor.cc)
  void InsertAnchor(uint64_t session, const FrameHeader& request, int64_t started_us,
                    const AnchorInsertBody& insert, BlockRef block, bool fresh);
  void AnswerInsert(uint64_t session, const FrameHeader& request, int64_t started_us, uint64_t slot,
                    const AnchorStore::InsertAnswer& answer);

  // Mix (node_mix.cc)
  void AskPool(Session& session, const FrameHeader& request, MixBody mix, int64_t deadline_us);
  void OnMixed(uint64_t session, const FrameHeader& request, int64_t started_us,
               int64_t deadline_us, MixQueue::Answer answer,
               const std::shared_ptr<std::atomic<bool>>& cancelled);
  void StreamMixed(Session& session, const FrameHeader& request, int64_t started_us,
                   int64_t deadline_us, MixQueue::Answer answer);
  bool CancelMix(Session& session, uint64_t request);
  void EndMixes(Session& session);
  void SweepMixes(int64_t now_us);
  void OnNearInsert(Session& session, const Frame& frame);
  void OnNearLookup(Session& session, const Frame& frame);
  void OnNearStrike(const Frame& frame);

  // Get (node_get.cc)
  uint32_t NewStream();
  void OpenItem(GetStream& stream, uint32_t item, const GetRequestItem& asked);
  void MakeReady(GetStream& stream, uint32_t item, const BlockInfo& info);
  void SendItemWithoutBytes(GetStream& stream, uint32_t item, ResultCode code, std::string text);
  void FinishItem(GetStream& stream, uint32_t item, ResultCode code, std::string text);
  void LetGo(GetStream& stream, GetItemState& item);
  void StartPromotions(uint32_t stream);
  void OnPromoted(uint32_t stream, uint32_t item, const absl::Status& status);
  void Enqueue(uint32_t stream);
  void Pump(Session& session);
  bool SendNext(Session& session, uint32_t stream);
  uint32_t NextReadyItem(GetStream& stream);
  void StopStream(uint32_t stream, ResultCode code);
  void FinishStreamIfOver(uint32_t stream);
  void PumpStalled();

  // Put (node_put.cc, node_put_wait.cc)
  ResultCode BeginItem(Session& session, const PutBeginBody& begin, const PutBeginItem& item,
                       std::shared_ptr<PutWait>& wait, size_t index, uint64_t* slot);
  // kExhausted: no room now.
  ResultCode TakeSlot(Session& session, const Variant& variant, const PutBeginItem& item,
                      uint64_t* slot);
  PutSlot* FindSlot(uint64_t id);
  uint64_t OpenSlot(Session& session, const Variant& variant, const PutBeginItem& item,
                    HostSlot host);
  void SendPutReady(Session& session, const FrameHeader& request, int64_t started_us);
  void WaitForSsd(const std::shared_ptr<PutWait>& wait, size_t index, BlockRef block);
  void WaitForRoom(std::shared_ptr<PutWait> wait);
  void RetryPutWaits();
  void EndPutWait(PutWait& wait, size_t items);
  void Commit(PutSlot& slot);
  ResultCode SealAndInsert(PutSlot& slot, BlockRef* block, std::string* text);
  void AnswerCommit(uint64_t session, const FrameHeader& commit, int64_t started_us, uint64_t slot,
                    ResultCode code, const std::string& text);
  absl::Status Admit(const PutSlot& slot, const BlockHeader& header) const;
  void FreeSlot(PutSlot& slot, bool free_host);
  void AbandonSlot(PutSlot& slot, const char* why);
  bool WantsSsd(uint8_t durability) const;

  // Near matches (node_near.cc)
  void EraseNear(std::span<const BlockKey> keys);
  void NoteNear();

  // Time (node_sweep.cc)
  void Sweep();
  void SweepSessions(int64_t now_ms);
  void SweepSlots(int64_t now_ms);
  void SweepStreams(int64_t now_us);
  void StepDrain(int64_t now_ms);
  void NoteHour(int64_t now_ms);
  void UpdateGauges();

  void MapVariants(const std::vector<Variant>& variants);
  void VerifyBlock(const BlockRef& block, VerifyResult* result);

  const NodeOptions options_;
  const Clock& clock_;
  Executor& executor_;
  Disk* const disk_;
  const int64_t started_ms_;

  // The parts, in the order in which they stand on each other.
  std::unique_ptr<HostTier> host_;
  BlockMap map_;
  HostRoom room_;
  std::unique_ptr<SsdIndex> ssd_index_;  // until the tier is open: then it is the tier's
  std::unique_ptr<SsdTier> ssd_;
  std::unique_ptr<ProfileSet> profiles_;
  Recoder recoder_;
  std::unique_ptr<Mover> mover_;
  std::unique_ptr<AnchorStore> anchors_;
  std::unique_ptr<MixQueue> mixes_;
  SsdTier::RecoveryReport recovery_;
  NodeMetrics metrics_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> puts_wait_{false};  // put_waits_ has some; the mover's writer looks

  // Loop only.
  Random random_;
  LeaseTable leases_;
  std::vector<std::unique_ptr<Session>> sessions_;
  absl::flat_hash_map<uint64_t, Session*> session_by_id_;
  std::vector<std::unique_ptr<GetStream>> streams_;
  std::vector<uint32_t> free_streams_;
  Slab<MessageUnderWay> messages_;
  uint64_t bytes_under_way_ = 0;
  std::vector<Session*> stalled_;
  std::unique_ptr<NearIndex> near_;              // made by the first insert
  std::vector<std::unique_ptr<PutSlot>> slots_;  // a slot's id has its index in the low 32 bits
  std::vector<uint32_t> free_slots_;
  uint64_t put_bytes_reserved_ = 0;
  int64_t pools_written_ms_ = 0;                     // of the last checkpoint
  int64_t idle_looked_hour_ = 0;                     // of the last look at what is idle
  std::vector<std::shared_ptr<PutWait>> put_waits_;  // for room, in the order of their coming
  std::string data_address_;
  std::string control_address_;
  struct DrainState {
    bool flushing = false;
    int64_t deadline_ms = 0;
    std::vector<std::function<void(DrainReport)>> done;
  };
  DrainState drain_;

  // Buffers that live on so that requests do not allocate.
  std::vector<uint8_t> head_;
  std::vector<uint8_t> body_;
  std::vector<uint16_t> variant_ids_;
  std::vector<BlockRef> found_;
  MatchBody match_;
  MatchReplyBody match_reply_;
  GetBody get_;
  GetItemBody get_item_;
  PutBeginBody put_begin_;
  PutReadyBody put_ready_;
  PutDoneBody put_done_;
  AnchorInsertBody anchor_insert_;
  MixBody mix_;
  MixUsedBody mix_used_;
  NearInsertBody near_insert_;
  NearInsertedBody near_inserted_;
  NearLookupBody near_lookup_;

  std::unique_ptr<Transport> transport_;  // last: nothing calls in while the rest goes away
};

}  // namespace kedge
