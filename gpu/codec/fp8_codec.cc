// fp8 as a method of a chain: `fp8`. The body is the codes; the scale is in the header.
#include <cstring>

#include "gpu/codec/fp8.h"
#include "gpu/codec/part_codec.h"

namespace kedge::codec {
namespace {

Fp8Layout LayoutOf(const KvShape& shape) {
  return {shape.block_tokens, shape.kv_heads, shape.head_size};
}

class Fp8Codec : public PartCodec {
 public:
  std::string name() const override { return "fp8"; }

  uint64_t MaxBodyBytes(const KvShape& shape, Component) const override {
    return static_cast<uint64_t>(LayoutOf(shape).bytes());
  }

  void Describe(PartHeader& header) const override {
    header.method = Method::kFp8;
    header.bits = 8;
    header.detail_is_free = true;
  }

  absl::StatusOr<uint64_t> Encode(const PartTask& task, const SourceRows& source,
                                  PartHeader& header, std::span<uint8_t> body) const override {
    float scale = 0.0f;
    if (!Fp8Encode(LayoutOf(task.shape), source, &scale, body.data()))
      return BadValue(task, source);
    std::memcpy(&header.detail, &scale, sizeof scale);
    return body.size();
  }

  absl::Status Decode(const PartTask& task, const PartHeader& header, std::span<const uint8_t> body,
                      const TargetRows& target) const override {
    const Fp8Layout layout = LayoutOf(task.shape);
    float scale;
    std::memcpy(&scale, &header.detail, sizeof scale);
    if (absl::Status s = Fp8Check(layout, PartName(task), scale, body.data()); !s.ok()) return s;
    Fp8Decode(layout, scale, body.data(), target);
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<PartCodecPtr> MakeFp8Codec(std::string_view name, const ModelProfile*) {
  if (name != "fp8") return nullptr;
  return std::make_shared<Fp8Codec>();
}

}  // namespace kedge::codec
