#include "client/match/matcher.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/base/internal/raw_logging.h"
#include "absl/container/flat_hash_map.h"
#include "proto/donor_text.h"

namespace kedge::match {

namespace {

// Requests by node, in the order in which nodes were first named.
template <typename Request>
Request& RequestOf(uint32_t node, std::vector<Request>& requests,
                   absl::flat_hash_map<uint32_t, size_t>& index) {
  const auto [it, added] = index.try_emplace(node, requests.size());
  if (added) {
    requests.emplace_back();
    requests.back().node = node;
  }
  return requests[it->second];
}

}  // namespace

// One call of Match: its steps, and what passes between them.
class MatchRun {
 public:
  MatchRun(const MatchOptions& options, std::span<const Matcher::Scope> scopes,
           std::span<const int32_t> prompt, uint32_t prefix_tokens, MatchNodes& nodes)
      : options_(options), scopes_(scopes), prompt_(prompt), nodes_(nodes) {
    prefix_ = static_cast<uint32_t>(std::min<size_t>(prefix_tokens, prompt.size()));
    covered_.assign(prompt.size() + 1, 0);
  }

  HybridPlan Run() {
    Ask();
    VerifyExact();
    ReadTexts();
    Assemble();
    return std::move(plan_);
  }

 private:
  struct Candidate {
    NearDonor donor;
    uint32_t scope = 0;
    bool confirmed = false;
    std::vector<uint32_t> hits;  // indices into questions_ of the scope
  };
  struct ScopedQuestion {
    Question question;
    uint32_t scope = 0;
  };
  struct Claim {  // a chunk may begin at `start` and end `tokens` later
    uint32_t start = 0;
    uint32_t tokens = 0;
    uint32_t candidate = 0;

    auto Key() const { return std::tuple(start, tokens, candidate); }
    friend bool operator<(const Claim& a, const Claim& b) { return a.Key() < b.Key(); }
    friend bool operator==(const Claim& a, const Claim& b) { return a.Key() == b.Key(); }
  };

  void Ask() {
    std::vector<LookupRequest> requests;
    std::vector<std::vector<uint32_t>> sources;  // of each request's ids: index into questions_
    absl::flat_hash_map<uint32_t, size_t> index;
    // What lies wholly in the prefix is known; a sketch needs the text around its end.
    const uint32_t from = prefix_ < options_.block_tokens ? 0 : prefix_ - options_.block_tokens;
    for (uint32_t scope = 0; scope < scopes_.size(); ++scope) {
      for (Question question :
           PromptQuestions(prompt_.subspan(from), options_.block_tokens, scopes_[scope].keys)) {
        question.position += from;
        if (question.position + question.tokens <= prefix_) continue;
        LookupRequest& request = RequestOf(nodes_.NodeOf(question.id), requests, index);
        sources.resize(requests.size());
        sources[&request - requests.data()].push_back(static_cast<uint32_t>(questions_.size()));
        request.ids.push_back(question.id);
        questions_.push_back({question, scope});
      }
    }
    plan_.questions = static_cast<uint32_t>(questions_.size());
    plan_.requests += static_cast<uint32_t>(requests.size());
    if (!requests.empty()) nodes_.Lookup(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (requests[i].status.ok()) {
        TakeReply(requests[i].reply, sources[i]);
      } else {
        ++plan_.nodes_failed;
      }
    }
  }

  void TakeReply(const NearReply& reply, std::span<const uint32_t> sources) {
    const size_t hits_max = sources.size() * NearIndex::kPostingsOfIdMax;
    for (size_t i = 0; i < reply.hits.size(); ++i) {
      const NearHit& hit = reply.hits[i];
      if (i >= hits_max || hit.question >= sources.size() || hit.donor >= reply.donors.size()) {
        ++plan_.hits_malformed;
        continue;
      }
      const uint32_t source = sources[hit.question];
      const NearDonor& donor = reply.donors[hit.donor];
      const uint32_t scope = questions_[source].scope;
      if (!Plausible(donor, scope)) {
        ++plan_.hits_malformed;
        continue;
      }
      ++plan_.hits;
      const uint32_t candidate = CandidateOf(donor, scope);
      candidates_[candidate].hits.push_back(source);
      AddClaim(candidate, source, hit.hint);
    }
  }

  // Whole blocks of a size that is registered, of a kind that the scope may give.
  bool Plausible(const NearDonor& donor, uint32_t scope) const {
    const uint32_t block = options_.block_tokens;
    const bool kind = donor.keyspace == Keyspace::kChunk ||
                      (donor.keyspace == Keyspace::kPrefix && !scopes_[scope].group);
    return kind && donor.tokens > 0 && donor.tokens % block == 0 && donor.begin % block == 0 &&
           donor.tokens <= SpanBlocks(block) * block && donor.tokens <= kDonorTokensMax &&
           donor.begin <= NearIndex::kTokenPositionsMax - donor.tokens;
  }

