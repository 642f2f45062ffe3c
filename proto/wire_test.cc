#include "proto/wire.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

using Bytes = std::vector<uint8_t>;

TEST(Wire, WritesLittleEndian) {
  Bytes out;
  WireWriter to(out);
  to.U8(0x01);
  to.U16(0x0203);
  to.U32(0x04050607);
  to.U64(0x08090a0b0c0d0e0f);
  to.Text("ab", 2);
  EXPECT_EQ(out, (Bytes{0x01, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04, 0x0f, 0x0e, 0x0d, 0x0c, 0x0b,
                        0x0a, 0x09, 0x08, 2, 0, 'a', 'b'}));
}

TEST(Wire, ReadsWhatWasWritten) {
  Bytes out;
  WireWriter to(out);
  to.U8(200);
  to.U16(60000);
  to.U32(4000000000);
  to.U64(~0ull);
  to.Text("name", 16);
  to.Blob(Bytes{1, 2, 3}, 3);
  to.Count(1, 4);
  to.U8(0);

  WireReader in("message", out);
  EXPECT_EQ(in.U8("a"), 200);
  EXPECT_EQ(in.U16("b"), 60000);
  EXPECT_EQ(in.U32("c"), 4000000000);
  EXPECT_EQ(in.U64("d"), ~0ull);
  std::string text;
  in.Text("e", text, 16);
  EXPECT_EQ(text, "name");
  const auto blob = in.Blob("f", 3);
  EXPECT_EQ(Bytes(blob.begin(), blob.end()), (Bytes{1, 2, 3}));
  EXPECT_EQ(in.Count("g", 4, 1), 1u);
  in.Zero("h");
  EXPECT_TRUE(in.Finish().ok());
}

TEST(Wire, FirstErrorStaysAndZerosFollow) {
  const Bytes bytes = {7, 0, 0};
  WireReader in("message", bytes);
  EXPECT_EQ(in.U32("wide"), 0u);
  EXPECT_EQ(in.U8("narrow"), 0);  // a byte is there, but the reader has failed
  const absl::Status status = in.Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "message.wide: needs 4 bytes, 3 are left");
}

TEST(Wire, CountIsCheckedAgainstLimitAndBytes) {
  Bytes out;
  WireWriter(out).U32(5);
  WireReader over("m", out);
  EXPECT_EQ(over.Count("items", 4, 1), 0u);
  EXPECT_EQ(over.Finish().message(), "m.items: count 5 passes the limit of 4");
  WireReader starved("m", out);
  EXPECT_EQ(starved.Count("items", 100, 8), 0u);
  EXPECT_EQ(starved.Finish().message(), "m.items: count 5 needs 40 bytes, 0 are left");
}

TEST(Wire, HugeCountDoesNotWrapAround) {
  Bytes out;
  WireWriter(out).U32(0xffffffff);
  WireReader in("m", out);
  EXPECT_EQ(in.Count("items", 0xffffffff, 0xffffffff), 0u);
  EXPECT_FALSE(in.ok());
}

TEST(Wire, TextsAndBlobsAreBounded) {
  Bytes out;
  WireWriter to(out);
  to.Text("abc", 3);
  std::string text = "before";
  WireReader limited("m", out);
  limited.Text("name", text, 2);
  EXPECT_EQ(text, "");
  EXPECT_EQ(limited.Finish().message(), "m.name: length 3 passes the limit of 2");
  WireReader cut("m", std::span(out).first(4));
  cut.Text("name", text, 3);
  EXPECT_EQ(cut.Finish().message(), "m.name: needs 3 bytes, 2 are left");
  Bytes blob;
  WireWriter(blob).U32(9);
  WireReader lying("m", blob);
  EXPECT_TRUE(lying.Blob("header", 100).empty());
  EXPECT_FALSE(lying.ok());
}

TEST(Wire, TrailingBytesAreAnError) {
  const Bytes bytes = {1, 2};
  WireReader in("m", bytes);
  in.U8("a");
  EXPECT_EQ(in.Finish().message(), "m.end: 1 bytes after the last field");
}

TEST(Wire, EnumsAndReservedBytes) {
  const Bytes bytes = {3, 1};
  WireReader unknown("m", bytes);
  EXPECT_EQ(unknown.Enum("tier", 2), 0);
  EXPECT_EQ(unknown.Finish().message(), "m.tier: value 3 is unknown, the largest is 2");
  WireReader reserved("m", bytes);
  EXPECT_EQ(reserved.Enum("tier", 3), 3);
  reserved.Zero("reserved");
  EXPECT_EQ(reserved.Finish().message(), "m.reserved: value 1 where zero is reserved");
}

TEST(Wire, TextForPeopleIsCut) {
  Bytes out;
  WireWriter(out).TextCut("abcdef", 3);
  EXPECT_EQ(out, (Bytes{3, 0, 'a', 'b', 'c'}));
}

TEST(WireDeathTest, WriterAbortsPastALimit) {
  Bytes out;
  WireWriter to(out);
  EXPECT_DEATH(to.Text("abc", 2), "longer text");
  EXPECT_DEATH(to.Count(3, 2), "more items");
}

}  // namespace
}  // namespace kedge
