#include "store/tier/mover.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

// The background lane may pin this share of host memory; what it has no room for is found in the
// map when the lane is empty.
constexpr uint64_t kBackgroundShare = 4;
// After the SSD refused a background write.
constexpr int64_t kRestMs = 1000;
// Entries of the map that are looked at between two batches.
constexpr int kIdleSliceBlocks = 256;

}  // namespace

Mover::Mover(BlockMap& map, HostTier& host, HostRoom& room, SsdTier* ssd, Executor& executor,
             const Clock& clock, Recoder* recoder)
    : map_(map),
      host_(host),
      room_(room),
      ssd_(ssd),
      executor_(executor),
      clock_(clock),
      recoder_(recoder != nullptr && !recoder->policy().empty() ? recoder : nullptr),
      background_bytes_max_(host.capacity_bytes() / kBackgroundShare) {
  map_.KeepUnsaved(ssd_ != nullptr);
}

// --- Down ---------------------------------------------------------------------------------------

void Mover::Offer(BlockRef block) {
  if (ssd_ == nullptr) return;
  const uint64_t bytes = map_.Describe(block).layout().image_bytes();
  Queue(Job{.block = std::move(block), .bytes = bytes}, /*urgent=*/false);
}

void Mover::Write(BlockRef block, Done done) {
  if (ssd_ == nullptr) {
    executor_.Post([done = std::move(done)]() mutable {
      done(absl::FailedPreconditionError("durability: the node has no SSD tier"));
    });
    return;
  }
  const uint64_t bytes = map_.Describe(block).layout().image_bytes();
  Queue(Job{.block = std::move(block), .bytes = bytes, .done = std::move(done)}, /*urgent=*/true);
}

