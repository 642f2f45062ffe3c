// Any bytes as a safetensors file: no crash, and every tensor that is accepted lies in the file.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gpu/model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::StatusOr<std::map<std::string, kedge::TensorInfo>> tensors =
      kedge::ParseSafetensors({data, size}, "fuzz");
  if (!tensors.ok()) {
    if (tensors.status().message().find("fuzz: ") != 0) std::abort();
    return 0;
  }
  for (const auto& [name, info] : *tensors) {
    if (info.begin > size || info.bytes > size - info.begin) std::abort();
    std::vector<float> values(info.elements());
    kedge::kernels::CastToFloat(info.dtype, data + info.begin, info.elements(), values.data());
  }
  return 0;
}
