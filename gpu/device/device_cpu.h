// The CPU device: host memory, and a fork-join pool that runs the kernels' loops on all cores.
//
// The pool is the only place of this room where a thread starts. `ParallelFor` cuts a loop into
// items which idle threads claim one by one; which thread runs an item is not defined, so an item
// must write only memory that no other item touches and its result must not depend on the thread.
// Every kernel of gpu/kernels is built so: the bits of a result do not depend on `threads`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gpu/device/device.h"

namespace kedge {

class CpuDevice : public Device {
 public:
  // `threads` includes the calling thread; 0 takes the number of cores this process may run on.
  explicit CpuDevice(int threads = 0);
  ~CpuDevice() override;
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;

  DeviceKind kind() const override { return DeviceKind::kCpu; }
  std::string name() const override;
  absl::StatusOr<void*> Allocate(size_t bytes) override;
  void Free(void* memory) override;
  absl::Status CopyIn(void* device_target, const void* host_source, size_t bytes) override;
  absl::Status CopyOut(void* host_target, const void* device_source, size_t bytes) override;
  absl::Status Synchronize() override { return absl::OkStatus(); }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Runs body(i) for every i in [0, items) and returns when all are done. One caller at a time;
  // `body` must not call ParallelFor of the same device, and must not throw.
  void ParallelFor(int64_t items, absl::FunctionRef<void(int64_t item)> body);

 private:
  void WorkerLoop();
  // Claims and runs items of the current loop until none is left.
  void RunItems(const absl::FunctionRef<void(int64_t)>& body, int64_t items);

  std::vector<std::thread> workers_;

  // The current loop. Written by the caller before `generation_` moves on, read by workers after.
  const absl::FunctionRef<void(int64_t)>* body_ = nullptr;
  int64_t items_ = 0;
  std::atomic<int64_t> next_item_{0};
  std::atomic<int> busy_workers_{0};
  // Moves on with each loop; workers spin on it for a short while, then sleep on `wake_`.
  std::atomic<uint64_t> generation_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;  // guards sleeping on wake_, nothing else
  std::condition_variable wake_;
};

}  // namespace kedge
