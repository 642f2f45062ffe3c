#include "store/node/anchor_store.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/block/pool_roster.h"
#include "store/world/limits.h"

namespace kedge {

// --- Pools --------------------------------------------------------------------------------------

void AnchorStore::Recovered(const BlockHeader& header) {
  if (header.keyspace != Keyspace::kAnchor || header.chain_depth == 0 ||
      header.key != RosterKey(header.parent, header.chain_depth)) {
    return;
  }
  const PoolPtr pool = FindOrMake(header.parent, header.placement, true);
  if (pool == nullptr) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  pool->rosters.insert(header.chain_depth);
  pool->sequence = pool->durable = std::max(pool->sequence, header.chain_depth);
}

AnchorStore::PoolPtr AnchorStore::FindOrMake(const BlockKey& key, uint64_t placement, bool make) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pools_.find(key);
  if (found != pools_.end()) return found->second;
  if (!make) return nullptr;
  if (pools_.size() >= kPoolsMax) {
    absl::erase_if(pools_, [](const auto& entry) {
      const Pool& pool = *entry.second;
      return pool.anchors == nullptr && pool.rosters.empty() && !pool.running;
    });
    if (pools_.size() >= kPoolsMax) return nullptr;
  }
  auto pool = std::make_shared<Pool>();
  pool->key = key;
  pool->placement = placement;
  pools_[key] = pool;
  return pool;
}

bool AnchorStore::Run(const PoolPtr& pool, Task task, bool whatever_waits) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!whatever_waits && pool->tasks.size() >= kPoolTasksMax) return false;
  pool->tasks.push_back(std::move(task));
  if (!std::exchange(pool->running, true)) parts_.executor.Post([this, pool] { Step(pool); });
  return true;
}

void AnchorStore::Step(const PoolPtr& pool) {
  Task task;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    task = std::move(pool->tasks.front());
    pool->tasks.pop_front();
  }
  task();
  const std::lock_guard<std::mutex> lock(mutex_);
  pool->running = !pool->tasks.empty();
  if (pool->running) parts_.executor.Post([this, pool] { Step(pool); });
}

void AnchorStore::Used(const MixUsedBody& used) {
  const PoolPtr pool = FindOrMake(used.pool, used.placement, false);
  if (pool == nullptr || used.active.empty()) return;
  Run(pool, [this, pool, active = used.active] {
    const std::shared_ptr<AnchorPool> anchors = Loaded(pool);
    if (anchors == nullptr) return;
    anchors->Activate(active);
    activations_.fetch_add(1, std::memory_order_relaxed);
    const std::lock_guard<std::mutex> lock(mutex_);
    pool->dirty = true;
  });
}

// --- Memory -------------------------------------------------------------------------------------

std::shared_ptr<AnchorPool> AnchorStore::Find(const BlockKey& key) {
  const PoolPtr pool = FindOrMake(key, 0, false);
  return pool == nullptr ? nullptr : Loaded(pool);
}

std::shared_ptr<AnchorPool> AnchorStore::Loaded(const PoolPtr& pool) {
  const auto in_memory = [&] {
    const std::lock_guard<std::mutex> lock(mutex_);
    pool->used = ++ticks_;
    return pool->anchors;
  };
  if (auto anchors = in_memory()) return anchors;
  const std::lock_guard<std::mutex> loading(pool->loading);
  if (auto anchors = in_memory()) return anchors;
  std::shared_ptr<AnchorPool> anchors = Load(pool);
  if (anchors == nullptr) return nullptr;
  const auto bytes = static_cast<uint64_t>(anchors->bytes());
  MakeRoom(bytes, pool.get());
  const std::lock_guard<std::mutex> lock(mutex_);
  pool->anchors = anchors;
  pool->bytes = bytes;
  bytes_ += bytes;
  loaded_.fetch_add(1, std::memory_order_relaxed);
  return anchors;
}

