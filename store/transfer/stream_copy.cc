#include "store/transfer/stream_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace kedge {

#ifdef __SSE2__

void StreamCopy(void* to, const void* from, size_t bytes) {
  constexpr size_t kLine = 64;
  auto* target = static_cast<uint8_t*>(to);
  const auto* source = static_cast<const uint8_t*>(from);
  const size_t misaligned = reinterpret_cast<uintptr_t>(target) % kLine;
  const size_t first = std::min(bytes, misaligned == 0 ? 0 : kLine - misaligned);
  if (first > 0) std::memcpy(target, source, first);
  size_t at = first;
  for (; at + kLine <= bytes; at += kLine) {
    // Whole lines, so that they leave the write-combining buffers at once.
    const auto* in = reinterpret_cast<const __m128i*>(source + at);
    auto* out = reinterpret_cast<__m128i*>(target + at);
    const __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1);
    const __m128i c = _mm_loadu_si128(in + 2), d = _mm_loadu_si128(in + 3);
    _mm_stream_si128(out, a);
    _mm_stream_si128(out + 1, b);
    _mm_stream_si128(out + 2, c);
    _mm_stream_si128(out + 3, d);
  }
  if (at < bytes) std::memcpy(target + at, source + at, bytes - at);
  _mm_sfence();  // streaming stores are not ordered by themselves
}

#else

void StreamCopy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

#endif

}  // namespace kedge
