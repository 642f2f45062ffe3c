// Hostile sections of a profile, and hostile parts under a fixed profile.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "gpu/codec/archive.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/codec/part_header.h"
#include "proto/model_profile.h"

namespace kedge::codec {
namespace {

constexpr uint16_t kWidth = 32;

ModelProfile AProfile() {
  ArchiveBases bases{.layers = 1, .kv_heads = 1, .head_size = kWidth, .parts = {}};
  ArchivePoint point{.layers = 1, .width = kWidth, .rounding = 0.4f, .classes = {}, .parts = {}};
  ArchiveClass& c = point.classes.emplace_back();
  const std::vector<uint64_t> even(kArchiveSymbols, 1);
  const std::vector<uint16_t> shares = RansTable::SharesOf(even);
  std::copy(shares.begin(), shares.end(), c.shares.begin());
  for (int part = 0; part < 2; ++part) {
    bases.parts.push_back({.mean = std::vector<float>(kWidth, 1.0f),
                           .analysis = std::vector<float>(kWidth * 2, 0.5f),
                           .synthesis = std::vector<float>(kWidth * 2, 0.5f)});
    point.parts.push_back({{.component = 1, .of_class = 0, .step = 0.5f}});
  }
  KiviCounts counts(2);
  const auto profile = ModelProfile::Make({.weights_id = "w",
                                           .adapter_id = "",
                                           .rope_scaling = "",
                                           .layers = 1,
                                           .kv_heads = 1,
                                           .head_size = kWidth,
                                           .dtype = DType::kF16},
                                          {{kPcaSection, bases.Encode()},
                                           {"entropy/archive1", point.Encode()},
                                           {"entropy/kivi4g32+rans", EncodeKiviTables(counts)}},
                                          {});
  if (!profile.ok()) std::abort();
  return *profile;
}

// A part with a right header, so that the body is reached.
void DecodeBody(const ModelProfile& profile, const char* name, uint8_t first,
                std::span<const uint8_t> body) {
  const absl::StatusOr<CodecChain> chain = CodecChain::Parse(name, &profile);
  if (!chain.ok()) std::abort();
  const KvShape shape = KvShape::KeysAndValues(1, 1, kWidth, 64, DType::kF16);
  const PartTask task{
      .shape = shape, .layer = 0, .component = first % 2 == 0 ? Component::kK : Component::kV};
  const bool start = (first & 2) != 0;
  const std::vector<uint8_t> raw(shape.raw_part_bytes());
  std::vector<uint8_t> part(*chain->MaxPartBytes(shape, task.component, start));
  if (!chain->EncodePart(task, start, raw, part).ok()) std::abort();
  part.resize(kPartHeaderBytes);
  part.insert(part.end(), body.begin(), body.end());
  std::vector<uint8_t> out(raw.size());
  const std::span<uint8_t> page = out;
  (void)chain->DecodePart(task, part, {{&page, 1}, 64});
}

}  // namespace
}  // namespace kedge::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge::codec;
  static const kedge::ModelProfile profile = AProfile();
  const std::span<const uint8_t> bytes(data, size);
  if (const auto bases = ArchiveBases::Parse(bytes); bases.ok()) (void)bases->Encode();
  if (const auto point = ArchivePoint::Parse(bytes); point.ok()) {
    const auto again = ArchivePoint::Parse(point->Encode());
    if (!again.ok() || again->Encode() != point->Encode()) std::abort();
  }
  (void)ParseKiviTables("kivi4g32", bytes);
  if (size == 0) return 0;
  DecodeBody(profile, "archive1", data[0], bytes.subspan(1));
  DecodeBody(profile, "kivi4g32+rans", data[0], bytes.subspan(1));
  return 0;
}
