// The runner's logits against PyTorch's, on the checkpoints of make_golden.py.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "gpu/kernels/cast.h"
#include "gpu/model/file_map.h"
#include "gpu/model/model.h"
#include "gpu/model/safetensors.h"

namespace kedge {
namespace {

constexpr float kTolerance = 1e-4f;

std::string DataPath(const std::string& name) { return "tests/golden/data/" + name; }

std::vector<int32_t> ReadTokens(const std::string& checkpoint) {
  std::ifstream file(DataPath(checkpoint) + "/tokens.json");
  return nlohmann::json::parse(file).at("tokens").get<std::vector<int32_t>>();
}

std::vector<float> ReadLogits(const std::string& checkpoint) {
  const std::string path = DataPath(checkpoint) + "/logits.safetensors";
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

float LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0.0f;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    // NaN must not hide in a comparison.
    largest = difference <= largest ? largest : difference;
  }
  return largest;
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, LogitsAgreeWithPyTorch) {
  CpuDevice device(2);
  const std::vector<int32_t> tokens = ReadTokens(GetParam());
  const std::vector<float> expected = ReadLogits(GetParam());
  for (int64_t block_tokens : {32, 64, 128}) {
    absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(
        DataPath(GetParam()), device, {.block_tokens = block_tokens, .kv_dtype = DType::kF32});
    ASSERT_TRUE(model.ok()) << model.status();
    absl::StatusOr<KvCache> cache = (*model)->NewCache(128);
    ASSERT_TRUE(cache.ok());
    absl::StatusOr<Logits> logits = (*model)->Prefill(tokens, *cache, {.all_logits = true});
    ASSERT_TRUE(logits.ok()) << logits.status();
    const float difference = LargestDifference(logits->values, expected);
    EXPECT_LE(difference, kTolerance) << "blocks of " << block_tokens;
    RecordProperty("largest_difference_1e9", static_cast<int>(difference * 1e9f));
  }
}

TEST_P(Golden, DecodedLogitsAgreeToo) {
  CpuDevice device(1);
  const std::vector<int32_t> tokens = ReadTokens(GetParam());
  const std::vector<float> expected = ReadLogits(GetParam());
  absl::StatusOr<std::unique_ptr<Model>> model =
      Model::Load(DataPath(GetParam()), device, {.kv_dtype = DType::kF32});
  ASSERT_TRUE(model.ok()) << model.status();
  absl::StatusOr<KvCache> cache = (*model)->NewCache(128);
  absl::StatusOr<Logits> all = (*model)->Prefill({tokens.data(), 40}, *cache, {.all_logits = true});
  ASSERT_TRUE(all.ok());
  for (size_t i = 40; i < tokens.size(); ++i) {
    absl::StatusOr<Logits> row = (*model)->Decode(tokens[i], *cache);
    ASSERT_TRUE(row.ok());
    all->values.insert(all->values.end(), row->values.begin(), row->values.end());
  }
  EXPECT_LE(LargestDifference(all->values, expected), kTolerance);
}

TEST_P(Golden, KvOfTheCheckpointsTypeStaysClose) {
  CpuDevice device(2);
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(DataPath(GetParam()), device);
  ASSERT_TRUE(model.ok()) << model.status();
  absl::StatusOr<KvCache> cache = (*model)->NewCache(128);
  absl::StatusOr<Logits> logits =
      (*model)->Prefill(ReadTokens(GetParam()), *cache, {.all_logits = true});
  ASSERT_TRUE(logits.ok());
  // Keys and values rounded to 8 or 11 bits, against logits of size 5.
  const DType dtype = (*model)->kv_dtype();
  const float tolerance = dtype == DType::kF32 ? kTolerance : dtype == DType::kF16 ? 0.02f : 0.2f;
  EXPECT_LE(LargestDifference(logits->values, ReadLogits(GetParam())), tolerance);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, Golden,
                         testing::Values("llama_f32", "llama_bf16_sharded", "qwen2_f32",
                                         "qwen2_f16"),
                         [](const testing::TestParamInfo<std::string>& info) {
                           return info.param;
                         });

}  // namespace
}  // namespace kedge
