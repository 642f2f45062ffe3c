// What the tests of CUDA twins need: a GPU, and arrays that live on it.
//
// Only for code under `#if KEDGE_CUDA`. Where no GPU is, such tests skip themselves.
#pragma once

#include <memory>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include "gpu/device/device_cuda.h"

namespace kedge::kernels {

class CudaTwin : public testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<CudaDevice>> device = CudaDevice::Open(0);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
  }

  // A copy on the GPU, or room for one; lives until the test ends.
  template <typename T>
  T* ToGpu(const std::vector<T>& values) {
    T* memory = Room<T>(values.size());
    EXPECT_TRUE(device_->CopyIn(memory, values.data(), values.size() * sizeof(T)).ok());
    return memory;
  }
  template <typename T>
  T* Room(size_t count) {
    absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Create(*device_, count * sizeof(T));
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    buffers_.push_back(*std::move(buffer));
    return buffers_.back().as<T>();
  }
  template <typename T>
  std::vector<std::remove_const_t<T>> FromGpu(T* memory, size_t count) {
    std::vector<std::remove_const_t<T>> values(count);
    EXPECT_TRUE(device_->CopyOut(values.data(), memory, count * sizeof(T)).ok());
    const absl::Status status = device_->Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    return values;
  }
  void* stream() const { return device_->stream(); }

  std::unique_ptr<CudaDevice> device_;
  std::vector<DeviceBuffer> buffers_;  // declared last: freed before the device goes
};

}  // namespace kedge::kernels
