#include "gpu/kernels/matmul.h"

#include <algorithm>
#include <cstring>

#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/kernels/matmul_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "gpu/kernels/row_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {

// Rows of one work item. Its accumulators (12 KiB) and one k-block of a panel stay in the L1 cache.
constexpr int64_t kItemRows = 96;
constexpr int64_t kBlockInputs = 192;
constexpr int64_t kItemPanels = 4;

// Tiles of equal height as far as possible: 64 rows are 4 x 11 + 2 x 10, not 5 x 12 + 4.
struct Tiling {
  int64_t rows;
  int64_t tiles;
  explicit Tiling(int64_t rows_in) : rows(rows_in), tiles((rows_in + kTileRows - 1) / kTileRows) {}
  int64_t Begin(int64_t tile) const { return rows * tile / tiles; }
};

// x rows [begin, begin + count) to [inputs][count], so that the inner loop reads them in order.
void PackTile(const float* x, int64_t inputs, int64_t count, float* out) {
  for (int64_t k = 0; k < inputs; ++k) {
    for (int64_t r = 0; r < count; ++r) *out++ = x[r * inputs + k];
  }
}

template <int kRows>
HWY_NOINLINE void PanelTile(const float* a, const float* b, int64_t inputs, float* acc,
                            Ahead ahead) {
  for (int64_t j = 0; j < kPanelColumns; j += StripeColumns()) {
    TileTimesStripe<kRows, kRows, 1, true>(a, b + j, kPanelColumns, inputs, acc + j, kPanelColumns,
                                           ahead);
  }
}

void PanelTileOf(int64_t rows, const float* a, const float* b, int64_t inputs, float* acc,
                 Ahead ahead) {
  switch (rows) {
    case 1:
      return PanelTile<1>(a, b, inputs, acc, ahead);
    case 2:
      return PanelTile<2>(a, b, inputs, acc, ahead);
    case 3:
      return PanelTile<3>(a, b, inputs, acc, ahead);
    case 4:
      return PanelTile<4>(a, b, inputs, acc, ahead);
    case 5:
      return PanelTile<5>(a, b, inputs, acc, ahead);
    case 6:
      return PanelTile<6>(a, b, inputs, acc, ahead);
#if HWY_TARGET <= HWY_AVX3
    case 7:
      return PanelTile<7>(a, b, inputs, acc, ahead);
    case 8:
      return PanelTile<8>(a, b, inputs, acc, ahead);
    case 9:
      return PanelTile<9>(a, b, inputs, acc, ahead);
    case 10:
      return PanelTile<10>(a, b, inputs, acc, ahead);
    case 11:
      return PanelTile<11>(a, b, inputs, acc, ahead);
    case 12:
      return PanelTile<12>(a, b, inputs, acc, ahead);
#endif
    default:
      return;
  }
}

// Writes one item's accumulators out, with bias and residual: whole vectors, then single columns.
void Finish(const MatMulArgs& args, const float* acc, int64_t row0, int64_t rows, int64_t column0) {
  const TileTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t columns = std::min(kPanelColumns, args.outputs - column0);
  const float* bias = args.bias == nullptr ? nullptr : args.bias + column0;
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = acc + r * kPanelColumns;
    const int64_t at = (row0 + r) * args.outputs + column0;
    const float* residual = args.residual == nullptr ? nullptr : args.residual + at;
    float* y = args.y + at;
    int64_t j = 0;
    for (; j + lanes <= columns; j += lanes) {
      TileVec value = hn::LoadU(d, from + j);
      if (bias != nullptr) value = hn::Add(value, hn::LoadU(d, bias + j));
      if (residual != nullptr) value = hn::Add(value, hn::LoadU(d, residual + j));
      hn::StoreU(value, d, y + j);
    }
    for (; j < columns; ++j) {
      float value = from[j];
      if (bias != nullptr) value += bias[j];
      if (residual != nullptr) value += residual[j];
      y[j] = value;
    }
  }
}

