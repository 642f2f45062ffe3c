#include "tools/demonstration/report.h"

#include <nlohmann/json.hpp>

#include "gtest/gtest.h"

namespace kedge {
namespace {

DemoFigures Figures() {
  DemoFigures figures;
  figures.node = "tcp://127.0.0.1:1";
  figures.questions = {"How \"many\"?\n\xff", "Why?"};
  figures.serving.questions.resize(2);
  for (ServedQuestion& question : figures.serving.questions) {
    question.dense = {.tokens = {1, 2}, .prompt_tokens = 100, .ttft_ms = 30};
    question.first = {.tokens = {1, 2}, .matched_tokens = 0, .ttft_ms = 40};
    question.again = {.tokens = {1, 2}, .matched_tokens = 96, .ttft_ms = 5};
  }
  figures.policy = "kivi4g32";
  figures.serving.stored = {"kivi4g32", 10, 300, 1000};
  figures.replay.hits = {.host_blocks = 3, .miss_blocks = 1};
  figures.metrics = ParseMetrics("kedge_leases 4\nkedge_x_bucket{le=\"1\"} 1\nother 1\n");
  return figures;
}

TEST(ReportTest, JsonHasTheFigures) {
  const nlohmann::json object = nlohmann::json::parse(FiguresJson(Figures()));
  EXPECT_EQ(object["serving"]["questions"].size(), 2u);
  EXPECT_EQ(object["serving"]["prompt_tokens"], 200);
  EXPECT_EQ(object["serving"]["again_speed_up"], 6.0);
  EXPECT_EQ(object["serving"]["same_tokens"], true);
  EXPECT_EQ(object["policy"], "kivi4g32");
  EXPECT_EQ(object["stored"]["questions"]["bytes_before"], 1000);
  EXPECT_EQ(object["stored"]["questions"]["bytes"], 300);
  EXPECT_FALSE(object["stored"].contains("agents"));
  EXPECT_EQ(object["replay"]["hit_rate_blocks"], 0.75);
  EXPECT_EQ(object["node_metrics"].size(), 1u);
  EXPECT_EQ(object["node_metrics"]["kedge_leases"], 4);
}

TEST(ReportTest, AgentsAreThereWhenTheyRan) {
  DemoFigures figures = Figures();
  EXPECT_TRUE(nlohmann::json::parse(FiguresJson(figures))["agents"].is_null());
  figures.agents.emplace();
  figures.agents->requests = 2;
  figures.agents->agents = {{.prompt_tokens = 200, .answers = 2, .same_answers = 2}};
  nlohmann::json object = nlohmann::json::parse(FiguresJson(figures));
  EXPECT_EQ(object["agents"]["agents"][0]["prompt_tokens"], 200);
  EXPECT_EQ(object["agents"]["same_tokens"], true);
  figures.agents->agents[0].messages = 1;
  object = nlohmann::json::parse(FiguresJson(figures));
  EXPECT_EQ(object["agents"]["same_answers"], true);
  EXPECT_EQ(object["agents"]["same_tokens"], false);
  figures.agents->agents[0].same_answers = 1;
  object = nlohmann::json::parse(FiguresJson(figures));
  EXPECT_EQ(object["agents"]["same_answers"], false);
}

TEST(ReportTest, OneOtherTokenIsSeen) {
  DemoFigures figures = Figures();
  figures.serving.questions[1].again.tokens[1] = 3;
  EXPECT_FALSE(figures.serving.same_tokens());
  EXPECT_TRUE(figures.serving.questions[0].same_tokens());
  EXPECT_EQ(nlohmann::json::parse(FiguresJson(figures))["serving"]["same_tokens"], false);
}

TEST(ReportTest, FitsColumns) {
  EXPECT_EQ(FitColumns("ab", 4), "ab  ");
  EXPECT_EQ(FitColumns("abcd", 4), "abcd");
  EXPECT_EQ(FitColumns("abcde", 4), "a...");
  EXPECT_EQ(FitColumns("a\nb\x1b", 4), "a b ");
  EXPECT_EQ(FitColumns("\xc3\xb6\xe2\x80\x99", 3), "\xc3\xb6\xe2\x80\x99 ");
  EXPECT_EQ(FitColumns("\xc3\xb6\xe2\x80\x99xyz!", 5), "\xc3\xb6\xe2\x80\x99...");
}

}  // namespace
}  // namespace kedge
