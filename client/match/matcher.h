// Finds what of a prompt was computed before, wherever it stands: the hybrid plan.
//
// After the exact prefix (client/lookup.h) has been matched, three things are looked for in the
// rest:
//   exact    a canonical chunk from its beginning, at any offset: found by a window, verified by
//            computing the chunk's keys from the prompt's own tokens. Needs no text.
//   moved    a part of a donor whose words are unchanged: found by a window or a minimizer.
//   near     a donor with changed words: found by a band; its unchanged runs are taken.
// For moved and near ones the donor's text is read and verified by the strong key of the donor,
// then aligned (client/match/align.h). Nothing that a node says is believed: a wrong hint costs
// time.
//
// Network: one batched request to each node that holds ids, all at once; then, if there are
// candidates beyond exact chunks, one to each node that holds their texts. MatchNodes does both.
//
// Isolation: a tenant's own scope finds its prompts and its chunks. A sharing group has a salt of
// its own and a scope of its own, in which only canonical chunks are accepted.
//
// Whether rows may be used (and how they are corrected) is decided by client/reuse. The position of
// a donor's rows is what its *block headers* say: check it against PlanDonor when they are fetched.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/match/align.h"
#include "client/match/fingerprints.h"
#include "client/match/registration.h"
#include "proto/block_key.h"
#include "store/block/near_index.h"

namespace kedge::match {

// One batched request to one node.
struct LookupRequest {
  uint32_t node = 0;
  std::vector<MatchId> ids;
  absl::Status status;  // of the node; set with the reply
  NearReply reply;
};
struct TextName {
  BlockKey key;
  uint64_t placement = 0;
  uint32_t tokens = 0;  // that the text should have
};
struct TextRequest {
  uint32_t node = 0;
  std::vector<TextName> names;
  absl::Status status;
  std::vector<std::vector<uint8_t>> texts;  // by name; empty: not held
};

// The nodes, as the matcher sees them. Calls block until all have answered or failed; a node that
// failed is a miss.
class MatchNodes {
 public:
  virtual ~MatchNodes() = default;
  // A small number; the same for one placement throughout a match.
  virtual uint32_t NodeOf(uint64_t placement) const = 0;
  // No node twice in one call.
  virtual void Lookup(std::span<LookupRequest> requests) = 0;
  virtual void ReadTexts(std::span<TextRequest> requests) = 0;
};

struct MatchOptions {
  uint32_t block_tokens = 64;
  uint32_t min_run = 5;
  uint32_t last_tokens = 3;
  // Donors whose texts are read, the ones with the most hits first.
  uint32_t donors_max = 64;
  // Links computed to verify exact chunks, for each block of the prompt: bounds what poisoned
  // windows cost.
  uint32_t links_of_block = 8;
};

struct PlanDonor {
  NearDonor donor;
  bool group = false;         // found in the sharing group's scope
  bool exact = false;         // a canonical chunk that stands in the prompt from its beginning
  uint32_t prompt_begin = 0;  // of an exact one: where
  // The blocks that rows are in: row r is token r % block_tokens of links[r / block_tokens], at
  // position first_token + r of the donor's chain.
  std::vector<ChainLink> links;
  uint32_t first_token = 0;
};

// Consecutive rows of one donor.
struct Segment {
  uint32_t prompt = 0;
  uint32_t donor = 0;
  uint32_t row = 0;
  uint32_t tokens = 0;
  bool exact = false;
};

struct HybridPlan {
  std::vector<RowSource> rows;    // of every token of the prompt
  std::vector<PlanDonor> donors;  // that rows name, in the order of their first rows
  std::vector<Segment> Segments() const;
  uint32_t reused() const;  // tokens with a donor

  // Donors whose text was not there, or not theirs: tell their nodes (NearIndex::Strike).
  std::vector<NearDonor> stale;

  // For metrics.
  uint32_t questions = 0;
  uint32_t requests = 0;  // to nodes, of both kinds
  uint32_t nodes_failed = 0;
  uint32_t hits = 0;
  uint32_t hits_malformed = 0;  // indices, extents or keyspaces that cannot be
  uint32_t exact_refused = 0;   // candidates that the strong key did not confirm
  uint32_t texts_read = 0;
  uint32_t texts_missing = 0;
  uint32_t texts_refused = 0;
};

// Const methods; any thread, if the nodes allow it.
class Matcher {
 public:
  Matcher(const TenantSalt& tenant, const Fingerprint& model, const CanonicalRecipe& recipe,
          MatchOptions options, std::optional<TenantSalt> sharing_group = std::nullopt);

  // `prefix_tokens` have KV already. A prompt that is empty or shorter than anything that is looked
  // for gives a plan without donors.
  HybridPlan Match(std::span<const int32_t> prompt, uint32_t prefix_tokens,
                   MatchNodes& nodes) const;

 private:
  friend class MatchRun;
  struct Scope {
    MatchKeys keys;
    KeyChain chunks;
    KeyChain prefixes;
    bool group = false;
  };

  MatchOptions options_;
  std::vector<Scope> scopes_;
};

}  // namespace kedge::match
