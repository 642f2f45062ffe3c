#include "client/variants.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

ModelIdentity Identity() {
  return {.weights_id = "w",
          .tokenizer_id = "t",
          .shape = KvShape::KeysAndValues(2, 2, 64, 32, DType::kF16),
          .rope_theta = 1e4};
}

ModelProfile Profile(const std::vector<GateRecord>& gate) {
  const ProfiledModel model{.weights_id = "w",
                            .rope_theta = 1e4,
                            .layers = 2,
                            .kv_heads = 2,
                            .head_size = 64,
                            .dtype = DType::kF16};
  return *ModelProfile::Make(model, {}, gate);
}

GateRecord Record(const char* chain, double points, bool passed) {
  return {.chain = chain,
          .task = kGateMean,
          .points_lost = points,
          .low = points - 1,
          .high = points + 1,
          .bar = 2,
          .bits_per_value = 4,
          .questions = 100,
          .passed = passed};
}

Variant Named(const char* name) { return *Variant::Parse(name); }

TEST(ModelVariants, LossyOnesNeedAProfileOrAPlainWord) {
  const auto strict = *ModelVariants::Make(Identity(), std::nullopt, false);
  EXPECT_TRUE(strict->Chain(Variant::Raw()).ok());
  const auto refused = strict->Chain(Named("kivi4g32"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_NE(refused.status().message().find("allow_unprofiled"), std::string::npos);
  EXPECT_EQ(strict->NoWorseThan(Fidelity::kPruned), std::vector{Variant::Raw()});

  const auto allowed = *ModelVariants::Make(Identity(), std::nullopt, true);
  EXPECT_EQ(allowed->Chain(Named("kivi4g32"))->name(), "kivi4g32");
  EXPECT_EQ(allowed->Chain(Named("nonsense")).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(allowed->Chain(Named("kivi4g128")).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ModelVariants, TheProfileDecidesAndGivesTheFigure) {
  const auto model =
      *ModelVariants::Make(Identity(),
                           Profile({Record("kivi2g32", 7.5, false), Record("kivi4g32", 1.5, true),
                                    Record("kivi8g32", 0.25, true)}),
                           true);
  EXPECT_TRUE(model->Chain(Named("kivi4g32")).ok());
  const auto refused = model->Chain(Named("kivi2g32"));
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_NE(refused.status().message().find("7.50"), std::string::npos) << refused.status();
  // Not measured: refused, also where unprofiled models may do as they like.
  EXPECT_EQ(model->Chain(Named("fp8")).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(model->NoWorseThan(Fidelity::kQuantized),
            (std::vector{Variant::Raw(), Named("kivi8g32"), Named("kivi4g32")}));
  EXPECT_EQ(model->NoWorseThan(Fidelity::kLossless), std::vector{Variant::Raw()});
}

TEST(ModelVariants, AnotherModelsProfileIsRefused) {
  ModelIdentity other = Identity();
  other.weights_id = "x";
  EXPECT_EQ(ModelVariants::Make(other, Profile({}), false).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(ModelVariants, KeysThatCannotBeTurnedStayRaw) {
  ModelIdentity yarn = Identity();
  yarn.rope_scaling = "yarn factor=4";
  const auto model = *ModelVariants::Make(yarn, std::nullopt, true);
  EXPECT_TRUE(model->Chain(Variant::Raw()).ok());
  EXPECT_NE(model->Chain(Named("kivi4g32")).status().message().find("yarn"), std::string::npos);
}

TEST(LossyLog, KvOverALossyBlockIsThatChainAtBest) {
  LossyLog log;
  EXPECT_TRUE(log.MayStore(100, Variant::Raw()).ok());
  log.Add(7, Named("kivi4g32"));
  log.Add(5, Named("kivi4g32"));
  EXPECT_TRUE(log.MayStore(5, Variant::Raw()).ok());
  EXPECT_TRUE(log.MayStore(100, Named("kivi4g32")).ok());
  for (const char* name : {"raw", "kivi8g32"}) {
    const absl::Status status = log.MayStore(6, Named(name));
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_NE(status.message().find("block 5"), std::string::npos);
  }
  log.Add(9, Named("kivi2g32"));
  EXPECT_FALSE(log.MayStore(10, Named("kivi4g32")).ok());
  EXPECT_TRUE(log.MayStore(9, Named("kivi4g32")).ok());
}

}  // namespace
}  // namespace kedge
