#include "tests/quality/evaluate.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/reuse/blend.h"
#include "gpu/kernels/distribution.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/generate.h"
#include "tests/quality/attention_error.h"

namespace kedge::quality {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Decodes from the question on, as a worker would.
absl::StatusOr<std::vector<int32_t>> GreedyAnswer(Model& model, KvCache& cache,
                                                  const EvalContext& context,
                                                  const EvalQuestion& question) {
  const int64_t length = cache.length();
  std::vector<int32_t> sequence = context.tokens;
  sequence.insert(sequence.end(), question.tokens.begin(), question.tokens.end());
  absl::StatusOr<Logits> logits = model.Prefill(sequence, cache);
  if (!logits.ok()) return logits.status();
  absl::StatusOr<std::vector<int32_t>> answer =
      Generate(model, cache, *logits, {.max_tokens = static_cast<int64_t>(question.answer.size())});
  cache.set_length(length);
  return answer;
}

// AnswerLogits where decoding repairs KV: token by token, as a worker would go on.
absl::StatusOr<Logits> RepairedAnswerLogits(Model& model, const PolicyKv& kv,
                                            const EvalContext& context,
                                            const EvalQuestion& question) {
  std::vector<int32_t> sequence = context.tokens;
  sequence.insert(sequence.end(), question.tokens.begin(), question.tokens.end());
  const int64_t capacity = CapacityFor(context);
  absl::StatusOr<KvCache> asked = model.Fork(kv.cache, kv.cache.length(), capacity);
  if (!asked.ok()) return asked.status();
  absl::StatusOr<Logits> logits = model.Prefill(sequence, *asked);
  if (!logits.ok()) return logits;
  absl::StatusOr<RepairedSequence> decoding =
      RepairedSequence::Make(model, sequence, *asked, kv.repair, capacity);
  if (!decoding.ok()) return decoding.status();
  for (size_t i = 0; i + 1 < question.answer.size(); ++i) {
    const absl::StatusOr<Logits> next = decoding->Decode(question.answer[i]);
    if (!next.ok()) return next;
    logits->values.insert(logits->values.end(), next->values.begin(), next->values.end());
  }
  return logits;
}

QuestionScore Score(const EvalQuestion& question, const Logits& logits, const Logits& dense) {
  QuestionScore score;
  for (size_t i = 0; i < question.answer.size(); ++i) {
    const std::span<const float> row = logits.row(static_cast<int64_t>(i));
    const int32_t likely = kernels::ArgMax(row);
    score.right.push_back(likely == question.answer[i]);
    score.greedy.push_back(likely);
    score.log_probability.push_back(
        static_cast<float>(kernels::LogProbability(row, question.answer[i])));
    score.kl.push_back(&logits == &dense ? 0.0f
                                         : static_cast<float>(kernels::KullbackLeibler(
                                               dense.row(static_cast<int64_t>(i)), row)));
  }
  return score;
}

// One thread's work.
class ContextEvaluator {
 public:
  ContextEvaluator(Model& model, const Policies& policies) : model_(model), policies_(policies) {}

  absl::StatusOr<ContextScores> Run(const EvalContext& context) {
    ContextScores scores;
    const int64_t capacity = CapacityFor(context);
    double start = Seconds();
    absl::StatusOr<KvCache> dense = DenseKv(model_, context, capacity);
    if (!dense.ok()) return dense.status();
    scores.obtain_seconds.push_back(Seconds() - start);
    dense_logits_.clear();
    PolicyKv computed{.cache = *std::move(dense)};
    if (absl::Status s = Ask(context, computed, scores); !s.ok()) return s;
    const absl::StatusOr<AttentionProbe> probe =
        AttentionProbe::Record(model_, computed.cache, context, context.questions.front());
    if (!probe.ok()) return probe.status();
    scores.attention_errors.emplace_back(model_.config().layers);
    for (const std::unique_ptr<KvPolicy>& policy : policies_) {
      start = Seconds();
      absl::StatusOr<PolicyKv> kv = policy->Obtain(
          model_, {.context = context, .dense = computed.cache, .capacity = capacity});
      if (!kv.ok()) return kv.status();
      scores.obtain_seconds.push_back(Seconds() - start);
      if (kv->cache.length() != static_cast<int64_t>(context.tokens.size())) {
        return absl::InternalError(absl::StrCat(policy->name(), ": KV of ", kv->cache.length(),
                                                " tokens for a context of ",
                                                context.tokens.size()));
      }
      if (absl::Status s = Ask(context, *kv, scores); !s.ok()) return s;
      scores.attention_errors.push_back(probe->ErrorsOf(model_, kv->cache));
    }
    return scores;
  }

