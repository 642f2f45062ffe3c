// Cuts text into the pieces that byte-level BPE merges inside of, as the regular expressions of
// GPT-2, Llama 3 and Qwen2 do (`pre_tokenizer` in tokenizer.json).
//
// Exact, or refused: the expressions ask for Unicode's classes of letters, numbers and spaces. The
// classes of ASCII, Latin, the Greek and Cyrillic alphabets, kana, CJK ideographs, Hangul syllables
// and common punctuation are known here; text with any other character is refused by name. None of
// the known characters is changed by NFC, the normalization that Qwen2 asks for.
#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge {

enum class PreSplitRule {
  kNone,    // the text is one piece
  kGpt2,    // contractions, " word", " 12", " !?", spaces
  kLlama3,  // "(word", up to three digits, " !?\n", spaces
  kQwen2,   // as Llama 3, but digits stand alone
};

// The expressions as tokenizer.json writes them; null for kNone.
const char* PreSplitPattern(PreSplitRule rule);

// The pieces, in order; together they are `text`. InvalidArgument for text that is not UTF-8,
// Unimplemented for a character whose class is not known here; both name its place.
absl::StatusOr<std::vector<std::string_view>> PreSplit(PreSplitRule rule, std::string_view text);

// One character of UTF-8 text. Bytes that are not UTF-8 (also overlong forms, surrogates) give
// length 0.
struct Utf8Character {
  char32_t code = 0;
  size_t length = 0;
};
Utf8Character ReadUtf8(std::string_view text, size_t at);

}  // namespace kedge
