// Asks the questions of a task over every policy's KV.
//
// One prefill a context and policy serves all its questions: after each the cache is cut back to
// the context. Answers are scored by teacher forcing: the question and the right answer are
// computed in one go, and every token of the answer is compared with the most likely one before it.
// All of them are right exactly when greedy decoding would have given the answer, because the
// runner's prefill and decode have the same bits; and the positions of a long answer are scored
// apart from earlier mistakes.
//
// Contexts are spread over the runners, one thread each. Results do not depend on their number.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/quality/eval_context.h"
#include "tests/quality/eval_model.h"
#include "tests/quality/kv_policy.h"

namespace kedge::quality {

struct QuestionScore {
  std::vector<uint8_t> right;          // for each token of the answer
  std::vector<float> log_probability;  // of each token of the answer
  std::vector<float> kl;               // of each position's next-token distribution, from dense
  std::vector<int32_t> greedy;         // what greedy decoding gives, as long as the answer

  bool correct() const;
};

struct ContextScores {
  // [policy][question]; policy 0 is dense.
  std::vector<std::vector<QuestionScore>> policies;
  std::vector<double> obtain_seconds;  // [policy], for the KV alone
  // [policy][layer], attention_error.h, of the first question.
  std::vector<std::vector<double>> attention_errors;
};

using Policies = std::vector<std::unique_ptr<KvPolicy>>;

// Dense is evaluated first in any case and is not among `policies`. `progress` is called with the
// number of contexts that are done, by any thread, one at a time; may be empty.
absl::StatusOr<std::vector<ContextScores>> Evaluate(
    const EvalTask& task, const Policies& policies, std::vector<Runner>& runners,
    const std::function<void(size_t done)>& progress = nullptr);

// The logits that choose each token of the answer, over a cache that holds the context; its length
// is the same afterwards. For tests; Evaluate is made of it.
absl::StatusOr<Logits> AnswerLogits(Model& model, KvCache& cache, const EvalContext& context,
                                    const EvalQuestion& question);

// What a context's cache must have room for.
int64_t CapacityFor(const EvalContext& context);

}  // namespace kedge::quality
