// The model profiles that a node has, by the model id in block headers; and the gate that they are.
//
// A lossy block is taken, and a block is recoded, only where the profile of its model passes the
// chain; without a profile only when the operator said so in plain words. Built before traffic
// starts; const methods on any thread.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/block_codec.h"
#include "gpu/codec/codec_chain.h"
#include "proto/block_header.h"
#include "proto/model_profile.h"

namespace kedge {

class ProfileSet {
 public:
  // AlreadyExists naming the model when there is one of it.
  absl::Status Add(ModelProfile profile);
  // From a file; errors name the path.
  absl::Status Load(const std::string& path);
  void AllowUnprofiled() { allow_unprofiled_ = true; }

  // Null when there is none, or it is of another geometry than the block.
  const ModelProfile* Find(const BlockHeader& header) const;
  // Whether a block of this model may be held as `variant`: PermissionDenied with the figure.
  absl::Status Admits(const BlockHeader& header, const Variant& variant) const;
  // The chain of `variant` for this block's model.
  absl::StatusOr<codec::CodecChain> Chain(const BlockHeader& header, const Variant& variant) const;
  // How the keys of this block's model are rotated; none when that is not known.
  codec::KeyRotation Rotation(const BlockHeader& header) const;
  size_t size() const { return profiles_.size(); }

 private:
  std::map<ModelId, ModelProfile> profiles_;
  bool allow_unprofiled_ = false;
  mutable std::mutex mutex_;  // chains may hold tables, and are made once
  mutable std::map<std::pair<const ModelProfile*, std::string>, codec::CodecChain> chains_;
};

}  // namespace kedge
