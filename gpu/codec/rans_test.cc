#include "gpu/codec/rans.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "gpu/codec/kivi_rans.h"
#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

RansTable TableOf(const std::vector<uint64_t>& counts) {
  auto table = RansTable::Make(RansTable::SharesOf(counts));
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

// Falls off as `slope` says; 1 is flat.
RansTable Falling(int symbols, double slope) {
  std::vector<uint64_t> counts(symbols);
  for (int i = 0; i < symbols; ++i) counts[i] = static_cast<uint64_t>(1e9 * std::pow(slope, i));
  return TableOf(counts);
}

std::vector<uint8_t> Draw(std::span<const RansRun> runs, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> symbols;
  for (const RansRun& run : runs) {
    for (int64_t i = 0; i < run.count; ++i)
      symbols.push_back(static_cast<uint8_t>(run.table->slots()[random() % kRansTotal]));
  }
  return symbols;
}

std::vector<uint8_t> Encoded(std::span<const RansRun> runs, const std::vector<uint8_t>& symbols) {
  std::vector<uint8_t> out(RansBytesMax(static_cast<int64_t>(symbols.size())));
  out.resize(RansEncode(runs, symbols.data(), out));
  return out;
}

TEST(RansTable, SharesFollowCounts) {
  const std::vector<uint64_t> counts = {3000, 1000, 90, 0, 6};
  const std::vector<uint16_t> shares = RansTable::SharesOf(counts);
  EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), 0u), kRansTotal);
  EXPECT_EQ(shares, (std::vector<uint16_t>{2997, 1000, 91, 1, 7}));
  EXPECT_EQ(RansTable::SharesOf(std::vector<uint64_t>(256, 0)), std::vector<uint16_t>(256, 16));
  EXPECT_EQ(RansTable::SharesOf(std::vector<uint64_t>{5}), std::vector<uint16_t>{4096});
}

TEST(RansTable, RefusesOtherSums) {
  EXPECT_FALSE(RansTable::Make({}).ok());
  EXPECT_FALSE(RansTable::Make(std::vector<uint16_t>{4095}).ok());
  EXPECT_FALSE(RansTable::Make(std::vector<uint16_t>{4096, 1}).ok());
  EXPECT_FALSE(RansTable::Make(std::vector<uint16_t>(257, 1)).ok());
  const auto one = RansTable::Make(std::vector<uint16_t>{0, 4096});
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->Bits(1), 0.0);
}

// By hand: one lane's arithmetic, with shares 3/4 and 1/4.
TEST(RansTable, ReciprocalsDivideExactly) {
  for (uint32_t share = 1; share < kRansTotal; ++share) {
    const std::vector<uint16_t> shares = {static_cast<uint16_t>(share),
                                          static_cast<uint16_t>(kRansTotal - share)};
    const auto table = *RansTable::Make(shares);
    const RansTable::Encoding& code = table.encoding(0);
    ASSERT_EQ(code.share, share);
    for (uint64_t quotient : {uint64_t{1}, uint64_t{0x10}, uint64_t{0xfffe}, uint64_t{0x10000},
                              uint64_t{0x7ffff}, uint64_t{0xfffff}}) {
      for (uint64_t rest : {uint64_t{0}, uint64_t{share / 2}, uint64_t{share - 1}}) {
        const uint64_t state = quotient * share + rest;
        ASSERT_EQ(state * code.reciprocal >> kRansReciprocalBits, quotient) << share << " " << rest;
      }
    }
  }
}

