#include "client/match/align.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <tuple>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "client/match/fingerprints.h"

namespace kedge::match {
namespace {

// Any number does: equal hashes are compared token by token.
constexpr uint64_t kGramBase = 0x0b7e151628aed2a7;
constexpr uint32_t kNone = UINT32_MAX;

// Every n-gram of the donors by hash; places of one hash in the order of donors and rows.
class GramIndex {
 public:
  struct Place {
    uint64_t hash;
    uint32_t donor;
    uint32_t row;
    uint32_t next;
  };

  GramIndex(std::span<const AlignDonor> donors, std::span<const uint32_t> order, uint32_t width) {
    size_t total = 0;
    for (const AlignDonor& donor : donors) total += donor.tokens.size();
    places_.reserve(total);
    heads_.assign(std::bit_ceil(total + 1), kNone);
    // Backwards, since every place goes to the front of its list.
    for (size_t i = order.size(); i-- > 0;) {
      const std::vector<uint64_t> hashes = RollingHashes(donors[order[i]].tokens, width, kGramBase);
      for (size_t row = hashes.size(); row-- > 0;) {
        uint32_t& head = heads_[hashes[row] & (heads_.size() - 1)];
        places_.push_back({hashes[row], order[i], static_cast<uint32_t>(row), head});
        head = static_cast<uint32_t>(places_.size()) - 1;
      }
    }
  }

  uint32_t First(uint64_t hash) const { return heads_[hash & (heads_.size() - 1)]; }
  const Place& operator[](uint32_t at) const { return places_[at]; }

 private:
  std::vector<uint32_t> heads_;
  std::vector<Place> places_;
};

class Aligner {
 public:
  Aligner(std::span<const int32_t> prompt, std::span<const AlignDonor> donors,
          const AlignOptions& options)
      : prompt_(prompt), donors_(donors), options_(options), rows_(prompt.size()) {
    end_ = prompt.size() > options.last_tokens
               ? static_cast<uint32_t>(prompt.size()) - options.last_tokens
               : 0;
    begin_ = std::min(options.prefix_tokens, end_);
  }

  std::vector<RowSource> Run(std::span<const KnownRun> known) {
    order_.resize(donors_.size());
    std::iota(order_.begin(), order_.end(), 0u);
    std::sort(order_.begin(), order_.end(),
              [&](uint32_t a, uint32_t b) { return donors_[a].key < donors_[b].key; });
    rank_.resize(donors_.size());
    for (uint32_t i = 0; i < order_.size(); ++i) rank_[order_[i]] = i;

    std::vector<KnownRun> runs;
    for (const KnownRun& run : known) {
      if (Holds(run)) runs.push_back(run);
    }
    Place(std::move(runs));
    Place(FindRuns());
    return std::move(rows_);
  }

 private:
  bool Holds(const KnownRun& run) const {
    if (run.donor >= donors_.size() || run.prompt > prompt_.size() ||
        run.tokens > prompt_.size() - run.prompt) {
      return false;
    }
    const std::span<const int32_t> tokens = donors_[run.donor].tokens;
    if (run.row > tokens.size() || run.tokens > tokens.size() - run.row) return false;
    return std::equal(tokens.begin() + run.row, tokens.begin() + run.row + run.tokens,
                      prompt_.begin() + run.prompt);
  }

  bool Open(uint32_t at) const { return at >= begin_ && at < end_ && rows_[at].donor == kNoDonor; }
  bool Equal(uint32_t at, uint32_t donor, uint32_t row) const {
    return Open(at) && row < donors_[donor].tokens.size() &&
           donors_[donor].tokens[row] == prompt_[at];
  }

