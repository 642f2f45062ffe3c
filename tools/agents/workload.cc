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

constexpr size_t kFactsAsked = 3;

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

// Tokens of what an agent is asked and answers, where that is longest.
absl::StatusOr<int64_t> LongestTurn(const EncodeText& encode, int64_t output_tokens) {
  size_t longest = 0;
  const auto take = [&](const std::string& text, int64_t behind) {
    absl::StatusOr<std::vector<int32_t>> tokens = encode(text);
    if (tokens.ok()) longest = std::max(longest, tokens->size() + static_cast<size_t>(behind));
    return tokens.status();
  };
  for (const char* name : kNames) {
    if (absl::Status s = take(absl::StrCat("list ", name), output_tokens); !s.ok()) return s;
    for (const char* colour : kColours) {
      const absl::Status s = take(absl::StrCat("colour ", name, " ", colour), 0);
      if (!s.ok()) return s;
    }
  }
  return static_cast<int64_t>(longest);
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
  absl::StatusOr<int64_t> longest_turn = LongestTurn(encode, options.output_tokens);
  if (!longest_turn.ok()) return longest_turn.status();
  workload.longest_ = *longest_turn + options.prefix_tokens + options.input_tokens + joints +
                      (options.agents - 1) * options.output_tokens;
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
  std::vector<const char*> colours;  // of names[i % size]; the last of them may be cut off
  absl::StatusOr<std::vector<int32_t>> question = Fill(encode_, options_.input_tokens, [&] {
    colours.push_back(random.OneOf(kColours));
    return absl::StrCat(names[(colours.size() - 1) % names.size()], " ", colours.back(), " . ");
  });
  if (!question.ok()) return question.status();
  absl::StatusOr<std::vector<int32_t>> ask = encode_(absl::StrCat("list ", names[0]));
  if (!ask.ok()) return ask.status();
  AgentRequest made{*std::move(question), *std::move(ask), {}};
  const size_t whole = colours.size() - 1;
  const size_t twice = colours.size() > names.size() ? colours.size() - names.size() : 0;
  const size_t end = std::min(whole, names.size());
  const size_t step = twice < end ? (end - twice + kFactsAsked - 1) / kFactsAsked : 1;
  for (size_t i = twice; i < end; i += step) {
    absl::StatusOr<std::vector<int32_t>> of = encode_(absl::StrCat("colour ", names[i]));
    if (!of.ok()) return of.status();
    absl::StatusOr<std::vector<int32_t>> answer = encode_(absl::StrCat(" ", colours[i]));
    if (!answer.ok()) return answer.status();
    made.facts.push_back({*std::move(of), *std::move(answer)});
  }
  return made;
}

AgentPrompt AgentWorkload::Prompt(int64_t agent, const AgentRequest& request,
                                  const std::vector<std::vector<int32_t>>& messages,
                                  std::span<const int32_t> ask) const {
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
  Add(prompt, ask.empty() ? request.ask : ask, false, 0);
  return prompt;
}

}  // namespace kedge
