// The policies by name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/model_profile.h"
#include "tests/quality/kv_policy.h"

namespace kedge::quality {

std::vector<std::string> PolicyNames();

// InvalidArgument lists the names when there is none of this one, or says why it cannot start.
// Chains that need the model's profile take it from `profile`, which may go afterwards;
// FailedPrecondition when there is none, or not one that serves the chain.
absl::StatusOr<std::unique_ptr<KvPolicy>> MakePolicy(const std::string& name,
                                                     const ModelProfile* profile = nullptr);

// One file each.
std::unique_ptr<KvPolicy> MakeDensePolicy();
std::unique_ptr<KvPolicy> MakeNonePolicy();
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeFetchedPolicy();
// By a chain's name (gpu/codec/codec_chain.h), or one of policy_codec.cc's own.
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeCodecPolicy(const std::string& name,
                                                          const ModelProfile* profile);
// CHAIN+tailN.
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeTailPolicy(const std::string& name,
                                                         const ModelProfile* profile);

// A pruned chain (gpu/codec/pruned_chain.h), or a choice that it is held against: policy_pruned.cc.
bool IsPrunedPolicy(const std::string& name);
absl::StatusOr<std::unique_ptr<KvPolicy>> MakePrunedPolicy(const std::string& name,
                                                           const ModelProfile* profile);

// Offsets: policy_kvcomm.cc.
bool IsOffsetPolicy(const std::string& name);
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeOffsetPolicy(const std::string& name);

// What client/reuse decides: policy_auto.cc.
bool IsAutoPolicy(const std::string& name);
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeAutoPolicy(const std::string& name);

// Some tokens computed anew: policy_recompute.cc. Its names are no pruned chain's.
bool IsRecomputePolicy(const std::string& name);
absl::StatusOr<std::unique_ptr<KvPolicy>> MakeRecomputePolicy(const std::string& name);
// Its plain names, without what begins with '+'. InvalidArgument says what is wrong with it.
absl::StatusOr<RecomputeConfig> RecomputeConfigOf(const std::string& name);

}  // namespace kedge::quality