TEST(Rans, GoldenBytes) {
  const RansTable table = *RansTable::Make(std::vector<uint16_t>{3072, 1024});
  const std::vector<uint8_t> symbols = {0, 1, 0, 0, 1};
  const std::vector<RansRun> runs = {{&table, 5}};
  // Symbol 4 (1, lane 0): 65536 / 1024 << 12 + 0 + 3072 = 265216. Symbols 3, 2 (0): 65536 / 3072 <<
  // 12 + 65536 % 3072 = 21 << 12 + 1024 = 87040. Symbol 1 (1): 265216. Symbol 0 (0), lane 0 again:
  // 265216 / 3072 << 12 + 265216 % 3072 = 86 << 12 + 1024 = 353280.
  std::vector<uint8_t> expected(16);
  StoreLe<uint32_t>(expected.data(), 353280);
  StoreLe<uint32_t>(expected.data() + 4, 265216);
  StoreLe<uint32_t>(expected.data() + 8, 87040);
  StoreLe<uint32_t>(expected.data() + 12, 87040);
  EXPECT_EQ(Encoded(runs, symbols), expected);
}

TEST(Rans, ComesBackAndNeedsWhatItShould) {
  for (const int64_t count : {1, 7, 63, 2048, 5000, 16384, 40000, 100003}) {
    const RansTable peaked = Falling(40, 0.5);
    const RansTable flat = Falling(256, 1.0);
    const RansTable one = *RansTable::Make(std::vector<uint16_t>{4096});
    const std::vector<RansRun> runs = {
        {&peaked, count}, {&one, 65}, {&flat, count / 3}, {&flat, 0}};
    const std::vector<uint8_t> symbols = Draw(runs, static_cast<uint32_t>(count));
    const std::vector<uint8_t> bytes = Encoded(runs, symbols);
    double bits = 0;
    for (size_t i = 0; i < symbols.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const RansTable& table = at < count ? peaked : at < count + 65 ? one : flat;
      bits += table.Bits(symbols[i]);
    }
    const int lanes = RansLanes(static_cast<int64_t>(symbols.size()));
    EXPECT_LE(static_cast<double>(bytes.size()), bits / 8 * 1.002 + lanes * 4 + 2) << count;
    for (auto* decode : {&RansDecode, &RansDecodeScalar}) {
      std::vector<uint8_t> back(symbols.size());
      const auto read = decode(runs, bytes, back.data());
      ASSERT_TRUE(read.ok()) << count << ": " << read.status();
      EXPECT_EQ(*read, static_cast<int64_t>(bytes.size()));
      EXPECT_EQ(back, symbols) << count;
    }
  }
}

TEST(Rans, LeavesWhatStandsBehind) {
  const RansTable table = Falling(16, 0.7);
  const std::vector<RansRun> runs = {{&table, 50000}};
  const std::vector<uint8_t> symbols = Draw(runs, 1);
  std::vector<uint8_t> bytes = Encoded(runs, symbols);
  const auto size = static_cast<int64_t>(bytes.size());
  bytes.resize(bytes.size() + 101, 0xff);
  std::vector<uint8_t> back(symbols.size());
  const auto read = RansDecode(runs, bytes, back.data());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, size);
  EXPECT_EQ(back, symbols);
}

// Cut anywhere, or with a bit flipped: an error, or what was encoded; both ways say the same.
TEST(Rans, DamageIsAnError) {
  const RansTable table = Falling(16, 0.7);
  for (const int64_t count : {700, 20000}) {
    const std::vector<RansRun> runs = {{&table, count}};
    const std::vector<uint8_t> symbols = Draw(runs, 2);
    const std::vector<uint8_t> good = Encoded(runs, symbols);
    std::vector<uint8_t> one(symbols.size());
    std::vector<uint8_t> two(symbols.size());
    const auto wrong = [&](std::span<const uint8_t> bytes, size_t at) {
      const auto vectors = RansDecode(runs, bytes, one.data());
      const auto scalar = RansDecodeScalar(runs, bytes, two.data());
      EXPECT_EQ(vectors.status(), scalar.status()) << at;
      EXPECT_FALSE(vectors.ok()) << at;
      EXPECT_EQ(one, two) << at;
    };
    const size_t step = count > 1000 ? 97 : 1;
    for (size_t size = 0; size < good.size(); size += step)
      wrong(std::span<const uint8_t>(good).first(size), size);
    for (size_t i = 0; i < good.size(); i += step) {
      std::vector<uint8_t> bytes = good;
      bytes[i] ^= static_cast<uint8_t>(1 << i % 8);
      wrong(bytes, i);
    }
  }
}

