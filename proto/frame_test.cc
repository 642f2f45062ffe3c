#include "proto/frame.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <set>

#include "proto/crc32c.h"
#include "proto/wire.h"

namespace kedge {
namespace {

const std::vector<uint8_t> kTlvs = {9, 0, 3, 0, 'a', 'b', 'c', 10, 0, 0, 0};
const std::vector<uint8_t> kBody = {1, 2, 3, 4, 5};

FrameHeader Sample() {
  FrameHeader header;
  header.type = FrameType::kGet;
  header.flags = 0x0102;
  header.tlv_bytes = static_cast<uint16_t>(kTlvs.size());
  header.body_bytes = static_cast<uint32_t>(kBody.size());
  header.payload_bytes = 77;
  header.deadline_ms = 2500;
  header.request = 0x1111111122222222;
  header.session = 0x3333333344444444;
  header.tenant = 0x5555555566666666;
  header.epoch = 12;
  std::iota(header.trace_id.begin(), header.trace_id.end(), 0xa0);
  return header;
}

std::vector<uint8_t> Encoded() {
  std::vector<uint8_t> out(FrameHeadBytes(Sample().tlv_bytes, Sample().body_bytes));
  EncodeFrame(Sample(), kTlvs, kBody, out);
  return out;
}

// What a sender that lies, but computes a right CRC, would send.
void Reseal(std::vector<uint8_t>& head) {
  const auto bytes = std::span<const uint8_t>(head);
  StoreLe(head.data() + 76, ExtendCrc32c(Crc32c(bytes.first(76)), bytes.subspan(80)));
}

TEST(Frame, RoundTrip) {
  const std::vector<uint8_t> head = Encoded();
  const auto frame = DecodeFrame(head, 77);
  ASSERT_TRUE(frame.ok()) << frame.status();
  const FrameHeader want = Sample();
  EXPECT_EQ(frame->header.type, want.type);
  EXPECT_EQ(frame->header.flags, want.flags);
  EXPECT_EQ(frame->header.tlv_bytes, want.tlv_bytes);
  EXPECT_EQ(frame->header.body_bytes, want.body_bytes);
  EXPECT_EQ(frame->header.payload_bytes, want.payload_bytes);
  EXPECT_EQ(frame->header.deadline_ms, want.deadline_ms);
  EXPECT_EQ(frame->header.request, want.request);
  EXPECT_EQ(frame->header.session, want.session);
  EXPECT_EQ(frame->header.tenant, want.tenant);
  EXPECT_EQ(frame->header.epoch, want.epoch);
  EXPECT_EQ(frame->header.trace_id, want.trace_id);
  EXPECT_EQ(std::vector<uint8_t>(frame->tlvs.begin(), frame->tlvs.end()), kTlvs);
  EXPECT_EQ(std::vector<uint8_t>(frame->body.begin(), frame->body.end()), kBody);
}

TEST(Frame, EveryFlippedBitIsFound) {
  std::vector<uint8_t> head = Encoded();
  for (size_t bit = 0; bit < head.size() * 8; ++bit) {
    head[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_FALSE(DecodeFrame(head, 77).ok()) << bit / 8;
    head[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
}

TEST(Frame, DamageHasItsOwnCodes) {
  std::vector<uint8_t> head = Encoded();
  head[30] ^= 1;
  EXPECT_EQ(DecodeFrame(head, 77).status().code(), absl::StatusCode::kDataLoss);
  head = Encoded();
  head[4] = 2;
  EXPECT_EQ(DecodeFrame(head, 77).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(DecodeFrame(head, 77).status().message(),
            "frame.version: 2, this build reads version 1");
  head[0] = 0;
  EXPECT_EQ(DecodeFrame(head, 77).status().message(), "frame.magic: 0x46676400 is not 0x4667644b");
}

TEST(Frame, EveryTruncationAndExcessIsFound) {
  std::vector<uint8_t> head = Encoded();
  for (size_t size = 0; size < head.size(); ++size) {
    ASSERT_EQ(DecodeFrame(std::span(head).first(size), 77).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  head.push_back(0);
  EXPECT_FALSE(DecodeFrame(head, 77).ok());
}

TEST(Frame, PayloadMustBeAsLongAsSaid) {
  const std::vector<uint8_t> head = Encoded();
  EXPECT_EQ(DecodeFrame(head, 76).status().message(), "frame.payload_bytes: 77 but 76 arrived");
  EXPECT_FALSE(DecodeFrame(head, 0).ok());
}

TEST(Frame, LiesWithARightCrcAreFound) {
  struct Case {
    std::function<void(std::vector<uint8_t>&)> damage;
    const char* field;
  };
  const std::vector<Case> cases = {
      {[](auto& h) { h[5] = 0; }, "frame.type: 0"},
      {[](auto& h) { h[5] = 31; }, "frame.type: 31"},
      {[](auto& h) { h[10] = 1; }, "frame.reserved1: 1"},
      {[](auto& h) { h[75] = 1; }, "frame.reserved2: 16777216"},
      {[](auto& h) { StoreLe(h.data() + 8, uint16_t{0xffff}); }, "frame.tlv_bytes: 65535"},
      {[](auto& h) { StoreLe(h.data() + 12, 0xffffffffu); }, "frame.body_bytes: 4294967295"},
      {[](auto& h) { StoreLe(h.data() + 16, kPayloadBytesMax + 1); },
       "frame.payload_bytes: 4194305"},
      {[](auto& h) { h[82] = 200; }, "frame.tlvs: 200 bytes in TLV type 9, 7 are left"},
      {[](auto& h) { h[82] = 4; }, "frame.tlvs: 3 bytes left"},
  };
  for (const Case& c : cases) {
    std::vector<uint8_t> head = Encoded();
    c.damage(head);
    Reseal(head);
    const absl::Status status = DecodeFrame(head, 77).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.field;
    EXPECT_NE(status.ToString().find(c.field), std::string::npos) << c.field << " | " << status;
  }
}

TEST(Frame, LongestHeadPassesAndOneByteMoreDoesNot) {
  FrameHeader header;
  header.body_bytes = kHeadBytesMax - kFrameHeaderBytes;
  const std::vector<uint8_t> body(header.body_bytes, 3);
  std::vector<uint8_t> head(kHeadBytesMax);
  EncodeFrame(header, {}, body, head);
  EXPECT_TRUE(DecodeFrame(head, 0).ok());
  head.push_back(0);
  EXPECT_EQ(DecodeFrame(head, 0).status().message(),
            "frame.head: 131073 bytes pass the limit of 131072");
}

TEST(Frame, EveryTypeHasItsOwnName) {
  std::set<std::string> names;
  for (uint8_t type = 1; type <= kFrameTypeMax; ++type) {
    EXPECT_TRUE(names.insert(FrameTypeName(static_cast<FrameType>(type))).second);
  }
  EXPECT_EQ(names.count("unknown"), 0u);
  EXPECT_STREQ(FrameTypeName(FrameType::kPutCommit), "put_commit");
  EXPECT_STREQ(FrameTypeName(FrameType::kRelease), "release");
  EXPECT_STREQ(FrameTypeName(FrameType::kGoodbye), "goodbye");
  EXPECT_STREQ(FrameTypeName(static_cast<FrameType>(kFrameTypeMax + 1)), "unknown");
}

TEST(FrameDeathTest, EncodingALieAborts) {
  std::vector<uint8_t> out(kFrameHeaderBytes + 5);
  FrameHeader header;
  EXPECT_DEATH(EncodeFrame(header, {}, kBody, out), "body_bytes is wrong");
  header.body_bytes = 5;
  header.payload_bytes = kPayloadBytesMax + 1;
  EXPECT_DEATH(EncodeFrame(header, {}, kBody, out), "payload_bytes");
}

}  // namespace
}  // namespace kedge
