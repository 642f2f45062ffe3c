// What is told to the nodes so that a text can be found again: donors, their postings and texts.
//
// A chain is registered in spans of about 256 tokens (whole blocks, at least one). Each posting
// goes to the node of its id, the enciphered text beside the span's last block. The chunk chain's
// root is a *canonical recipe*: fixed leading tokens (BOS, the model's own system start) that a
// chunk was computed behind and whose rows were dropped. Chunks of two recipes have different keys.
//
// Only canonical chunks may be registered under the salt of a sharing group; prompts are registered
// under their tenant's own salt only. Nothing is harvested from the middle of a prompt as a chunk.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "client/match/fingerprints.h"
#include "proto/block_key.h"
#include "proto/donor_text.h"
#include "proto/match_key.h"
#include "store/block/near_index.h"

namespace kedge::match {

struct CanonicalRecipe {
  std::vector<int32_t> leading_tokens;  // may be empty
};

// The chain that names chunks computed alone behind the recipe's tokens.
KeyChain ChunkChain(const TenantSalt& salt, const Fingerprint& model,
                    const CanonicalRecipe& recipe);

// Blocks of a span: as many as kSketchTokens hold, at least one.
uint32_t SpanBlocks(uint32_t block_tokens);

struct Registration {
  NearDonor donor;
  std::vector<NearPosting> postings;  // each belongs on the node of its id
  BlockKey text_name;                 // placed by donor.placement
  std::vector<uint8_t> text;          // enciphered DonorText
};

// Of the whole blocks of `tokens`, which begin the chain. `keys` are of the chain's own salt and
// model, `keyspace` is the chain's.
std::vector<Registration> Registrations(std::span<const int32_t> tokens, uint32_t block_tokens,
                                        const KeyChain& chain, Keyspace keyspace,
                                        const MatchKeys& keys);

}  // namespace kedge::match
