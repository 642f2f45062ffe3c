// What a profile's maker must know of KIVI chains: how their bodies lie.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "gpu/codec/kivi.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

// The layout of the bodies of `chain`: `kivi2g32`, `had+kivi4g64`. InvalidArgument when it is no
// chain of KIVI's, or does not fit the shape.
absl::StatusOr<KiviLayout> KiviChainLayout(std::string_view chain, const KvShape& shape,
                                           Component component);

}  // namespace kedge::codec
