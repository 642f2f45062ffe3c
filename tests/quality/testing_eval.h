// A small random model with a tokenizer of words, and task files in memory, for the tests here.
#pragma once

#include <string>

#include "tests/quality/eval_context.h"
#include "tests/quality/eval_model.h"

namespace kedge::quality {

// Writes a checkpoint (2 layers, KV in bf16, 256 positions) with the words a0 to a99 and <bos>, and
// reads it. `evaluated_tokens`: what its kedge_eval.json says; 0 writes none.
EvalModel MakeTestingEvalModel(const std::string& name, int64_t evaluated_tokens = 0,
                               int64_t head_size = 16);

// Three contexts with two fillings and three questions each; a header before them.
std::string TestingTaskFile();

EvalTask MakeTestingTask(const EvalModel& model);

}  // namespace kedge::quality
