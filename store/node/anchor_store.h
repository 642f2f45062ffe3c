// The pools of anchors of this node: which there are, where their anchors lie, and who goes.
//
// An anchor is a block of the anchor keyspace, put and kept as any other. A pool is what was read
// from such blocks into memory to mix them (store/block/anchor_pool.h), and a roster that names
// them (store/block/pool_roster.h). A pool whose memory is needed is *unloaded*, the one longest
// unused first: its roster is brought up to date, and it is read again when it is asked for. A pool
// none of whose blocks is held any more is gone, as they are.
//
// With an SSD a durable insert is answered once the anchor and the roster that names it are synced;
// other changes (inserts that need not be durable, activations) reach the SSD with the next
// checkpoint. The SSD tier drops its oldest segments when it is full, and with them anchors and
// rosters: what is left of a pool goes on.
//
// Changes of a pool happen one after the other, in the order of the calls, on executor threads:
// the same order gives the same pool. Thread-safe. The executor must be shut down before this goes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "proto/offset_messages.h"
#include "store/block/anchor_pool.h"
#include "store/block/block_map.h"
#include "store/tier/host_room.h"
#include "store/tier/mover.h"
#include "store/tier/page_buffer.h"
#include "store/tier/tier_ssd.h"
#include "store/world/executor.h"
#include "store/world/metrics.h"

namespace kedge {

class AnchorStore {
 public:
  struct Parts {
    BlockMap& map;
    HostTier& host;
    HostRoom& room;
    Mover& mover;
    SsdTier* ssd;  // null: none
    Executor& executor;
  };
  AnchorStore(const Parts& parts, uint64_t memory_bytes)
      : parts_(parts), memory_bytes_(memory_bytes) {}

  // A block of the anchor keyspace that the SSD tier has: rosters are remembered. Before traffic.
  void Recovered(const BlockHeader& header);

  struct InsertAsk {
    BlockKey pool;
    uint64_t placement = 0;
    BlockKey key;
    AnchorPoolOptions options;  // of a pool that is new
    bool durable = false;
    bool fresh = false;  // the block came for this: it goes again when the pool does not take it
    BlockRef block;
  };
  struct InsertAnswer {
    ResultCode code = ResultCode::kInternal;
    PoolVerdict verdict = PoolVerdict::kOk;
    uint32_t anchors = 0;
    std::string text;
  };
  // `done` runs once, on an executor thread.
  void Insert(InsertAsk ask, absl::AnyInvocable<void(InsertAnswer)> done);

  // Activates them, some time.
  void Used(const MixUsedBody& used);

  // The pool, read where it must be; nullptr when there is none. Blocks: executor threads only.
  std::shared_ptr<AnchorPool> Find(const BlockKey& pool);

  // Writes the rosters of pools that have changed; `done` runs on some thread when they are on the
  // SSD, or were refused.
  void Checkpoint(std::function<void()> done);

  void VisitMetrics(MetricsVisitor& visitor) const;

 private:
  struct Pool {
    BlockKey key;
    uint64_t placement = 0;
    std::mutex loading;
    // All below: under mutex_.
    std::shared_ptr<AnchorPool> anchors;  // null: not in memory
    uint64_t bytes = 0;
    uint64_t used = 0;           // of ticks_
    uint32_t sequence = 0;       // of the newest roster
    uint32_t durable = 0;        // of the newest one that is on the SSD
    std::set<uint32_t> rosters;  // that may be held
    bool dirty = false;          // memory has what the newest roster has not
    std::vector<BlockKey> gone;  // anchors that the SSD may have still
    std::deque<Task> tasks;
    bool running = false;
  };
  using PoolPtr = std::shared_ptr<Pool>;
  struct Image {
    BlockRef block;
    PageBuffer memory;
    std::span<const uint8_t> payload;
  };

  PoolPtr FindOrMake(const BlockKey& key, uint64_t placement, bool make);
  // False when too many wait.
  bool Run(const PoolPtr& pool, Task task, bool whatever_waits = false);
  void Step(const PoolPtr& pool);

  absl::StatusOr<Image> Read(BlockRef block);
  absl::StatusOr<Image> Read(const BlockKey& key, uint64_t placement);
  std::shared_ptr<AnchorPool> Load(const PoolPtr& pool);
  std::shared_ptr<AnchorPool> Loaded(const PoolPtr& pool);
  bool MakeRoom(uint64_t bytes, const Pool* except);

  InsertAnswer InsertNow(const PoolPtr& pool, InsertAsk& ask);
  void Persist(const PoolPtr& pool, InsertAsk ask, InsertAnswer answer,
               absl::AnyInvocable<void(InsertAnswer)> done);
  // What its caller does with the roster that becomes the newest.
  struct Written {
    BlockRef block;
    uint32_t sequence = 0;
  };
  absl::StatusOr<Written> WriteRosterLocked(Pool& pool, const AnchorPool& anchors);
  void WriteDurably(const PoolPtr& pool, const std::shared_ptr<AnchorPool>& anchors,
                    BlockRef anchor, absl::AnyInvocable<void(absl::Status)> done);
  void RefreshSoon(const PoolPtr& pool);
  void Retire(const PoolPtr& pool, uint32_t durable, std::vector<BlockKey> gone);

  const Parts parts_;
  const uint64_t memory_bytes_;
  mutable std::mutex mutex_;
  absl::flat_hash_map<BlockKey, PoolPtr> pools_;
  uint64_t bytes_ = 0;
  uint64_t ticks_ = 0;

  std::atomic<bool> refreshing_{false};
  std::array<std::atomic<uint64_t>, kPoolVerdictMax + 1> inserts_{};
  std::atomic<uint64_t> existing_{0};
  std::atomic<uint64_t> activations_{0};
  std::atomic<uint64_t> loaded_{0};
  std::atomic<uint64_t> unloaded_{0};
  std::atomic<uint64_t> evicted_{0};
  std::atomic<uint64_t> missing_{0};
  std::atomic<uint64_t> rosters_{0};
};

}  // namespace kedge
