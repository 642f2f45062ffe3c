// Text to tokens and back, as the tokenizer.json of a Hugging Face checkpoint says.
//
// Read: model.type "WordLevel" with pre_tokenizer WhitespaceSplit (the evaluation models), and
// "BPE" over bytes with the pre-tokenizers of GPT-2, Llama 3 and Qwen2 (pre_split.h), with or
// without normalizer NFC; added_tokens, special or not. What would give other tokens and is not
// supported is refused by its name: other model types, pre-tokenizers, expressions and normalizers,
// byte_fallback, dropout, word prefixes and suffixes, added tokens that strip or want whole words.
// post_processor and decoder are not read: no token is added to a text (begin it with the BOS
// token's text where one is wanted), and decoding is the inverse of encoding.
//
// Const calls on any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "gpu/model/byte_pair.h"
#include "gpu/model/pre_split.h"

namespace kedge {

// Bounds what a lying id can make us allocate.
inline constexpr int64_t kTokenIdMax = 1 << 20;

class Tokenizer {
 public:
  enum class Kind { kWordLevel, kBytePair };

  // `file` names the source in errors, which name the field and the value (InvalidArgument).
  static absl::StatusOr<Tokenizer> Parse(std::string_view json, std::string_view file);
  // Reads DIRECTORY/tokenizer.json. NotFound when there is none.
  static absl::StatusOr<Tokenizer> Load(const std::string& directory);

  Kind kind() const { return kind_; }
  // One more than the largest id.
  int32_t vocabulary() const { return static_cast<int32_t>(texts_.size()); }

  // InvalidArgument for text that is not UTF-8 or, where there is no unknown token, for a word that
  // is not in the vocabulary; Unimplemented as PreSplit's.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text) const;

  // Words joined by spaces, or bytes one after the other. Ids outside the vocabulary give no text.
  std::string Decode(std::span<const int32_t> tokens) const;

  // The token of exactly this word or, for BPE, of these bytes; also of an added token.
  std::optional<int32_t> Find(std::string_view text) const;
  // Is it an added token? Those of control (BOS, end of turn) are.
  bool IsAdded(int32_t token) const;
  // What words outside the vocabulary become; nothing for BPE, which knows every text.
  std::optional<int32_t> unknown() const { return unknown_; }

 private:
  struct Builder;

  absl::Status EncodeWords(std::string_view text, std::vector<int32_t>& tokens) const;
  absl::Status EncodeBytes(std::string_view text, std::vector<int32_t>& tokens) const;
  // The longest added token that stands at `at`; -1 for none.
  int32_t AddedAt(std::string_view text, size_t at) const;

  Kind kind_ = Kind::kWordLevel;
  std::vector<std::string> texts_;  // by id; "" where there is no token
  absl::flat_hash_map<std::string, int32_t> ids_;
  absl::flat_hash_map<std::string, int32_t> added_;
  std::vector<size_t> added_lengths_;  // longest first
  bool added_starts_[256] = {};        // first bytes of added tokens
  std::optional<int32_t> unknown_;     // WordLevel
  PreSplitRule rule_ = PreSplitRule::kNone;
  bool ignore_merges_ = false;  // a piece that is a token is taken whole
  BytePair pairs_;
};

}  // namespace kedge
