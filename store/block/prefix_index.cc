#include "store/block/prefix_index.h"

#include "absl/base/internal/raw_logging.h"

namespace kedge {
namespace {

constexpr size_t kBucketsMin = 64;

// Opaque placements are uniform, but a caller may choose others.
uint64_t Mix(uint64_t placement) {
  placement ^= placement >> 32;
  placement *= 0x9e3779b97f4a7c15ull;
  return placement ^ (placement >> 29);
}

}  // namespace

PrefixIndex::PrefixIndex() : buckets_(kBucketsMin, kNoIndex) {}

uint32_t& PrefixIndex::Bucket(uint64_t placement) {
  return buckets_[Mix(placement) & (buckets_.size() - 1)];
}

void PrefixIndex::Grow() {
  buckets_.assign(buckets_.size() * 2, kNoIndex);
  for (uint32_t run = coldest_; run != kNoIndex; run = runs_[run].warmer) {
    uint32_t& bucket = Bucket(runs_[run].placement);
    runs_[run].next_in_bucket = bucket;
    bucket = run;
  }
}

uint32_t PrefixIndex::FindOrAddRun(uint64_t placement, uint64_t tick) {
  for (uint32_t run = Bucket(placement); run != kNoIndex; run = runs_[run].next_in_bucket) {
    if (runs_[run].placement == placement) return run;
  }
  if (run_count_ >= buckets_.size()) Grow();
  const uint32_t run = runs_.Add();
  uint32_t& bucket = Bucket(placement);
  runs_[run].placement = placement;
  runs_[run].next_in_bucket = bucket;
  bucket = run;
  ++run_count_;
  LinkWarmest(run, tick);
  return run;
}

void PrefixIndex::DropRun(uint32_t run) {
  Unlink(run);
  uint32_t* link = &Bucket(runs_[run].placement);
  while (*link != run) link = &runs_[*link].next_in_bucket;
  *link = runs_[run].next_in_bucket;
  runs_.Free(run);
  --run_count_;
}

void PrefixIndex::Unlink(uint32_t run) {
  const Run& record = runs_[run];
  (record.colder == kNoIndex ? coldest_ : runs_[record.colder].warmer) = record.warmer;
  (record.warmer == kNoIndex ? warmest_ : runs_[record.warmer].colder) = record.colder;
}

void PrefixIndex::LinkWarmest(uint32_t run, uint64_t tick) {
  Run& record = runs_[run];
  record.tick = tick;
  record.colder = warmest_;
  record.warmer = kNoIndex;
  (warmest_ == kNoIndex ? coldest_ : runs_[warmest_].warmer) = run;
  warmest_ = run;
}

void PrefixIndex::LinkByDepth(Run& run, uint32_t id, uint32_t depth) {
  uint32_t deeper = kNoIndex;
  uint32_t shallower = run.deepest;
  if (run.shallowest != kNoIndex && nodes_[run.shallowest].depth > depth) {
    deeper = run.shallowest;
    shallower = kNoIndex;
  }
  for (uint32_t step = 0; shallower != kNoIndex && nodes_[shallower].depth > depth; ++step) {
    if (step == kInsertStepsMax) break;
    deeper = shallower;
    shallower = nodes_[shallower].shallower;
  }
  nodes_[id].deeper = deeper;
  nodes_[id].shallower = shallower;
  (deeper == kNoIndex ? run.deepest : nodes_[deeper].shallower) = id;
  (shallower == kNoIndex ? run.shallowest : nodes_[shallower].deeper) = id;
}

void PrefixIndex::Insert(uint32_t id, uint64_t placement, uint32_t depth, uint64_t tick) {
  nodes_.Reach(id);
  ABSL_RAW_CHECK(nodes_[id].run == kNoIndex, "the block is in the prefix index already");
  const uint32_t run = FindOrAddRun(placement, tick);
  nodes_[id] = Node{.run = run, .depth = depth};
  LinkByDepth(runs_[run], id, depth);
  ++blocks_;
  Touch(id, tick);
}

void PrefixIndex::Erase(uint32_t id) {
  ABSL_RAW_CHECK(Contains(id), "the block is not in the prefix index");
  const Node node = nodes_[id];
  Run& run = runs_[node.run];
  (node.deeper == kNoIndex ? run.deepest : nodes_[node.deeper].shallower) = node.shallower;
  (node.shallower == kNoIndex ? run.shallowest : nodes_[node.shallower].deeper) = node.deeper;
  nodes_[id] = Node{};
  --blocks_;
  if (run.deepest == kNoIndex) DropRun(node.run);
}

void PrefixIndex::Touch(uint32_t id, uint64_t tick) {
  if (!Contains(id)) return;
  const uint32_t run = nodes_[id].run;
  if (run != warmest_) {
    Unlink(run);
    LinkWarmest(run, tick);
  }
  runs_[run].tick = tick;
}

bool PrefixIndex::Contains(uint32_t id) const {
  return nodes_.Holds(id) && nodes_[id].run != kNoIndex;
}

uint64_t PrefixIndex::coldest_tick() const {
  return coldest_ == kNoIndex ? UINT64_MAX : runs_[coldest_].tick;
}

std::optional<uint32_t> PrefixIndex::Victim(Judge judge, uint64_t tick, uint32_t runs_max) {
  uint32_t run = coldest_;
  // Busy runs move behind the last one; each run is looked at once.
  for (size_t left = run_count_; run != kNoIndex && left > 0 && runs_max > 0; --left, --runs_max) {
    const uint32_t warmer = runs_[run].warmer;
    bool all_busy = true;
    for (uint32_t id = runs_[run].deepest; id != kNoIndex; id = nodes_[id].shallower) {
      const Verdict verdict = judge(id);
      if (verdict == Verdict::kTake) return id;
      all_busy = all_busy && verdict == Verdict::kBusy;
    }
    if (all_busy && run != warmest_) {
      Unlink(run);
      LinkWarmest(run, tick);
    } else if (all_busy) {
      runs_[run].tick = tick;
    }
    run = warmer;
  }
  return std::nullopt;
}

size_t PrefixIndex::memory_bytes() const {
  return nodes_.memory_bytes() + runs_.memory_bytes() + buckets_.capacity() * sizeof(uint32_t);
}

}  // namespace kedge
