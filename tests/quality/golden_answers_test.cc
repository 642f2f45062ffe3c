// The runner's answers on the shipped weights against PyTorch's (golden/make_answers.py): the same
// most likely token before every token of every answer, and logits within 1e-3, with KV in fp32.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/file_map.h"
#include "gpu/model/safetensors.h"
#include "gtest/gtest.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/task_file.h"

namespace kedge::quality {
namespace {

constexpr float kTolerance = 1e-3f;
constexpr char kGolden[] = "tests/quality/golden/";

std::vector<std::string> Models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGolden)) {
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  }
  return names;
}

std::vector<float> ReadLogits(const std::string& name) {
  const std::string path = kGolden + name + ".safetensors";
  absl::StatusOr<FileMap> file = FileMap::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  absl::StatusOr<std::map<std::string, TensorInfo>> tensors = ParseSafetensors(file->bytes(), path);
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  const TensorInfo& info = tensors->at("logits");
  std::vector<float> logits(info.elements());
  kernels::CastToFloat(info.dtype, file->bytes().data() + info.begin, info.elements(),
                       logits.data());
  return logits;
}

class GoldenAnswers : public testing::TestWithParam<std::string> {
 protected:
  GoldenAnswers() {
    std::ifstream file(kGolden + GetParam() + ".json");
    golden_ = nlohmann::json::parse(file);
    absl::StatusOr<EvalModel> eval = ReadEvalModel("tests/quality/models/" + GetParam());
    EXPECT_TRUE(eval.ok()) << eval.status();
    for (const auto& entry : std::filesystem::directory_iterator("tests/quality/shipped_tasks")) {
      absl::StatusOr<TaskFile> task_file = ReadTaskFile(entry.path().string());
      EXPECT_TRUE(task_file.ok()) << task_file.status();
      absl::StatusOr<EvalTask> task = MakeEvalTask(*task_file, *eval);
      EXPECT_TRUE(task.ok()) << task.status();
      for (EvalContext& context : task->contexts) contexts_[context.id] = std::move(context);
    }
  }

  nlohmann::json golden_;
  std::map<std::string, EvalContext> contexts_;
};

TEST_P(GoldenAnswers, AreThoseOfPyTorch) {
  CpuDevice device(2);
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load("tests/quality/models/" + GetParam(), device, {.kv_dtype = DType::kF32});
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<float> logits = ReadLogits(GetParam());
  const std::vector<size_t> logits_of = golden_["logits_of"].get<std::vector<size_t>>();
  ASSERT_GE(golden_["answers"].size(), 500u);

  std::string cached;
  std::unique_ptr<KvCache> cache;
  float largest = 0;
  size_t kept = 0;
  size_t other_answers = 0;
  for (size_t i = 0; i < golden_["answers"].size(); ++i) {
    const nlohmann::json& answer = golden_["answers"][i];
    ASSERT_TRUE(contexts_.count(answer[0])) << answer[0] << " is not among the test's contexts";
    const EvalContext& context = contexts_.at(answer[0]);
    if (cached != context.id) {
      absl::StatusOr<KvCache> dense = DenseKv(**model, context, CapacityFor(context));
      ASSERT_TRUE(dense.ok()) << dense.status();
      cache = std::make_unique<KvCache>(*std::move(dense));
      cached = context.id;
    }
    const EvalQuestion& question = context.questions.at(answer[1].get<size_t>());
    absl::StatusOr<Logits> rows = AnswerLogits(**model, *cache, context, question);
    ASSERT_TRUE(rows.ok()) << rows.status();
    std::vector<int32_t> greedy;
    for (int64_t row = 0; row < rows->rows(); ++row)
      greedy.push_back(kernels::ArgMax(rows->row(row)));
    const bool same = greedy == answer[2].get<std::vector<int32_t>>();
    EXPECT_TRUE(same) << context.id << " question " << answer[1];
    other_answers += same ? 0 : 1;
    if (kept == logits_of.size() || logits_of[kept] != i) continue;
    const float* expected = logits.data() + kept * rows->vocabulary;
    for (int64_t token = 0; token < rows->vocabulary; ++token) {
      const float difference = std::fabs(rows->row(0)[token] - expected[token]);
      largest = difference <= largest ? largest : difference;  // NaN must not hide
    }
    ++kept;
  }
  EXPECT_EQ(kept, logits_of.size());
  EXPECT_LE(largest, kTolerance);
  std::printf("%s: %zu questions, %zu with another answer; logits %.1e apart at most\n",
              GetParam().c_str(), golden_["answers"].size(), other_answers, largest);
}

INSTANTIATE_TEST_SUITE_P(Shipped, GoldenAnswers, testing::ValuesIn(Models()),
                         [](const testing::TestParamInfo<std::string>& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace kedge::quality
