#include "store/tier/profile_set.h"

#include "absl/strings/str_cat.h"
#include "store/world/whole_file.h"

namespace kedge {

absl::Status ProfileSet::Add(ModelProfile profile) {
  const ProfiledModel& model = profile.model();
  const ModelId id =
      ModelId::Of(model.weights_id, model.adapter_id, model.rope_scaling, model.rope_theta);
  const std::string name = model.weights_id;
  if (!profiles_.emplace(id, std::move(profile)).second) {
    return absl::AlreadyExistsError(absl::StrCat("two profiles are of ", name));
  }
  return absl::OkStatus();
}

absl::Status ProfileSet::Load(const std::string& path) {
  absl::StatusOr<std::vector<uint8_t>> bytes = ReadWholeFile(path, kModelProfileBytesMax);
  if (!bytes.ok()) return bytes.status();
  absl::StatusOr<ModelProfile> profile = ModelProfile::Parse(*std::move(bytes));
  const absl::Status status = profile.ok() ? Add(*std::move(profile)) : profile.status();
  return status.ok() ? status
                     : absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

const ModelProfile* ProfileSet::Find(const BlockHeader& header) const {
  const auto found = profiles_.find(header.model);
  if (found == profiles_.end()) return nullptr;
  const ProfiledModel& model = found->second.model();
  const KvShape& shape = header.shape;
  const bool fits = shape.head_size == model.head_size && shape.dtype == model.dtype &&
                    shape.layer_begin + shape.layer_count <= model.layers &&
                    shape.kv_head_begin + shape.kv_heads <= model.kv_heads;
  return fits ? &found->second : nullptr;
}

absl::Status ProfileSet::Admits(const BlockHeader& header, const Variant& variant) const {
  if (variant == Variant::Raw()) return absl::OkStatus();
  if (const ModelProfile* profile = Find(header)) {
    const absl::Status status = profile->Admits(variant.view());
    return status.ok() ? status : absl::PermissionDeniedError(status.message());
  }
  if (allow_unprofiled_) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "variant ", std::string(variant.view()), " is refused for model ",
      header.model.is_zero() ? "(not named)" : header.model.ToHex(),
      ": it loses something, and the node has no profile of this model (its config: profile, or "
      "allow_unprofiled)"));
}

absl::StatusOr<codec::CodecChain> ProfileSet::Chain(const BlockHeader& header,
                                                    const Variant& variant) const {
  const ModelProfile* profile = Find(header);
  const std::pair<const ModelProfile*, std::string> name(profile, variant.view());
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto known = chains_.find(name);
  if (known != chains_.end()) return known->second;
  auto chain = codec::CodecChain::Parse(variant.view(), profile);
  if (chain.ok()) chains_.emplace(name, *chain);
  return chain;
}

codec::KeyRotation ProfileSet::Rotation(const BlockHeader& header) const {
  const ModelProfile* profile = Find(header);
  if (profile == nullptr) return {};
  auto rotation = codec::KeyRotation::Of(profile->model().rope_theta, profile->model().rope_scaling,
                                         header.shape.head_size);
  return rotation.ok() ? *std::move(rotation) : codec::KeyRotation();
}

}  // namespace kedge
