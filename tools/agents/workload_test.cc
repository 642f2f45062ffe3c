#include "tools/agents/workload.h"

#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/model/byte_tokenizer.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kBos[] = {ByteTokenizer::kBos};

absl::StatusOr<std::vector<int32_t>> Bytes(const std::string& text) {
  return ByteTokenizer().Encode(text, /*add_bos=*/false);
}
std::string ErrorOf(const AgentOptions& options, int64_t max_tokens) {
  absl::StatusOr<AgentWorkload> workload = AgentWorkload::Create(options, Bytes, kBos, max_tokens);
  EXPECT_EQ(workload.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(workload.status().message());
}

TEST(AgentWorkload, PromptsHaveTheAskedLengths) {
  const AgentOptions options{
      .agents = 5, .input_tokens = 100, .prefix_tokens = 64, .output_tokens = 30};
  absl::StatusOr<AgentWorkload> workload = AgentWorkload::Create(options, Bytes, kBos, 1000);
  ASSERT_TRUE(workload.ok()) << workload.status();
  absl::StatusOr<AgentRequest> request = workload->Request(0);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->question.size(), 100u);
  std::vector<std::vector<int32_t>> messages;
  std::set<std::vector<int32_t>> roles;
  for (int64_t agent = 0; agent < 5; ++agent) {
    const AgentPrompt prompt = workload->Prompt(agent, *request, messages);
    EXPECT_EQ(prompt.tokens[0], ByteTokenizer::kBos);
    EXPECT_EQ(prompt.pieces.size(), 4u + 2 * agent);
    EXPECT_EQ(prompt.pieces[0].count, 64);
    roles.insert({prompt.tokens.begin(), prompt.tokens.begin() + 64});
    EXPECT_TRUE(prompt.pieces[1].filling);
    EXPECT_EQ(prompt.pieces[1].placeholder, 0);
    EXPECT_EQ(prompt.pieces[1].count, 100);
    int64_t at = 0;
    for (const AgentPiece& piece : prompt.pieces) {
      EXPECT_EQ(piece.first, at);
      at += piece.count;
    }
    EXPECT_EQ(at, static_cast<int64_t>(prompt.tokens.size()));
    if (agent == 4) {
      EXPECT_LE(at + 30, workload->longest());
      EXPECT_GT(at + 34, workload->longest()) << "another name is a little longer";
    }
    if (agent > 0) {
      EXPECT_EQ(prompt.pieces[3].placeholder, 1);
    }
    messages.push_back(std::vector<int32_t>(30, static_cast<int32_t>(agent)));
  }
  EXPECT_EQ(roles.size(), 5u) << "each agent has a role text of its own";
}

TEST(AgentWorkload, RequestsDifferAndRepeat) {
  absl::StatusOr<AgentWorkload> workload = AgentWorkload::Create({}, Bytes, kBos, 4096);
  ASSERT_TRUE(workload.ok());
  EXPECT_EQ(workload->Request(3)->question, workload->Request(3)->question);
  EXPECT_NE(workload->Request(3)->question, workload->Request(4)->question);
  const AgentPrompt a = workload->Prompt(0, *workload->Request(1), {});
  const AgentPrompt b = workload->Prompt(0, *workload->Request(2), {});
  EXPECT_TRUE(std::equal(a.tokens.begin(), a.tokens.begin() + 64, b.tokens.begin()))
      << "the role text is the same in every request";
}

// The byte tokenizer's text again.
std::string Text(const std::vector<int32_t>& tokens) { return ByteTokenizer().Decode(tokens); }

TEST(AgentWorkload, FactsAreThoseOfTheQuestionThatStandInItOnce) {
  for (const int64_t input : {5, 40, 200, 500, 5000}) {
    absl::StatusOr<AgentWorkload> workload =
        AgentWorkload::Create({.input_tokens = input}, Bytes, kBos, 8192);
    ASSERT_TRUE(workload.ok()) << workload.status();
    absl::StatusOr<AgentRequest> request = workload->Request(2);
    ASSERT_TRUE(request.ok());
    const std::string question = " " + Text(request->question);
    EXPECT_LE(request->facts.size(), 3u);
    EXPECT_EQ(request->facts.size() == 3, input == 200 || input == 500) << input;
    for (const AgentFact& fact : request->facts) {
      const std::string name = Text(fact.ask).substr(std::string("colour").size()) + " ";
      const size_t at = question.find(name);
      ASSERT_NE(at, std::string::npos) << name;
      EXPECT_EQ(question.find(name, at + 1), std::string::npos) << name << "has one colour";
      const std::string colour = Text(fact.answer).substr(1) + " . ";
      EXPECT_EQ(question.substr(at + name.size(), colour.size()), colour);
    }
    if (request->facts.empty()) continue;
    const AgentPrompt usual = workload->Prompt(0, *request, {});
    const AgentPrompt asked = workload->Prompt(0, *request, {}, request->facts[0].ask);
    const size_t context = usual.tokens.size() - request->ask.size();
    ASSERT_EQ(asked.tokens.size(), context + request->facts[0].ask.size());
    EXPECT_TRUE(
        std::equal(usual.tokens.begin(), usual.tokens.begin() + context, asked.tokens.begin()));
  }
}

TEST(AgentWorkload, WhatDoesNotFitIsRefusedByName) {
  EXPECT_THAT(
      ErrorOf({.agents = 5, .input_tokens = 1024, .prefix_tokens = 512, .output_tokens = 512}, 512),
      HasSubstr("need 4182 tokens; the model takes 512"));
  EXPECT_THAT(ErrorOf({.agents = 0}, 512), HasSubstr("agents: 0"));
  EXPECT_THAT(ErrorOf({.agents = 99}, 512), HasSubstr("agents: 99"));
  EXPECT_THAT(ErrorOf({.input_tokens = 0}, 512), HasSubstr("input_tokens: 0"));
  EXPECT_THAT(ErrorOf({.prefix_tokens = 1}, 512), HasSubstr("prefix_tokens"));
  EXPECT_THAT(ErrorOf({.output_tokens = -4}, 512), HasSubstr("output_tokens: -4"));
}

}  // namespace
}  // namespace kedge
