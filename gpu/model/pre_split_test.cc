#include "gpu/model/pre_split.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Split(PreSplitRule rule, std::string_view text) {
  absl::StatusOr<std::vector<std::string_view>> pieces = PreSplit(rule, text);
  EXPECT_TRUE(pieces.ok()) << pieces.status();
  if (!pieces.ok()) return {};
  std::string joined;
  for (std::string_view piece : *pieces) joined += piece;
  EXPECT_EQ(joined, text);
  return {pieces->begin(), pieces->end()};
}
std::vector<std::string> Gpt2(std::string_view text) { return Split(PreSplitRule::kGpt2, text); }
std::vector<std::string> Llama3(std::string_view text) {
  return Split(PreSplitRule::kLlama3, text);
}
std::vector<std::string> Qwen2(std::string_view text) { return Split(PreSplitRule::kQwen2, text); }

TEST(PreSplit, WordsTakeTheCharacterBeforeThem) {
  EXPECT_THAT(Gpt2("Hello world"), ElementsAre("Hello", " world"));
  EXPECT_THAT(Llama3("Hello world"), ElementsAre("Hello", " world"));
  EXPECT_THAT(Gpt2("f(x)"), ElementsAre("f", "(", "x", ")"));
  EXPECT_THAT(Llama3("f(x)"), ElementsAre("f", "(x", ")"));
  EXPECT_THAT(Llama3("\tx"), ElementsAre("\tx"));
  EXPECT_THAT(Gpt2("\tx"), ElementsAre("\t", "x"));
  EXPECT_THAT(Llama3("\nx"), ElementsAre("\n", "x")) << "a newline goes with no word";
}

TEST(PreSplit, Contractions) {
  EXPECT_THAT(Gpt2("I'll don't"), ElementsAre("I", "'ll", " don", "'t"));
  EXPECT_THAT(Llama3("WE'LL"), ElementsAre("WE", "'LL"));
  EXPECT_THAT(Gpt2("WE'LL"), ElementsAre("WE", "'", "LL")) << "GPT-2 knows small letters only";
  EXPECT_THAT(Llama3("'veto"), ElementsAre("'ve", "to"));
  EXPECT_THAT(Llama3("'lx"), ElementsAre("'lx"));
}

TEST(PreSplit, Numbers) {
  EXPECT_THAT(Gpt2("in 12345"), ElementsAre("in", " 12345"));
  EXPECT_THAT(Llama3("in 12345"), ElementsAre("in", " ", "123", "45"));
  EXPECT_THAT(Qwen2("in 123"), ElementsAre("in", " ", "1", "2", "3"));
  EXPECT_THAT(Llama3("a1"), ElementsAre("a", "1"));
}

TEST(PreSplit, SpacesAndNewlines) {
  EXPECT_THAT(Gpt2("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(Llama3("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(Llama3("a  "), ElementsAre("a", "  "));
  EXPECT_THAT(Gpt2("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(Llama3("a \n\n  b"), ElementsAre("a", " \n\n", " ", " b"));
  EXPECT_THAT(Llama3("a\n\nb"), ElementsAre("a", "\n\n", "b"));
  EXPECT_THAT(Llama3("a!!\n\nb"), ElementsAre("a", "!!\n\n", "b"));
  EXPECT_THAT(Gpt2("a!!\n\nb"), ElementsAre("a", "!!", "\n", "\n", "b"));
  EXPECT_THAT(Llama3(" !"), ElementsAre(" !"));
  EXPECT_THAT(Llama3("  7"), ElementsAre(" ", " ", "7"));
  EXPECT_THAT(Llama3(" "), ElementsAre(" "));
  EXPECT_THAT(Llama3(""), IsEmpty());
  EXPECT_THAT(Split(PreSplitRule::kNone, "a b"), ElementsAre("a b"));
}

TEST(PreSplit, BeyondAscii) {
  EXPECT_THAT(Llama3("caf\u00e9 \u041c\u0438\u0440 \u4f60\u597d"),
              ElementsAre("caf\u00e9", " \u041c\u0438\u0440", " \u4f60\u597d"));
  EXPECT_THAT(Llama3("\u201cyes\u201d"), ElementsAre("\u201cyes", "\u201d"));
}

TEST(PreSplit, WhatIsNotKnownIsRefusedByName) {
  const absl::Status thai = PreSplit(PreSplitRule::kLlama3, "ab\u0e01").status();
  EXPECT_EQ(thai.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(thai.message()), HasSubstr("U+0E01 at byte 2"));
  EXPECT_FALSE(PreSplit(PreSplitRule::kQwen2, "e\u0301").ok()) << "NFC would join these";
  for (const char* bad : {"\x80", "a\xc0\xaf", "\xed\xa0\x80", "\xe4\xbd", "\xf4\x90\x80\x80"}) {
    const absl::Status status = PreSplit(PreSplitRule::kGpt2, bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace kedge
