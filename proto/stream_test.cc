#include "proto/stream.h"

#include <vector>

#include "gtest/gtest.h"
#include "proto/frame.h"

namespace kedge {
namespace {

std::vector<uint8_t> Encoded(const Greeting& greeting) {
  std::vector<uint8_t> out(kGreetingHeaderBytes + greeting.address.size());
  EncodeGreeting(greeting, out);
  return out;
}

TEST(StreamTest, GreetingSurvivesARoundTrip) {
  const std::vector<uint8_t> address(300, 0x5A);
  const std::vector<uint8_t> bytes =
      Encoded({.wire = StreamWire::kShm, .payload_bytes_max = 61440, .address = address});
  EXPECT_EQ(*GreetingBytes(std::span(bytes).first(kGreetingHeaderBytes)), bytes.size());
  const absl::StatusOr<Greeting> greeting = DecodeGreeting(bytes);
  ASSERT_TRUE(greeting.ok()) << greeting.status();
  EXPECT_EQ(greeting->wire, StreamWire::kShm);
  EXPECT_EQ(greeting->status, GreetingStatus::kOk);
  EXPECT_EQ(greeting->payload_bytes_max, 61440u);
  EXPECT_TRUE(std::equal(address.begin(), address.end(), greeting->address.begin(),
                         greeting->address.end()));
}

// Byte by byte as proto/README.md says, made by hand (CRC by another implementation).
TEST(StreamTest, GreetingHasTheDocumentedBytes) {
  const std::vector<uint8_t> bytes =
      Encoded({.wire = StreamWire::kTcp, .payload_bytes_max = 0x80000});
  const std::vector<uint8_t> expected = {'K', 'd', 'g', 'S', 1, 0, 1, 0, 0, 0,
                                         8,   0,   0,   0,   0, 0, 0, 0, 0, 0};
  ASSERT_EQ(bytes.size(), kGreetingHeaderBytes);
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin()));
}

TEST(StreamTest, EveryFlippedBitOfAGreetingIsSeen) {
  const std::vector<uint8_t> address(16, 7);
  const std::vector<uint8_t> good =
      Encoded({.wire = StreamWire::kShm, .payload_bytes_max = 1000, .address = address});
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::vector<uint8_t> bad = good;
    bad[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_FALSE(DecodeGreeting(bad).ok()) << bit;
  }
}

TEST(StreamTest, OtherVersionsAndLyingLengthsAreNamed) {
  std::vector<uint8_t> bytes = Encoded({.payload_bytes_max = 1});
  bytes[4] = 9;
  EXPECT_EQ(GreetingBytes(bytes).status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(GreetingBytes(bytes).status().message().find("greeting.version: 9"),
            absl::string_view::npos);
  bytes[4] = 1;
  bytes[15] = 0xFF;
  EXPECT_NE(GreetingBytes(bytes).status().message().find("greeting.address_bytes: 4278190080"),
            absl::string_view::npos);
  EXPECT_FALSE(GreetingBytes(std::span(bytes).first(5)).ok());
  EXPECT_FALSE(DecodeGreeting({}).ok());
}

TEST(StreamTest, MessagePrefixesAreChecked) {
  const auto bytes = EncodeMessagePrefix({.head_bytes = 80, .payload_bytes = 4096});
  const absl::StatusOr<MessagePrefix> prefix = DecodeMessagePrefix(bytes, 4096);
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  EXPECT_EQ(prefix->head_bytes, 80u);
  EXPECT_EQ(prefix->payload_bytes, 4096u);
  EXPECT_EQ(prefix->message_bytes(), kMessagePrefixBytes + 80u + 4096u);
  EXPECT_EQ(DecodeMessagePrefix(bytes, 4095).status().message(),
            "message.payload_bytes: 4096 passes the limit of 4095");
  EXPECT_FALSE(
      DecodeMessagePrefix(EncodeMessagePrefix({.head_bytes = kHeadBytesMax + 1}), 4096).ok());
  EXPECT_FALSE(DecodeMessagePrefix(std::span(bytes).first(11), 4096).ok());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto bad = bytes;
    bad[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    EXPECT_EQ(DecodeMessagePrefix(bad, 4096).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
}

}  // namespace
}  // namespace kedge
