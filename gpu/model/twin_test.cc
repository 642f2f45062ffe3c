#include "gpu/model/twin.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gpu/kernels/cast.h"
#include "gpu/model/model.h"
#include "gpu/model/testing_model.h"
#include "gtest/gtest.h"

namespace kedge {
namespace {

struct Computed {
  std::vector<float> logits;
  std::vector<float> keys;  // of layer 1, rotated
};

Computed Compute(Architecture architecture, DType kv_dtype, float scale) {
  CpuDevice device(1);
  std::unique_ptr<Model> model =
      MakeTestingModel(architecture, device, {.kv_dtype = kv_dtype, .twin_scale = scale});
  absl::StatusOr<KvCache> cache = model->NewCache(100);
  absl::StatusOr<Logits> logits = model->Prefill(TestingPrompt(100), *cache, {.all_logits = true});
  EXPECT_TRUE(logits.ok()) << logits.status();
  Computed computed{logits->values, std::vector<float>(100 * 2 * 16)};
  kernels::CastToFloat(kv_dtype, cache->PartSpan(1, Component::kK, 0, 100).data(), 100 * 2 * 16,
                       computed.keys.data());
  return computed;
}

TEST(Twin, AnswersStayTheSameToTheLastBitAndKeysGrow) {
  for (Architecture architecture : {Architecture::kLlama, Architecture::kQwen2}) {
    for (DType dtype : {DType::kF32, DType::kBf16, DType::kF16}) {
      const Computed plain = Compute(architecture, dtype, 1.0f);
      const Computed twin = Compute(architecture, dtype, 8.0f);
      ASSERT_EQ(plain.logits.size(), twin.logits.size());
      EXPECT_EQ(
          std::memcmp(plain.logits.data(), twin.logits.data(), plain.logits.size() * sizeof(float)),
          0);
      const std::vector<int64_t> pairs = TwinPairs(16);
      EXPECT_THAT(pairs, testing::ElementsAre(4, 7));
      for (size_t i = 0; i < plain.keys.size(); ++i) {
        const int64_t pair = static_cast<int64_t>(i % 8);
        const float factor = pair == 4 || pair == 7 ? 8.0f : 1.0f;
        ASSERT_EQ(twin.keys[i], plain.keys[i] * factor) << "channel " << i % 16;
      }
    }
  }
}

TEST(Twin, TheScaleIsAPowerOfTwo) {
  ModelWeights none;
  for (float scale : {0.0f, -8.0f, 3.0f, 2048.0f, std::nanf("")}) {
    const absl::Status status = MakeTwin(TestingConfig(Architecture::kLlama), scale, none);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << scale;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("twin_scale"));
  }
  EXPECT_TRUE(MakeTwin(TestingConfig(Architecture::kLlama), 0.25f, none).ok());
}

}  // namespace
}  // namespace kedge
