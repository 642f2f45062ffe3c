#include <cuda_runtime.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "gpu/device/device_cuda.h"

namespace kedge {
namespace {

absl::Status ToStatus(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(text);
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
      return absl::NotFoundError(text);
    default:
      return absl::InternalError(text);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(int ordinal) {
  const std::string what = absl::StrCat("cuda:", ordinal);
  const absl::Status chosen = ToStatus(cudaSetDevice(ordinal), what);
  if (!chosen.ok()) return chosen;
  cudaDeviceProp properties;
  const absl::Status known = ToStatus(cudaGetDeviceProperties(&properties, ordinal), what);
  if (!known.ok()) return known;
  cudaStream_t stream = nullptr;
  const absl::Status made =
      ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), what);
  if (!made.ok()) return made;
  std::string name = absl::StrCat(what, " (", static_cast<const char*>(properties.name), ")");
  return std::unique_ptr<CudaDevice>(new CudaDevice(ordinal, std::move(name), stream));
}

CudaDevice::~CudaDevice() {
  cudaSetDevice(ordinal_);
  cudaStreamDestroy(static_cast<cudaStream_t>(stream_));
}

absl::StatusOr<void*> CudaDevice::Allocate(size_t bytes) {
  if (bytes == 0) return static_cast<void*>(nullptr);
  void* memory = nullptr;
  const absl::Status chosen = ToStatus(cudaSetDevice(ordinal_), name_);
  if (!chosen.ok()) return chosen;
  const absl::Status status =
      ToStatus(cudaMalloc(&memory, bytes), absl::StrCat("allocate: bytes=", bytes, " on ", name_));
  if (!status.ok()) {
    cudaGetLastError();  // a refused allocation is answered here, not at the next Synchronize
    return status;
  }
  return memory;
}

void CudaDevice::Free(void* memory) { cudaFree(memory); }

absl::Status CudaDevice::CopyIn(void* device_target, const void* host_source, size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  return ToStatus(cudaMemcpyAsync(device_target, host_source, bytes, cudaMemcpyHostToDevice,
                                  static_cast<cudaStream_t>(stream_)),
                  absl::StrCat("copy ", bytes, " bytes to ", name_));
}

absl::Status CudaDevice::CopyOut(void* host_target, const void* device_source, size_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  return ToStatus(cudaMemcpyAsync(host_target, device_source, bytes, cudaMemcpyDeviceToHost,
                                  static_cast<cudaStream_t>(stream_)),
                  absl::StrCat("copy ", bytes, " bytes from ", name_));
}

absl::Status CudaDevice::Synchronize() {
  // A kernel that could not be launched leaves its error here, not on the stream.
  absl::Status launched = ToStatus(cudaGetLastError(), absl::StrCat("launch on ", name_));
  absl::Status finished = ToStatus(cudaStreamSynchronize(static_cast<cudaStream_t>(stream_)),
                                   absl::StrCat("synchronize ", name_));
  return launched.ok() ? finished : launched;
}

}  // namespace kedge
