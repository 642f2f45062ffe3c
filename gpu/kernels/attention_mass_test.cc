#include "gpu/kernels/attention_mass.h"

#include <vector>

#include "gpu/kernels/random_floats.h"
#include "gtest/gtest.h"

namespace kedge::kernels {
namespace {

constexpr int64_t kHeads = 4;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kSize = 8;
constexpr int64_t kFirst = 5;
constexpr int64_t kRows = 70;
constexpr int64_t kKeys = kFirst + kRows;

struct Inputs {
  std::vector<float> q = RandomFloats(kRows * kHeads * kSize, 1);
  std::vector<float> k = RandomFloats(kKeys * kKvHeads * kSize, 2);
  std::vector<float> v = std::vector<float>(kKeys * kKvHeads * kSize, 0.0f);
  std::vector<float> out = std::vector<float>(kRows * kHeads * kSize);
  std::vector<float> scratch;

  AttentionArgs Args() {
    AttentionArgs args{.q = q.data(),
                       .q_stride = kHeads * kSize,
                       .k = k.data(),
                       .v = v.data(),
                       .out = out.data(),
                       .rows = kRows,
                       .first_position = kFirst,
                       .heads = kHeads,
                       .kv_heads = kKvHeads,
                       .head_size = kSize,
                       .scale = 2.0f};
    scratch.resize(AttentionScratchFloats(args));
    args.scratch = scratch.data();
    return args;
  }
};

// Values that are 1 for one key make attention itself say the key's weight.
TEST(AttentionMass, IsWhatAttentionMultipliesValuesWith) {
  CpuDevice device(2);
  Inputs inputs;
  std::vector<uint8_t> visible(kRows * kKeys, 1);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t key = 1; key < 66; ++key) visible[row * kKeys + key] = key == kFirst + row;
  }
  for (const uint8_t* mask : std::vector<const uint8_t*>{nullptr, visible.data()}) {
    AttentionArgs args = inputs.Args();
    args.visible = mask;
    std::vector<double> mass(kHeads * kKeys);
    AttentionMass(device, args, mass);
    double total = 0;
    for (double value : mass) total += value;
    EXPECT_NEAR(total, kHeads * kRows, 1e-9);
    for (int64_t key : {0, 3, 40, 74}) {
      std::fill(inputs.v.begin(), inputs.v.end(), 0.0f);
      for (int64_t i = 0; i < kKvHeads * kSize; ++i) inputs.v[key * kKvHeads * kSize + i] = 1.0f;
      Attention(device, args);
      for (int64_t head = 0; head < kHeads; ++head) {
        double expected = 0;
        for (int64_t row = 0; row < kRows; ++row)
          expected += inputs.out[(row * kHeads + head) * kSize];
        EXPECT_NEAR(mass[head * kKeys + key], expected, 1e-5) << "head " << head << " key " << key;
      }
    }
  }
}

TEST(AttentionMass, AddsUp) {
  CpuDevice device(1);
  Inputs inputs;
  std::vector<double> once(kHeads * kKeys);
  AttentionMass(device, inputs.Args(), once);
  std::vector<double> twice = once;
  AttentionMass(device, inputs.Args(), twice);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], 2 * once[i], 1e-9);
}

}  // namespace
}  // namespace kedge::kernels