// Rows [row0, row0 + kItemRows) times one panel.
void MultiplyPanel(const MatMulArgs& args, int64_t row0, int64_t panel) {
  const Tiling tiling(std::min(kItemRows, args.rows - row0));
  const float* b = args.packed + panel * kPanelColumns * args.inputs;
  const float* end = args.packed + PackedFloats(args.outputs, args.inputs);
  HWY_ALIGN float acc[kItemRows * kPanelColumns];
  std::memset(acc, 0, tiling.rows * kPanelColumns * sizeof(float));
  for (int64_t k0 = 0; k0 < args.inputs; k0 += kBlockInputs) {
    const int64_t k_count = std::min(kBlockInputs, args.inputs - k0);
    const float* block = b + k0 * kPanelColumns;
    // The tiles of this block share the work of fetching the next one, of this panel or the next.
    const int64_t step = (kPanelColumns + tiling.tiles - 1) / tiling.tiles;
    const float* next = block + k_count * kPanelColumns;
    for (int64_t t = 0; t < tiling.tiles; ++t) {
      const int64_t begin = tiling.Begin(t);
      const int64_t count = tiling.Begin(t + 1) - begin;
      const bool inside = next + k_count * step <= end;
      const Ahead ahead{inside ? next : block, inside ? step : 0};
      PanelTileOf(count, args.scratch + (row0 + begin) * args.inputs + k0 * count, block, k_count,
                  acc + begin * kPanelColumns, ahead);
      next += k_count * step;
    }
  }
  Finish(args, acc, row0, tiling.rows, panel * kPanelColumns);
}

void MatMulTarget(CpuDevice& device, const MatMulArgs& args) {
  const int64_t row_blocks = (args.rows + kItemRows - 1) / kItemRows;
  const int64_t panels = (args.outputs + kPanelColumns - 1) / kPanelColumns;
  device.ParallelFor(row_blocks, [&](int64_t block) {
    const int64_t row0 = block * kItemRows;
    const Tiling tiling(std::min(kItemRows, args.rows - row0));
    for (int64_t t = 0; t < tiling.tiles; ++t) {
      const int64_t begin = row0 + tiling.Begin(t);
      PackTile(args.x + begin * args.inputs, args.inputs, tiling.Begin(t + 1) - tiling.Begin(t),
               args.scratch + begin * args.inputs);
    }
  });
  // Panels run fastest: the packed rows of one block stay in the L2 cache while W streams by. An
  // item takes some neighbours, since each tile fetches ahead in memory.
  const int64_t group = std::clamp<int64_t>(panels / (4 * device.threads()), 1, kItemPanels);
  const int64_t groups = (panels + group - 1) / group;
  device.ParallelFor(row_blocks * groups, [&](int64_t item) {
    const int64_t row0 = item / groups * kItemRows;
    const int64_t first = item % groups * group;
    for (int64_t panel = first; panel < std::min(first + group, panels); ++panel) {
      MultiplyPanel(args, row0, panel);
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::kernels {

HWY_EXPORT(MatMulTarget);

void MatMul(CpuDevice& device, const MatMulArgs& args) {
  if (args.rows <= 0) return;
  HWY_DYNAMIC_DISPATCH(MatMulTarget)(device, args);
}

void PackWeights(CpuDevice& device, const float* weights, int64_t first_output, int64_t outputs,
                 int64_t inputs, float* packed) {
  device.ParallelFor(outputs, [&](int64_t i) {
    const int64_t output = first_output + i;
    float* to = packed + output / kPanelColumns * kPanelColumns * inputs + output % kPanelColumns;
    const float* from = weights + i * inputs;
    for (int64_t k = 0; k < inputs; ++k) to[k * kPanelColumns] = from[k];
  });
}

void ScaleOutput(int64_t output, int64_t inputs, float factor, float* packed) {
  float* to = packed + output / kPanelColumns * kPanelColumns * inputs + output % kPanelColumns;
  for (int64_t k = 0; k < inputs; ++k) to[k * kPanelColumns] *= factor;
}

void ZeroPadding(int64_t outputs, int64_t inputs, float* packed) {
  const int64_t used = outputs % kPanelColumns;
  if (used == 0) return;
  float* panel = packed + outputs / kPanelColumns * kPanelColumns * inputs;
  for (int64_t k = 0; k < inputs; ++k) {
    for (int64_t j = used; j < kPanelColumns; ++j) panel[k * kPanelColumns + j] = 0.0f;
  }
}

}  // namespace kedge::kernels
#endif  // HWY_ONCE
