// Digest of a part of 1 MiB in the cache: one call, streams of several steps, and libxxhash's
// portable build as the yardstick. Every byte of every get and put passes here once on each side.
#define XXH_STATIC_LINKING_ONLY
#include <benchmark/benchmark.h>
#include <xxhash.h>

#include "proto/block_header.h"

namespace kedge {
namespace {

constexpr size_t kPartBytes = 1 << 20;

void OneCall(benchmark::State& state) {
  const std::vector<uint8_t> bytes(kPartBytes, 7);
  for (auto _ : state) benchmark::DoNotOptimize(PartDigest({}, Variant::Raw(), 0, bytes));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kPartBytes));
}
BENCHMARK(OneCall);

void Stream(benchmark::State& state) {
  const std::vector<uint8_t> bytes(kPartBytes, 7);
  const auto step = static_cast<size_t>(state.range(0));
  PartDigester digester;
  for (auto _ : state) {
    digester.Reset({}, Variant::Raw(), 0);
    for (size_t at = 0; at < kPartBytes; at += step)
      digester.Update(std::span(bytes).subspan(at, step));
    benchmark::DoNotOptimize(digester.Finish());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kPartBytes));
}
BENCHMARK(Stream)->Arg(8 << 10)->Arg(64 << 10)->Arg(256 << 10);

void PortableLibrary(benchmark::State& state) {
  const std::vector<uint8_t> bytes(kPartBytes, 7);
  for (auto _ : state) benchmark::DoNotOptimize(XXH3_128bits_withSeed(bytes.data(), kPartBytes, 1));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kPartBytes));
}
BENCHMARK(PortableLibrary);

}  // namespace
}  // namespace kedge
