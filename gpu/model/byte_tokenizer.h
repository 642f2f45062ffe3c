// The smallest tokenizer: a token a byte, and four tokens that no text contains.
//
// For checkpoints without a vocabulary of their own (random_checkpoint.h) and for tests.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kedge {

class ByteTokenizer {
 public:
  static constexpr int32_t kVocabulary = 260;
  static constexpr int32_t kBos = 256;        // begins a sequence
  static constexpr int32_t kEos = 257;        // ends an answer
  static constexpr int32_t kPad = 258;        // fills up; never shown
  static constexpr int32_t kSeparator = 259;  // between instructions and question
  // Part of a model fingerprint: changes whenever the mapping does.
  static constexpr const char* kId = "kedge-bytes-v1";

  std::vector<int32_t> Encode(std::string_view text, bool add_bos) const;
  // Special tokens and unknown ids give no text.
  std::string Decode(std::span<const int32_t> tokens) const;
};

}  // namespace kedge
