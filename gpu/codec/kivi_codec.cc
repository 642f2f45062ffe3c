// KIVI as a method of a chain: `kivi4g32`, behind a Hadamard transform `had+kivi4g32`.
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/hadamard.h"
#include "gpu/codec/kivi.h"
#include "gpu/codec/part_codec.h"

namespace kedge::codec {
namespace {

GroupAxis AxisOf(Component component) {
  return component == Component::kK ? GroupAxis::kTokens : GroupAxis::kChannels;
}

// The part un-rotated and transformed, as f32.
std::vector<float> TransformedRows(const KvShape& shape, const SourceRows& source) {
  const int64_t width = int64_t{shape.kv_heads} * shape.head_size;
  std::vector<float> rows(shape.block_tokens * width);
  for (int64_t t = source.skip; t < shape.block_tokens; ++t)
    ReadRow(source, t, shape.kv_heads, shape.head_size, rows.data() + t * width);
  Hadamard(int64_t{shape.block_tokens} * shape.kv_heads, shape.head_size, rows.data());
  return rows;
}

// Quantized values back from their transform, turned and written.
void DecodeTransformed(const KiviLayout& layout, const uint8_t* in, const TargetRows& target) {
  const int64_t width = layout.channels();
  std::vector<float> values(layout.tokens * width);
  std::vector<uint8_t*> rows(layout.tokens);
  for (int64_t t = 0; t < layout.tokens; ++t)
    rows[t] = reinterpret_cast<uint8_t*>(values.data() + t * width);
  KiviDecode(layout, in, {.dtype = DType::kF32, .rows = rows.data(), .skip = target.skip});
  Hadamard(layout.tokens * layout.heads, layout.head_size, values.data());
  for (int64_t t = target.skip; t < layout.tokens; ++t)
    WriteRow(target, t, layout.heads, layout.head_size, values.data() + t * width);
}

class KiviCodec : public PartCodec {
 public:
  KiviCodec(int bits, int64_t group, bool hadamard)
      : bits_(bits), group_(group), hadamard_(hadamard) {}

  std::string name() const override {
    return absl::StrCat(hadamard_ ? "had+" : "", "kivi", bits_, "g", group_);
  }

  absl::Status Supports(const KvShape& shape, Component component) const override {
    return MakeKiviLayout(bits_, group_, AxisOf(component), shape.block_tokens, shape.kv_heads,
                          shape.head_size)
        .status();
  }

  uint64_t MaxBodyBytes(const KvShape& shape, Component component) const override {
    return static_cast<uint64_t>(LayoutOf(shape, component).bytes());
  }

  void Describe(PartHeader& header) const override {
    header.method = Method::kKivi;
    header.hadamard = hadamard_;
    header.bits = static_cast<uint8_t>(bits_);
    header.detail = static_cast<uint32_t>(group_);
  }

  absl::StatusOr<uint64_t> Encode(const PartTask& task, const SourceRows& source, PartHeader&,
                                  std::span<uint8_t> body) const override {
    const KiviLayout layout = LayoutOf(task.shape, task.component);
    if (!hadamard_) {
      if (!KiviEncode(layout, source, body.data())) return BadValue(task, source);
      return body.size();
    }
    const std::vector<float> rows = TransformedRows(task.shape, source);
    const SourceRows transformed{.dtype = DType::kF32,
                                 .data = reinterpret_cast<const uint8_t*>(rows.data()),
                                 .skip = source.skip};
    if (!KiviEncode(layout, transformed, body.data())) return BadValue(task, transformed);
    return body.size();
  }

  absl::Status Decode(const PartTask& task, const PartHeader&, std::span<const uint8_t> body,
                      const TargetRows& target) const override {
    const KiviLayout layout = LayoutOf(task.shape, task.component);
    if (absl::Status s = KiviCheck(layout, PartName(task), body.data()); !s.ok()) return s;
    if (hadamard_) {
      DecodeTransformed(layout, body.data(), target);
    } else {
      KiviDecode(layout, body.data(), target);
    }
    return absl::OkStatus();
  }

 private:
  KiviLayout LayoutOf(const KvShape& shape, Component component) const {
    return {bits_, group_, AxisOf(component), shape.block_tokens, shape.kv_heads, shape.head_size};
  }

  const int bits_;
  const int64_t group_;
  const bool hadamard_;
};

}  // namespace

absl::StatusOr<PartCodecPtr> MakeKiviCodec(std::string_view name, const ModelProfile*) {
  for (bool hadamard : {false, true}) {
    for (int bits : {2, 4, 8}) {
      for (int64_t group : {32, 64, 128}) {
        auto codec = std::make_shared<KiviCodec>(bits, group, hadamard);
        if (name == codec->name()) return codec;
      }
    }
  }
  return nullptr;
}

}  // namespace kedge::codec
