#include "gpu/kernels/column_mass.h"

#include <algorithm>

#include "absl/base/internal/raw_logging.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/kernels/column_mass_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "gpu/kernels/row_tile-inl.h"
#include "hwy/contrib/math/math-inl.h"

#ifndef KEDGE_COLUMN_MASS_TASK_
#define KEDGE_COLUMN_MASS_TASK_
namespace kedge::kernels {

struct ColumnMassTask {
  const AttentionArgs& args;
  int64_t first_row;
  int64_t stride;
  float* mass;
};

}  // namespace kedge::kernels
#endif  // KEDGE_COLUMN_MASS_TASK_

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {

constexpr int kMassRows = kTileRows;

// All query heads of one KV head. Rows are taken kMassRows at a time (the last ones repeated to
// fill the tile, and not counted), keys kKeyTile at a time.
class MassItem {
 public:
  MassItem(const ColumnMassTask& task, int64_t kv_head)
      : task_(task),
        args_(task.args),
        kv_head_(kv_head),
        group_(args_.heads / args_.kv_heads),
        rows_(args_.rows - task.first_row),
        row_tiles_((rows_ + kMassRows - 1) / kMassRows),
        queries_(group_ * row_tiles_ * kMassRows * args_.head_size),
        row_keys_(args_.head_size),
        keys_(args_.head_size * kKeyTile),
        scores_(kMassRows * kKeyTile) {}

  void Run() {
    PackQueries();
    const int64_t keys = args_.first_position + args_.rows;
    for (int64_t first = 0; first < keys; first += kKeyTile) {
      UnpackKeys(first, std::min(kKeyTile, keys - first));
      for (int64_t member = 0; member < group_; ++member) {
        for (int64_t tile = 0; tile < row_tiles_; ++tile) AddTile(member, tile, first);
      }
    }
  }

 private:
  // [member][tile][head_size][kMassRows], scaled.
  void PackQueries() {
    const int64_t size = args_.head_size;
    for (int64_t member = 0; member < group_; ++member) {
      for (int64_t slot = 0; slot < row_tiles_ * kMassRows; ++slot) {
        const int64_t row = task_.first_row + std::min(slot, rows_ - 1);
        const float* q = args_.q + row * args_.q_stride + (kv_head_ * group_ + member) * size;
        float* to = queries_.data() + (member * row_tiles_ + slot / kMassRows) * kMassRows * size +
                    slot % kMassRows;
        for (int64_t i = 0; i < size; ++i) to[i * kMassRows] = q[i] * args_.scale;
      }
    }
  }

  // [head_size][kKeyTile], zeros where there is no key.
  void UnpackKeys(int64_t first, int64_t count) {
    const int64_t size = args_.head_size;
    const int64_t bytes = FloatBytes(args_.kv_dtype);
    if (count < kKeyTile) std::fill(keys_.begin(), keys_.end(), 0.0f);
    for (int64_t j = 0; j < count; ++j) {
      const int64_t at = ((first + j) * args_.kv_heads + kv_head_) * size;
      CastToFloat(args_.kv_dtype, static_cast<const char*>(args_.k) + at * bytes, size,
                  row_keys_.data());
      for (int64_t i = 0; i < size; ++i) keys_[i * kKeyTile + j] = row_keys_[i];
    }
  }

  void AddTile(int64_t member, int64_t tile, int64_t first_key) {
    const int64_t size = args_.head_size;
    const int64_t row0 = task_.first_row + tile * kMassRows;
    const int64_t rows = std::min<int64_t>(kMassRows, args_.rows - row0);
    if (first_key > args_.first_position + row0 + rows - 1) return;
    std::fill(scores_.begin(), scores_.end(), 0.0f);
    const float* a = queries_.data() + (member * row_tiles_ + tile) * kMassRows * size;
    for (int64_t j = 0; j < kKeyTile; j += StripeColumns()) {
      TileTimesStripe<kMassRows, kMassRows, 1>(a, keys_.data() + j, kKeyTile, size,
                                               scores_.data() + j, kKeyTile);
    }
    const int64_t head = kv_head_ * group_ + member;
    float* mass = task_.mass + head * task_.stride + first_key;
    for (int64_t r = 0; r < rows; ++r) {
      const float log_sum_exp = args_.log_sum_exp[(row0 + r) * args_.heads + head];
      const int64_t seen = args_.first_position + row0 + r + 1 - first_key;
      AddRow(scores_.data() + r * kKeyTile, log_sum_exp, std::clamp<int64_t>(seen, 0, kKeyTile),
             mass);
    }
  }

  // mass[j] += e^(scores[j] - log_sum_exp) for j < count.
  static void AddRow(const float* scores, float log_sum_exp, int64_t count, float* mass) {
    const hn::CappedTag<float, 16> d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    const auto shift = hn::Set(d, log_sum_exp);
    for (int64_t j = 0; j < count; j += lanes) {
      const auto weight = hn::Exp(d, hn::Sub(hn::LoadU(d, scores + j), shift));
      if (j + lanes <= count) {
        hn::StoreU(hn::Add(hn::LoadU(d, mass + j), weight), d, mass + j);
        continue;
      }
      float last[16];
      hn::StoreU(weight, d, last);
      for (int64_t i = 0; j + i < count; ++i) mass[j + i] += last[i];
    }
  }

  const ColumnMassTask& task_;
  const AttentionArgs& args_;
  const int64_t kv_head_;
  const int64_t group_;
  const int64_t rows_;
  const int64_t row_tiles_;
  std::vector<float> queries_;
  std::vector<float> row_keys_;
  std::vector<float> keys_;
  std::vector<float> scores_;
};

void ColumnMassItem(const ColumnMassTask& task, int64_t kv_head) { MassItem(task, kv_head).Run(); }

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::kernels {

HWY_EXPORT(ColumnMassItem);

void ColumnMass(CpuDevice& device, const AttentionArgs& args, int64_t first_row, int64_t stride,
                float* mass) {
  ABSL_RAW_CHECK(args.positions == nullptr, "ColumnMass: rows that stand apart");
  ABSL_RAW_CHECK(args.log_sum_exp != nullptr, "ColumnMass: attention has left no log_sum_exp");
  ABSL_RAW_CHECK(args.visible == nullptr, "ColumnMass: a mask is not known here");
  ABSL_RAW_CHECK(stride >= args.first_position + args.rows, "ColumnMass: stride below the keys");
  if (first_row >= args.rows) return;
  const ColumnMassTask task{args, first_row, stride, mass};
  device.ParallelFor(args.kv_heads, [&](int64_t kv_head) {
    HWY_DYNAMIC_DISPATCH(ColumnMassItem)(task, kv_head);
  });
}

}  // namespace kedge::kernels
#endif  // HWY_ONCE
