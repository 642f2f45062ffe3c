// The CUDA device: memory of one GPU, and one stream on which copies and kernels are queued.
//
// Built with --config=cuda (tools/bazel/cuda.bzl); without, this header declares a class that
// nothing defines. It names no CUDA header, so that code without nvcc can include it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/device/device.h"

namespace kedge {

class CudaDevice : public Device {
 public:
  // The GPU number `ordinal`. NotFound when the machine has no such GPU or no driver; Internal with
  // CUDA's words for anything else.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Open(int ordinal);
  ~CudaDevice() override;
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override { return name_; }
  absl::StatusOr<void*> Allocate(size_t bytes) override;
  void Free(void* memory) override;
  absl::Status CopyIn(void* device_target, const void* host_source, size_t bytes) override;
  absl::Status CopyOut(void* host_target, const void* device_source, size_t bytes) override;
  absl::Status Synchronize() override;

  // A cudaStream_t; the last argument of every x_cuda kernel.
  void* stream() const { return stream_; }

 private:
  CudaDevice(int ordinal, std::string name, void* stream)
      : ordinal_(ordinal), name_(std::move(name)), stream_(stream) {}

  const int ordinal_;
  const std::string name_;
  void* const stream_;
};

}  // namespace kedge
