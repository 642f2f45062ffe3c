#include "client/match/registration.h"

#include <algorithm>
#include <string>

namespace kedge::match {

KeyChain ChunkChain(const TenantSalt& salt, const Fingerprint& model,
                    const CanonicalRecipe& recipe) {
  std::string extra = "kedge/recipe/1";
  extra.append(reinterpret_cast<const char*>(recipe.leading_tokens.data()),
               recipe.leading_tokens.size() * sizeof(int32_t));
  return KeyChain(salt, model, Keyspace::kChunk, extra);
}

uint32_t SpanBlocks(uint32_t block_tokens) {
  return std::max(1u, kSketchTokens / std::max(1u, block_tokens));
}

std::vector<Registration> Registrations(std::span<const int32_t> tokens, uint32_t block_tokens,
                                        const KeyChain& chain, Keyspace keyspace,
                                        const MatchKeys& keys) {
  const std::vector<ChainLink> links = chain.Links(tokens, block_tokens);
  std::vector<Registration> registrations;
  for (size_t first = 0; first < links.size(); first += SpanBlocks(block_tokens)) {
    const size_t end = std::min(links.size(), first + SpanBlocks(block_tokens));
    const std::span<const int32_t> span =
        tokens.subspan(first * block_tokens, (end - first) * block_tokens);
    const ChainLink& tail = links[end - 1];
    Registration made;
    made.donor = {.key = tail.key,
                  .placement = tail.placement,
                  .begin = static_cast<uint32_t>(first * block_tokens),
                  .tokens = static_cast<uint32_t>(span.size()),
                  .keyspace = keyspace};
    made.postings = DonorPostings(span, block_tokens, keys);
    made.text_name = keys.TextName(tail.key);
    made.text = EncodeDonorText({.parent = links[first].parent,
                                 .depth = links[first].depth,
                                 .placement = first == 0 ? 0 : links[first - 1].placement,
                                 .tokens = {span.begin(), span.end()}});
    keys.CipherText(tail.key, made.text);
    registrations.push_back(std::move(made));
  }
  return registrations;
}

}  // namespace kedge::match
