#include "gpu/model/tokenizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kWords[] = R"({
  "version": "1.0", "normalizer": null, "decoder": null, "post_processor": null,
  "added_tokens": [{"id": 0, "content": "<bos>", "special": true, "lstrip": false},
                   {"id": 1, "content": "<unk>", "special": true}],
  "pre_tokenizer": {"type": "WhitespaceSplit"},
  "model": {"type": "WordLevel", "unk_token": "<unk>",
            "vocab": {"<bos>": 0, "<unk>": 1, "ann": 2, "red": 3, "\u2581": 5}}})";

// Bytes a b c and space (written as U+0120), "ab", "abc", " a".
constexpr char kBytes[] = R"({
  "normalizer": {"type": "NFC"},
  "added_tokens": [{"id": 9, "content": "<|end|>"}, {"id": 10, "content": "<|end|>x"}],
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "behavior": "Isolated", "invert": false, "pattern": {"Regex": REGEX}},
    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
  "model": {"type": "BPE", "dropout": null, "unk_token": null, "byte_fallback": false,
            "ignore_merges": IGNORE,
            "vocab": {"a": 0, "b": 1, "c": 2, "\u0120": 3, "bc": 4, "ab": 5, "abc": 6,
                      "\u0120a": 7, "ca": 8},
            "merges": ["b c", ["a", "b"], "\u0120 a", "a bc"]}})";

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

std::string Bytes(PreSplitRule rule = PreSplitRule::kLlama3, const char* ignore_merges = "false") {
  std::string regex = "\"";
  for (const char* c = PreSplitPattern(rule); *c != '\0'; ++c) {
    if (*c == '\\') regex += '\\';
    regex += *c;
  }
  return Replace(Replace(kBytes, "REGEX", regex + "\""), "IGNORE", ignore_merges);
}

Tokenizer Make(std::string_view json) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(json, "tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}
std::vector<int32_t> Encode(const Tokenizer& tokenizer, std::string_view text) {
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer.Encode(text);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  return tokens.ok() ? *tokens : std::vector<int32_t>();
}
std::string ErrorOf(const std::string& json) {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Parse(json, "t.json");
  EXPECT_FALSE(tokenizer.ok()) << json;
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tokenizer.status().message());
}

TEST(Tokenizer, Words) {
  const Tokenizer words = Make(kWords);
  EXPECT_EQ(words.kind(), Tokenizer::Kind::kWordLevel);
  EXPECT_EQ(words.vocabulary(), 6);
  EXPECT_THAT(Encode(words, "<bos> ann  red\n\u2581 bob "), ElementsAre(0, 2, 3, 5, 1));
  EXPECT_THAT(Encode(words, "<bos>ann"), ElementsAre(0, 2)) << "an added token ends itself";
  EXPECT_THAT(Encode(words, ""), ElementsAre());
  EXPECT_EQ(words.Decode(std::vector<int32_t>{0, 2, 4, 99, -1, 3}), "<bos> ann red");
  EXPECT_EQ(words.Find("red"), 3);
  EXPECT_EQ(words.Find("<bos>"), 0);
  EXPECT_EQ(words.Find("blue"), std::nullopt);
  EXPECT_TRUE(words.IsAdded(0));
  EXPECT_FALSE(words.IsAdded(2));
  EXPECT_FALSE(words.IsAdded(4));
}

TEST(Tokenizer, WithoutAnUnknownTokenAnUnknownWordIsRefused) {
  const Tokenizer words = Make(Replace(kWords, "\"unk_token\": \"<unk>\",", ""));
  EXPECT_THAT(std::string(words.Encode("ann bob").status().message()), HasSubstr("bob"));
}

TEST(Tokenizer, MergesGoByRankThenFromTheLeft) {
  const Tokenizer bytes = Make(Bytes());
  EXPECT_EQ(bytes.kind(), Tokenizer::Kind::kBytePair);
  EXPECT_THAT(Encode(bytes, "abc"), ElementsAre(6)) << "b c goes first, then a bc";
  EXPECT_THAT(Encode(bytes, "abab"), ElementsAre(5, 5));
  EXPECT_THAT(Encode(bytes, "cabc ab a"), ElementsAre(2, 6, 3, 5, 7));
  EXPECT_EQ(bytes.Decode(Encode(bytes, "cab c  a<|end|>b")), "cab c  a<|end|>b");
}