  // All maximal runs in what is open.
  std::vector<KnownRun> FindRuns() const {
    std::vector<KnownRun> runs;
    const GramIndex index(donors_, order_, options_.min_run);
    const std::vector<uint64_t> hashes = RollingHashes(prompt_, options_.min_run, kGramBase);
    uint64_t compares_left = kComparesOfToken * prompt_.size();
    for (uint32_t at = begin_; at < hashes.size() && at < end_; ++at) {
      if (!Open(at)) continue;
      uint32_t looked = 0;
      for (uint32_t p = index.First(hashes[at]); p != kNone && compares_left > 0;
           p = index[p].next) {
        --compares_left;
        const GramIndex::Place& place = index[p];
        if (place.hash != hashes[at]) continue;
        if (looked++ == kPlacesMax) break;
        // Found already, one token earlier.
        if (at > 0 && place.row > 0 && Equal(at - 1, place.donor, place.row - 1)) continue;
        uint32_t tokens = 0;
        while (compares_left > 0 && Equal(at + tokens, place.donor, place.row + tokens)) {
          ++tokens;
          --compares_left;
        }
        if (tokens >= options_.min_run) runs.push_back({at, place.donor, place.row, tokens});
      }
    }
    return runs;
  }

  // The longest first; of a run that others cover in part, what is left where it is long enough.
  void Place(std::vector<KnownRun> runs) {
    std::sort(runs.begin(), runs.end(), [&](const KnownRun& a, const KnownRun& b) {
      return std::tuple(b.tokens, a.prompt, rank_[a.donor], a.row) <
             std::tuple(a.tokens, b.prompt, rank_[b.donor], b.row);
    });
    for (const KnownRun& run : runs) {
      uint32_t at = 0;
      while (at < run.tokens) {
        uint32_t piece_end = at;
        while (piece_end < run.tokens && Open(run.prompt + piece_end)) ++piece_end;
        if (piece_end - at >= options_.min_run) {
          for (; at < piece_end; ++at) rows_[run.prompt + at] = {run.donor, run.row + at};
        }
        at = piece_end + 1;
      }
    }
  }

  const std::span<const int32_t> prompt_;
  const std::span<const AlignDonor> donors_;
  const AlignOptions& options_;
  std::vector<RowSource> rows_;
  std::vector<uint32_t> order_;  // donors by key
  std::vector<uint32_t> rank_;   // the inverse
  uint32_t begin_ = 0;           // what may have a donor
  uint32_t end_ = 0;
};

}  // namespace

std::vector<RowSource> Align(std::span<const int32_t> prompt, std::span<const AlignDonor> donors,
                             const AlignOptions& options, std::span<const KnownRun> known) {
  ABSL_RAW_CHECK(options.min_run > 0, "runs have tokens");
  ABSL_RAW_CHECK(options.last_tokens > 0, "the last token is always computed");
  ABSL_RAW_CHECK(prompt.size() < kNone, "a prompt has less than 2^32 - 1 tokens");
  return Aligner(prompt, donors, options).Run(known);
}

absl::Status ValidateRows(std::span<const int32_t> prompt, std::span<const AlignDonor> donors,
                          const AlignOptions& options, std::span<const RowSource> rows) {
  if (rows.size() != prompt.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows: ", rows.size(), " for ", prompt.size(), " tokens"));
  }
  uint32_t run = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const RowSource& row = rows[i];
    if (row.donor == kNoDonor) continue;
    const auto wrong = [&](std::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat("rows[", i, "]: donor ", row.donor, " row ",
                                                     row.row, " ", std::string(why)));
    };
    if (row.donor >= donors.size()) return wrong("is no donor");
    if (row.row >= donors[row.donor].tokens.size()) return wrong("is past the donor's end");
    if (donors[row.donor].tokens[row.row] != prompt[i]) return wrong("holds another token");
    if (i < options.prefix_tokens) return wrong("is in the prefix");
    if (i + options.last_tokens >= rows.size()) return wrong("is one of the last tokens");
    run = run > 0 && rows[i - 1].donor == row.donor && rows[i - 1].row + 1 == row.row ? run + 1 : 1;
    const bool ends =
        i + 1 == rows.size() || rows[i + 1].donor != row.donor || rows[i + 1].row != row.row + 1;
    if (ends && run < options.min_run) return wrong("ends a run that is too short");
    if (ends) run = 0;
  }
  return absl::OkStatus();
}

}  // namespace kedge::match
