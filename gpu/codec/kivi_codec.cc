// KIVI as a method of a chain: `kivi4g32`, with two-level scales `kivi4g32s8`, behind a Hadamard
// transform `had+kivi4g32`. The body is what kivi.h says.
#include "absl/strings/str_cat.h"
#include "gpu/codec/kivi.h"
#include "gpu/codec/part_codec.h"

namespace kedge::codec {
namespace {

GroupAxis AxisOf(Component component) {
  return component == Component::kK ? GroupAxis::kTokens : GroupAxis::kChannels;
}

class KiviCodec : public PartCodec {
 public:
  KiviCodec(bool hadamard, int bits, int64_t group, GroupScales scales)
      : hadamard_(hadamard), bits_(bits), group_(group), scales_(scales) {}

  std::string name() const override {
    return absl::StrCat(hadamard_ ? "had+" : "", "kivi", bits_, "g", group_,
                        scales_ == GroupScales::kTwoLevel ? "s8" : "");
  }

  absl::Status Supports(const KvShape& shape, Component component) const override {
    return MakeKiviLayout(bits_, group_, AxisOf(component), shape.block_tokens, shape.kv_heads,
                          shape.head_size, scales_)
        .status();
  }

  uint64_t MaxBodyBytes(const KvShape& shape, Component component) const override {
    return static_cast<uint64_t>(LayoutOf(shape, component).bytes());
  }

  void Describe(PartHeader& header) const override {
    header.method = Method::kKivi;
    header.hadamard = hadamard_;
    header.two_level = scales_ == GroupScales::kTwoLevel;
    header.bits = static_cast<uint8_t>(bits_);
    header.detail = static_cast<uint32_t>(group_);
  }

  absl::StatusOr<uint64_t> Encode(const PartTask& task, const SourceRows& source, PartHeader&,
                                  std::span<uint8_t> body) const override {
    SourceRows transformed = source;
    transformed.hadamard = hadamard_;
    if (!KiviEncode(LayoutOf(task.shape, task.component), transformed, body.data()))
      return BadValue(task, transformed);
    return body.size();
  }

  absl::Status Decode(const PartTask& task, const PartHeader&, std::span<const uint8_t> body,
                      const TargetRows& target) const override {
    const KiviLayout layout = LayoutOf(task.shape, task.component);
    if (absl::Status s = KiviCheck(layout, PartName(task), body.data()); !s.ok()) return s;
    TargetRows transformed = target;
    transformed.hadamard = hadamard_;
    KiviDecode(layout, body.data(), transformed);
    return absl::OkStatus();
  }

 private:
  KiviLayout LayoutOf(const KvShape& shape, Component component) const {
    return {bits_,           group_, AxisOf(component), shape.block_tokens, shape.kv_heads,
            shape.head_size, scales_};
  }

  const bool hadamard_;
  const int bits_;
  const int64_t group_;
  const GroupScales scales_;
};

}  // namespace

absl::StatusOr<PartCodecPtr> MakeKiviCodec(std::string_view name, const ModelProfile*) {
  for (bool hadamard : {false, true}) {
    for (int bits : {2, 4, 8}) {
      for (int64_t group : {32, 64, 128}) {
        for (GroupScales scales : {GroupScales::kF16, GroupScales::kTwoLevel}) {
          auto codec = std::make_shared<KiviCodec>(hadamard, bits, group, scales);
          if (name == codec->name()) return codec;
        }
      }
    }
  }
  return nullptr;
}

}  // namespace kedge::codec
