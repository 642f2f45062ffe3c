// Hostile streams: both decoders must say the same of them, and what is encoded must come back.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "gpu/codec/rans.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge::codec;
  // Two bytes of length, 16 of counts, then the stream.
  if (size < 18) return 0;
  const int64_t count = (data[0] | data[1] << 8) % 40000;
  std::vector<uint64_t> counts(data + 2, data + 18);
  const RansTable table = *RansTable::Make(RansTable::SharesOf(counts));
  const RansTable flat = *RansTable::Make(RansTable::SharesOf(std::vector<uint64_t>(256, 1)));
  const std::vector<RansRun> runs = {{&table, count - count / 4}, {&flat, count / 4}};
  const std::span<const uint8_t> stream(data + 18, size - 18);

  std::vector<uint8_t> one(count);
  std::vector<uint8_t> two(count);
  const auto vectors = RansDecode(runs, stream, one.data());
  const auto scalar = RansDecodeScalar(runs, stream, two.data());
  if (vectors.status() != scalar.status() || one != two) std::abort();

  std::vector<uint8_t> symbols(count);
  for (int64_t i = 0; i < count && !stream.empty(); ++i)
    symbols[i] =
        static_cast<uint8_t>(stream[i % stream.size()] % runs[i >= runs[0].count].table->symbols());
  std::vector<uint8_t> bytes(RansBytesMax(count));
  bytes.resize(RansEncode(runs, symbols.data(), bytes));
  const auto back = RansDecode(runs, bytes, one.data());
  if (!back.ok() || *back != static_cast<int64_t>(bytes.size()) || one != symbols) std::abort();
  return 0;
}