 private:
  // Appends one policy's scores. The first call is dense's.
  absl::Status Ask(const EvalContext& context, PolicyKv& kv, ContextScores& scores) {
    const bool first = dense_logits_.empty();
    std::vector<QuestionScore> answers;
    for (size_t i = 0; i < context.questions.size(); ++i) {
      const EvalQuestion& question = context.questions[i];
      absl::StatusOr<Logits> logits = kv.repair.done()
                                          ? AnswerLogits(model_, kv.cache, context, question)
                                          : RepairedAnswerLogits(model_, kv, context, question);
      if (!logits.ok()) return logits.status();
      if (first) dense_logits_.push_back(*std::move(logits));
      answers.push_back(Score(question, first ? dense_logits_[i] : *logits, dense_logits_[i]));
      // A group's answers are compared with each other, also where they are wrong: then teacher
      // forcing does not say how they go on.
      if (context.group.empty() || question.answer.size() == 1 || answers.back().correct())
        continue;
      absl::StatusOr<std::vector<int32_t>> greedy =
          GreedyAnswer(model_, kv.cache, context, question);
      if (!greedy.ok()) return greedy.status();
      answers.back().greedy = *std::move(greedy);
    }
    scores.policies.push_back(std::move(answers));
    return absl::OkStatus();
  }

  Model& model_;
  const Policies& policies_;
  std::vector<Logits> dense_logits_;  // of the current context
};

}  // namespace

bool QuestionScore::correct() const {
  return std::all_of(right.begin(), right.end(), [](uint8_t token) { return token != 0; });
}

int64_t CapacityFor(const EvalContext& context) {
  size_t longest = 0;
  for (const EvalQuestion& question : context.questions)
    longest = std::max(longest, question.tokens.size() + question.answer.size());
  return static_cast<int64_t>(context.tokens.size() + longest);
}

absl::StatusOr<Logits> AnswerLogits(Model& model, KvCache& cache, const EvalContext& context,
                                    const EvalQuestion& question) {
  const int64_t length = cache.length();
  std::vector<int32_t> sequence = context.tokens;
  sequence.insert(sequence.end(), question.tokens.begin(), question.tokens.end());
  sequence.insert(sequence.end(), question.answer.begin(), question.answer.end() - 1);
  absl::StatusOr<Logits> logits = model.Prefill(sequence, cache, {.all_logits = true});
  if (!logits.ok()) return logits;
  cache.set_length(length);
  const auto asked = static_cast<int64_t>(question.tokens.size()) - 1;
  logits->values.erase(logits->values.begin(), logits->values.begin() + asked * logits->vocabulary);
  return logits;
}

absl::StatusOr<std::vector<ContextScores>> Evaluate(
    const EvalTask& task, const Policies& policies, std::vector<Runner>& runners,
    const std::function<void(size_t done)>& progress) {
  std::vector<ContextScores> scores(task.contexts.size());
  std::atomic<size_t> next{0};
  std::mutex mutex;  // guards what is below
  absl::Status status;
  size_t done = 0;
  const auto work = [&](Runner& runner) {
    ContextEvaluator evaluator(*runner.model, policies);
    for (size_t i = next++; i < task.contexts.size(); i = next++) {
      absl::StatusOr<ContextScores> result = evaluator.Run(task.contexts[i]);
      const std::lock_guard<std::mutex> lock(mutex);
      if (!result.ok() && status.ok()) {
        status = absl::Status(
            result.status().code(),
            absl::StrCat(task.contexts[i].id, ": ", std::string(result.status().message())));
      }
      if (!status.ok()) return;
      scores[i] = *std::move(result);
      if (progress) progress(++done);
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < runners.size(); ++i) threads.emplace_back(work, std::ref(runners[i]));
  work(runners[0]);
  for (std::thread& thread : threads) thread.join();
  if (!status.ok()) return status;
  return scores;
}

}  // namespace kedge::quality
