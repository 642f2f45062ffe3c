#include "tools/bazel/cuda_version.h"

#include <cuda_runtime.h>

namespace kedge {
namespace {

__global__ void Nothing() {}

}  // namespace

int CudaRuntimeVersion() {
  // Linked, not launched: device code is part of what has to compile.
  cudaFuncAttributes attributes;
  (void)cudaFuncGetAttributes(&attributes, Nothing);
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace kedge
