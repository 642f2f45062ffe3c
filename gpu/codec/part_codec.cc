#include "gpu/codec/part_codec.h"

#include "absl/strings/str_cat.h"

namespace kedge::codec {

std::string PartName(const PartTask& task) {
  return absl::StrCat("layer ", task.layer, " ", ComponentName(task.component));
}

absl::Status BadValue(const PartTask& task, const SourceRows& source) {
  const int64_t token =
      FirstBadToken(source, task.shape.block_tokens, task.shape.kv_heads, task.shape.head_size);
  return absl::InvalidArgumentError(
      absl::StrCat("part ", PartName(task), ": token ", token,
                   ": a value is NaN, infinite or above 65504: it cannot be quantized"));
}

std::span<const PartCodecFamily> PartCodecFamilies() {
  static constexpr PartCodecFamily kFamilies[] = {
      {"fp8", &MakeFp8Codec},
      {"[had+]kivi{2,4,8}g{32,64,128}[s8]", &MakeKiviCodec},
      {"[had+]kivi{2,4,8}g{32,64,128}[s8]+rans", &MakeKiviRansCodec},
      {"archiveN", &MakeArchiveCodec},
  };
  return kFamilies;
}

}  // namespace kedge::codec
