// What the shipped models must be able to show: dense answers are right, reuse without repair loses
// where it should and only there, and it loses because of what fillings could not see.
//
// Bars as the figures of tools/bench quality, on fewer contexts. The mask test says why `none`
// loses: hiding from fillings, during prefill alone, what stands before them causes the loss;
// hiding it from the question does not, because the fillings' KV already holds it.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "gpu/kernels/sampling.h"
#include "gtest/gtest.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/policies.h"
#include "tests/quality/task_file.h"

namespace kedge::quality {
namespace {

constexpr char kModels[] = "tests/quality/models/";
constexpr int64_t kContexts = 24;

std::vector<std::string> Models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    if (std::filesystem::exists(entry.path() / "config.json"))
      names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class ShippedModels : public testing::TestWithParam<std::string> {
 protected:
  ShippedModels() {
    absl::StatusOr<EvalModel> eval = ReadEvalModel(kModels + GetParam());
    EXPECT_TRUE(eval.ok()) << eval.status();
    eval_ = std::make_unique<EvalModel>(*std::move(eval));
  }
  EvalTask Task(const std::string& name, int64_t contexts = kContexts) {
    absl::StatusOr<TaskFile> file = ReadTaskFile("tests/quality/shipped_tasks/" + name + ".jsonl");
    EXPECT_TRUE(file.ok()) << file.status();
    absl::StatusOr<EvalTask> task = MakeEvalTask(*file, *eval_, {.contexts = contexts});
    EXPECT_TRUE(task.ok()) << task.status();
    return *std::move(task);
  }
  std::vector<Runner> Runners(const ModelOptions& options = {}) {
    absl::StatusOr<std::vector<Runner>> runners = MakeRunners(*eval_, 2, options);
    EXPECT_TRUE(runners.ok()) << runners.status();
    return *std::move(runners);
  }

  std::unique_ptr<EvalModel> eval_;
};

struct Rates {
  double dense = 0;
  double policy = 0;
};

Rates Accuracies(const EvalTask& task, const std::vector<ContextScores>& scores) {
  Rates rates;
  double questions = 0;
  for (const ContextScores& context : scores) {
    for (size_t q = 0; q < context.policies[0].size(); ++q) {
      rates.dense += context.policies[0][q].correct();
      rates.policy += context.policies[1][q].correct();
      questions += 1;
    }
  }
  EXPECT_GT(questions, 50) << task.name;
  return {rates.dense / questions, rates.policy / questions};
}

TEST_P(ShippedModels, NoneLosesWhereItShouldAndOnlyThere) {
  std::vector<Runner> runners = Runners();
  for (const char* name : {"recall", "role", "ditto", "carry"}) {
    Policies policies;
    policies.push_back(MakeNonePolicy());
    const EvalTask task = Task(name);
    absl::StatusOr<std::vector<ContextScores>> scores = Evaluate(task, policies, runners);
    ASSERT_TRUE(scores.ok()) << scores.status();
    const Rates rates = Accuracies(task, *scores);
    std::printf("%s %s: dense %.3f, none %.3f\n", GetParam().c_str(), name, rates.dense,
                rates.policy);
    EXPECT_GE(rates.dense, 0.95) << name;
    if (task.name == "recall") {
      EXPECT_LE(rates.dense - rates.policy, 0.01);
    } else {
      EXPECT_GE(rates.dense - rates.policy, 0.20) << name;
    }
  }
}

TEST_P(ShippedModels, FetchedIsDenseBitForBitAndTheTwinAnswersTheSame) {
  std::vector<Runner> plain = Runners();
  std::vector<Runner> twin = Runners({.twin_scale = 8.0f});
  std::unique_ptr<KvPolicy> fetched = *MakeFetchedPolicy();
  for (const char* name : {"role", "alias", "long"}) {
    for (const EvalContext& context : Task(name, 3).contexts) {
      Model& model = *plain[0].model;
      absl::StatusOr<KvCache> dense = DenseKv(model, context, CapacityFor(context));
      ASSERT_TRUE(dense.ok());
      absl::StatusOr<PolicyKv> kv = fetched->Obtain(
          model, {.context = context, .dense = *dense, .capacity = CapacityFor(context)});
      ASSERT_TRUE(kv.ok()) << kv.status();
      absl::StatusOr<KvCache> twins = DenseKv(*twin[0].model, context, CapacityFor(context));
      ASSERT_TRUE(twins.ok());
      for (const EvalQuestion& question : context.questions) {
        const absl::StatusOr<Logits> a = AnswerLogits(model, *dense, context, question);
        const absl::StatusOr<Logits> b = AnswerLogits(model, kv->cache, context, question);
        const absl::StatusOr<Logits> c = AnswerLogits(*twin[0].model, *twins, context, question);
        ASSERT_TRUE(a.ok() && b.ok() && c.ok());
        const size_t bytes = a->values.size() * sizeof(float);
        EXPECT_EQ(std::memcmp(a->values.data(), b->values.data(), bytes), 0) << context.id;
        EXPECT_EQ(std::memcmp(a->values.data(), c->values.data(), bytes), 0) << context.id;
      }
    }
  }
}

// The filling that tells of the question's last word: where it begins a line or is an alias.
const EvalPiece* FillingOf(const EvalModel& model, const EvalContext& context,
                           const EvalQuestion& question) {
  const int32_t name = question.tokens.back();
  const int32_t stop = model.tokenizer.Find(".").value_or(-1);
  const int32_t alias = model.tokenizer.Find("alias").value_or(-1);
  for (const EvalPiece& piece : context.pieces) {
    for (int64_t i = piece.first; piece.filling && i < piece.first + piece.count; ++i) {
      if (context.tokens[i] != name) continue;
      const int32_t before = context.tokens[i - 1];
      if (i == piece.first || before == stop || before == alias) return &piece;
    }
  }
  return nullptr;
}

// Fillings see BOS and themselves.
PrefillOptions HideFromFillings(const EvalContext& context) {
  PrefillOptions options;
  options.visible = [&context](int64_t token, int64_t key) {
    for (const EvalPiece& piece : context.pieces) {
      if (token < piece.first || token >= piece.first + piece.count) continue;
      return !piece.filling || key < context.lead || key >= piece.first;
    }
    return true;
  };
  return options;
}

bool Answers(Model& model, KvCache& cache, const EvalContext& context, const EvalQuestion& question,
             const PrefillOptions& options) {
  std::vector<int32_t> sequence = context.tokens;
  sequence.insert(sequence.end(), question.tokens.begin(), question.tokens.end());
  const int64_t length = cache.length();
  absl::StatusOr<Logits> logits = model.Prefill(sequence, cache, options);
  EXPECT_TRUE(logits.ok()) << logits.status();
  cache.set_length(length);
  return kernels::ArgMax(logits->row(0)) == question.answer[0];
}

TEST_P(ShippedModels, FillingsThatSeeNothingBeforeThemCauseTheLoss) {
  std::vector<Runner> runners = Runners();
  Model& model = *runners[0].model;
  for (const char* name : {"role", "ditto", "carry", "alias"}) {
    double asked = 0, dense_right = 0, blind_fillings = 0, blind_question = 0;
    const EvalTask task = Task(name);
    for (const EvalContext& context : task.contexts) {
      absl::StatusOr<KvCache> dense = DenseKv(model, context, CapacityFor(context));
      absl::StatusOr<KvCache> masked = model.NewCache(CapacityFor(context));
      ASSERT_TRUE(dense.ok() && masked.ok());
      ASSERT_TRUE(model.Prefill(context.tokens, *masked, HideFromFillings(context)).ok());
      for (const EvalQuestion& question : context.questions) {
        // The answer's word stands before the filling: by the tag, or always for role.
        if (task.name != "role" && question.tag.rfind("cross", 0) != 0) continue;
        const EvalPiece* filling = FillingOf(*eval_, context, question);
        ASSERT_NE(filling, nullptr) << context.id;
        const int64_t length = static_cast<int64_t>(context.tokens.size());
        PrefillOptions hidden;
        hidden.visible = [&](int64_t token, int64_t key) {
          return token < length || key < context.lead || key >= filling->first;
        };
        asked += 1;
        dense_right += Answers(model, *dense, context, question, {});
        blind_fillings += Answers(model, *masked, context, question, {});
        blind_question += Answers(model, *dense, context, question, hidden);
      }
    }
    ASSERT_GT(asked, 50) << name;
    std::printf("%s %s: dense %.3f, fillings see nothing before them %.3f, question neither %.3f\n",
                GetParam().c_str(), name, dense_right / asked, blind_fillings / asked,
                blind_question / asked);
    EXPECT_GE((dense_right - blind_fillings) / asked, 0.20) << name;
    EXPECT_LE((dense_right - blind_question) / asked, 0.05) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ShippedModels, testing::ValuesIn(Models()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace kedge::quality
