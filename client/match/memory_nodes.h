// Nodes of a matcher in memory: near indexes and texts behind MatchNodes, for tests and benchmarks.
#pragma once

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "absl/base/internal/raw_logging.h"
#include "client/match/matcher.h"

namespace kedge::match {

class MemoryNodes final : public MatchNodes {
 public:
  MemoryNodes(uint32_t nodes, NearLimits limits) {
    for (uint32_t i = 0; i < nodes; ++i) indexes_.emplace_back(limits);
  }

  void Add(const Registration& made) {
    std::map<uint32_t, std::vector<NearPosting>> by_node;
    for (const NearPosting& posting : made.postings) by_node[NodeOf(posting.id)].push_back(posting);
    for (const auto& [node, postings] : by_node) {
      ABSL_RAW_CHECK(indexes_[node].Insert(made.donor, postings).ok(), "a donor is refused");
    }
    texts[made.text_name] = made.text;
  }

  uint32_t NodeOf(uint64_t placement) const override {
    return static_cast<uint32_t>(placement % indexes_.size());
  }
  void Lookup(std::span<LookupRequest> requests) override {
    ++lookups;
    std::set<uint32_t> nodes;
    for (LookupRequest& request : requests) {
      ABSL_RAW_CHECK(nodes.insert(request.node).second, "one request for each node");
      asked.insert(request.ids.begin(), request.ids.end());
      if (request.node == failed_node) {
        request.status = absl::UnavailableError("away");
      } else {
        request.reply = indexes_[request.node].Lookup(request.ids);
      }
    }
  }
  void ReadTexts(std::span<TextRequest> requests) override {
    ++text_reads;
    for (TextRequest& request : requests) {
      for (const TextName& name : request.names) {
        const auto at = texts.find(name.key);
        request.texts.push_back(at == texts.end() ? std::vector<uint8_t>() : at->second);
      }
    }
  }
  NearIndex& index(uint32_t node) { return indexes_[node]; }

  std::map<BlockKey, std::vector<uint8_t>> texts;
  std::set<MatchId> asked;
  uint32_t failed_node = UINT32_MAX;
  uint32_t lookups = 0;
  uint32_t text_reads = 0;

 private:
  std::vector<NearIndex> indexes_;
};

}  // namespace kedge::match
