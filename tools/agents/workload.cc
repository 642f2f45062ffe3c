#include "tools/agents/workload.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// Words that say little, for role texts; all of them in the vocabulary of the shipped models.
constexpr std::array kRoleWords = {
    "please", "read", "these",     "notes", "below", "with", "care", "today",   "team", "gave",
    "us",     "the",  "following", "list",  "from",  "our",  "last", "meeting", "and",  "check",
    "each",   "line", "here",      "now",   "then",  "next", "some", "more"};
constexpr std::array kAgents = {"mason",   "baker",  "miller", "pilot",  "nurse",  "farmer",
                                "painter", "tailor", "writer", "doctor", "lawyer", "sailor",
                                "hunter",  "potter", "weaver", "banker"};
constexpr std::array kNames = {"anna", "bert",  "carl",  "dora", "emma", "felix", "gina",  "hugo",
                               "ida",  "jonas", "karl",  "lena", "max",  "nina",  "otto",  "paula",
                               "rosa", "sven",  "clara", "emil", "olga", "peter", "laura", "boris"};
constexpr std::array kColours = {"red",   "blue", "green", "yellow", "black",  "white",
                                 "brown", "grey", "pink",  "orange", "silver", "gold"};

// SplitMix64: the same texts on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Below(uint64_t bound) {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % bound;
  }
  template <size_t kCount>
  const char* OneOf(const std::array<const char*, kCount>& words) {
    return words[Below(kCount)];
  }

 private:
  uint64_t state_;
};

// Exactly `count` tokens: `next` gives text until there are enough.
absl::StatusOr<std::vector<int32_t>> Fill(const EncodeText& encode, int64_t count,
                                          const std::function<std::string()>& next) {
  std::vector<int32_t> tokens;
  while (static_cast<int64_t>(tokens.size()) < count) {
    absl::StatusOr<std::vector<int32_t>> more = encode(next());
    if (!more.ok()) return more.status();
    if (more->empty()) return absl::InvalidArgumentError("encode: a text has no tokens");
    tokens.insert(tokens.end(), more->begin(), more->end());
  }
  tokens.resize(count);
  return tokens;
}

absl::Status CheckPositive(const AgentOptions& options, int64_t bos) {
  const std::pair<const char*, int64_t> fields[] = {{"agents", options.agents},
                                                    {"input_tokens", options.input_tokens},
                                                    {"prefix_tokens", options.prefix_tokens - bos},
                                                    {"output_tokens", options.output_tokens}};
  for (const auto& [name, value] : fields) {
    if (value < 1)
      return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, " is too few"));
  }
  if (options.agents > static_cast<int64_t>(kAgents.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("agents: ", options.agents, " is more than ", kAgents.size()));
  }
  return absl::OkStatus();
}

void Add(AgentPrompt& prompt, std::span<const int32_t> tokens, bool filling, int64_t placeholder) {
  prompt.pieces.push_back({.filling = filling,
                           .placeholder = placeholder,
                           .first = static_cast<int64_t>(prompt.tokens.size()),
                           .count = static_cast<int64_t>(tokens.size())});
  prompt.tokens.insert(prompt.tokens.end(), tokens.begin(), tokens.end());
}

}  // namespace

absl::StatusOr<AgentWorkload> AgentWorkload::Create(const AgentOptions& options,
                                                    const EncodeText& encode,
                                                    std::span<const int32_t> bos,
                                                    int64_t max_tokens) {
  const auto lead = static_cast<int64_t>(bos.size());
  if (absl::Status s = CheckPositive(options, lead); !s.ok()) return s;
  AgentWorkload workload;
  workload.options_ = options;
  workload.encode_ = encode;
  int64_t joints = 0;
  for (int64_t agent = 0; agent < options.agents; ++agent) {
    Random random(options.seed * 1000 + static_cast<uint64_t>(agent));
    absl::StatusOr<std::vector<int32_t>> role = Fill(encode, options.prefix_tokens - lead, [&] {
      return std::string(random.OneOf(kRoleWords)) + " ";
    });
    if (!role.ok()) return role.status();
    role->insert(role->begin(), bos.begin(), bos.end());
    workload.roles_.push_back(*std::move(role));
    absl::StatusOr<std::vector<int32_t>> joint =
        encode(absl::StrCat(" agent ", kAgents[static_cast<size_t>(agent)], " : "));
    if (!joint.ok()) return joint.status();
    joints += static_cast<int64_t>(joint->size());
    workload.joints_.push_back(*std::move(joint));
  }
  size_t longest_ask = 0;
  for (const char* name : kNames) {
    absl::StatusOr<std::vector<int32_t>> ask = encode(absl::StrCat("list ", name));
    if (!ask.ok()) return ask.status();
    longest_ask = std::max(longest_ask, ask->size());
  }
  workload.longest_ = static_cast<int64_t>(longest_ask) + options.prefix_tokens +
                      options.input_tokens + joints + options.agents * options.output_tokens;
  if (workload.longest_ > max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("agents: ", options.agents, " with prefix ", options.prefix_tokens, ", input ",
                     options.input_tokens, " and output ", options.output_tokens, " need ",
                     workload.longest_, " tokens; the model takes ", max_tokens));
  }
  return workload;
}

absl::StatusOr<AgentRequest> AgentWorkload::Request(int64_t request) const {
  Random random(options_.seed * 1000003 + static_cast<uint64_t>(request));
  std::array names = kNames;  // in another order; each comes once before one comes again
  for (size_t i = names.size() - 1; i > 0; --i) std::swap(names[i], names[random.Below(i + 1)]);
  size_t next = 0;
  absl::StatusOr<std::vector<int32_t>> question = Fill(encode_, options_.input_tokens, [&] {
    return absl::StrCat(names[next++ % names.size()], " ", random.OneOf(kColours), " . ");
  });
  if (!question.ok()) return question.status();
  absl::StatusOr<std::vector<int32_t>> ask = encode_(absl::StrCat("list ", names[0]));
  if (!ask.ok()) return ask.status();
  return AgentRequest{*std::move(question), *std::move(ask)};
}

AgentPrompt AgentWorkload::Prompt(int64_t agent, const AgentRequest& request,
                                  const std::vector<std::vector<int32_t>>& messages) const {
  ABSL_RAW_CHECK(
      agent >= 0 && agent < options_.agents && static_cast<int64_t>(messages.size()) >= agent,
      "AgentWorkload: no such agent, or messages before it are missing");
  AgentPrompt prompt;
  Add(prompt, roles_[agent], false, 0);
  Add(prompt, request.question, true, 0);
  for (int64_t before = 0; before < agent; ++before) {
    Add(prompt, joints_[before], false, 0);
    Add(prompt, messages[before], true, 1 + before);
  }
  Add(prompt, joints_[agent], false, 0);
  Add(prompt, request.ask, false, 0);
  return prompt;
}

}  // namespace kedge