void Mover::WriteTombstones(std::vector<BlockKey> keys, Done done) {
  if (ssd_ == nullptr) {
    executor_.Post([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  Queue(Job{.gone = std::move(keys), .done = std::move(done)}, /*urgent=*/true);
}

void Mover::WriteTombstones(std::vector<BlockName> names, Done done) {
  if (ssd_ == nullptr) {
    executor_.Post([done = std::move(done)]() mutable { done(absl::OkStatus()); });
    return;
  }
  Queue(Job{.gone_variants = std::move(names), .done = std::move(done)}, /*urgent=*/true);
}

void Mover::Queue(Job job, bool urgent) {
  BlockRef unpinned_outside_the_lock;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (urgent) {
    urgent_.push_back(std::move(job));
  } else if (resting_ || background_.size() >= kMoverQueueMax ||
             background_bytes_ + job.bytes > background_bytes_max_) {
    skipped_some_ = true;
    unpinned_outside_the_lock = std::move(job.block);
    return;
  } else {
    background_bytes_ += job.bytes;
    background_.push_back(std::move(job));
  }
  StartWriterLocked();
}

void Mover::StartWriterLocked() {
  if (writer_runs_) return;
  writer_runs_ = true;
  executor_.Post([this] { RunWriter(); });
}

// Jobs of one kind (images or tombstones), from one lane, in order.
std::vector<Mover::Job> Mover::TakeBatchLocked() {
  std::vector<Job> batch;
  if (urgent_.empty() && resting_) return batch;
  std::deque<Job>& lane = urgent_.empty() ? background_ : urgent_;
  uint64_t bytes = 0;
  while (!lane.empty()) {
    Job& next = lane.front();
    const bool same_kind = batch.empty() || next.kind() == batch.front().kind();
    if (!same_kind || (!batch.empty() && bytes + next.bytes > kMoverBatchBytes)) break;
    bytes += next.bytes;
    batch.push_back(std::move(next));
    lane.pop_front();
  }
  if (&lane == &background_) background_bytes_ -= bytes;
  return batch;
}

void Mover::RunWriter() {
  std::vector<Job> batch;
  bool refill = false;
  bool idle_slice = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    batch = TakeBatchLocked();
    refill = batch.empty() && skipped_some_ && !resting_;
    if (refill) skipped_some_ = false;
    idle_slice = batch.empty() && !refill && idle_runs_ && !resting_;
    if (batch.empty() && !refill && !idle_slice) writer_runs_ = false;
  }
  if (refill) RefillFromMap();
  if (!batch.empty()) {
    if (batch.front().kind() == 0) {
      AppendBatch(batch);
    } else {
      AppendTombstones(batch);
    }
  }
  if (idle_slice) RecodeIdleSlice();
  const bool written = batch.empty() && !refill;
  EndFlushes(written);
  if (on_progress_) on_progress_();
  if (!written || idle_slice) executor_.Post([this] { RunWriter(); });
}

// Unsaved blocks that found no room in the lane when they were put.
void Mover::RefillFromMap() {
  uint64_t cursor = 0;
  BlockRef block;
  while (map_.Next(&cursor, &block)) {
    const BlockInfo info = map_.Describe(block);
    if (!info.unsaved || !info.host) continue;
    const uint64_t bytes = info.layout().image_bytes();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (background_.size() >= kMoverQueueMax ||
        (background_bytes_ + bytes > background_bytes_max_ && !background_.empty())) {
      skipped_some_ = true;
      break;
    }
    background_bytes_ += bytes;
    background_.push_back(Job{.block = std::move(block), .bytes = bytes});
  }
}

// What of a job is to be appended: its image, or another variant's.
void Mover::Prepare(Job& job, Outgoing& out) {
  const BlockInfo info = map_.Describe(job.block);
  // Removed, or written while it waited in two lanes: nothing to do.
  if (info.removed || info.ssd || !info.host) return;
  const ImageLayout layout = info.layout();
  const uint8_t* image = host_.Data(info.host);
  absl::StatusOr<BlockHeader> header = DecodeBlockHeader({image, layout.header_bytes});
  if (!header.ok()) {
    map_.DropDamaged(job.block);
    if (job.done) std::exchange(job.done, nullptr)(header.status());
    return;
  }
  const std::span<const uint8_t> payload(image + layout.payload_offset(), layout.payload_bytes);
  if (recoder_ != nullptr && !job.done && Recode(job, info, *header, payload, out)) return;
  out.headers.push_back(*std::move(header));
  out.images.push_back({&out.headers.back(), {image, layout.image_bytes()}});
  out.jobs.push_back(&job);
  out.recoded_as.push_back(-1);
}

// False: the block is written as it is.
bool Mover::Recode(Job& job, const BlockInfo& info, const BlockHeader& header,
                   std::span<const uint8_t> payload, Outgoing& out) {
  const std::optional<Variant> variant = recoder_->OnSsd(header);
  if (!variant) return false;
  if (HeldAs(info, *variant).ref) {
    map_.SetRecoded(job.block);
    return true;
  }
  // Memory that was damaged since the put must not become right bytes of another variant.
  if (!VerifyPayload(header, payload).ok()) return false;
  absl::StatusOr<Recoder::Image> image = recoder_->Recode(header, payload, *variant);
  if (!image.ok()) return false;
  out.headers.push_back(header);
  out.recoded.push_back(*std::move(image));
  Recoder::Image& made = out.recoded.back();
  out.images.push_back({&made.header, made.bytes.first(made.image_bytes)});
  out.jobs.push_back(&job);
  out.recoded_as.push_back(static_cast<int>(out.recoded.size() - 1));
  return true;
}

BlockMap::Found Mover::HeldAs(const BlockInfo& info, const Variant& variant) {
  const uint16_t id = map_.variants().Find(variant);
  if (id == kNoVariantId) return {};
  return map_.Lookup(info.key, info.placement, {&id, 1});
}

// False when the block was removed meanwhile: its tombstone follows.
bool Mover::InsertRecoded(const BlockRef& of, const BlockHeader& header, SsdLocation location) {
  const absl::StatusOr<uint16_t> variant = map_.variants().Intern(header.variant);
  if (!variant.ok()) return false;
  NewBlock block = NewBlock::Of(header, *variant);
  block.ssd = location;
  return map_.InsertBeside(of, block);
}

void Mover::AppendBatch(std::vector<Job>& batch) {
  Outgoing out;
  // Images point into them.
  out.headers.reserve(batch.size());
  out.recoded.reserve(batch.size());
  for (Job& job : batch) Prepare(job, out);
  const std::vector<Job*>& jobs = out.jobs;
  absl::Status status;
  if (!out.images.empty()) {
    std::vector<SsdLocation> locations(out.images.size());
    status = ssd_->Append(out.images, locations);
    for (size_t i = 0; status.ok() && i < jobs.size(); ++i) {
      if (out.recoded_as[i] < 0) {
        map_.AttachSsd(jobs[i]->block, locations[i]);
      } else {
        const BlockHeader& made = out.recoded[out.recoded_as[i]].header;
        if (InsertRecoded(jobs[i]->block, made, locations[i])) {
          map_.SetRecoded(jobs[i]->block);
          recoder_->Count(out.headers[i], made);
        }
      }
      written_blocks_.fetch_add(1, std::memory_order_relaxed);
      written_bytes_.fetch_add(out.images[i].bytes.size(), std::memory_order_relaxed);
    }
  }
  if (!jobs.empty()) map_.KeepUnsaved(status.ok());
  if (!status.ok()) {
    // An image that fits no segment never will: it is a block of host memory only.
    if (absl::IsInvalidArgument(status) && jobs.size() == 1) {
      map_.SetUnsaved(jobs[0]->block, false);
    }
    write_failures_.fetch_add(jobs.size(), std::memory_order_relaxed);
    const std::lock_guard<std::mutex> lock(mutex_);
    skipped_some_ = true;
    if (!resting_) {
      resting_ = true;
      executor_.PostAfter(kRestMs, [this] {
        const std::lock_guard<std::mutex> lock(mutex_);
        resting_ = false;
        StartWriterLocked();
      });
    }
  }
  for (Job& job : batch) {
    if (status.ok() && job.done && OutOfSsd(job)) {
      Queue(std::move(job), /*urgent=*/true);
      continue;
    }
    job.block.Reset();  // who is told may count on the pin to be gone
    if (job.done) std::exchange(job.done, nullptr)(status);
  }
}

// The SSD had the block when the batch was made, and dropped that segment to make room for it.
bool Mover::OutOfSsd(const Job& job) const {
  const BlockInfo info = map_.Describe(job.block);
  return !info.removed && !info.ssd && info.host;
}

void Mover::AppendTombstones(std::vector<Job>& batch) {
  std::vector<BlockKey> keys;
  std::vector<BlockName> names;
  for (const Job& job : batch) {
    keys.insert(keys.end(), job.gone.begin(), job.gone.end());
    names.insert(names.end(), job.gone_variants.begin(), job.gone_variants.end());
  }
  absl::Status status = ssd_->AppendTombstones(std::span<const BlockKey>(keys));
  if (status.ok()) status = ssd_->AppendTombstones(std::span<const BlockName>(names));
  if (!status.ok()) write_failures_.fetch_add(1, std::memory_order_relaxed);
  for (Job& job : batch) job.done(status);
}

// --- What nobody uses ---------------------------------------------------------------------------

void Mover::RecodeIdle(uint16_t hour) {
  if (recoder_ == nullptr || ssd_ == nullptr ||
      recoder_->policy().shortest_idle_hours() == UINT32_MAX) {
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_runs_) return;
  idle_runs_ = true;
  idle_hour_ = hour;
  idle_cursor_ = 0;
  StartWriterLocked();
}

// Some blocks of the map, at most one of which is recoded: what somebody waits for comes between.
void Mover::RecodeIdleSlice() {
  BlockRef block;
  for (int looked = 0; looked < kIdleSliceBlocks; ++looked) {
    if (!map_.Next(&idle_cursor_, &block)) {
      const std::lock_guard<std::mutex> lock(mutex_);
      idle_runs_ = false;
      return;
    }
    if (RecodeIfIdle(std::move(block))) return;
  }
}

// True when it took time.
bool Mover::RecodeIfIdle(BlockRef block) {
  const BlockInfo info = map_.Describe(block);
  const auto idle_hours = static_cast<uint16_t>(idle_hour_ - info.used_hour);
  if (!info.ssd || info.removed || info.pins != 1 ||
      idle_hours < recoder_->policy().shortest_idle_hours()) {
    return false;
  }
  PageBuffer head(info.header_bytes);
  const std::span<uint8_t> pages = head.first(PageRound(info.header_bytes));
  if (!ssd_->Read(info.ssd, 0, pages).ok()) return true;
  const absl::StatusOr<BlockHeader> known = DecodeBlockHeader(pages.first(info.header_bytes));
  if (!known.ok()) return true;  // whoever asks for it finds out, and drops it
  const std::optional<Variant> variant = recoder_->AfterIdle(*known, idle_hours);
  if (!variant) return true;
  if (const BlockMap::Found held = HeldAs(info, *variant); held.ref) {
    // In host memory alone it would not outlive a power cut, and this one may have to.
    if (held.info.ssd) ReplaceIdle(std::move(block), info);
    return true;
  }
  const ImageLayout layout = info.layout();
  PageBuffer memory(layout.image_bytes());
  const std::span<uint8_t> image = memory.first(layout.image_bytes());
  const absl::StatusOr<BlockHeader> header = ReadVerified(info, image);
  if (!header.ok()) return true;
  absl::StatusOr<Recoder::Image> made = recoder_->Recode(
      *header, image.subspan(layout.payload_offset(), layout.payload_bytes), *variant);
  if (!made.ok()) return true;
  const SsdTier::Image appended{&made->header, made->bytes.first(made->image_bytes)};
  SsdLocation location;
  if (!ssd_->Append({&appended, 1}, {&location, 1}).ok()) return true;
  if (!InsertRecoded(block, made->header, location)) return true;
  recoder_->Count(*header, made->header);
  ReplaceIdle(std::move(block), info);
  return true;
}

// Its other variant is on the SSD, synced.
void Mover::ReplaceIdle(BlockRef block, const BlockInfo& info) {
  const BlockName name{info.key, map_.variants().Name(info.variant)};
  if (!map_.Replace(std::move(block))) return;  // somebody has it again: the next look
  const absl::Status status = ssd_->AppendTombstones(std::span<const BlockName>(&name, 1));
  if (!status.ok()) write_failures_.fetch_add(1, std::memory_order_relaxed);
}

void Mover::Flush(int64_t deadline_ms, absl::AnyInvocable<void(uint64_t, uint64_t)> done) {
  if (ssd_ == nullptr) {
    executor_.Post([done = std::move(done)]() mutable { done(0, 0); });
    return;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  flushes_.push_back(
      {deadline_ms, written_blocks_.load(std::memory_order_relaxed), std::move(done)});
  skipped_some_ = true;  // look at the whole map once more
  StartWriterLocked();
}

void Mover::EndFlushes(bool all_written) {
  std::vector<FlushState> over;
  uint64_t left = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    left = urgent_.size() + background_.size();
    const auto is_over = [&](const FlushState& flush) {
      return all_written || resting_ || clock_.NowMs() >= flush.deadline_ms;
    };
    for (FlushState& flush : flushes_) {
      if (is_over(flush)) over.push_back(std::move(flush));
    }
    std::erase_if(flushes_, [](const FlushState& flush) { return !flush.done; });
  }
  const uint64_t written = written_blocks_.load(std::memory_order_relaxed);
  for (FlushState& flush : over) flush.done(written - flush.written_before, left);
}

uint64_t Mover::backlog() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return urgent_.size() + background_.size();
}

bool Mover::writing() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return writer_runs_;
}

