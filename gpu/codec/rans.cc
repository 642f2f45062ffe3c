#include "gpu/codec/rans.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

constexpr uint32_t kLow = 1u << 16;  // states are at least this
constexpr uint32_t kMask = kRansTotal - 1;

int64_t SymbolsOf(std::span<const RansRun> runs) {
  int64_t symbols = 0;
  for (const RansRun& run : runs) symbols += run.count;
  return symbols;
}

absl::Status Start(int64_t symbols, std::span<const uint8_t> in, RansReader& reader) {
  reader.lanes = RansLanes(symbols);
  const auto bytes = static_cast<int64_t>(in.size());
  if (bytes < reader.lanes * 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("rans: ", bytes, " bytes, the states have ", reader.lanes * 4));
  }
  for (int i = 0; i < reader.lanes; ++i) {
    reader.states[i] = LoadLe<uint32_t>(in.data() + i * 4);
    if (reader.states[i] < kLow) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rans: state of lane %d: 0x%08x is below 2^16", i, reader.states[i]));
    }
  }
  reader.next = in.data() + reader.lanes * 4;
  reader.end = in.data() + in.size();
  return absl::OkStatus();
}

// False when the words end too early.
bool DecodeRun(const RansTable& table, int64_t count, RansReader& reader, uint8_t* symbols) {
  const uint32_t* slots = table.slots();
  for (int64_t i = 0; i < count; ++i) {
    uint32_t& state = reader.states[reader.lane];
    const uint32_t slot = slots[state & kMask];
    symbols[i] = static_cast<uint8_t>(slot);
    state = ((slot >> 8 & kMask) + 1) * (state >> kRansBits) + (slot >> 20);
    if (state < kLow) {
      if (reader.words_left() == 0) return false;
      state = state << 16 | LoadLe<uint16_t>(reader.next);
      reader.next += 2;
    }
    reader.lane = reader.lane + 1 == reader.lanes ? 0 : reader.lane + 1;
  }
  return true;
}

absl::StatusOr<int64_t> Decode(std::span<const RansRun> runs, std::span<const uint8_t> in,
                               bool vectors, uint8_t* symbols) {
  RansReader reader;
  const int64_t total = SymbolsOf(runs);
  if (absl::Status s = Start(total, in, reader); !s.ok()) return s;
  const uint8_t* begin = symbols;
  for (const RansRun& run : runs) {
    int64_t done = 0;
    while (done < run.count) {
      if (vectors && reader.lane == 0)
        done += RansDecodeVectors(*run.table, run.count - done, reader, symbols + done);
      // To the end of this turn, then the vectors may go on.
      const int64_t step = std::min<int64_t>(run.count - done, reader.lanes - reader.lane);
      if (!DecodeRun(*run.table, step, reader, symbols + done)) {
        return absl::InvalidArgumentError(absl::StrCat("rans: words end before symbol ",
                                                       symbols + done + step - begin, " of ", total,
                                                       " is decoded"));
      }
      done += step;
    }
    symbols += run.count;
  }
  for (int i = 0; i < reader.lanes; ++i) {
    if (reader.states[i] == kLow) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "rans: final state of lane %d: 0x%08x, expected 0x%08x", i, reader.states[i], kLow));
  }
  return reader.next - in.data();
}

}  // namespace

absl::StatusOr<RansTable> RansTable::Make(std::span<const uint16_t> shares) {
  if (shares.empty() || shares.size() > 256)
    return absl::InvalidArgumentError(
        absl::StrCat("rans table: symbols: ", shares.size(), " is not 1 to 256"));
  uint32_t sum = 0;
  for (uint16_t share : shares) sum += share;
  if (sum != kRansTotal) {
    return absl::InvalidArgumentError(
        absl::StrCat("rans table: sum of shares: ", sum, ", expected ", kRansTotal));
  }
  RansTable table;
  table.symbols_ = static_cast<int>(shares.size());
  table.slots_.reserve(kRansTotal);
  table.starts_.push_back(0);
  for (size_t symbol = 0; symbol < shares.size(); ++symbol) {
    const uint32_t share = shares[symbol];
    const uint64_t reciprocal =
        share == 0 ? 0 : ((uint64_t{1} << kRansReciprocalBits) + share - 1) / share;
    table.encodings_.push_back({reciprocal, share, static_cast<uint32_t>(table.starts_.back())});
    for (uint32_t i = 0; i < shares[symbol]; ++i)
      table.slots_.push_back(static_cast<uint32_t>(symbol) | (shares[symbol] - 1u) << 8 | i << 20);
    table.starts_.push_back(static_cast<uint16_t>(table.starts_.back() + shares[symbol]));
  }
  return table;
}

