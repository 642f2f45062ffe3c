#include "tools/benchmarks/scratch.h"

#include <malloc.h>
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace kedge::bench {
namespace {

constexpr size_t kStackBytes = 4 << 20;
constexpr uint8_t kPaint = 0xa5;

// Of this thread, while it is measured.
thread_local int64_t live_bytes = 0;
thread_local int64_t peak_bytes = 0;

void* Allocated(void* memory) {
  if (memory == nullptr) std::abort();
  live_bytes += static_cast<int64_t>(::malloc_usable_size(memory));
  peak_bytes = std::max(peak_bytes, live_bytes);
  return memory;
}

void Release(void* memory) {
  if (memory == nullptr) return;
  live_bytes -= static_cast<int64_t>(::malloc_usable_size(memory));
  std::free(memory);
}

struct Job {
  const std::function<void()>* call;
  uint8_t* stack;
  ScratchUse use;
};

// The stack grows down: what is below the deepest call still has its paint.
int64_t StackUsed(const uint8_t* stack) {
  const uint8_t* end = stack + kStackBytes;
  return end - std::find_if(stack, end, [](uint8_t byte) { return byte != kPaint; });
}

void* RunJob(void* argument) {
  auto* job = static_cast<Job*>(argument);
  // What this function and the thread's start have used is not the call's.
  uint8_t here = 0;
  const auto above = job->stack + kStackBytes - &here;
  (*job->call)();
  const int64_t before = live_bytes;
  peak_bytes = before;
  (*job->call)();
  job->use.heap_bytes = peak_bytes - before;
  job->use.stack_bytes = std::max<int64_t>(StackUsed(job->stack) - above, 0);
  return nullptr;
}

}  // namespace

ScratchUse MeasureScratch(const std::function<void()>& call) {
  const std::unique_ptr<void, decltype(&std::free)> stack(std::aligned_alloc(4096, kStackBytes),
                                                          &std::free);
  std::memset(stack.get(), kPaint, kStackBytes);
  Job job{&call, static_cast<uint8_t*>(stack.get()), {}};
  pthread_attr_t attributes;
  pthread_t thread;
  ::pthread_attr_init(&attributes);
  if (::pthread_attr_setstack(&attributes, stack.get(), kStackBytes) != 0 ||
      ::pthread_create(&thread, &attributes, &RunJob, &job) != 0) {
    std::abort();
  }
  ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&attributes);
  return job.use;
}

}  // namespace kedge::bench

void* operator new(size_t bytes) { return kedge::bench::Allocated(std::malloc(bytes)); }
void* operator new(size_t bytes, std::align_val_t align) {
  const auto unit = static_cast<size_t>(align);
  return kedge::bench::Allocated(std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit));
}
void operator delete(void* memory) noexcept { kedge::bench::Release(memory); }
void operator delete(void* memory, size_t) noexcept { kedge::bench::Release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { kedge::bench::Release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  kedge::bench::Release(memory);
}
