#include "store/tier/recoder.h"

#include <gtest/gtest.h>

#include "store/tier/block_image.h"

namespace kedge {
namespace {

BlockHeader RawHeader() {
  BlockHeader header;
  header.key.bytes[0] = 1;
  header.keyspace = Keyspace::kPrefix;
  header.variant = Variant::Raw();
  header.model = ModelId::Of("a", "", "", 0);
  header.shape = KvShape::KeysAndValues(1, 1, 32, 32, DType::kF16);
  header.parts.assign(2, {2048, {}});
  return header;
}

class RecoderTest : public testing::Test {
 protected:
  RecoderTest() { profiles_.AllowUnprofiled(); }
  ProfileSet profiles_;
};

TEST_F(RecoderTest, AnImageThatCanBeReadBack) {
  Recoder recoder(*RecodePolicy::Parse(std::vector<std::string>{"ssd: kivi4g32"}), profiles_);
  const BlockHeader raw = RawHeader();
  EXPECT_EQ(recoder.OnSsd(raw)->view(), "kivi4g32");
  const std::vector<uint8_t> payload(4096, 0x3c);
  auto image = recoder.Recode(raw, payload, *recoder.OnSsd(raw));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->image_bytes % kDiskPageBytes, 0u);
  const auto header = DecodeBlockHeader(image->bytes.first(image->image_bytes));
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->variant.view(), "kivi4g32");
  EXPECT_EQ(header->root, image->header.root);
  const ImageLayout layout{header->encoded_bytes(), header->payload_bytes()};
  EXPECT_EQ(layout.image_bytes(), image->image_bytes);
  EXPECT_TRUE(VerifyPayload(*header, image->bytes.first(image->image_bytes)
                                         .subspan(layout.payload_offset(), layout.payload_bytes))
                  .ok());
}

TEST_F(RecoderTest, WhatStaysAsItIs) {
  Recoder recoder(*RecodePolicy::Parse(std::vector<std::string>{
                      "ssd: kivi4g32", "ssd after 1d: kivi2g32", "tenant 5: ssd: raw"}),
                  profiles_);
  BlockHeader opaque;
  opaque.variant = Variant::Raw();
  EXPECT_FALSE(recoder.OnSsd(opaque)) << "no keys and values";
  BlockHeader unnamed = RawHeader();
  unnamed.model = {};
  EXPECT_FALSE(recoder.OnSsd(unnamed)) << "of no known model";
  BlockHeader others = RawHeader();
  others.tenant = 5;
  EXPECT_FALSE(recoder.OnSsd(others)) << "its tenant says so";
  EXPECT_FALSE(recoder.AfterIdle(others, 1000));
  BlockHeader lossy = RawHeader();
  lossy.variant = *Variant::Parse("kivi4g32");
  lossy.fidelity = Fidelity::kQuantized;
  EXPECT_FALSE(recoder.OnSsd(lossy)) << "it is that already";
  EXPECT_FALSE(recoder.AfterIdle(lossy, 23));
  EXPECT_EQ(recoder.AfterIdle(lossy, 24)->view(), "kivi2g32");
}

TEST_F(RecoderTest, ALossyBlockNeverGrows) {
  Recoder recoder(*RecodePolicy::Parse(std::vector<std::string>{"ssd after 1h: kivi4g32"}),
                  profiles_);
  const std::vector<uint8_t> payload(4096, 0x3c);
  const auto as = [&](const char* variant) {
    auto image = recoder.Recode(RawHeader(), payload, *Variant::Parse(variant));
    EXPECT_TRUE(image.ok()) << image.status();
    return *std::move(image);
  };
  EXPECT_EQ(recoder.AfterIdle(as("kivi8g32").header, 1)->view(), "kivi4g32");
  Recoder::Image small = as("kivi2g32");
  EXPECT_FALSE(recoder.AfterIdle(small.header, 1)) << "it would be larger, and no better";
  const ImageLayout layout{small.header.encoded_bytes(), small.header.payload_bytes()};
  const auto larger = recoder.Recode(
      small.header,
      small.bytes.first(small.image_bytes).subspan(layout.payload_offset(), layout.payload_bytes),
      *Variant::Parse("kivi4g32"));
  EXPECT_EQ(larger.status().code(), absl::StatusCode::kFailedPrecondition) << larger.status();
}

TEST_F(RecoderTest, RefusesWhatTheGateRefuses) {
  const ProfileSet strict;
  Recoder recoder(*RecodePolicy::Parse(std::vector<std::string>{"ssd: kivi4g32"}), strict);
  EXPECT_FALSE(recoder.OnSsd(RawHeader()));
}

TEST_F(RecoderTest, AValueThatCannotBeEncodedIsAnError) {
  Recoder recoder(*RecodePolicy::Parse(std::vector<std::string>{"ssd: kivi4g32"}), profiles_);
  const std::vector<uint8_t> nan(4096, 0x7f);
  const auto image = recoder.Recode(RawHeader(), nan, *Variant::Parse("kivi4g32"));
  EXPECT_EQ(image.status().code(), absl::StatusCode::kInvalidArgument);
  BlockHeader rotated = RawHeader();
  rotated.rope = RopeState::kRotated;
  const std::vector<uint8_t> good(4096, 0x3c);
  EXPECT_EQ(recoder.Recode(rotated, good, *Variant::Parse("kivi4g32")).status().code(),
            absl::StatusCode::kFailedPrecondition)
      << "nobody knows how its keys are rotated";
}

}  // namespace
}  // namespace kedge
