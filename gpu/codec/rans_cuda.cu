// One warp a stream, one thread a lane: the words of a turn go to the lanes that need them by their
// rank. Words wait in registers, so that a turn waits for its table only.
#include <cuda_runtime.h>

#include "gpu/codec/rans.h"

namespace kedge::codec {
namespace {

constexpr unsigned kAll = 0xffffffff;
constexpr int kWarp = 32;
constexpr uint32_t kLow = 1u << 16;
constexpr uint32_t kMask = kRansTotal - 1;
static_assert(kRansLanesMax == kWarp);

// Streams begin at any byte.
__device__ uint32_t LoadBytes(const uint8_t* from, int count) {
  uint32_t value = 0;
  for (int i = 0; i < count; ++i) value |= static_cast<uint32_t>(from[i]) << 8 * i;
  return value;
}

// The words not yet taken: 64 of them, two a thread. All members are of the whole warp.
class Words {
 public:
  __device__ Words(const uint8_t* from, int64_t count)
      : from_(from), count_(count), now_(Load(threadIdx.x)), next_(Load(kWarp + threadIdx.x)) {}

  __device__ bool Has(int words) const { return taken() + words <= count_; }
  __device__ int64_t taken() const { return base_ + at_; }

  // One for each thread of `hungry`, in their order; Has must have said that they are there.
  __device__ uint32_t Take(unsigned hungry) {
    const int index = at_ + __popc(hungry & ((1u << threadIdx.x) - 1));
    const uint32_t low = __shfl_sync(kAll, now_, index % kWarp);
    const uint32_t high = __shfl_sync(kAll, next_, index % kWarp);
    at_ += __popc(hungry);
    if (at_ >= kWarp) {
      at_ -= kWarp;
      base_ += kWarp;
      now_ = next_;
      next_ = Load(base_ + kWarp + threadIdx.x);
    }
    return index < kWarp ? low : high;
  }

 private:
  // Behind the end there is nothing to read, and nobody is given this.
  __device__ uint32_t Load(int64_t word) const {
    return word < count_ ? LoadBytes(from_ + word * 2, 2) : 0;
  }

  const uint8_t* const from_;
  const int64_t count_;
  int64_t base_ = 0;  // of what is in now_
  int at_ = 0;        // how many of now_ are taken, below 32
  uint32_t now_;
  uint32_t next_;
};

// Where a thread's next symbol belongs; they ascend. Threads of a turn may be in different runs.
class Place {
 public:
  __device__ explicit Place(const RansCudaRun* runs) : next_(runs) {}

  __device__ void MoveTo(int64_t symbol) {
    while (symbol >= end_) {
      run_ = *next_++;
      end_ += run_.count;
    }
    in_run_ = symbol - (end_ - run_.count);
  }
  __device__ uint32_t slot(uint32_t state) const { return __ldg(run_.slots + (state & kMask)); }
  __device__ void Write(uint32_t slot) const {
    run_.to[in_run_ * run_.stride] = static_cast<uint8_t>(slot);
  }

 private:
  const RansCudaRun* next_;
  RansCudaRun run_;
  int64_t end_ = 0;
  int64_t in_run_ = 0;
};

// Bytes read, or what is wrong; the same for all threads.
__device__ int64_t Decode(const RansCudaStream& stream) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t state_bytes = stream.lanes * 4;
  if (stream.bytes < state_bytes) return kRansStatesCut;
  uint32_t state = lane < stream.lanes ? LoadBytes(stream.in + lane * 4, 4) : kLow;
  if (__any_sync(kAll, state < kLow)) return kRansStateLow;
  Words words(stream.in + state_bytes, (stream.bytes - state_bytes) / 2);
  Place place(stream.runs);
  for (int64_t first = 0; first < stream.symbols; first += stream.lanes) {
    if (lane < stream.lanes && first + lane < stream.symbols) {
      place.MoveTo(first + lane);
      const uint32_t slot = place.slot(state);
      place.Write(slot);
      state = ((slot >> 8 & kMask) + 1) * (state >> kRansBits) + (slot >> 20);
    }
    const unsigned hungry = __ballot_sync(kAll, state < kLow);
    if (!words.Has(__popc(hungry))) return kRansWordsEnd;
    const uint32_t word = words.Take(hungry);
    if (state < kLow) state = state << 16 | word;
  }
  if (__any_sync(kAll, state != kLow)) return kRansStateNotFirst;
  return state_bytes + words.taken() * 2;
}

__global__ void __launch_bounds__(kWarp)
    DecodeKernel(const RansCudaStream* streams, int64_t* results) {
  const int64_t result = Decode(streams[blockIdx.x]);
  if (threadIdx.x == 0) results[blockIdx.x] = result;
}

}  // namespace

void RansDecodeCuda(const RansCudaStream* streams, int64_t count, int64_t* results, void* stream) {
  if (count <= 0) return;
  DecodeKernel<<<static_cast<unsigned>(count), kWarp, 0, static_cast<cudaStream_t>(stream)>>>(
      streams, results);
}

}  // namespace kedge::codec
