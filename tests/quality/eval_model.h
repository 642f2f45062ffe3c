// A checkpoint that is evaluated: its tokenizer, its limits, and its models in memory.
//
// Any Hugging Face directory of a supported architecture with a tokenizer.json. Our own models say
// in kedge_eval.json up to which length they were evaluated; for others max_position_embeddings is
// the limit.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/device/device_cpu.h"
#include "gpu/model/model.h"
#include "gpu/model/model_config.h"
#include "gpu/model/tokenizer.h"

namespace kedge::quality {

inline constexpr char kEvalFormat[] = "kedge-eval-model";
inline constexpr int64_t kEvalVersion = 1;

struct EvalModel {
  std::string directory;
  std::string name;  // the directory's last part
  ModelConfig config;
  Tokenizer tokenizer;
  int64_t evaluated_tokens = 0;  // contexts are at most this long, questions and answers included
};

// InvalidArgument or NotFound name the file, the field and the value; kedge_eval.json of another
// format or version is refused by name, so is a tokenizer with more tokens than the model.
absl::StatusOr<EvalModel> ReadEvalModel(const std::string& directory);

// A model and the device that it computes on.
struct Runner {
  std::unique_ptr<CpuDevice> device;
  std::unique_ptr<Model> model;
};

// What `threads` threads are used best for: small models one each, single-threaded; of a large one
// there is one, with all threads. Loads the weights as often as there are runners.
absl::StatusOr<std::vector<Runner>> MakeRunners(const EvalModel& model, int threads,
                                                const ModelOptions& options);

}  // namespace kedge::quality
