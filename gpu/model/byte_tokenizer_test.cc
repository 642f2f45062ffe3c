#include "gpu/model/byte_tokenizer.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

TEST(ByteTokenizer, EveryByteComesBack) {
  std::string text;
  for (int i = 0; i < 256; ++i) text.push_back(static_cast<char>(i));
  const ByteTokenizer tokenizer;
  const std::vector<int32_t> tokens = tokenizer.Encode(text, /*add_bos=*/true);
  ASSERT_EQ(tokens.size(), 257u);
  EXPECT_EQ(tokens[0], ByteTokenizer::kBos);
  EXPECT_EQ(tokens[256], 255);
  EXPECT_EQ(tokenizer.Decode(tokens), text);
}

TEST(ByteTokenizer, SpecialAndUnknownTokensGiveNoText) {
  const std::vector<int32_t> tokens = {'a', ByteTokenizer::kEos, -1, 9999, 'b'};
  EXPECT_EQ(ByteTokenizer().Decode(tokens), "ab");
}

}  // namespace
}  // namespace kedge