bool Mover::looking_for_idle() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return idle_runs_;
}

bool Mover::resting() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return resting_;
}

// --- Up -----------------------------------------------------------------------------------------

void Mover::Promote(BlockRef block, Done done) {
  const BlockId id = block.id();
  {
    const std::lock_guard<std::mutex> lock(promote_mutex_);
    std::vector<Done>& waiting = promoting_[id];
    waiting.push_back(std::move(done));
    if (waiting.size() > 1) {
      promotions_shared_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  // The pin keeps the id from being used for another block.
  executor_.Post([this, block = std::move(block)]() mutable { TryPromote(std::move(block), 1); });
}

// What is being sent right now is pinned; it is over in milliseconds, and then there is room.
void Mover::TryPromote(BlockRef block, uint32_t attempt) {
  const absl::Status status = ReadIntoHost(block);
  // Where host memory is full of what the SSD does not have yet, the writer makes room.
  const uint32_t attempts_max = writing() ? kPromoteAttemptsWritingMax : kPromoteAttemptsMax;
  if (absl::IsResourceExhausted(status) && attempt < attempts_max) {
    executor_.PostAfter(kPromoteRetryMs, [this, block = std::move(block), attempt]() mutable {
      TryPromote(std::move(block), attempt + 1);
    });
    return;
  }
  std::vector<Done> waiting;
  {
    const std::lock_guard<std::mutex> lock(promote_mutex_);
    const auto found = promoting_.find(block.id());
    waiting = std::move(found->second);
    promoting_.erase(found);
  }
  for (Done& waiter : waiting) waiter(status);
}

absl::Status Mover::ReadIntoHost(const BlockRef& block) {
  const BlockInfo info = map_.Describe(block);
  if (info.host) return absl::OkStatus();
  if (!info.ssd || ssd_ == nullptr) {
    promotions_gone_.fetch_add(1, std::memory_order_relaxed);
    return absl::NotFoundError(absl::StrCat("block ", info.key.ToHex(), ": no copy is left"));
  }
  absl::StatusOr<HostSlot> slot = room_.Allocate(info.layout().image_bytes());
  if (!slot.ok()) {
    promotions_no_room_.fetch_add(1, std::memory_order_relaxed);
    return slot.status();
  }
  absl::Status status =
      ReadVerified(info, {host_.Data(*slot), info.layout().image_bytes()}).status();
  if (status.ok() && map_.AttachHost(block, *slot)) {
    promoted_.fetch_add(1, std::memory_order_relaxed);
    return status;
  }
  host_.Free(*slot);
  if (status.ok()) return status;
  const Variant& variant = map_.variants().Name(info.variant);
  if (absl::IsNotFound(status)) {
    promotions_gone_.fetch_add(1, std::memory_order_relaxed);
    map_.DropSsd(info.key, variant, info.ssd, ResultCode::kEvicted);
  } else {
    damaged_.fetch_add(1, std::memory_order_relaxed);
    map_.DropSsd(info.key, variant, info.ssd, ResultCode::kCorrupt);
    status = absl::DataLossError(status.message());
  }
  return status;
}

absl::StatusOr<BlockHeader> Mover::ReadVerified(const BlockInfo& info, std::span<uint8_t> image) {
  const ImageLayout layout = info.layout();
  if (uint64_t{info.ssd.pages} * kDiskPageBytes != image.size()) {
    return absl::DataLossError(absl::StrCat("block ", info.key.ToHex(), ": ", info.ssd.pages,
                                            " pages on the SSD, the header says ",
                                            image.size() / kDiskPageBytes));
  }
  absl::Status status = ssd_->Read(info.ssd, 0, image);
  if (!status.ok()) return status;
  absl::StatusOr<BlockHeader> header = DecodeBlockHeader(image.first(layout.header_bytes));
  if (!header.ok()) return header;
  if (header->key != info.key || header->root != info.root ||
      header->variant != map_.variants().Name(info.variant) ||
      header->payload_bytes() != info.payload_bytes) {
    return absl::DataLossError(absl::StrCat(
        "block ", info.key.ToHex(), ": another block lies in its place: ", header->key.ToHex()));
  }
  status = VerifyPayload(*header, image.subspan(layout.payload_offset(), info.payload_bytes));
  if (!status.ok()) return status;
  return header;
}

void Mover::VisitMetrics(MetricsVisitor& visitor) const {
  const auto counter = [&](std::string_view name, std::string_view help, MetricLabels labels,
                           const std::atomic<uint64_t>& value) {
    visitor.Counter(name, help, labels, static_cast<double>(value.load(std::memory_order_relaxed)));
  };
  constexpr std::string_view kPromotions = "kedge_promotions_total";
  constexpr std::string_view kPromotionsHelp =
      "Blocks asked for that had to come from the SSD, by how that went.";
  const auto promotions = [&](std::string_view result, const std::atomic<uint64_t>& value) {
    const std::pair<std::string_view, std::string_view> labels[] = {
        {"from", "ssd"}, {"to", "host"}, {"result", result}};
    counter(kPromotions, kPromotionsHelp, labels, value);
  };
  promotions("ok", promoted_);
  promotions("shared", promotions_shared_);
  promotions("gone", promotions_gone_);
  promotions("no_room", promotions_no_room_);
  promotions("corrupt", damaged_);
  counter("kedge_mover_written_blocks_total", "Blocks written from host memory to the SSD.", {},
          written_blocks_);
  counter("kedge_mover_written_bytes_total", "Bytes of block images written to the SSD.", {},
          written_bytes_);
  counter("kedge_mover_write_failures_total", "Writes to the SSD that it refused.", {},
          write_failures_);
  visitor.Gauge("kedge_mover_queue_blocks", "Blocks in host memory that wait for the SSD.", {},
                static_cast<double>(backlog()));
  if (recoder_ == nullptr) return;
  recoder_->VisitMetrics(visitor);
  visitor.Gauge("kedge_recode_look_running",
                "1 while blocks that nobody uses are looked at, as the policy says.", {},
                looking_for_idle() ? 1 : 0);
}

}  // namespace kedge
