// A task's contexts and questions as tokens of one model.
//
// Pieces are tokenised one by one and joined. A tokenizer of words takes the text as it is; for
// others a space is put before every piece, question and answer but the first, and the task's
// "<bos>" becomes the model's own BOS token (or nothing, where it has none).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tests/quality/eval_model.h"
#include "tests/quality/task_file.h"

namespace kedge::quality {

struct EvalPiece {
  bool filling = false;
  int64_t placeholder = 0;
  int64_t first = 0;  // its tokens' place in the context
  int64_t count = 0;
};

struct EvalQuestion {
  std::vector<int32_t> tokens;  // what follows the context
  std::vector<int32_t> answer;
  std::string tag;
};

struct EvalContext {
  std::string id;
  std::string consumer;
  std::string group;
  std::string cluster;  // what is drawn as one in the bootstrap: the group, or the context itself
  std::vector<int32_t> tokens;
  std::vector<EvalPiece> pieces;  // together they are `tokens`
  int64_t lead = 0;               // leading tokens that a filling is computed behind: BOS, or none
  std::vector<EvalQuestion> questions;
};

struct EvalTask {
  std::string name;
  bool prose = false;  // the score is the loss over the answer's tokens
  std::vector<EvalContext> contexts;
};

struct EvalTaskOptions {
  // The question is repeated before the context: each question makes a context of its own.
  bool query_aware = false;
  // Each question makes a context of its own, behind it as always: what is chosen by the question
  // is chosen for this one alone.
  bool per_question = false;
  int64_t contexts = 0;  // at most so many of the file; 0: all
};

// InvalidArgument names the context when it is longer than the model was evaluated for, and the
// text when it has a word that the tokenizer does not know.
absl::StatusOr<EvalTask> MakeEvalTask(const TaskFile& file, const EvalModel& model,
                                      const EvalTaskOptions& options = {});

}  // namespace kedge::quality
