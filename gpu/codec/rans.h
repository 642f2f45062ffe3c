// rANS (arXiv 1311.2540): an entropy coder with tables that are known beforehand.
//
// A table gives each symbol a share of 4096. Tables are made from counts at profiling time and live
// in the model's profile, never beside the data: what is stored is states and words only.
//
// The state is 32 bits, kept in [2^16, 2^32), and moves in words of 16 bits. `lanes` states take
// turns: symbol i is of lane i % lanes, so that a vector register decodes many at once. Encoded:
//
//     u32 state [lanes]           what the decoder starts from
//     u16 words []                in the order in which the decoder reads them
//
// A decoder ends with every lane at 2^16 and with no word left, or the bytes are not what was
// encoded: a truncated or damaged stream is an error. What a reader may still accept by chance
// (1 in 2^(16 lanes)) is caught by the part's digest.
//
// RansDecodeScalar is the specification; RansDecode uses vectors and gives the same symbols and the
// same errors. No state is kept; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge::codec {

inline constexpr int kRansBits = 12;
inline constexpr uint32_t kRansTotal = 1u << kRansBits;
inline constexpr int kRansLanesMax = 32;
inline constexpr int kRansReciprocalBits = 44;

class RansTable {
 public:
  // Shares of symbols 0, 1, ...; at most 256 of them, their sum 4096. A share of 0: the symbol
  // never comes. InvalidArgument names what is wrong.
  static absl::StatusOr<RansTable> Make(std::span<const uint16_t> shares);
  // Shares near the counts', each at least 1, so that every symbol can be encoded. The same on all
  // machines. `counts`: 1 to 256, each below 2^48.
  static std::vector<uint16_t> SharesOf(std::span<const uint64_t> counts);

  int symbols() const { return symbols_; }
  uint32_t share(int symbol) const { return starts_[symbol + 1] - starts_[symbol]; }
  // What a symbol costs.
  double Bits(int symbol) const;

  // By the state's low 12 bits: symbol, share - 1 << 8, offset inside the share << 20.
  const uint32_t* slots() const { return slots_.data(); }
  // What the encoder needs of a symbol. For x < share * 2^20, which a state is when a symbol is
  // coded, x / share is x * reciprocal >> kRansReciprocalBits: the reciprocal is 2^44 / share
  // rounded up, which makes the quotient larger by x / 2^44 at most, less than 1 / share; the
  // product stays below 2^64.
  struct Encoding {
    uint64_t reciprocal = 0;
    uint32_t share = 0;
    uint32_t start = 0;
  };
  const Encoding& encoding(int symbol) const { return encodings_[symbol]; }

 private:
  RansTable() = default;
  int symbols_ = 0;
  std::vector<uint32_t> slots_;      // [4096]
  std::vector<uint16_t> starts_;     // [symbols + 1]
  std::vector<Encoding> encodings_;  // [symbols]
};

// Consecutive symbols of one table.
struct RansRun {
  const RansTable* table = nullptr;
  int64_t count = 0;
};

// How many lanes a stream of so many symbols has: 4 below 4,096, 8 below 16,384, else 32, since
// each costs 4 bytes; none for no symbols.
int RansLanes(int64_t symbols);

// An upper bound of the bytes that `symbols` symbols take.
int64_t RansBytesMax(int64_t symbols);

// Writes at the front of `out`, which has RansBytesMax bytes, and gives how many. Symbols must have
// a share in their table (aborts).
int64_t RansEncode(std::span<const RansRun> runs, const uint8_t* symbols, std::span<uint8_t> out);

// Decodes all runs into `symbols` and gives the bytes that were read from the front of `in`; what
// stands behind them is the caller's. InvalidArgument says what is wrong, of which `symbols` then
// holds nothing of use. Does not compare the bytes' end: a caller that expects nothing behind must.
absl::StatusOr<int64_t> RansDecode(std::span<const RansRun> runs, std::span<const uint8_t> in,
                                   uint8_t* symbols);
absl::StatusOr<int64_t> RansDecodeScalar(std::span<const RansRun> runs, std::span<const uint8_t> in,
                                         uint8_t* symbols);

// The state between runs: for RansDecode's two ways.
struct RansReader {
  std::array<uint32_t, kRansLanesMax> states;
  int lanes = 0;
  int lane = 0;  // whose turn it is
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;

  int64_t words_left() const { return (end - next) / 2; }
};

// Decodes whole turns of 32 lanes with vectors, beginning at lane 0, as long as no bound needs to
// be looked at; gives how many symbols it decoded, possibly none.
int64_t RansDecodeVectors(const RansTable& table, int64_t count, RansReader& reader,
                          uint8_t* symbols);

// On the GPU: many streams a call, each by one warp. All pointers are device memory.
struct RansCudaRun {
  const uint32_t* slots = nullptr;  // [4096], a copy of RansTable::slots()
  int64_t count = 0;
  uint8_t* to = nullptr;  // symbol i goes to to[i * stride]
  int64_t stride = 1;
};
struct RansCudaStream {
  const RansCudaRun* runs = nullptr;
  int64_t symbols = 0;  // of all runs together
  int lanes = 0;        // RansLanes(symbols)
  const uint8_t* in = nullptr;
  int64_t bytes = 0;  // at `in`, possibly more than the stream's
};
// In place of a stream's bytes, what RansDecode has messages for.
inline constexpr int64_t kRansStatesCut = -1;
inline constexpr int64_t kRansStateLow = -2;
inline constexpr int64_t kRansWordsEnd = -3;
inline constexpr int64_t kRansStateNotFirst = -4;

// Has the symbols of RansDecode, and its answers in results [count]: bytes read, or one of the
// above, after which that stream's symbols are of no use. Runs, symbols and lanes are trusted, the
// bytes are not: none behind `bytes` is read, whatever they are.
void RansDecodeCuda(const RansCudaStream* streams, int64_t count, int64_t* results, void* stream);

}  // namespace kedge::codec
