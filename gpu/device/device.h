// The one door to hardware: memory, copies and completion of one compute device.
//
// A tensor's memory comes from the device that computes on it. Kernels (gpu/kernels) take plain
// pointers into such memory; only this room knows how it was obtained. On the CPU device "device
// memory" is host memory, copies are memcpy and everything is complete when a call returns. On the
// CUDA device copies and kernels are queued on one stream; `Synchronize` waits for them.
//
// Threads: Allocate and Free may be called from any thread. Copies, kernels and Synchronize of one
// device are called by one thread at a time.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

enum class DeviceKind { kCpu, kCuda };

class Device {
 public:
  virtual ~Device() = default;

  virtual DeviceKind kind() const = 0;
  // For people and logs: "cpu (2 threads)", "cuda:0 (NVIDIA H200)".
  virtual std::string name() const = 0;

  // `bytes` of memory, aligned to 64 bytes or more, content undefined. ResourceExhausted names the
  // size that was refused. Zero bytes gives a null pointer.
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  // Accepts null. No operation on the memory may be in flight.
  virtual void Free(void* memory) = 0;

  // Host to device and back. On CUDA they are queued: the host memory must stay untouched until
  // `Synchronize` has returned.
  virtual absl::Status CopyIn(void* device_target, const void* host_source, size_t bytes) = 0;
  virtual absl::Status CopyOut(void* host_target, const void* device_source, size_t bytes) = 0;

  // Waits until everything queued so far is complete, and reports the first error among it.
  virtual absl::Status Synchronize() = 0;
};

// Owns one allocation of a device, which must outlive it. Movable, not copyable.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  static absl::StatusOr<DeviceBuffer> Create(Device& device, size_t bytes) {
    absl::StatusOr<void*> memory = device.Allocate(bytes);
    if (!memory.ok()) return memory.status();
    return DeviceBuffer(&device, *memory, bytes);
  }
  ~DeviceBuffer() { Release(); }
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    if (this == &other) return *this;
    Release();
    device_ = std::exchange(other.device_, nullptr);
    data_ = std::exchange(other.data_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }

  void* data() const { return data_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t bytes() const { return bytes_; }

 private:
  DeviceBuffer(Device* device, void* data, size_t bytes)
      : device_(device), data_(data), bytes_(bytes) {}
  void Release() {
    if (device_ != nullptr) device_->Free(data_);
    device_ = nullptr;
    data_ = nullptr;
    bytes_ = 0;
  }

  Device* device_ = nullptr;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kedge
