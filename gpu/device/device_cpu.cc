#include "gpu/device/device_cpu.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// A decode step forks every few hundred microseconds: workers that spin this long meet the next
// loop awake, and an idle device costs nothing after some 50 us.
constexpr int kSpinRounds = 2000;
constexpr size_t kAlignment = 64;
constexpr size_t kHugePageBytes = 2 << 20;
constexpr size_t kLargeBytes = 2 * kHugePageBytes;

int CoresOfThisProcess() {
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof(cores), &cores) == 0) return std::max(1, CPU_COUNT(&cores));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

CpuDevice::CpuDevice(int threads) {
  const int wanted = threads > 0 ? threads : CoresOfThisProcess();
  workers_.reserve(wanted - 1);
  for (int i = 1; i < wanted; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

CpuDevice::~CpuDevice() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_.store(true);
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

std::string CpuDevice::name() const { return absl::StrCat("cpu (", threads(), " threads)"); }

absl::StatusOr<void*> CpuDevice::Allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes > SIZE_MAX - kHugePageBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("allocate: bytes=", bytes, " is too large"));
  }
  const size_t alignment = bytes >= kLargeBytes ? kHugePageBytes : kAlignment;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("allocate: the host refused bytes=", bytes, " for the cpu device"));
  }
  // Weights are read from end to end: large pages spare translations. Only a wish.
  if (bytes >= kLargeBytes) ::madvise(memory, rounded, MADV_HUGEPAGE);
  return memory;
}

void CpuDevice::Free(void* memory) { std::free(memory); }

absl::Status CpuDevice::CopyIn(void* device_target, const void* host_source, size_t bytes) {
  if (bytes > 0) std::memcpy(device_target, host_source, bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyOut(void* host_target, const void* device_source, size_t bytes) {
  if (bytes > 0) std::memcpy(host_target, device_source, bytes);
  return absl::OkStatus();
}

void CpuDevice::ParallelFor(int64_t items, absl::FunctionRef<void(int64_t item)> body) {
  if (items <= 0) return;
  if (workers_.empty() || items == 1) {
    for (int64_t i = 0; i < items; ++i) body(i);
    return;
  }
  body_ = &body;
  items_ = items;
  next_item_.store(0, std::memory_order_relaxed);
  busy_workers_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  {
    // Under the lock, so that a worker between its last look and its sleep cannot miss it.
    std::lock_guard<std::mutex> lock(mutex_);
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  RunItems(body, items);
  // Each worker must have left this loop before its variables may be used for the next one.
  for (int round = 0; busy_workers_.load(std::memory_order_acquire) > 0; ++round) {
    if (round < kSpinRounds) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void CpuDevice::RunItems(const absl::FunctionRef<void(int64_t)>& body, int64_t items) {
  for (;;) {
    const int64_t item = next_item_.fetch_add(1, std::memory_order_relaxed);
    if (item >= items) return;
    body(item);
  }
}

void CpuDevice::WorkerLoop() {
  uint64_t seen = 0;
  for (;;) {
    for (int round = 0; round < kSpinRounds; ++round) {
      if (generation_.load(std::memory_order_acquire) != seen) break;
      Pause();
    }
    if (generation_.load(std::memory_order_acquire) == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
    }
    ++seen;  // loops do not overlap, so the generation moves by one
    if (stop_.load()) return;
    RunItems(*body_, items_);
    busy_workers_.fetch_sub(1, std::memory_order_acq_rel);
  }
}

}  // namespace kedge
