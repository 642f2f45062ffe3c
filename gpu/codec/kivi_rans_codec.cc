// KIVI with an entropy coder behind it, as a method of a chain: `kivi2g32+rans`,
// `had+kivi4g64+rans`. Needs the model's profile (kivi_rans.h).
#include "gpu/codec/kivi_rans_codec.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/codec/part_codec.h"
#include "proto/crc32c.h"
#include "proto/model_profile.h"

namespace kedge::codec {
namespace {

constexpr std::string_view kSuffix = "+rans";

KiviLayout LayoutFrom(const PartHeader& kivi, const KvShape& shape, Component component) {
  return {.bits = kivi.bits,
          .group = kivi.detail,
          .axis = component == Component::kK ? GroupAxis::kTokens : GroupAxis::kChannels,
          .tokens = shape.block_tokens,
          .heads = shape.kv_heads,
          .head_size = shape.head_size,
          .scales = kivi.two_level ? GroupScales::kTwoLevel : GroupScales::kF16};
}

class KiviRansCodec : public PartCodec {
 public:
  KiviRansCodec(PartCodecPtr kivi, uint32_t id, uint16_t kv_heads, uint16_t head_size,
                std::vector<KiviTables> tables)
      : kivi_(std::move(kivi)),
        id_(id),
        kv_heads_(kv_heads),
        head_size_(head_size),
        tables_(std::move(tables)) {
    kivi_->Describe(header_);
  }

  std::string name() const override { return kivi_->name() + std::string(kSuffix); }

  absl::Status Supports(const KvShape& shape, Component component) const override {
    if (shape.head_size != head_size_) return Differs("head_size", shape.head_size, head_size_);
    if (shape.kv_head_begin + shape.kv_heads > kv_heads_)
      return Differs("kv_heads", shape.kv_head_begin + shape.kv_heads, kv_heads_);
    const int64_t layers = shape.layer_begin + shape.layer_count;
    const auto known = static_cast<int64_t>(tables_.size()) / 2;
    if (layers > known) return Differs("layers", layers, known);
    return kivi_->Supports(shape, component);
  }

  bool fixed_size() const override { return false; }

  uint64_t MaxBodyBytes(const KvShape& shape, Component component) const override {
    return static_cast<uint64_t>(KiviRansBytesMax(LayoutOf(shape, component)));
  }

  void Describe(PartHeader& header) const override {
    kivi_->Describe(header);
    header.method = Method::kKiviRans;
    header.detail = id_;
  }

  absl::StatusOr<uint64_t> Encode(const PartTask& task, const SourceRows& source,
                                  PartHeader& header, std::span<uint8_t> body) const override {
    const KiviLayout layout = LayoutOf(task.shape, task.component);
    std::vector<uint8_t> kivi(layout.bytes());
    const absl::StatusOr<uint64_t> bytes = kivi_->Encode(task, source, header, kivi);
    if (!bytes.ok()) return bytes.status();
    return KiviRansEncode(layout, TablesOf(task), kivi.data(), body);
  }

  absl::Status Decode(const PartTask& task, const PartHeader& header, std::span<const uint8_t> body,
                      const TargetRows& target) const override {
    const KiviLayout layout = LayoutOf(task.shape, task.component);
    std::vector<uint8_t> kivi(layout.bytes());
    const absl::Status s = KiviRansDecode(layout, TablesOf(task), body, kivi.data());
    if (!s.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("part ", PartName(task), ": ", s.message()));
    }
    return kivi_->Decode(task, header, kivi, target);
  }

 private:
  static absl::Status Differs(const char* field, int64_t value, int64_t known) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", value, ", the profile has ", known));
  }

  KiviLayout LayoutOf(const KvShape& shape, Component component) const {
    return LayoutFrom(header_, shape, component);
  }

  const KiviTables& TablesOf(const PartTask& task) const {
    return tables_[task.layer * 2 + (task.component == Component::kV ? 1 : 0)];
  }

  const PartCodecPtr kivi_;
  const uint32_t id_;
  const uint16_t kv_heads_;
  const uint16_t head_size_;
  const std::vector<KiviTables> tables_;
  PartHeader header_;  // what the KIVI chain says of itself
};

}  // namespace

absl::StatusOr<KiviLayout> KiviChainLayout(std::string_view chain, const KvShape& shape,
                                           Component component) {
  const absl::StatusOr<PartCodecPtr> kivi = MakeKiviCodec(chain, nullptr);
  if (!kivi.ok()) return kivi.status();
  if (*kivi == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("variant ", std::string(chain), ": is no chain of KIVI's"));
  }
  if (absl::Status s = (*kivi)->Supports(shape, component); !s.ok()) return s;
  PartHeader header;
  (*kivi)->Describe(header);
  return LayoutFrom(header, shape, component);
}

absl::StatusOr<PartCodecPtr> MakeKiviRansCodec(std::string_view name, const ModelProfile* profile) {
  if (name.size() <= kSuffix.size() || name.substr(name.size() - kSuffix.size()) != kSuffix)
    return nullptr;
  absl::StatusOr<PartCodecPtr> kivi =
      MakeKiviCodec(name.substr(0, name.size() - kSuffix.size()), profile);
  if (!kivi.ok() || *kivi == nullptr) return kivi;
  const std::string own(name);
  if (profile == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("variant ", own, ": needs the model's profile, there is none"));
  }
  const auto section = profile->Section("entropy/" + own);
  if (!section.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("variant ", own, ": ", section.status().message()));
  }
  absl::StatusOr<std::vector<KiviTables>> tables = ParseKiviTables(own, *section);
  if (!tables.ok()) return tables.status();
  const ProfiledModel& model = profile->model();
  if (tables->size() != size_t{model.layers} * 2) {
    return absl::FailedPreconditionError(absl::StrCat("variant ", own, ": section entropy/", own,
                                                      ": layers: ", tables->size() / 2,
                                                      ", the profile's model has ", model.layers));
  }
  return std::make_shared<KiviRansCodec>(*std::move(kivi), Crc32c(*section), model.kv_heads,
                                         model.head_size, *std::move(tables));
}

}  // namespace kedge::codec
