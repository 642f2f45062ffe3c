#include "tests/compat/compat_pruned.h"

#include <algorithm>

#include "gpu/codec/prefixkv.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/kernels/cast.h"
#include "proto/block_header.h"

namespace kedge::compat {
namespace {

using codec::PrunedChain;

constexpr uint32_t kLayers = 2;
constexpr int64_t kTokens = 192;
constexpr Component kComponents[] = {Component::kK, Component::kV};

KvShape Shape() { return KvShape::KeysAndValues(kLayers, 2, 64, 64, DType::kF16); }

// Angles whose cosine and sine are exact: of the triangle 3, 4, 5.
kernels::RopeTable Angles() {
  const size_t count = kTokens * Shape().head_size / 2;
  return {std::vector<float>(count, 0.6f), std::vector<float>(count, 0.8f)};
}

// Between 0 and 1 (xorshift64).
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  float Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<float>(state_ >> 40) * 0x1p-24f;
  }

 private:
  uint64_t state_;
};

std::vector<uint8_t> RawPart(uint64_t seed) {
  Numbers numbers(seed);
  std::vector<float> values(kTokens * 2 * 64);
  for (float& value : values) value = 8.0f * numbers.Next() - 4.0f;
  std::vector<uint8_t> raw(values.size() * 2);
  kernels::CastFromFloat(DType::kF16, values.data(), static_cast<int64_t>(values.size()),
                         raw.data());
  return raw;
}

}  // namespace

ModelProfile MakePrunedProfile() {
  codec::PrefixKvBuilder budgets(kLayers);
  const std::vector<codec::PriorityCurve> curves = {{0.0, 0.5, 0.75, 0.875, 1.0},
                                                    {0.0, 0.875, 0.9375, 0.96875, 1.0}};
  budgets.Add(curves);
  const ProfiledModel model{.weights_id = "compat",
                            .rope_theta = 1e4,
                            .layers = kLayers,
                            .kv_heads = 2,
                            .head_size = 64,
                            .dtype = DType::kF16};
  return *ModelProfile::Make(
      model, {{codec::kPrefixKvSection, codec::EncodePrefixKv(*budgets.Build())}}, {});
}

codec::ScoreSidecar MakeScores() {
  codec::ScoreSidecar scores{.tokens = kTokens, .layers = kLayers, .heads = 8, .window = 32};
  Numbers numbers(99);
  for (int64_t i = 0; i < kLayers * 8 * kTokens; ++i)
    scores.codes.push_back(codec::ScoreCode(numbers.Next()));
  return scores;
}

absl::StatusOr<std::vector<uint8_t>> MakePruned(const std::string& name,
                                                const ModelProfile& profile,
                                                const codec::ScoreSidecar& scores) {
  const absl::StatusOr<PrunedChain> chain = PrunedChain::Parse(name, &profile);
  if (!chain.ok()) return chain.status();
  const absl::StatusOr<Variant> variant = Variant::Parse(name);
  if (!variant.ok()) return variant.status();
  BlockHeader header;
  BlockKey tail;
  tail.bytes.fill(0x11);
  TenantSalt salt;
  salt.bytes.fill(0x33);
  header.key = SequenceKey(salt, tail, kTokens, name, profile.id().bytes);
  header.parent = tail;
  header.keyspace = Keyspace::kPrefix;
  header.chain_depth = kTokens / 64;
  header.variant = *variant;
  header.fidelity = Fidelity::kPruned;
  const bool raw = chain->rest().fidelity() == Fidelity::kLossless;
  header.rope = raw ? RopeState::kRotated : RopeState::kUnrotated;
  header.shape = Shape();
  const kernels::RopeTable angles = Angles();
  const codec::SequenceTask task{.shape = header.shape, .tokens = kTokens, .rope = &angles};
  std::vector<std::vector<uint8_t>> parts;
  for (uint32_t part = 0; part < 2 * kLayers; ++part) parts.push_back(RawPart(part + 1));
  const auto source = [&](int64_t layer, Component component) -> std::span<const uint8_t> {
    return parts[2 * layer + (component == Component::kV ? 1 : 0)];
  };
  const absl::StatusOr<codec::Kept> kept = chain->Choose(task, source, &scores);
  if (!kept.ok()) return kept.status();
  std::vector<uint8_t> payload;
  for (uint32_t part = 0; part < 2 * kLayers; ++part) {
    const uint32_t layer = part / 2;
    const absl::StatusOr<std::vector<uint8_t>> bytes =
        chain->EncodePart(task, layer, kComponents[part % 2], (*kept)[layer], parts[part]);
    if (!bytes.ok()) return bytes.status();
    header.parts.push_back({static_cast<uint32_t>(bytes->size()),
                            PartDigest(header.key, header.variant, part, *bytes)});
    payload.insert(payload.end(), bytes->begin(), bytes->end());
  }
  absl::StatusOr<std::vector<uint8_t>> object = EncodeBlockHeader(header);
  if (!object.ok()) return object.status();
  object->insert(object->end(), payload.begin(), payload.end());
  return object;
}

absl::StatusOr<std::vector<uint8_t>> RowsOf(std::span<const uint8_t> object,
                                            const ModelProfile& profile) {
  const absl::StatusOr<BlockHeader> header = DecodeBlockHeader(object);
  if (!header.ok()) return header.status();
  const absl::StatusOr<PrunedChain> chain = PrunedChain::Parse(header->variant.view(), &profile);
  if (!chain.ok()) return chain.status();
  const std::span<const uint8_t> payload = object.subspan(header->encoded_bytes());
  if (absl::Status s = VerifyPayload(*header, payload); !s.ok()) return s;
  const kernels::RopeTable angles = Angles();
  const codec::SequenceTask task{.shape = header->shape, .tokens = kTokens, .rope = &angles};
  std::vector<uint8_t> result;
  std::vector<int32_t> kept;
  for (uint32_t part = 0; part < header->shape.part_count(); ++part) {
    const std::span<const uint8_t> bytes =
        payload.subspan(header->part_offset(part), header->parts[part].bytes);
    if (part % 2 == 0) {
      absl::StatusOr<std::vector<int32_t>> read = chain->ReadKept(task, part / 2, bytes);
      if (!read.ok()) return read.status();
      kept = *std::move(read);
    }
    std::vector<uint8_t> rows(kept.size() * 2 * 64 * 2);
    absl::Status s = chain->DecodePart(task, part / 2, kComponents[part % 2], kept, bytes, rows);
    if (!s.ok()) return s;
    const auto* positions = reinterpret_cast<const uint8_t*>(kept.data());
    result.insert(result.end(), positions, positions + kept.size() * sizeof(int32_t));
    result.insert(result.end(), rows.begin(), rows.end());
  }
  return result;
}

}  // namespace kedge::compat