// From the newest roster that can be read.
std::shared_ptr<AnchorPool> AnchorStore::Load(const PoolPtr& pool) {
  std::set<uint32_t> rosters;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    rosters = pool->rosters;
  }
  for (auto sequence = rosters.rbegin(); sequence != rosters.rend(); ++sequence) {
    const absl::StatusOr<Image> image = Read(RosterKey(pool->key, *sequence), pool->placement);
    if (!image.ok()) continue;
    const absl::StatusOr<PoolRoster> roster = ParseRoster(image->payload);
    if (!roster.ok()) continue;
    std::vector<offset::Anchor> anchors;
    std::vector<uint64_t> activations;
    for (const AnchorPool::Member& member : roster->members) {
      const absl::StatusOr<Image> block = Read(member.key, pool->placement);
      absl::StatusOr<offset::Anchor> anchor =
          block.ok() ? offset::ParseAnchor(member.key, block->payload) : block.status();
      if (!anchor.ok() || !(AnchorShape::Of(*anchor) == roster->shape)) {
        missing_.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      anchors.push_back(*std::move(anchor));
      activations.push_back(member.activations);
    }
    if (anchors.empty()) break;
    auto read = std::make_shared<AnchorPool>(roster->shape, roster->options);
    if (read->Restore(std::move(anchors), activations).ok()) return read;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  pool->rosters.clear();
  return nullptr;
}

absl::StatusOr<AnchorStore::Image> AnchorStore::Read(const BlockKey& key, uint64_t placement) {
  const uint16_t raw = parts_.map.variants().Find(Variant::Raw());
  BlockMap::Found found = parts_.map.Lookup(key, placement, {&raw, 1});
  if (found.code != ResultCode::kOk) return absl::NotFoundError(ResultCodeName(found.code));
  return Read(std::move(found.ref));
}

// Believes nothing, as a promotion does.
absl::StatusOr<AnchorStore::Image> AnchorStore::Read(BlockRef block) {
  const BlockInfo info = parts_.map.Describe(block);
  const ImageLayout layout = info.layout();
  Image image;
  std::span<const uint8_t> bytes;
  if (info.host) {
    bytes = {parts_.host.Data(info.host), layout.image_bytes()};
  } else {
    if (parts_.ssd == nullptr || !info.ssd) return absl::NotFoundError("the block has left");
    image.memory.Grow(layout.image_bytes());
    const std::span<uint8_t> memory = image.memory.first(layout.image_bytes());
    if (absl::Status s = parts_.ssd->Read(info.ssd, 0, memory); !s.ok()) return s;
    bytes = memory;
  }
  const absl::StatusOr<BlockHeader> header = DecodeBlockHeader(bytes.first(layout.header_bytes));
  if (!header.ok()) return header.status();
  image.payload = bytes.subspan(layout.payload_offset(), layout.payload_bytes);
  if (header->key != info.key || header->root != info.root ||
      header->payload_bytes() != info.payload_bytes) {
    return absl::DataLossError(absl::StrCat("block ", info.key.ToHex(), ": another lies there"));
  }
  if (absl::Status s = VerifyPayload(*header, image.payload); !s.ok()) return s;
  image.block = std::move(block);
  return image;
}

// Unloads pools that were longest unused, until there is room for so many bytes.
bool AnchorStore::MakeRoom(uint64_t bytes, const Pool* except) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Pool*> loaded;
  for (const auto& [key, pool] : pools_) {
    if (pool.get() != except && pool->anchors != nullptr && !pool->running)
      loaded.push_back(pool.get());
  }
  std::sort(loaded.begin(), loaded.end(),
            [](const Pool* a, const Pool* b) { return a->used < b->used; });
  for (Pool* pool : loaded) {
    if (bytes_ + bytes <= memory_bytes_) break;
    if (pool->dirty) {
      const std::set<uint32_t> older = pool->rosters;
      absl::StatusOr<Written> roster = WriteRosterLocked(*pool, *pool->anchors);
      if (!roster.ok()) continue;
      pool->dirty = false;
      parts_.mover.Offer(std::move(roster->block));
      for (const uint32_t old : older) {  // with an SSD they go when this one is durable
        if (parts_.ssd != nullptr) break;
        parts_.map.Remove(RosterKey(pool->key, old), pool->placement);
        pool->rosters.erase(old);
      }
    }
    pool->anchors.reset();
    bytes_ -= std::exchange(pool->bytes, 0);
    unloaded_.fetch_add(1, std::memory_order_relaxed);
  }
  return bytes_ + bytes <= memory_bytes_;
}

// --- Metrics ------------------------------------------------------------------------------------

void AnchorStore::VisitMetrics(MetricsVisitor& visitor) const {
  const auto value = [](const std::atomic<uint64_t>& counter) {
    return static_cast<double>(counter.load(std::memory_order_relaxed));
  };
  constexpr std::string_view kInsertsHelp = "Anchors that were to be learnt, by what became of it.";
  for (uint8_t verdict = 0; verdict <= kPoolVerdictMax; ++verdict) {
    const std::pair<std::string_view, std::string_view> label{
        "result", PoolVerdictName(static_cast<PoolVerdict>(verdict))};
    visitor.Counter("kedge_anchor_inserts_total", kInsertsHelp, {&label, 1},
                    value(inserts_[verdict]));
  }
  const std::pair<std::string_view, std::string_view> exists{"result", "exists"};
  visitor.Counter("kedge_anchor_inserts_total", kInsertsHelp, {&exists, 1}, value(existing_));
  const auto counter = [&](std::string_view name, std::string_view help,
                           const std::atomic<uint64_t>& counted) {
    visitor.Counter(name, help, {}, value(counted));
  };
  counter("kedge_anchor_evictions_total", "Anchors that went for another of their pool.", evicted_);
  counter("kedge_anchor_missing_total",
          "Anchors that a roster names and whose blocks have left the node.", missing_);
  counter("kedge_pool_activations_total", "Answers that were used.", activations_);
  counter("kedge_pool_loads_total", "Pools read into memory.", loaded_);
  counter("kedge_pool_unloads_total", "Pools whose memory was needed for others.", unloaded_);
  counter("kedge_pool_rosters_total", "Rosters written.", rosters_);
  uint64_t in_memory = 0, anchors = 0, known = 0, bytes = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    bytes = bytes_;
    for (const auto& [key, pool] : pools_) {
      known += pool->anchors != nullptr || !pool->rosters.empty();
      if (pool->anchors == nullptr) continue;
      ++in_memory;
      anchors += static_cast<uint64_t>(pool->anchors->size());
    }
  }
  const auto gauge = [&](std::string_view name, std::string_view help, uint64_t now) {
    visitor.Gauge(name, help, {}, static_cast<double>(now));
  };
  gauge("kedge_pools", "Pools of anchors that are held.", known);
  gauge("kedge_pools_loaded", "Of them in memory.", in_memory);
  gauge("kedge_pool_anchors", "Anchors of the pools in memory.", anchors);
  gauge("kedge_pool_memory_bytes", "Memory of the pools in memory.", bytes);
  gauge("kedge_pool_memory_limit_bytes", "What they may take.", memory_bytes_);
}

}  // namespace kedge