std::vector<uint16_t> RansTable::SharesOf(std::span<const uint64_t> counts) {
  ABSL_RAW_CHECK(!counts.empty() && counts.size() <= 256, "a table has 1 to 256 symbols");
  const uint64_t total = std::max<uint64_t>(std::accumulate(counts.begin(), counts.end(), 0ull), 1);
  const auto spare = static_cast<uint64_t>(kRansTotal - counts.size());
  // Everyone gets 1; the rest by largest remainder, first symbols first among equals.
  std::vector<uint16_t> shares(counts.size());
  std::vector<std::pair<uint64_t, size_t>> remainders(counts.size());
  uint64_t given = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const uint64_t whole = counts[i] * spare / total;
    remainders[i] = {counts[i] * spare % total, i};
    shares[i] = static_cast<uint16_t>(1 + whole);
    given += whole;
  }
  std::sort(remainders.begin(), remainders.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  for (size_t i = 0; given < spare; i = (i + 1) % counts.size(), ++given)
    ++shares[remainders[i].second];
  return shares;
}

double RansTable::Bits(int symbol) const {
  return kRansBits - std::log2(static_cast<double>(share(symbol)));
}

int RansLanes(int64_t symbols) {
  if (symbols == 0) return 0;
  return symbols < 4096 ? 4 : symbols < 16384 ? 8 : kRansLanesMax;
}

int64_t RansBytesMax(int64_t symbols) { return RansLanes(symbols) * 4 + symbols * 2; }

int64_t RansEncode(std::span<const RansRun> runs, const uint8_t* symbols, std::span<uint8_t> out) {
  const int64_t total = SymbolsOf(runs);
  const int lanes = RansLanes(total);
  ABSL_RAW_CHECK(static_cast<int64_t>(out.size()) >= RansBytesMax(total), "rans: small buffer");
  std::array<uint32_t, kRansLanesMax> states;
  states.fill(kLow);
  // Backwards, so that the decoder goes forwards; words grow down from the buffer's end.
  uint8_t* const end = out.data() + out.size();
  uint8_t* word = end;
  int64_t i = total;
  int lane = lanes == 0 ? 0 : static_cast<int>(total % lanes);
  for (auto run = runs.rbegin(); run != runs.rend(); ++run) {
    // Out of the loop: a store of bytes might change them, as far as the compiler knows.
    const RansTable::Encoding* const encodings = &run->table->encoding(0);
    const int known = run->table->symbols();
    for (int64_t left = run->count; left > 0; --left) {
      --i;
      const int symbol = symbols[i];
      ABSL_RAW_CHECK(symbol < known, "rans: symbol outside its table");
      const RansTable::Encoding code = encodings[symbol];
      ABSL_RAW_CHECK(code.share > 0, "rans: symbol without a share");
      lane = lane == 0 ? lanes - 1 : lane - 1;
      uint32_t state = states[lane];
      // Written in any case, kept where the state is too large: no branch to guess.
      StoreLe(word - 2, static_cast<uint16_t>(state));
      const uint32_t large = state >= uint64_t{code.share} << (32 - kRansBits) ? 1 : 0;
      word -= large * 2;
      state >>= large * 16;
      const auto whole = static_cast<uint32_t>(state * code.reciprocal >> kRansReciprocalBits);
      states[lane] = (whole << kRansBits) + (state - whole * code.share) + code.start;
    }
  }
  const int64_t word_bytes = end - word;
  std::copy(word, end, out.data() + lanes * 4);
  for (lane = 0; lane < lanes; ++lane) StoreLe(out.data() + lane * 4, states[lane]);
  return lanes * 4 + word_bytes;
}

absl::StatusOr<int64_t> RansDecode(std::span<const RansRun> runs, std::span<const uint8_t> in,
                                   uint8_t* symbols) {
  return Decode(runs, in, true, symbols);
}

absl::StatusOr<int64_t> RansDecodeScalar(std::span<const RansRun> runs, std::span<const uint8_t> in,
                                         uint8_t* symbols) {
  return Decode(runs, in, false, symbols);
}

}  // namespace kedge::codec