TEST(Rans, NamesWhatIsWrong) {
  const RansTable table = Falling(16, 0.7);
  const std::vector<RansRun> runs = {{&table, 700}};
  std::vector<uint8_t> symbols = Draw(runs, 3);
  const std::vector<uint8_t> good = Encoded(runs, symbols);
  const auto says = [&](std::span<const uint8_t> bytes, const char* text) {
    const absl::Status s = RansDecode(runs, bytes, symbols.data()).status();
    EXPECT_NE(std::string(s.message()).find(text), std::string::npos) << s;
  };
  says(std::span<const uint8_t>(good).first(15), "15 bytes, the states have 16");
  says(std::span<const uint8_t>(good).first(20), "words end before symbol");
  std::vector<uint8_t> bytes = good;
  StoreLe<uint32_t>(bytes.data() + 4, 0xffff);
  says(bytes, "state of lane 1: 0x0000ffff is below 2^16");
}

#if KEDGE_CUDA

// What the GPU answers where the CPU answers this.
int64_t AnswerOf(const absl::StatusOr<int64_t>& read) {
  if (read.ok()) return *read;
  const std::string message(read.status().message());
  const auto says = [&](const char* text) { return message.find(text) != std::string::npos; };
  if (says("the states have")) return kRansStatesCut;
  if (says("is below 2^16")) return kRansStateLow;
  if (says("words end before")) return kRansWordsEnd;
  EXPECT_TRUE(says("final state")) << message;
  return kRansStateNotFirst;
}

class RansCudaTest : public kernels::CudaTwin {
 protected:
  RansCudaRun RunOf(const RansTable& table, int64_t count, uint8_t* to, int64_t stride = 1) {
    const std::vector<uint32_t> slots(table.slots(), table.slots() + kRansTotal);
    return {ToGpu(slots), count, to, stride};
  }
  // A copy of `in` with nothing behind it, at any byte.
  RansCudaStream StreamOf(const std::vector<RansCudaRun>& runs, std::span<const uint8_t> in,
                          size_t shift = 0) {
    RansCudaStream made{.runs = ToGpu(runs), .bytes = static_cast<int64_t>(in.size())};
    for (const RansCudaRun& run : runs) made.symbols += run.count;
    made.lanes = RansLanes(made.symbols);
    std::vector<uint8_t> bytes(shift);
    bytes.insert(bytes.end(), in.begin(), in.end());
    if (bytes.empty()) bytes.resize(1);
    made.in = ToGpu(bytes) + shift;
    return made;
  }
  std::vector<int64_t> Decode(const std::vector<RansCudaStream>& streams) {
    int64_t* results = Room<int64_t>(streams.size());
    RansDecodeCuda(ToGpu(streams), static_cast<int64_t>(streams.size()), results, stream());
    return FromGpu(results, streams.size());
  }
};

TEST_F(RansCudaTest, HasTheSymbolsOfTheCpu) {
  const RansTable peaked = Falling(40, 0.5);
  const RansTable flat = Falling(256, 1.0);
  const RansTable one = *RansTable::Make(std::vector<uint16_t>{4096});
  std::vector<RansCudaStream> streams;
  std::vector<std::vector<uint8_t>> expected;
  std::vector<int64_t> sizes;
  std::vector<uint8_t*> decoded;
  for (const int64_t count : {0, 1, 7, 63, 2048, 5000, 16384, 40000, 100003}) {
    const std::vector<RansRun> runs = {
        {&peaked, count}, {&one, count == 0 ? 0 : 65}, {&flat, 0}, {&flat, count / 3}};
    expected.push_back(Draw(runs, static_cast<uint32_t>(count)));
    std::vector<uint8_t> bytes = Encoded(runs, expected.back());
    sizes.push_back(static_cast<int64_t>(bytes.size()));
    bytes.resize(bytes.size() + count % 5, 0xff);
    decoded.push_back(Room<uint8_t>(expected.back().size() + 1));
    std::vector<RansCudaRun> on_gpu;
    uint8_t* to = decoded.back();
    for (const RansRun& run : runs) {
      on_gpu.push_back(RunOf(*run.table, run.count, to));
      to += run.count;
    }
    streams.push_back(StreamOf(on_gpu, bytes, count % 4));
  }
  EXPECT_EQ(Decode(streams), sizes);
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(FromGpu(decoded[i], expected[i].size()), expected[i]) << i;
}