  uint32_t CandidateOf(const NearDonor& donor, uint32_t scope) {
    // Two nodes that differ about a donor make two candidates; the keys decide.
    std::vector<uint32_t>& same = by_key_[donor.key];
    for (uint32_t i : same) {
      if (candidates_[i].donor == donor && candidates_[i].scope == scope) return i;
    }
    same.push_back(static_cast<uint32_t>(candidates_.size()));
    candidates_.push_back({.donor = donor, .scope = scope});
    return same.back();
  }

  void AddClaim(uint32_t candidate, uint32_t source, uint8_t hint) {
    const NearDonor& donor = candidates_[candidate].donor;
    const Question& question = questions_[source].question;
    if (donor.keyspace != Keyspace::kChunk || question.domain != MatchDomain::kWindow) return;
    const uint64_t ahead = uint64_t{donor.begin} + uint64_t{hint} * options_.block_tokens;
    const uint64_t tokens = uint64_t{donor.begin} + donor.tokens;
    if (ahead > question.position || ahead >= tokens) return;
    const uint64_t start = question.position - ahead;
    if (tokens > prompt_.size() - start) return;
    claims_.push_back({static_cast<uint32_t>(start), static_cast<uint32_t>(tokens), candidate});
  }

  // Computes the keys of chunks that may begin at each start, as far as somebody claims.
  void VerifyExact() {
    std::sort(claims_.begin(), claims_.end());
    claims_.erase(std::unique(claims_.begin(), claims_.end()), claims_.end());
    const uint32_t block = options_.block_tokens;
    uint64_t links_left = uint64_t{options_.links_of_block} * (prompt_.size() / block + 1);
    // Links by scope, of the start that is looked at.
    uint32_t start = UINT32_MAX;
    std::vector<std::vector<ChainLink>> links(scopes_.size());
    std::map<std::pair<uint32_t, uint32_t>, PlanDonor> best;  // by start and scope: the longest
    for (const Claim& claim : claims_) {
      if (claim.start != start) {
        start = claim.start;
        for (std::vector<ChainLink>& own : links) own.clear();
      }
      Candidate& candidate = candidates_[claim.candidate];
      std::vector<ChainLink>& own = links[candidate.scope];
      while (own.size() < claim.tokens / block && links_left > 0) {
        --links_left;
        own.push_back(scopes_[candidate.scope].chunks.Next(
            own.empty() ? nullptr : &own.back(),
            prompt_.subspan(start + own.size() * block, block)));
      }
      if (own.size() < claim.tokens / block || own.back().key != candidate.donor.key) {
        ++plan_.exact_refused;
        continue;
      }
      candidate.confirmed = true;
      best[{start, candidate.scope}] = {.donor = candidate.donor,
                                        .group = scopes_[candidate.scope].group,
                                        .exact = true,
                                        .prompt_begin = start,
                                        .links = own};
    }
    for (auto& [at, donor] : best) AddExact(std::move(donor));
  }

  void AddExact(PlanDonor donor) {
    const auto tokens = static_cast<uint32_t>(donor.links.size() * options_.block_tokens);
    const std::span<const int32_t> text = prompt_.subspan(donor.prompt_begin, tokens);
    known_.push_back({donor.prompt_begin, static_cast<uint32_t>(donors_.size()), 0, tokens});
    align_.push_back({donor.donor.key, text});
    // Marks, summed up below, say what needs no further donor.
    for (uint32_t i = 0; i < tokens; ++i) covered_[donor.prompt_begin + i] = 1;
    donors_.push_back(std::move(donor));
  }

  // Candidates with hits outside of what is exact, the ones with the most first.
  std::vector<uint32_t> Wanted() const {
    std::vector<uint32_t> covered_before(prompt_.size() + 1, 0);
    for (size_t i = 0; i < prompt_.size(); ++i) {
      covered_before[i + 1] = covered_before[i] + (covered_[i] != 0 || i < prefix_);
    }
    std::vector<std::pair<uint32_t, uint32_t>> scored;
    for (uint32_t i = 0; i < candidates_.size(); ++i) {
      if (candidates_[i].confirmed) continue;
      uint32_t score = 0;
      for (uint32_t source : candidates_[i].hits) {
        const Question& question = questions_[source].question;
        const uint32_t covered =
            covered_before[question.position + question.tokens] - covered_before[question.position];
        score += covered < question.tokens;
      }
      if (score > 0) scored.push_back({score, i});
    }
    const auto first = [&](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first
                                : candidates_[a.second].donor.key < candidates_[b.second].donor.key;
    };
    std::sort(scored.begin(), scored.end(), first);
    if (scored.size() > options_.donors_max) scored.resize(options_.donors_max);
    std::vector<uint32_t> wanted;
    for (const auto& [score, candidate] : scored) wanted.push_back(candidate);
    return wanted;
  }

