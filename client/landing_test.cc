#include "client/landing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "store/world/random.h"

namespace kedge {
namespace {

constexpr uint8_t kUntouched = 0xEE;

// A block of six parts (3 layers of K and V) with known bytes, and a landing for some of them.
class LandingTest : public ::testing::Test {
 protected:
  LandingTest() {
    header_.key.bytes.fill(7);
    header_.keyspace = Keyspace::kPrefix;
    header_.variant = Variant::Raw();
    header_.shape = KvShape::KeysAndValues(3, 2, 16, 32, DType::kF16);
    part_bytes_ = header_.shape.raw_part_bytes();
    payload_.resize(header_.shape.raw_block_bytes());
    Random random(1);
    for (uint8_t& byte : payload_) byte = static_cast<uint8_t>(random.Next());
    for (uint32_t part = 0; part < 6; ++part) {
      header_.parts.push_back({static_cast<uint32_t>(part_bytes_),
                               PartDigest(header_.key, header_.variant, part, Part(part))});
    }
    encoded_ = EncodeBlockHeader(header_).value();
    memory_.assign(payload_.size() + 64, kUntouched);
  }

  std::span<const uint8_t> Part(uint32_t part) const {
    return std::span(payload_).subspan(part * part_bytes_, part_bytes_);
  }
  // Splits the buffer of `bytes` into pieces of odd sizes with gaps of one byte between them.
  void Pieces(uint64_t bytes) {
    uint64_t at = 0;
    for (uint64_t size = 1; bytes > 0; size = size * 3 + 1) {
      const uint64_t n = std::min(size, bytes);
      list_.Add(memory_.data() + at, n);
      at += n + 1;
      bytes -= n;
    }
  }
  void Begin(uint32_t range_begin, uint32_t part_begin, uint32_t part_count) {
    Landing::Target target;
    target.key = header_.key;
    target.to = &list_;
    target.range_begin = range_begin;
    target.part_begin = part_begin;
    target.part_count = part_count;
    target.shape = &header_.shape;
    target.accepted = accepted_;
    landing_.Start(target);
  }
  bool Header() {
    GetItemBody body;
    body.code = ResultCode::kOk;
    body.tier = TierId::kHost;
    body.header = encoded_;
    return landing_.OnItem(body, {});
  }
  bool Bytes(uint64_t offset, uint64_t bytes) {
    return landing_.OnBytes(offset, std::span(payload_).subspan(offset, bytes));
  }
  std::vector<uint8_t> Landed(uint64_t offset, uint64_t bytes) const {
    std::vector<uint8_t> out;
    list_.ForRange(offset, bytes,
                   [&](std::span<uint8_t> run) { out.insert(out.end(), run.begin(), run.end()); });
    return out;
  }
  bool Untouched() const {
    return std::all_of(memory_.begin(), memory_.end(), [](uint8_t b) { return b == kUntouched; });
  }

