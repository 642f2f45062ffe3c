#include "store/tier/ssd_format.h"

#include <xxhash.h>
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire.h"
#include "store/tier/page_buffer.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

void Seal(SsdPage page) { StoreLe<uint64_t>(page.data() + 4088, XXH3_64bits(page.data(), 4088)); }

std::string Message(const absl::Status& status) { return std::string(status.message()); }

RecordHeader BlockRecord() {
  RecordHeader record;
  record.segment = 7;
  record.page = 1234;
  record.nonce = 0x1122334455667788;
  record.sequence = 99;
  record.image = {300, 1'000'000};
  return record;
}

TEST(SsdFormat, SegmentHeaderBytes) {
  PageBuffer memory(kDiskPageBytes);
  EncodeSegmentHeader({0x01020304, 0x1122334455667788}, memory.page(0));
  const uint8_t expected[24] = {'K', 'E', 'D', 'G', 'E',  'S',  'E',  'G',  2,    0,    0,    0,
                                4,   3,   2,   1,   0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  EXPECT_EQ(std::memcmp(memory.page(0).data(), expected, sizeof expected), 0);
  for (size_t i = sizeof expected; i < 4088; ++i) ASSERT_EQ(memory.page(0)[i], 0);
  const auto header = DecodeSegmentHeader(memory.page(0));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->segment, 0x01020304u);
  EXPECT_EQ(header->nonce, 0x1122334455667788u);
}

TEST(SsdFormat, BlockRecordBytes) {
  PageBuffer memory(kDiskPageBytes);
  const SsdPage page = memory.page(0);
  EncodeRecordHeader(BlockRecord(), page);
  EXPECT_EQ(std::memcmp(page.data(), "KREC\1\0\0\0\2\0\0\0\7\0\0\0", 16), 0);
  EXPECT_EQ(LoadLe<uint64_t>(page.data() + 24), 99u);
  EXPECT_EQ(LoadLe<uint32_t>(page.data() + 32), 1234u);
  EXPECT_EQ(LoadLe<uint64_t>(page.data() + 40), 1'000'000u);
  EXPECT_EQ(LoadLe<uint32_t>(page.data() + 48), 300u);
  const auto record = DecodeRecordHeader(page);
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->kind, RecordKind::kBlock);
  EXPECT_EQ(record->segment, 7u);
  EXPECT_EQ(record->page, 1234u);
  EXPECT_EQ(record->nonce, 0x1122334455667788u);
  EXPECT_EQ(record->sequence, 99u);
  EXPECT_EQ(record->image_pages(), 1u + 245u);
}

TEST(SsdFormat, TombstonesOfOneAndOfManyKeys) {
  PageBuffer memory(kDiskPageBytes);
  for (const uint32_t count : {1u, 2u, kTombstoneKeysMax}) {
    RecordHeader record;
    record.kind = RecordKind::kTombstone;
    for (uint32_t i = 0; i < count; ++i)
      record.keys.emplace_back().bytes.fill(static_cast<uint8_t>(i + 1));
    EncodeRecordHeader(record, memory.page(0));
    const auto decoded = DecodeRecordHeader(memory.page(0));
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->keys, record.keys);
    EXPECT_EQ(decoded->image_pages(), 0u);
  }
}

TEST(SsdFormat, EveryFlippedBitIsFound) {
  PageBuffer memory(kDiskPageBytes);
  const SsdPage page = memory.page(0);
  EncodeRecordHeader(BlockRecord(), page);
  for (size_t bit = 0; bit < kDiskPageBytes * 8; ++bit) {
    page[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_FALSE(DecodeRecordHeader(page).ok()) << bit;
    page[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
  EXPECT_TRUE(DecodeRecordHeader(page).ok());
}

TEST(SsdFormat, ErrorsNameFieldAndValue) {
  PageBuffer memory(kDiskPageBytes);
  const SsdPage page = memory.page(0);
  const auto decode_with = [&](size_t offset, uint64_t value, size_t bytes) {
    EncodeRecordHeader(BlockRecord(), page);
    std::memcpy(page.data() + offset, &value, bytes);
    Seal(page);
    return DecodeRecordHeader(page).status();
  };
  EXPECT_EQ(decode_with(8, 3, 2).code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(decode_with(8, 3, 2)), HasSubstr("record.version: 3"));
  EXPECT_TRUE(decode_with(8, 1, 2).ok());  // the version before
  EXPECT_THAT(Message(decode_with(4, 4, 1)), HasSubstr("record.kind: 4"));
  EXPECT_THAT(Message(decode_with(36, 1, 4)), HasSubstr("record.key_count: 1"));
  EXPECT_THAT(Message(decode_with(40, kBlockBytesMax + 1, 8)),
              HasSubstr("record.payload_bytes: 67108865"));
  EXPECT_THAT(Message(decode_with(48, 0, 4)), HasSubstr("record.header_bytes: 0"));
  EXPECT_THAT(Message(decode_with(48, kBlockHeaderBytesMax + 1, 4)),
              HasSubstr("record.header_bytes: 65537"));
  EXPECT_THAT(Message(decode_with(4, 2, 1)), HasSubstr("record.payload_bytes: 1000000"));
  EXPECT_THAT(Message(decode_with(0, 0, 4)), HasSubstr("record.magic: 00000000"));

  EncodeSegmentHeader({1, 2}, page);
  StoreLe<uint16_t>(page.data() + 8, 9);
  EXPECT_EQ(DecodeSegmentHeader(page).status().code(), absl::StatusCode::kDataLoss);
  Seal(page);
  EXPECT_EQ(DecodeSegmentHeader(page).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(Message(DecodeSegmentHeader(page).status()), HasSubstr("segment header.version: 9"));
}

TEST(SsdFormat, TombstonesOfVariants) {
  PageBuffer memory(kDiskPageBytes);
  const SsdPage page = memory.page(0);
  for (const uint32_t count : {1u, kVariantTombstonesMax}) {
    RecordHeader record;
    record.kind = RecordKind::kVariantTombstone;
    record.sequence = 5;
    for (uint32_t i = 0; i < count; ++i) {
      BlockName& name = record.names.emplace_back();
      name.key.bytes[0] = static_cast<uint8_t>(i);
      name.variant = *Variant::Parse(i % 2 == 0 ? "raw" : "kivi4g32");
    }
    EncodeRecordHeader(record, page);
    EXPECT_EQ(page[4], 3);
    EXPECT_EQ(std::memcmp(page.data() + 56 + 32, "raw\0", 4), 0);
    const auto decoded = DecodeRecordHeader(page);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->names, record.names);
    EXPECT_TRUE(decoded->keys.empty());
    EXPECT_EQ(decoded->image_pages(), 0u);
  }
  StoreLe<uint32_t>(page.data() + 36, kVariantTombstonesMax + 1);
  Seal(page);
  EXPECT_THAT(Message(DecodeRecordHeader(page).status()), HasSubstr("record.key_count: 51"));
}

TEST(SsdFormat, Names) {
  EXPECT_EQ(SegmentName(1), "seg-00000001.kseg");
  for (const uint32_t number : {0u, 1u, 99'999'999u, 4'294'967'295u}) {
    EXPECT_EQ(ParseSegmentName(SegmentName(number)), number);
  }
  for (const char* name :
       {"", "seg-.kseg", "seg-1.kseg", "seg-000000001.kseg", "seg-0000001x.kseg",
        "seg-00000001.ksegx", "LOCK", "seg-4294967296.kseg", "seg--0000001.kseg"}) {
    EXPECT_EQ(ParseSegmentName(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace kedge