TEST(Tokenizer, IgnoredMergesTakeWholePieces) {
  EXPECT_THAT(Encode(Make(Bytes()), "ca"), ElementsAre(2, 0));
  EXPECT_THAT(Encode(Make(Bytes(PreSplitRule::kLlama3, "true")), "ca"), ElementsAre(8));
}

TEST(Tokenizer, TheLongestAddedTokenWins) {
  const Tokenizer bytes = Make(Bytes());
  EXPECT_FALSE(bytes.Encode("<|en").ok()) << "its bytes are not in this vocabulary";
  EXPECT_THAT(Encode(bytes, "a<|end|>xb"), ElementsAre(0, 10, 1));
}

TEST(Tokenizer, PreTokenizersAreTheKnownOnes) {
  Make(Bytes(PreSplitRule::kQwen2));
  Make(Bytes(PreSplitRule::kGpt2));
  const std::string alone = R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
      "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}})";
  EXPECT_THAT(Encode(Make(alone), "aa"), ElementsAre(0, 0));
  EXPECT_THAT(ErrorOf(Replace(alone, "false", "true")), HasSubstr("add_prefix_space: true"));
  EXPECT_THAT(ErrorOf(Replace(alone, "ByteLevel", "Metaspace")), HasSubstr("pre_tokenizer"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "{1,3}", "{1,4}")), HasSubstr("pattern"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "Isolated", "Removed")), HasSubstr("Removed"));
}

TEST(Tokenizer, WhatWouldGiveOtherTokensIsRefusedByName) {
  EXPECT_THAT(ErrorOf(Replace(kWords, "WordLevel", "Unigram")), HasSubstr("model.type: Unigram"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "WhitespaceSplit", "Whitespace")),
              HasSubstr("type Whitespace is not supported"));
  EXPECT_THAT(
      ErrorOf(Replace(kWords, "\"normalizer\": null", "\"normalizer\": {\"type\": \"Lowercase\"}")),
      HasSubstr("normalizer: type Lowercase"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "\"lstrip\": false", "\"lstrip\": true")),
              HasSubstr("added_tokens[0].lstrip: true"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "\"byte_fallback\": false", "\"byte_fallback\": true")),
              HasSubstr("model.byte_fallback: true"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "\"dropout\": null", "\"dropout\": 0.1")),
              HasSubstr("model.dropout: 0.1"));
}

TEST(Tokenizer, DamageIsNamed) {
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("t.json"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("model: missing"));
  EXPECT_THAT(ErrorOf(std::string(kWords).substr(0, 300)), HasSubstr("not valid JSON"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "\"ann\": 2", "\"ann\": -2")), HasSubstr("-2 is not an id"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "\"ann\": 2", "\"ann\": 1048576")), HasSubstr("1048576"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "\"ann\": 2", "\"ann\": 3")),
              HasSubstr("id 3 is given twice"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "\"ann\": 2", "\"ann\": \"2\"")), HasSubstr("is not an id"));
  EXPECT_THAT(ErrorOf(Replace(kWords, "{\"id\": 0, \"content\"", "{\"content\"")),
              HasSubstr("added_tokens[0]"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "\"b c\"", "\"bc\"")), HasSubstr("model.merges[0]"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "\"b c\"", "\"c c\"")), HasSubstr("not in model.vocab"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "\"b c\"", "\"a b\"")), HasSubstr("given twice"));
  EXPECT_THAT(ErrorOf(Replace(Bytes(), "\"ca\": 8", "\"c a\": 8")), HasSubstr("c a"));
  EXPECT_EQ(Tokenizer::Load("/nonexistent").status().code(), absl::StatusCode::kNotFound);
}

TEST(Tokenizer, BadTextIsNamed) {
  EXPECT_THAT(std::string(Make(kWords).Encode("ann \xff").status().message()), HasSubstr("byte 4"));
  EXPECT_THAT(std::string(Make(Bytes()).Encode("ab d").status().message()), HasSubstr(" d"));
}

}  // namespace
}  // namespace kedge
