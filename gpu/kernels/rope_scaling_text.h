// RopeScaling as the text that names blocks (proto's ModelIdentity::rope_scaling), and back.
//
// The text enters fingerprints, so it never changes for the same parameters:
//
//     ""                                              no scaling
//     "linear factor=4"
//     "llama3 factor=8 low=1 high=4 original=8192"
//
// Numbers are written in their shortest form with at most 6 digits.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "gpu/kernels/rope.h"

namespace kedge::kernels {

std::string RopeScalingText(const RopeScaling& scaling);

// InvalidArgument naming the text: of another kind, or with a field missing or out of range. Such a
// model's keys cannot be turned here.
absl::StatusOr<RopeScaling> ParseRopeScaling(std::string_view text);

}  // namespace kedge::kernels
