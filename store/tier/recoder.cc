#include "store/tier/recoder.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/block_codec.h"
#include "store/tier/block_image.h"

namespace kedge {
namespace {

// Opaque values, and blocks of a client that did not say of which model they are: nobody can.
bool Recodable(const BlockHeader& header) {
  return !header.shape.opaque() && !header.model.is_zero();
}

}  // namespace

std::optional<Variant> Recoder::OnSsd(const BlockHeader& header) {
  if (!Recodable(header) || header.fidelity != Fidelity::kLossless) return std::nullopt;
  return Wanted(header, policy_.OnSsd(header.tenant));
}

std::optional<Variant> Recoder::AfterIdle(const BlockHeader& header, uint32_t idle_hours) {
  if (!Recodable(header) || header.fidelity == Fidelity::kPruned) return std::nullopt;
  std::optional<Variant> variant =
      Wanted(header, policy_.AfterIdle(header.tenant, idle_hours, header.variant));
  if (variant && header.fidelity != Fidelity::kLossless && !MayGetSmaller(header, *variant)) {
    variant.reset();
  }
  return variant;
}

// False where it is certain without encoding: another look comes every hour.
bool Recoder::MayGetSmaller(const BlockHeader& header, const Variant& variant) const {
  const auto chain = profiles_.Chain(header, variant);
  if (!chain.ok() || !chain->fixed_size()) return true;
  uint64_t bytes = 0;
  for (uint32_t part = 0; part < header.shape.part_count(); ++part) {
    bytes += chain
                 ->MaxPartBytes(header.shape, codec::PlaceOfPart(header.shape, part).component,
                                /*sequence_start=*/false)
                 .value_or(0);
  }
  return bytes < header.payload_bytes();
}

std::optional<Variant> Recoder::Wanted(const BlockHeader& header, const Variant& variant) {
  if (variant == Variant::Raw() || variant == header.variant) return std::nullopt;
  if (profiles_.Admits(header, variant).ok()) return variant;
  refused_.fetch_add(1, std::memory_order_relaxed);
  return std::nullopt;
}

absl::StatusOr<Recoder::Image> Recoder::Recode(const BlockHeader& header,
                                               std::span<const uint8_t> payload,
                                               const Variant& variant) {
  const auto recode = [&]() -> absl::StatusOr<codec::EncodedBlock> {
    const auto from = profiles_.Chain(header, header.variant);
    if (!from.ok()) return from.status();
    const auto to = profiles_.Chain(header, variant);
    if (!to.ok()) return to.status();
    return codec::RecodeBlock(*from, header, payload, *to, profiles_.Rotation(header));
  };
  absl::StatusOr<codec::EncodedBlock> block = recode();
  if (block.ok() && header.fidelity != Fidelity::kLossless &&
      block->payload.size() >= payload.size()) {
    larger_.fetch_add(1, std::memory_order_relaxed);
    return absl::FailedPreconditionError(
        absl::StrCat("block ", header.key.ToHex(), ": ", payload.size(), " bytes as ",
                     std::string(header.variant.view()), ", ", block->payload.size(), " as ",
                     std::string(variant.view())));
  }
  absl::StatusOr<std::vector<uint8_t>> encoded =
      block.ok() ? EncodeBlockHeader(block->header) : block.status();
  if (!encoded.ok()) {
    (absl::IsFailedPrecondition(encoded.status()) ? refused_ : failed_)
        .fetch_add(1, std::memory_order_relaxed);
    return encoded.status();
  }
  const ImageLayout layout{static_cast<uint32_t>(encoded->size()), block->payload.size()};
  Image image{std::move(block->header), PageBuffer(layout.image_bytes()), layout.image_bytes()};
  const std::span<uint8_t> bytes = image.bytes.first(layout.image_bytes());
  std::memset(bytes.data(), 0, bytes.size());
  std::memcpy(bytes.data(), encoded->data(), encoded->size());
  std::copy(block->payload.begin(), block->payload.end(), bytes.begin() + layout.payload_offset());
  return image;
}

void Recoder::Count(const BlockHeader& from, const BlockHeader& to) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Sums& sums = sums_[{std::string(from.variant.view()), std::string(to.variant.view())}];
  ++sums.blocks;
  sums.bytes_before += from.payload_bytes();
  sums.bytes_after += to.payload_bytes();
}

void Recoder::VisitMetrics(MetricsVisitor& visitor) const {
  // Known from the start: everything that the policy can make of raw.
  std::map<std::pair<std::string, std::string>, Sums> all;
  for (const Variant& variant : policy_.variants()) {
    all[{"raw", std::string(variant.view())}] = {};
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [names, sums] : sums_) all[names] = sums;
  }
  for (const auto& [names, sums] : all) {
    const std::pair<std::string_view, std::string_view> labels[] = {{"from", names.first},
                                                                    {"to", names.second}};
    visitor.Counter("kedge_recoded_blocks_total", "Blocks written to the SSD as another variant.",
                    labels, static_cast<double>(sums.blocks));
    visitor.Counter("kedge_recoded_saved_bytes_total", "Bytes of payload that this saved.", labels,
                    static_cast<double>(sums.bytes_before) - static_cast<double>(sums.bytes_after));
  }
  const auto refused = [&](std::string_view reason, const std::atomic<uint64_t>& value) {
    const std::pair<std::string_view, std::string_view> label{"reason", reason};
    visitor.Counter("kedge_recode_refused_total", "Blocks that stayed as they were, by reason.",
                    {&label, 1}, static_cast<double>(value.load(std::memory_order_relaxed)));
  };
  refused("gate", refused_);
  refused("value", failed_);
  refused("larger", larger_);
}

}  // namespace kedge
