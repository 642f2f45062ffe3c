// Questions of operators: status, what lies under a key, is it still right. Any thread; beside the
// data path, through the same map.

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"
#include "store/tier/page_buffer.h"

namespace kedge {
namespace {

// Shares above which an operator should look.
constexpr double kUnsavedShareWarn = 0.5;
// A loop that did not sweep for so long hangs or starves.
constexpr int64_t kSweepLateMs = 5'000;

}  // namespace

NodeStatus Node::Status() const {
  NodeStatus status;
  status.node_id = options_.node_id;
  status.draining = draining();
  status.uptime_ms = clock_.NowMs() - started_ms_;
  status.last_sweep_ms = metrics_.last_sweep_ms.load(std::memory_order_acquire);
  status.epoch = options_.epoch;
  status.sessions = metrics_.sessions.load(std::memory_order_relaxed);
  status.leases = metrics_.leases.load(std::memory_order_relaxed);
  status.puts_open = metrics_.puts_open.load(std::memory_order_relaxed);
  status.write_backlog = mover_->backlog();
  status.blocks = map_.stats();
  const std::vector<BlockMap::VariantStats> variants = map_.variant_stats();
  for (uint16_t id = 0; id < variants.size(); ++id) {
    if (variants[id].host_blocks == 0 && variants[id].ssd_blocks == 0) continue;
    status.variants.push_back({std::string(map_.variants().Name(id).view()), variants[id]});
  }
  status.host_capacity_bytes = host_->capacity_bytes();
  status.host_used_bytes = host_->used_bytes();
  status.has_ssd = ssd_ != nullptr;
  if (ssd_ != nullptr) {
    status.ssd_capacity_bytes = ssd_->capacity_bytes();
    status.ssd_used_bytes = ssd_->used_bytes();
  }
  const int64_t since_sweep_ms = clock_.NowMs() - std::max(status.last_sweep_ms, started_ms_);
  if (since_sweep_ms > kSweepLateMs) {
    status.reasons.push_back(absl::StrCat("loop: no sweep for ", since_sweep_ms, " ms"));
  }
  if (mover_->resting()) {
    status.reasons.push_back(
        absl::StrCat("ssd: writes fail, ", mover_->write_failures(), " so far"));
  }
  if (!recovery_.index_error.empty()) {
    status.reasons.push_back(
        absl::StrCat("ssd: the index is in memory until the next start: ", recovery_.index_error));
  } else if (ssd_ != nullptr && ssd_->index_in_memory()) {
    status.reasons.push_back(
        "ssd: the disk is full, and the index is in memory until the next start; make room");
  }
  if (mover_->checksum_failures() != 0) {
    status.reasons.push_back(
        absl::StrCat("ssd: ", mover_->checksum_failures(), " damaged copies were dropped"));
  }
  if (metrics_.host_damaged.load(std::memory_order_relaxed) != 0) {
    status.reasons.push_back("host: damaged copies were dropped; test the machine's memory");
  }
  if (static_cast<double>(status.write_backlog) > kUnsavedShareWarn * kMoverQueueMax) {
    status.reasons.push_back(
        absl::StrCat("ssd: ", status.write_backlog, " blocks wait to be written"));
  }
  return status;
}

absl::StatusOr<std::vector<Node::Inspected>> Node::Inspect(const BlockKey& key) {
  std::vector<Inspected> result;
  for (const BlockRef& block : map_.FindAnywhere(key)) {
    Inspected seen;
    seen.info = map_.Describe(block);
    seen.info.pins -= 1;  // our own
    const uint32_t header_bytes = seen.info.header_bytes;
    absl::StatusOr<BlockHeader> header = absl::NotFoundError("no copy");
    if (seen.info.host) {
      header = DecodeBlockHeader({host_->Data(seen.info.host), header_bytes});
    } else if (seen.info.ssd) {
      PageBuffer pages(header_bytes);
      const absl::Status status =
          ssd_->Read(seen.info.ssd, 0, pages.first(PageRound(header_bytes)));
      header = status.ok() ? DecodeBlockHeader(pages.first(header_bytes))
                           : absl::StatusOr<BlockHeader>(status);
    }
    if (!header.ok()) return header.status();
    seen.header = *std::move(header);
    seen.lease_ms_left = std::max<int64_t>(0, seen.info.lease_until_ms - clock_.NowMs());
    result.push_back(std::move(seen));
  }
  return result;
}

VerifyResult Node::Verify(std::span<const BlockKey> keys) {
  VerifyResult result;
  for (const BlockKey& key : keys) {
    for (const BlockRef& block : map_.FindAnywhere(key)) VerifyBlock(block, &result);
  }
  if (!keys.empty()) return result;
  uint64_t cursor = 0;
  BlockRef block;
  while (map_.Next(&cursor, &block)) VerifyBlock(block, &result);
  return result;
}

void Node::VerifyBlock(const BlockRef& block, VerifyResult* result) {
  const BlockInfo info = map_.Describe(block);
  const Variant& variant = map_.variants().Name(info.variant);
  const ImageLayout layout = info.layout();
  const auto check = [&](std::span<const uint8_t> image) -> absl::Status {
    absl::StatusOr<BlockHeader> header = DecodeBlockHeader(image.first(layout.header_bytes));
    if (!header.ok()) return header.status();
    if (header->root != info.root) return absl::DataLossError("root digest is another one");
    return VerifyPayload(*header, image.subspan(layout.payload_offset(), layout.payload_bytes));
  };
  const auto report = [&](TierId tier, const absl::Status& status) {
    result->damaged.push_back(absl::StrCat(info.key.ToHex(), " ", std::string(variant.view()), " ",
                                           TierName(tier), ": ", status.message()));
  };
  ++result->blocks;
  if (info.ssd) {
    PageBuffer pages(layout.image_bytes());
    const std::span<uint8_t> image = pages.first(layout.image_bytes());
    absl::Status status = ssd_->Read(info.ssd, 0, image);
    if (status.ok()) status = check(image);
    result->bytes += image.size();
    // A segment that was dropped meanwhile is no damage.
    if (!status.ok() && !absl::IsNotFound(status)) {
      report(TierId::kSsd, status);
      mover_->CountDamaged();
      map_.DropSsd(info.key, variant, info.ssd, ResultCode::kCorrupt);
    }
  }
  if (info.host) {
    const absl::Status status = check({host_->Data(info.host), layout.image_bytes()});
    result->bytes += layout.image_bytes();
    if (!status.ok()) {
      report(TierId::kHost, status);
      NodeMetrics::Add(metrics_.host_damaged);
      map_.DropDamaged(block);
    }
  }
}

void Node::VisitMetrics(MetricsVisitor& visitor) const {
  using Label = std::pair<std::string_view, std::string_view>;
  const NodeStatus status = Status();
  const Label build[] = {{"version", KedgeVersion()}};
  visitor.Gauge("kedge_build_info", "1; the labels say what runs.", build, 1);
  visitor.Gauge("kedge_uptime_seconds", "Since the node started.", {},
                static_cast<double>(status.uptime_ms) / 1000);
  visitor.Gauge("kedge_ready", "1 while the node takes new work, 0 while it drains.", {},
                status.draining ? 0 : 1);
  visitor.Gauge("kedge_index_bytes", "Memory of the block map and its indexes.", {},
                static_cast<double>(status.blocks.memory_bytes));
  visitor.Gauge("kedge_pinned_blocks", "Blocks that are leased, read or being written.", {},
                static_cast<double>(status.blocks.pinned_blocks));
  const Label host{"tier", "host"};
  const Label ssd{"tier", "ssd"};
  const auto objects = [&](const Label& tier, uint64_t blocks, uint64_t bytes) {
    visitor.Gauge("kedge_tier_blocks", "Blocks held.", {&tier, 1}, static_cast<double>(blocks));
    visitor.Gauge("kedge_tier_block_bytes", "Bytes of the images of blocks held.", {&tier, 1},
                  static_cast<double>(bytes));
  };
  const auto of_variant = [&](std::string_view variant, const Label& tier, uint64_t blocks,
                              uint64_t bytes) {
    const Label labels[] = {{"variant", variant}, tier};
    visitor.Gauge("kedge_variant_blocks", "Blocks held, by variant.", labels,
                  static_cast<double>(blocks));
    visitor.Gauge("kedge_variant_bytes", "Bytes of the payloads of blocks held, by variant.",
                  labels, static_cast<double>(bytes));
  };
  bool has_raw = false;
  for (const VariantStatus& held : status.variants) {
    has_raw = has_raw || held.variant == "raw";
    of_variant(held.variant, host, held.stats.host_blocks, held.stats.host_bytes);
    of_variant(held.variant, ssd, held.stats.ssd_blocks, held.stats.ssd_bytes);
  }
  if (!has_raw) {  // known from the start
    of_variant("raw", host, 0, 0);
    of_variant("raw", ssd, 0, 0);
  }
  objects(host, status.blocks.host_blocks, status.blocks.host_bytes);
  objects(ssd, status.blocks.ssd_blocks, status.blocks.ssd_bytes);
  const auto evicted = [&](const Label& tier, uint64_t blocks, uint64_t bytes) {
    visitor.Counter("kedge_evicted_blocks_total", "Blocks that left the node by eviction.",
                    {&tier, 1}, static_cast<double>(blocks));
    visitor.Counter("kedge_evicted_bytes_total", "Bytes that left the node by eviction.",
                    {&tier, 1}, static_cast<double>(bytes));
  };
  evicted(host, status.blocks.evicted_host_blocks, status.blocks.evicted_host_bytes);
  evicted(ssd, status.blocks.evicted_ssd_blocks, status.blocks.evicted_ssd_bytes);
  const Label demotion[] = {{"from", "host"}, {"to", "ssd"}};
  visitor.Counter("kedge_demotions_total", "Blocks that left host memory and stayed on the SSD.",
                  demotion, static_cast<double>(status.blocks.demoted_blocks));
  visitor.Counter("kedge_replaced_blocks_total",
                  "Blocks that left for a smaller variant of theirs, as the policy says.", {},
                  static_cast<double>(status.blocks.replaced_blocks));
  visitor.Counter("kedge_removed_blocks_total", "Blocks removed by a client or an operator.", {},
                  static_cast<double>(status.blocks.removed_blocks));
  const auto damaged = [&](const Label& tier, uint64_t value) {
    visitor.Counter("kedge_checksum_failures_total", "Copies that failed verification.", {&tier, 1},
                    static_cast<double>(value));
  };
  damaged(host, metrics_.host_damaged.load(std::memory_order_relaxed));
  damaged(ssd, mover_->checksum_failures());
  metrics_.Visit(visitor);
  mover_->VisitMetrics(visitor);
  anchors_->VisitMetrics(visitor);
  mixes_->VisitMetrics(visitor);
  host_->VisitMetrics(visitor);
  if (ssd_ != nullptr) ssd_->VisitMetrics(visitor);
  transport_->VisitMetrics(visitor);
}

}  // namespace kedge
