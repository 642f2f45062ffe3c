#include "client/variants.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/messages.h"

namespace kedge {
namespace {

// Chains that are asked for when the caller names a fidelity and nobody measured any, best first.
constexpr const char* kUnprofiledChains[] = {"kivi8g32", "kivi8g64", "kivi4g32",
                                             "kivi4g64", "fp8",      "kivi2g32"};
static_assert(std::size(kUnprofiledChains) < kVariantsMax, "raw comes first");

std::string Text(std::string_view text) { return std::string(text); }

}  // namespace

absl::StatusOr<std::unique_ptr<ModelVariants>> ModelVariants::Make(
    const ModelIdentity& model, std::optional<ModelProfile> profile, bool allow_unprofiled) {
  std::unique_ptr<ModelVariants> made(new ModelVariants());
  made->shape_ = model.shape;
  made->model_id_ = ModelId::Of(model);
  made->weights_id_ = model.weights_id;
  made->allow_unprofiled_ = allow_unprofiled;
  if (profile) {
    if (absl::Status status = profile->CheckModel(model); !status.ok()) return status;
    made->profile_ = std::move(profile);
  }
  auto rotation =
      codec::KeyRotation::Of(model.rope_theta, model.rope_scaling, model.shape.head_size);
  made->rotation_status_ = rotation.status();
  if (rotation.ok()) made->rotation_ = *std::move(rotation);
  return made;
}

absl::Status ModelVariants::Gate(std::string_view name) const {
  if (profile_) {
    const absl::Status status = profile_->Admits(name);
    return status.ok() ? status : absl::PermissionDeniedError(status.message());
  }
  if (allow_unprofiled_) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "variant ", Text(name), " is refused for ", weights_id_,
      ": it loses something, and no profile of this model says how much (model options: profile, "
      "or allow_unprofiled)"));
}

absl::StatusOr<codec::CodecChain> ModelVariants::Chain(const Variant& variant) const {
  if (codec::PrunedChain::IsPruned(variant.view())) {
    return absl::InvalidArgumentError(
        absl::StrCat("variant ", Text(variant.view()),
                     ": is of whole sequences, not of blocks (kedge_store_pruned, "
                     "kedge_match_pruned, kedge_fetch_pruned)"));
  }
  const std::lock_guard lock(mutex_);
  if (const auto known = chains_.find(variant.view()); known != chains_.end()) {
    return known->second;
  }
  auto chain = codec::CodecChain::Parse(variant.view(), profile_ ? &*profile_ : nullptr);
  if (!chain.ok()) return absl::InvalidArgumentError(chain.status().message());
  if (chain->fidelity() != Fidelity::kLossless) {
    if (absl::Status status = Gate(variant.view()); !status.ok()) return status;
    if (!rotation_status_.ok()) return rotation_status_;
    if (absl::Status status = chain->Supports(shape_); !status.ok()) return status;
  }
  chains_.emplace(Text(variant.view()), *chain);
  return chain;
}

absl::StatusOr<codec::PrunedChain> ModelVariants::Pruned(const Variant& variant) const {
  const std::lock_guard lock(mutex_);
  if (const auto known = pruned_.find(variant.view()); known != pruned_.end()) return known->second;
  const std::string name = Text(variant.view());
  if (!codec::PrunedChain::IsPruned(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("variant ", name, ": prunes nothing; it is of blocks (kedge_store)"));
  }
  if (!profile_) {
    return absl::PermissionDeniedError(absl::StrCat(
        "variant ", name, " is refused for ", weights_id_,
        ": what a layer keeps is in the model's profile, and there is none (model options: "
        "profile)"));
  }
  auto chain = codec::PrunedChain::Parse(name, &*profile_);
  if (!chain.ok()) return absl::InvalidArgumentError(chain.status().message());
  if (absl::Status status = Gate(name); !status.ok()) return status;
  if (!rotation_status_.ok()) return rotation_status_;
  if (chain->score() == codec::ScoreKind::kExpected &&
      shape_.kv_heads != profile_->model().kv_heads) {
    return absl::InvalidArgumentError(
        absl::StrCat("variant ", name, ": kv_heads: ", shape_.kv_heads, " of the model's ",
                     profile_->model().kv_heads, "; its query statistics are of all heads"));
  }
  const codec::SequenceTask task{.shape = shape_, .tokens = shape_.block_tokens};
  if (absl::Status status = chain->Supports(task); !status.ok()) return status;
  pruned_.emplace(name, *chain);
  return chain;
}

std::vector<Variant> ModelVariants::PrunedByLoss() const {
  std::vector<std::pair<double, std::string>> names;
  for (const GateRecord& record : profile_ ? profile_->gate() : std::vector<GateRecord>()) {
    const bool pruned = codec::PrunedChain::IsPruned(record.chain);
    if (pruned && record.task == kGateMean) names.emplace_back(record.points_lost, record.chain);
  }
  std::sort(names.begin(), names.end());
  std::vector<Variant> variants;
  for (const auto& [lost, name] : names) {
    const absl::StatusOr<Variant> variant = Variant::Parse(name);
    if (!variant.ok() || !Pruned(*variant).ok()) continue;
    variants.push_back(*variant);
    if (variants.size() == kVariantsMax) break;
  }
  return variants;
}

std::vector<Variant> ModelVariants::NoWorseThan(Fidelity lowest) const {
  std::vector<std::pair<double, std::string>> names;
  if (profile_) {
    for (const GateRecord& record : profile_->gate()) {
      if (record.task == kGateMean) names.emplace_back(record.points_lost, record.chain);
    }
    std::sort(names.begin(), names.end());
  } else {
    for (const char* name : kUnprofiledChains) names.emplace_back(0.0, name);
  }
  std::vector<Variant> variants = {Variant::Raw()};
  for (const auto& [lost, name] : names) {
    const absl::StatusOr<Variant> variant = Variant::Parse(name);
    if (!variant.ok() || *variant == Variant::Raw()) continue;
    const auto chain = Chain(*variant);
    if (!chain.ok() || chain->fidelity() > lowest) continue;
    variants.push_back(*variant);
    if (variants.size() == kVariantsMax) break;
  }
  return variants;
}

void LossyLog::Add(uint32_t block, const Variant& variant) {
  const std::lock_guard lock(mutex_);
  const auto [entry, added] = first_.try_emplace(Text(variant.view()), block);
  if (!added) entry->second = std::min(entry->second, block);
}

absl::Status LossyLog::MayStore(uint32_t block_end, const Variant& variant) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [name, block] : first_) {
    const bool same = name == variant.view() && !codec::PrunedChain::IsPruned(name);
    if (block >= block_end || same) continue;
    return absl::PermissionDeniedError(absl::StrCat(
        "store: block ", block, " of this sequence was fetched as ", name,
        ": what is computed over it may not be published as ", Text(variant.view()),
        " (options.computed_over = KEDGE_FIDELITY_LOSSLESS says that it was not used)"));
  }
  return absl::OkStatus();
}

}  // namespace kedge
