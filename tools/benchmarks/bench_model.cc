#include "tools/benchmarks/bench_model.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/random_checkpoint.h"

namespace kedge::bench {

ModelConfig MidSizeModel(int64_t layers) {
  ModelConfig config;
  config.hidden_size = 1024;
  config.intermediate_size = 2816;
  config.layers = layers;
  config.heads = 16;
  config.kv_heads = 4;
  config.head_size = 64;
  config.vocabulary = 512;
  config.max_positions = 2048;
  return config;
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelConfig& config, CpuDevice& device) {
  std::string pattern = (std::filesystem::temp_directory_path() / "kedge-bench-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    return absl::UnavailableError(absl::StrCat("mkdtemp ", pattern, " failed"));
  }
  const absl::Status written = WriteRandomCheckpoint(pattern, config, 1);
  absl::StatusOr<std::unique_ptr<Model>> model = absl::UnknownError("");
  if (written.ok()) {
    model = Model::Load(pattern, device);
  } else {
    model = written;
  }
  std::filesystem::remove_all(pattern);
  return model;
}

std::vector<int32_t> RandomTokens(int64_t count, const ModelConfig& config) {
  kernels::SamplingGenerator generator(2);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(generator.NextBits() % static_cast<uint64_t>(config.vocabulary));
  }
  return tokens;
}

}  // namespace kedge::bench