  BlockHeader header_;
  std::vector<Variant> accepted_;
  uint64_t part_bytes_ = 0;
  std::vector<uint8_t> payload_;
  std::vector<uint8_t> encoded_;
  std::vector<uint8_t> memory_;
  ScatterList list_;
  Landing landing_;
};

TEST_F(LandingTest, TakesAWholeBlockInOrder) {
  Pieces(payload_.size());
  Begin(0, 0, 0);
  ASSERT_TRUE(Header());
  for (uint64_t at = 0; at < payload_.size(); at += 1000) {
    ASSERT_FALSE(landing_.ended());
    ASSERT_TRUE(Bytes(at, std::min<uint64_t>(1000, payload_.size() - at)));
  }
  ASSERT_TRUE(landing_.ended());
  EXPECT_EQ(landing_.code(), ResultCode::kOk);
  EXPECT_EQ(landing_.bytes(), payload_.size());
  EXPECT_EQ(Landed(0, payload_.size()), payload_);
}

TEST_F(LandingTest, TakesARangeOfPartsAndLeavesTheRest) {
  Pieces(4 * part_bytes_);
  Begin(1, 3, 2);  // the caller's range starts at part 1; this landing has parts 3 and 4
  ASSERT_TRUE(Header());
  ASSERT_TRUE(Bytes(3 * part_bytes_, 2 * part_bytes_));
  ASSERT_TRUE(landing_.ended());
  EXPECT_EQ(landing_.code(), ResultCode::kOk);
  EXPECT_EQ(Landed(0, 2 * part_bytes_), std::vector<uint8_t>(2 * part_bytes_, kUntouched));
  EXPECT_EQ(
      Landed(2 * part_bytes_, 2 * part_bytes_),
      std::vector<uint8_t>(payload_.begin() + 3 * part_bytes_, payload_.begin() + 5 * part_bytes_));
}

TEST_F(LandingTest, TakesBytesInAnyOrder) {
  Random random(2);
  for (int round = 0; round < 50; ++round) {
    std::fill(memory_.begin(), memory_.end(), kUntouched);
    list_.Clear();
    Pieces(payload_.size());
    Begin(0, 0, 0);
    const uint64_t chunk = 1 + random.Below(3000);
    std::vector<uint64_t> offsets;
    for (uint64_t at = 0; at < payload_.size(); at += chunk) offsets.push_back(at);
    for (size_t i = offsets.size(); i > 1; --i) std::swap(offsets[i - 1], offsets[random.Below(i)]);
    const size_t header_at = random.Below(offsets.size());  // some chunks come before the header
    for (size_t i = 0; i < offsets.size(); ++i) {
      if (i == header_at) {
        ASSERT_TRUE(Header());
      }
      ASSERT_TRUE(Bytes(offsets[i], std::min<uint64_t>(chunk, payload_.size() - offsets[i])));
    }
    ASSERT_TRUE(landing_.ended());
    ASSERT_EQ(landing_.code(), ResultCode::kOk) << landing_.text();
    ASSERT_EQ(Landed(0, payload_.size()), payload_);
  }
}

TEST_F(LandingTest, NoticesEveryFlippedBit) {
  for (const bool in_order : {true, false}) {
    for (uint64_t at = 0; at < payload_.size(); at += 997) {
      list_.Clear();
      Pieces(payload_.size());
      Begin(0, 0, 0);
      ASSERT_TRUE(Header());
      payload_[at] ^= 1;
      const uint64_t half = part_bytes_ * 3 / 2;
      if (in_order) {
        Bytes(0, half);
        if (!landing_.ended()) Bytes(half, payload_.size() - half);
      } else {
        Bytes(half, payload_.size() - half);
        if (!landing_.ended()) Bytes(0, half);
      }
      payload_[at] ^= 1;
      ASSERT_TRUE(landing_.ended());
      ASSERT_EQ(landing_.code(), ResultCode::kCorrupt) << "byte " << at;
    }
  }
}

TEST_F(LandingTest, RefusesAnotherKeysBlock) {
  Pieces(payload_.size());
  header_.key.bytes[0] ^= 1;
  Begin(0, 0, 0);
  EXPECT_FALSE(Header());
  EXPECT_EQ(landing_.code(), ResultCode::kCorrupt);
  EXPECT_NE(landing_.text().find("header.key"), std::string::npos) << landing_.text();
  EXPECT_TRUE(Untouched());
}

TEST_F(LandingTest, RefusesADamagedHeader) {
  Pieces(payload_.size());
  for (size_t at = 0; at < encoded_.size(); at += 7) {
    Begin(0, 0, 0);
    encoded_[at] ^= 0x10;
    EXPECT_FALSE(Header()) << "byte " << at;
    EXPECT_EQ(landing_.code(), ResultCode::kCorrupt);
    encoded_[at] ^= 0x10;
  }
}

TEST_F(LandingTest, RefusesABlockThatIsLargerThanTheBuffer) {
  Pieces(payload_.size() - 1);
  Begin(0, 0, 0);
  EXPECT_FALSE(Header());
  EXPECT_EQ(landing_.code(), ResultCode::kTooSmall);
  EXPECT_TRUE(Untouched());
}

TEST_F(LandingTest, RefusesBytesOutsideOfTheRange) {
  const struct {
    uint64_t offset;
    uint64_t bytes;
  } cases[] = {
      {0, 1}, {part_bytes_ - 1, 2}, {3 * part_bytes_, 1}, {2 * part_bytes_, part_bytes_ + 1}};
  Pieces(payload_.size());
  for (const auto& c : cases) {
    Begin(1, 1, 2);
    ASSERT_TRUE(Header());
    EXPECT_FALSE(Bytes(c.offset, c.bytes));
    EXPECT_EQ(landing_.code(), ResultCode::kCorrupt);
  }
  Begin(1, 1, 2);
  ASSERT_TRUE(Header());
  EXPECT_FALSE(landing_.OnBytes(UINT64_MAX - 1, Part(0)));  // offset + size wraps
  EXPECT_TRUE(Untouched());
}

TEST_F(LandingTest, RefusesABytesTwice) {
  Pieces(payload_.size());
  Begin(0, 0, 0);
  ASSERT_TRUE(Header());
  ASSERT_TRUE(Bytes(0, 100));
  EXPECT_FALSE(Bytes(99, 10));
  EXPECT_EQ(landing_.code(), ResultCode::kCorrupt);
}

TEST_F(LandingTest, WritesNothingOnceItHasEnded) {
  Pieces(payload_.size());
  Begin(0, 0, 0);
  GetItemBody body;
  body.code = ResultCode::kEvicted;
  EXPECT_FALSE(landing_.OnItem(body, {}));
  EXPECT_EQ(landing_.code(), ResultCode::kEvicted);
  EXPECT_FALSE(Bytes(0, 100));
  EXPECT_FALSE(Header());
  EXPECT_TRUE(Untouched());
}

TEST_F(LandingTest, TakesOnlyAcceptedVariants) {
  Pieces(payload_.size());
  accepted_ = {Variant::Parse("kivi2g32").value()};
  Begin(0, 0, 0);
  EXPECT_FALSE(Header());
  EXPECT_EQ(landing_.code(), ResultCode::kNoVariant);
  accepted_.push_back(Variant::Raw());
  Begin(0, 0, 0);
  EXPECT_TRUE(Header());
  EXPECT_EQ(landing_.variant(), 1u);
}

// The owner decodes what another variant's parts are: nothing of them gets into the buffer.
TEST_F(LandingTest, KeepsOtherVariantsEncoded) {
  Pieces(payload_.size());
  header_.variant = Variant::Parse("kivi2g32").value();
  header_.fidelity = Fidelity::kQuantized;
  const uint32_t sizes[] = {10, 0, 300, 4, 50, 7};
  for (uint32_t part = 0; part < 6; ++part) header_.parts[part] = {sizes[part], {}};
  encoded_ = EncodeBlockHeader(header_).value();
  accepted_ = {header_.variant};
  Landing::Target target;
  target.key = header_.key;
  target.to = &list_;
  target.part_begin = 1;
  target.part_count = 3;
  target.shape = &header_.shape;
  target.accepted = accepted_;
  target.keep_encoded = true;
  for (const bool in_order : {true, false}) {
    landing_.Start(target);
    ASSERT_TRUE(Header());
    EXPECT_TRUE(landing_.kept_encoded());
    EXPECT_TRUE(Bytes(in_order ? 10 : 110, in_order ? 100 : 204));
    EXPECT_FALSE(landing_.ended());
    EXPECT_TRUE(Bytes(in_order ? 110 : 10, in_order ? 204 : 100));
    ASSERT_TRUE(landing_.ended());
    EXPECT_EQ(landing_.code(), ResultCode::kOk);
    const std::span<const uint8_t> kept = landing_.encoded();
    EXPECT_TRUE(
        std::equal(kept.begin(), kept.end(), payload_.begin() + 10, payload_.begin() + 314));
    EXPECT_EQ(landing_.part_begin(), 1u);
    EXPECT_EQ(landing_.part_end(), 4u);
  }
  EXPECT_FALSE(Bytes(10, 1)) << "it has ended";
  EXPECT_TRUE(Untouched());

  // The buffer must have room for what they become.
  list_.Clear();
  Pieces(3 * part_bytes_);
  landing_.Start(target);
  EXPECT_FALSE(Header());
  EXPECT_EQ(landing_.code(), ResultCode::kTooSmall);
}

TEST_F(LandingTest, BoundsWhatComesBeforeTheHeader) {
  Pieces(payload_.size());
  Begin(0, 0, 0);
  std::vector<uint8_t> much(1 << 20);
  bool good = true;
  for (int i = 0; i < 9 && good; ++i) good = landing_.OnBytes(0, much);
  EXPECT_FALSE(good);
  EXPECT_EQ(landing_.code(), ResultCode::kInternal);
}

}  // namespace
}  // namespace kedge
