// The policies by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/quality/kv_policy.h"

namespace kedge::quality {

std::vector<std::string> PolicyNames();

// InvalidArgument lists the names when there is none of this one, or says why it cannot start.
absl::StatusOr<std::unique_ptr<KvPolicy>> MakePolicy(const std::string& name);

// One file each.
std::unique_ptr<KvPolicy> MakeDensePolicy();
std::unique_ptr<KvPolicy> MakeNonePolicy();
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeFetchedPolicy();
// By a chain's name (gpu/codec/codec_chain.h), or one of policy_codec.cc's own.
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeCodecPolicy(const std::string& name);

}  // namespace kedge::quality