  void ReadTexts() {
    std::vector<TextRequest> requests;
    std::vector<std::vector<uint32_t>> sources;
    absl::flat_hash_map<uint32_t, size_t> index;
    for (uint32_t i : Wanted()) {
      const Candidate& candidate = candidates_[i];
      TextRequest& request = RequestOf(nodes_.NodeOf(candidate.donor.placement), requests, index);
      sources.resize(requests.size());
      sources[&request - requests.data()].push_back(i);
      request.names.push_back({scopes_[candidate.scope].keys.TextName(candidate.donor.key),
                               candidate.donor.placement, candidate.donor.tokens});
    }
    plan_.requests += static_cast<uint32_t>(requests.size());
    if (!requests.empty()) nodes_.ReadTexts(requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (!requests[i].status.ok()) {
        ++plan_.nodes_failed;
        continue;
      }
      for (size_t j = 0; j < sources[i].size(); ++j) {
        const bool held = j < requests[i].texts.size() && !requests[i].texts[j].empty();
        if (held) {
          TakeText(candidates_[sources[i][j]], std::move(requests[i].texts[j]));
        } else {
          ++plan_.texts_missing;
          plan_.stale.push_back(candidates_[sources[i][j]].donor);
        }
      }
    }
  }

  void TakeText(const Candidate& candidate, std::vector<uint8_t> bytes) {
    ++plan_.texts_read;
    const Matcher::Scope& scope = scopes_[candidate.scope];
    scope.keys.CipherText(candidate.donor.key, bytes);
    absl::StatusOr<DonorText> text = DecodeDonorText(bytes);
    if (text.ok() && text->tokens.size() == candidate.donor.tokens) {
      const bool chunk = candidate.donor.keyspace == Keyspace::kChunk;
      auto links =
          VerifyDonorText(*text, chunk ? scope.chunks : scope.prefixes, options_.block_tokens,
                          candidate.donor.key, candidate.donor.begin);
      if (links.ok()) {
        donors_.push_back({.donor = candidate.donor,
                           .group = scope.group,
                           .links = *std::move(links),
                           .first_token = candidate.donor.begin});
        texts_.push_back(std::move(text->tokens));
        align_.push_back({candidate.donor.key, texts_.back()});
        return;
      }
    }
    ++plan_.texts_refused;
    plan_.stale.push_back(candidate.donor);
  }

  // Aligns, and keeps the donors that rows name.
  void Assemble() {
    plan_.rows = Align(prompt_, align_,
                       {.min_run = options_.min_run,
                        .last_tokens = options_.last_tokens,
                        .prefix_tokens = prefix_},
                       known_);
    std::vector<uint32_t> kept(donors_.size(), kNoDonor);
    for (RowSource& row : plan_.rows) {
      if (row.donor == kNoDonor) continue;
      uint32_t& place = kept[row.donor];
      if (place == kNoDonor) {
        place = static_cast<uint32_t>(plan_.donors.size());
        plan_.donors.push_back(std::move(donors_[row.donor]));
      }
      row.donor = place;
    }
  }

  const MatchOptions& options_;
  const std::span<const Matcher::Scope> scopes_;
  const std::span<const int32_t> prompt_;
  MatchNodes& nodes_;
  uint32_t prefix_ = 0;
  std::vector<ScopedQuestion> questions_;
  std::vector<Candidate> candidates_;
  absl::flat_hash_map<BlockKey, std::vector<uint32_t>> by_key_;
  std::vector<Claim> claims_;
  std::vector<uint8_t> covered_;  // by exact chunks
  std::vector<PlanDonor> donors_;
  std::vector<std::vector<int32_t>> texts_;  // what align_ points to; elements do not move
  std::vector<AlignDonor> align_;            // of donors_
  std::vector<KnownRun> known_;
  HybridPlan plan_;
};

Matcher::Matcher(const TenantSalt& tenant, const Fingerprint& model, const CanonicalRecipe& recipe,
                 MatchOptions options, std::optional<TenantSalt> sharing_group)
    : options_(options) {
  ABSL_RAW_CHECK(options.block_tokens > 0, "a block holds tokens");
  const auto add = [&](const TenantSalt& salt, bool group) {
    scopes_.push_back({MatchKeys(salt, model), ChunkChain(salt, model, recipe),
                       KeyChain(salt, model, Keyspace::kPrefix), group});
  };
  add(tenant, false);
  if (sharing_group.has_value()) add(*sharing_group, true);
}

HybridPlan Matcher::Match(std::span<const int32_t> prompt, uint32_t prefix_tokens,
                          MatchNodes& nodes) const {
  return MatchRun(options_, scopes_, prompt, prefix_tokens, nodes).Run();
}

std::vector<Segment> HybridPlan::Segments() const {
  std::vector<Segment> segments;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (rows[i].donor == kNoDonor) continue;
    const PlanDonor& donor = donors[rows[i].donor];
    if (!segments.empty()) {
      Segment& last = segments.back();
      if (last.prompt + last.tokens == i && last.donor == rows[i].donor &&
          last.row + last.tokens == rows[i].row) {
        ++last.tokens;
        continue;
      }
    }
    const bool exact = donor.exact && donor.prompt_begin + rows[i].row == i;
    segments.push_back({i, rows[i].donor, rows[i].row, 1, exact});
  }
  return segments;
}

uint32_t HybridPlan::reused() const {
  return static_cast<uint32_t>(std::count_if(
      rows.begin(), rows.end(), [](const RowSource& row) { return row.donor != kNoDonor; }));
}

}  // namespace kedge::match
