#include "gpu/model/byte_pair.h"

#include <queue>
#include <tuple>

namespace kedge {
namespace {

uint64_t PairKey(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

struct Symbol {
  int32_t token;
  int32_t before;  // index of a neighbour that is still there, -1 for none
  int32_t after;
  bool gone = false;
};

// A pair that may be joined; stale once one of its symbols changed.
struct Candidate {
  int32_t rank;
  int32_t left;  // index; equal ranks go from left to right
  int32_t right;
  uint64_t pair;
  int32_t joined;

  friend bool operator<(const Candidate& a, const Candidate& b) {  // the queue's top is its largest
    return std::tie(a.rank, a.left) > std::tie(b.rank, b.left);
  }
};

}  // namespace

bool BytePair::AddMerge(int32_t left, int32_t right, int32_t joined) {
  const int32_t rank = static_cast<int32_t>(merges_.size());
  return merges_.try_emplace(PairKey(left, right), Merge{rank, joined}).second;
}

const BytePair::Merge* BytePair::Find(int32_t left, int32_t right) const {
  const auto at = merges_.find(PairKey(left, right));
  return at == merges_.end() ? nullptr : &at->second;
}

bool BytePair::Encode(std::string_view piece, std::vector<int32_t>& tokens) const {
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (const char c : piece) {
    const int32_t token = byte_tokens_[static_cast<uint8_t>(c)];
    if (token < 0) return false;
    const int32_t index = static_cast<int32_t>(symbols.size());
    symbols.push_back({token, index - 1, index + 1});
  }
  if (symbols.empty()) return true;
  symbols.back().after = -1;

  std::priority_queue<Candidate> queue;
  const auto consider = [&](int32_t left) {
    if (left < 0 || symbols[left].after < 0) return;
    const int32_t right = symbols[left].after;
    const Merge* merge = Find(symbols[left].token, symbols[right].token);
    if (merge == nullptr) return;
    queue.push({merge->rank, left, right, PairKey(symbols[left].token, symbols[right].token),
                merge->joined});
  };
  for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) consider(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[best.right];
    if (left.gone || right.gone || left.after != best.right ||
        PairKey(left.token, right.token) != best.pair) {
      continue;
    }
    left.token = best.joined;
    left.after = right.after;
    right.gone = true;
    if (left.after >= 0) symbols[left.after].before = best.left;
    consider(left.before);
    consider(best.left);
  }
  for (int32_t i = 0; i >= 0; i = symbols[i].after) tokens.push_back(symbols[i].token);
  return true;
}

}  // namespace kedge
