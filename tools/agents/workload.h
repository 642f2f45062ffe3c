// Prompts of fully connected agents: each sees the user's question and the messages of all agents
// before it, behind a role text of its own.
//
//     role_m  question  joint_0  message_0  joint_1  ...  message_(m-1)  joint_m  ask
//
// A question is a list of facts ("anna red ."), what is asked is to list them. Behind the same
// prompt an agent can be asked for single facts instead: answers of one word, right or wrong.
//
// The shape and the grid of lengths (input, prefix, output) are those of KVCOMM (arXiv 2510.12872,
// Eq. 1 and Table 3: prefix 64 to 1024, output 128 to 1024, input 64 to 1024). Role texts and
// joints are the same in every request; what fills the placeholders differs. Every part has exactly
// the asked number of tokens, made of words that the shipped models know and large ones read.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge {

// Text to tokens; of the model that reads the prompts.
using EncodeText = std::function<absl::StatusOr<std::vector<int32_t>>(const std::string& text)>;

struct AgentOptions {
  int64_t agents = 5;
  int64_t input_tokens = 66;   // the user's question
  int64_t prefix_tokens = 64;  // a role text, BOS included
  int64_t output_tokens = 63;  // a message
  uint64_t seed = 1;
};

// A run of a prompt: fixed text, or what fills a placeholder.
struct AgentPiece {
  bool filling = false;
  int64_t placeholder = 0;  // 0: the question; 1 + m: agent m's message
  int64_t first = 0;
  int64_t count = 0;
};

struct AgentFact {
  std::vector<int32_t> ask;     // "colour anna"
  std::vector<int32_t> answer;  // "red"
};

struct AgentRequest {
  std::vector<int32_t> question;  // input_tokens
  std::vector<int32_t> ask;       // stands at the end of every agent's prompt
  std::vector<AgentFact> facts;   // some of the question's that stand in it once; 3 at most
};

struct AgentPrompt {
  std::vector<int32_t> tokens;
  std::vector<AgentPiece> pieces;  // together they are `tokens`
};

class AgentWorkload {
 public:
  // `bos`: the tokens that begin a sequence, may be none. InvalidArgument names the option that is
  // not positive or the text that cannot be encoded, or says that the longest prompt and its answer
  // do not fit in `max_tokens`.
  static absl::StatusOr<AgentWorkload> Create(const AgentOptions& options, const EncodeText& encode,
                                              std::span<const int32_t> bos, int64_t max_tokens);

  const AgentOptions& options() const { return options_; }
  // Of the last agent's prompt and answer, where what is asked is longest.
  int64_t longest() const { return longest_; }

  // What the user of request `request` says: another each, the same at every call.
  absl::StatusOr<AgentRequest> Request(int64_t request) const;

  // What agent `agent` reads: `messages` are those of the agents before it, in order. `ask` stands
  // in place of the request's own; empty: that.
  AgentPrompt Prompt(int64_t agent, const AgentRequest& request,
                     const std::vector<std::vector<int32_t>>& messages,
                     std::span<const int32_t> ask = {}) const;

 private:
  AgentOptions options_;
  EncodeText encode_;
  std::vector<std::vector<int32_t>> roles_;
  std::vector<std::vector<int32_t>> joints_;
  int64_t longest_ = 0;
};

}  // namespace kedge
