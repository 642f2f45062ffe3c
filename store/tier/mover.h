// Blocks on their way between host memory and the SSD.
//
// Down: one writer (a chain of executor tasks, never two at once) appends batches and syncs each
// once. There are two lanes. The urgent one holds what somebody waits for: puts that asked for the
// SSD, and tombstones; what arrives while a batch is being synced shares the next one (group
// commit). The other holds the rest, bounded in number and bytes; what found no room there stays
// marked as unsaved in the map and is looked for again when the lane is empty. A tombstone is
// appended after every image of its key that was queued before it. While the SSD takes what it is
// given, unsaved blocks are not evicted (BlockMap::KeepUnsaved); once it refuses they may be, until
// it takes one again.
//
// A policy (recode_policy.h) may say that the SSD holds another variant than what was put. Then the
// writer encodes what goes down in the background lane, appends that, and only once it is synced
// the raw copy in host memory may go; what was put as durable is written as it is. What the SSD has
// and nobody used for long is read, encoded and appended when there is nothing else to write; its
// old variant is taken back by a tombstone behind it. A crash finds one of the two, or both.
//
// Up: a promotion reads the whole image into a host slot and believes nothing: header, name, root
// digest and every part must agree, else the copy is dropped and counted. Those who want the same
// block meanwhile share the read.
//
// Queued blocks are pinned. Thread-safe. `done` runs on an executor thread, once, also when a flush
// gives up. The executor must be shut down before the mover is destroyed.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "store/block/block_map.h"
#include "store/tier/host_room.h"
#include "store/tier/recoder.h"
#include "store/tier/tier_ssd.h"
#include "store/world/clock.h"
#include "store/world/executor.h"
#include "store/world/metrics.h"

namespace kedge {

class Mover {
 public:
  using Done = absl::AnyInvocable<void(absl::Status)>;

  // All must outlive the mover. `ssd` may be null: then nothing moves, and Write answers
  // FAILED_PRECONDITION.
  // `recoder` may be null: nothing is recoded.
  Mover(BlockMap& map, HostTier& host, HostRoom& room, SsdTier* ssd, Executor& executor,
        const Clock& clock, Recoder* recoder = nullptr);

  bool has_ssd() const { return ssd_ != nullptr; }

  // Writes the block some time. Without an SSD, or when it is there already, nothing happens.
  void Offer(BlockRef block);
  // Writes it soon; OK means that it is on the SSD and synced (or was removed meanwhile).
  void Write(BlockRef block, Done done);
  // Durable record that these keys are gone.
  void WriteTombstones(std::vector<BlockKey> keys, Done done);
  // The same for single variants.
  void WriteTombstones(std::vector<BlockName> names, Done done);

  // Looks once at everything that nobody used for as long as the policy says, at `hour` of
  // BlockMap::SetHour. Returns at once; nothing happens while an earlier look goes on.
  void RecodeIdle(uint16_t hour);

  // Brings the block into host memory; OK means that it is there and verified. The caller keeps it
  // pinned. NOT_FOUND: the copy is gone; DATA_LOSS: it was damaged and has been dropped;
  // RESOURCE_EXHAUSTED: host memory stayed full of pinned blocks (limits.h: kPromoteAttemptsMax).
  void Promote(BlockRef block, Done done);

  // Writes all unsaved blocks, gives up at `deadline_ms` of the clock. `done` gets the number that
  // was written since the call, and the number left behind.
  void Flush(int64_t deadline_ms, absl::AnyInvocable<void(uint64_t written, uint64_t left)> done);

  uint64_t backlog() const;  // blocks that wait for the SSD
  // The writer is at work: what is unsaved becomes evictable soon.
  bool writing() const;
  // Called on an executor thread after each batch, and after the last one once writing() is false:
  // there may be room. Set before traffic starts.
  void OnProgress(std::function<void()> told) { on_progress_ = std::move(told); }
  uint64_t checksum_failures() const { return damaged_.load(std::memory_order_relaxed); }
  void CountDamaged() { damaged_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t write_failures() const { return write_failures_.load(std::memory_order_relaxed); }
  bool looking_for_idle() const;  // RecodeIdle has not ended
  bool resting() const;           // the SSD refused a write less than a second ago
  void VisitMetrics(MetricsVisitor& visitor) const;

 private:
  struct Job {
    BlockRef block;              // or
    std::vector<BlockKey> gone;  // tombstones, or
    std::vector<BlockName> gone_variants;
    uint64_t bytes = 0;
    Done done;  // null in the background lane

    int kind() const { return !gone.empty() ? 1 : !gone_variants.empty() ? 2 : 0; }
  };
  // The images of one append, and whose they are.
  struct Outgoing {
    std::vector<BlockHeader> headers;
    std::vector<Recoder::Image> recoded;
    std::vector<SsdTier::Image> images;
    std::vector<Job*> jobs;
    std::vector<int> recoded_as;  // index into recoded, or -1
  };
  struct FlushState {
    int64_t deadline_ms = 0;
    uint64_t written_before = 0;
    absl::AnyInvocable<void(uint64_t, uint64_t)> done;
  };

  void Queue(Job job, bool urgent);
  void StartWriterLocked();
  void RunWriter();
  std::vector<Job> TakeBatchLocked();
  void RefillFromMap();
  void AppendBatch(std::vector<Job>& batch);
  void Prepare(Job& job, Outgoing& out);
  bool OutOfSsd(const Job& job) const;
  bool Recode(Job& job, const BlockInfo& info, const BlockHeader& header,
              std::span<const uint8_t> payload, Outgoing& out);
  bool InsertRecoded(const BlockRef& of, const BlockHeader& header, SsdLocation location);
  BlockMap::Found HeldAs(const BlockInfo& info, const Variant& variant);
  void RecodeIdleSlice();
  bool RecodeIfIdle(BlockRef block);
  void ReplaceIdle(BlockRef block, const BlockInfo& info);
  void AppendTombstones(std::vector<Job>& batch);
  void EndFlushes(bool all_written);
  void TryPromote(BlockRef block, uint32_t attempt);
  absl::Status ReadIntoHost(const BlockRef& block);
  absl::StatusOr<BlockHeader> ReadVerified(const BlockInfo& info, std::span<uint8_t> image);

  BlockMap& map_;
  HostTier& host_;
  HostRoom& room_;
  SsdTier* const ssd_;
  Executor& executor_;
  const Clock& clock_;
  Recoder* const recoder_;
  const uint64_t background_bytes_max_;
  std::function<void()> on_progress_;

  mutable std::mutex mutex_;
  std::deque<Job> urgent_;
  std::deque<Job> background_;
  uint64_t background_bytes_ = 0;
  bool writer_runs_ = false;
  bool skipped_some_ = false;  // unsaved blocks are in the map that are in no lane
  bool resting_ = false;       // the SSD refused; background writes pause
  std::vector<FlushState> flushes_;
  bool idle_runs_ = false;  // a look at what is idle goes on
  uint16_t idle_hour_ = 0;
  uint64_t idle_cursor_ = 0;  // the writer's

  std::mutex promote_mutex_;
  absl::flat_hash_map<BlockId, std::vector<Done>> promoting_;

  std::atomic<uint64_t> written_blocks_{0};
  std::atomic<uint64_t> written_bytes_{0};
  std::atomic<uint64_t> write_failures_{0};
  std::atomic<uint64_t> promoted_{0};
  std::atomic<uint64_t> promotions_shared_{0};
  std::atomic<uint64_t> promotions_gone_{0};
  std::atomic<uint64_t> promotions_no_room_{0};
  std::atomic<uint64_t> damaged_{0};
};

}  // namespace kedge