TEST_F(RansCudaTest, HasTheErrorsOfTheCpu) {
  const RansTable table = Falling(16, 0.7);
  for (const int64_t count : {700, 20000}) {
    const std::vector<RansRun> runs = {{&table, count}};
    const std::vector<uint8_t> symbols = Draw(runs, 2);
    const std::vector<uint8_t> good = Encoded(runs, symbols);
    const std::vector<RansCudaRun> on_gpu = {RunOf(table, count, Room<uint8_t>(count))};
    std::vector<RansCudaStream> streams;
    std::vector<int64_t> expected;
    std::vector<uint8_t> back(count);
    const auto add = [&](std::span<const uint8_t> bytes) {
      expected.push_back(AnswerOf(RansDecodeScalar(runs, bytes, back.data())));
      streams.push_back(StreamOf(on_gpu, bytes));
    };
    const size_t step = count > 1000 ? 197 : 5;
    for (size_t size = 0; size < good.size(); size += step)
      add(std::span<const uint8_t>(good).first(size));
    for (size_t i = 0; i < good.size(); i += step) {
      std::vector<uint8_t> bytes = good;
      bytes[i] ^= static_cast<uint8_t>(1 << i % 8);
      add(bytes);
    }
    std::vector<uint8_t> low = good;
    StoreLe<uint32_t>(low.data() + 4, 0xffff);
    add(low);
    EXPECT_EQ(Decode(streams), expected) << count;
  }
}

// Five runs that lie between each other become a KIVI body in place.
TEST_F(RansCudaTest, WritesKiviBodies) {
  constexpr int64_t kTokens = 64, kHeads = 3, kSize = 64;
  const std::vector<float> values = kernels::RandomFloats(kTokens * kHeads * kSize, 4);
  for (const GroupScales scales : {GroupScales::kF16, GroupScales::kTwoLevel}) {
    const auto layout =
        *MakeKiviLayout(4, 32, GroupAxis::kChannels, kTokens, kHeads, kSize, scales);
    std::vector<uint8_t> body(layout.bytes());
    ASSERT_TRUE(KiviEncode(
        layout, {.dtype = DType::kF32, .data = reinterpret_cast<const uint8_t*>(values.data())},
        body.data()));
    KiviCounts counts(2);
    for (auto& part : counts) CountKivi(layout, body, part);
    const std::vector<KiviTables> tables = *ParseKiviTables("test", EncodeKiviTables(counts));
    std::vector<uint8_t> bytes(KiviRansBytesMax(layout));
    bytes.resize(KiviRansEncode(layout, tables[0], body.data(), bytes));
    uint8_t* out = ToGpu(std::vector<uint8_t>(body.size()));
    std::vector<RansCudaRun> runs;
    const auto from = KiviStreamsOf(layout);
    for (int i = 0; i < kKiviStreams; ++i)
      runs.push_back(RunOf(tables[0][i], from[i].count, out + from[i].at, from[i].stride));
    const std::vector<int64_t> sizes = {static_cast<int64_t>(bytes.size())};
    EXPECT_EQ(Decode({StreamOf(runs, bytes)}), sizes);
    EXPECT_EQ(FromGpu(out, body.size()), body);
  }
}

#endif  // KEDGE_CUDA

}  // namespace
}  // namespace kedge::codec
