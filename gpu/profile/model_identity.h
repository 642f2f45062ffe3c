// Which model a checkpoint is, as its profile says it (proto/model_profile.h).
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "gpu/model/model_config.h"
#include "proto/model_profile.h"

namespace kedge::profile {

// "sha256:" and 64 hex digits over the names and bytes of DIRECTORY/*.safetensors, in order of
// their names. NotFound names the directory when there are none.
absl::StatusOr<std::string> WeightsDigest(const std::string& directory);

// `weights_id`: a digest, or what the engines call these weights.
ProfiledModel ProfiledModelOf(const ModelConfig& config, DType kv_dtype,
                              std::string_view weights_id);

}  // namespace kedge::profile
