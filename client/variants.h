// What the blocks of one model may be stored and fetched as: codec chains, the model's gate, and
// how its keys are rotated.
//
// `raw` always may. A lossy chain may when the model's profile passes it (proto/model_profile.h);
// without a profile only when the caller said so in plain words. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/block_codec.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/pruned_chain.h"
#include "proto/block_header.h"
#include "proto/block_key.h"
#include "proto/model_profile.h"

namespace kedge {

class ModelVariants {
 public:
  // FailedPrecondition when the profile is of another model.
  static absl::StatusOr<std::unique_ptr<ModelVariants>> Make(const ModelIdentity& model,
                                                             std::optional<ModelProfile> profile,
                                                             bool allow_unprofiled);

  // The chain of a variant that may be used. InvalidArgument: no such chain, one that cannot encode
  // this shape, or keys that cannot be turned. PermissionDenied: the gate, with its figure.
  absl::StatusOr<codec::CodecChain> Chain(const Variant& variant) const;
  // The same for chains of whole sequences (gpu/codec/pruned_chain.h). They need the profile:
  // PermissionDenied without one.
  absl::StatusOr<codec::PrunedChain> Pruned(const Variant& variant) const;
  // Those that may be used, by what the profile says they lose; at most kVariantsMax.
  std::vector<Variant> PrunedByLoss() const;
  // All that may be used and are no worse than `lowest`, `raw` first and then by what the profile
  // says they lose; at most kVariantsMax. Without a profile: those of a short list.
  std::vector<Variant> NoWorseThan(Fidelity lowest) const;

  const codec::KeyRotation& rotation() const { return rotation_; }
  const KvShape& shape() const { return shape_; }
  const ModelId& model_id() const { return model_id_; }
  // Null without one.
  const ModelProfile* profile() const { return profile_ ? &*profile_ : nullptr; }

 private:
  ModelVariants() = default;
  absl::Status Gate(std::string_view name) const;

  KvShape shape_;
  ModelId model_id_;
  std::string weights_id_;
  codec::KeyRotation rotation_;
  absl::Status rotation_status_;  // why lossy chains cannot be used
  std::optional<ModelProfile> profile_;
  bool allow_unprofiled_ = false;
  mutable std::mutex mutex_;  // a chain may hold tables: made once
  mutable std::map<std::string, codec::CodecChain, std::less<>> chains_;
  mutable std::map<std::string, codec::PrunedChain, std::less<>> pruned_;
};

// Which blocks of a sequence came back lossy, so that what is computed over them is not published
// as more than it is. Any thread.
class LossyLog {
 public:
  // Block `block` of the sequence was fetched as `variant`.
  void Add(uint32_t block, const Variant& variant);
  // PermissionDenied naming block and variant when KV of blocks before `block_end` that came back
  // lossy was of another chain than `variant`: such KV may be published as that chain only; and as
  // nothing where tokens of it are missing.
  absl::Status MayStore(uint32_t block_end, const Variant& variant) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, uint32_t> first_;  // chain -> first block
};

}  // namespace kedge
