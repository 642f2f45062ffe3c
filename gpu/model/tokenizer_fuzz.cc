// Any bytes as a tokenizer.json: no crash, and what is accepted encodes and decodes within its own
// vocabulary. The file's own bytes are the text that is encoded.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "gpu/model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  absl::StatusOr<kedge::Tokenizer> tokenizer = kedge::Tokenizer::Parse(bytes, "fuzz");
  if (!tokenizer.ok()) return 0;
  for (const std::string_view text :
       {bytes, std::string_view("<bos> a b\n12 'll "), bytes.substr(size / 2)}) {
    absl::StatusOr<std::vector<int32_t>> tokens = tokenizer->Encode(text);
    if (!tokens.ok()) continue;
    for (const int32_t token : *tokens) {
      if (token < 0 || token >= tokenizer->vocabulary()) std::abort();
    }
    const std::string decoded = tokenizer->Decode(*tokens);
    if (tokenizer->kind() == kedge::Tokenizer::Kind::kBytePair && decoded != text) std::abort();
  }
  return 0;
}
