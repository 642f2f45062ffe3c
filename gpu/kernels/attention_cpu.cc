#include "gpu/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/base/internal/raw_logging.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "gpu/kernels/attention_cpu.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "gpu/kernels/row_tile-inl.h"
#include "hwy/contrib/math/math-inl.h"

#ifndef KEDGE_ATTENTION_LAYOUT_
#define KEDGE_ATTENTION_LAYOUT_
namespace kedge::kernels {

// One work item: some tokens of the chunk, one KV head, all query heads that share it. An item row
// is (token, head of the group), token-major.
struct AttentionLayout {
  static constexpr int64_t kItemRows = 128;  // amortises unpacking a key tile
  static constexpr int64_t kColumnPad = 32;  // widest stripe of any instruction set

  explicit AttentionLayout(const AttentionArgs& args)
      : group(args.heads / args.kv_heads),
        item_tokens(std::max<int64_t>(1, kItemRows / group)),
        token_blocks((args.rows + item_tokens - 1) / item_tokens),
        item_rows(std::min(item_tokens, args.rows) * group),
        padded_head((args.head_size + kColumnPad - 1) / kColumnPad * kColumnPad),
        query_floats(item_rows * args.head_size),
        keys_floats(args.head_size * kKeyTile),
        values_floats(kKeyTile * padded_head),
        scores_floats(item_rows * kKeyTile),
        sums_floats(item_rows * padded_head) {}

  int64_t items(const AttentionArgs& args) const { return token_blocks * args.kv_heads; }
  int64_t item_floats() const {
    const int64_t floats = query_floats + keys_floats + values_floats + scores_floats +
                           sums_floats + 2 * item_rows + kKeyTile * padded_head;
    return (floats + 15) / 16 * 16;
  }

  int64_t group;
  int64_t item_tokens;
  int64_t token_blocks;
  int64_t item_rows;
  int64_t padded_head;
  int64_t query_floats;
  int64_t keys_floats;
  int64_t values_floats;
  int64_t scores_floats;
  int64_t sums_floats;
};

}  // namespace kedge::kernels
#endif  // KEDGE_ATTENTION_LAYOUT_

HWY_BEFORE_NAMESPACE();
namespace kedge::kernels {
namespace HWY_NAMESPACE {

// Calls the tile kernel for `rows` (1 to kTileRows) rows over `columns` columns.
template <int kRows, int kStepK, int kStepRow>
HWY_NOINLINE void Stripes(const float* a, const float* b, int64_t b_stride, int64_t inputs,
                          float* c, int64_t c_stride, int64_t columns) {
  for (int64_t j = 0; j < columns; j += StripeColumns()) {
    TileTimesStripe<kRows, kStepK, kStepRow>(a, b + j, b_stride, inputs, c + j, c_stride);
  }
}

// Both products run over a fixed tile height where enough rows are left, then row by row.
constexpr int kFullTile = kTileRows;
constexpr int kSmallTile = 4;

struct Item {
  const AttentionArgs& args;
  const AttentionLayout& layout;
  int64_t kv_head;
  int64_t first_token;   // in the chunk
  int64_t rows;          // item rows
  float* query;          // [tile of rows][head_size][rows of the tile], scaled
  float* keys;           // [head_size][kKeyTile]
  float* values;         // [kKeyTile][padded_head]
  float* scores;         // [rows][kKeyTile]
  float* sums;           // [rows][padded_head]
  float* maxima;         // [rows]
  float* totals;         // [rows]
  float* rows_as_float;  // [kKeyTile][padded_head], converted keys

  int64_t position(int64_t row) const {
    const int64_t token = first_token + row / layout.group;
    return args.positions != nullptr ? args.positions[token] : args.first_position + token;
  }
  const uint8_t* visible(int64_t row) const {
    return args.visible + (first_token + row / layout.group) * (args.first_position + args.rows);
  }
};

// Heights of the tiles that rows are cut into: full ones, then small ones, then single rows.
int64_t TileHeight(int64_t rows_left) {
  return rows_left >= kFullTile ? kFullTile : rows_left >= kSmallTile ? kSmallTile : 1;
}

void PackQuery(const Item& item) {
  const AttentionArgs& args = item.args;
  const int64_t size = args.head_size;
  for (int64_t row0 = 0; row0 < item.rows;) {
    const int64_t height = TileHeight(item.rows - row0);
    float* tile = item.query + row0 * size;
    for (int64_t r = 0; r < height; ++r) {
      const int64_t token = item.first_token + (row0 + r) / item.layout.group;
      const int64_t head = item.kv_head * item.layout.group + (row0 + r) % item.layout.group;
      const float* q = args.q + token * args.q_stride + head * size;
      for (int64_t k = 0; k < size; ++k) tile[k * height + r] = q[k] * args.scale;
    }
    row0 += height;
  }
}

// Brings keys [first_key, first_key + count) to [head_size][kKeyTile] and values to
// [kKeyTile][padded_head], in fp32, zeros where there is no key.
void UnpackKeyTile(const Item& item, int64_t first_key, int64_t count) {
  const AttentionArgs& args = item.args;
  const int64_t size = args.head_size;
  const int64_t padded = item.layout.padded_head;
  const int64_t token_bytes = args.kv_heads * size * FloatBytes(args.kv_dtype);
  const int64_t head_bytes = item.kv_head * size * FloatBytes(args.kv_dtype);
  const char* k = static_cast<const char*>(args.k) + first_key * token_bytes + head_bytes;
  const char* v = static_cast<const char*>(args.v) + first_key * token_bytes + head_bytes;
  if (count < kKeyTile) {
    std::memset(item.keys, 0, item.layout.keys_floats * sizeof(float));
    std::memset(item.values, 0, item.layout.values_floats * sizeof(float));
  }
  for (int64_t j = 0; j < count; ++j) {
    CastToFloat(args.kv_dtype, k + j * token_bytes, size, item.rows_as_float + j * padded);
    CastToFloat(args.kv_dtype, v + j * token_bytes, size, item.values + j * padded);
    for (int64_t i = size; i < padded; ++i) item.values[j * padded + i] = 0.0f;
  }
  // Transposed in squares, so that neither side walks far.
  constexpr int64_t kSquare = 16;
  for (int64_t i0 = 0; i0 < size; i0 += kSquare) {
    for (int64_t j = 0; j < count; ++j) {
      const float* from = item.rows_as_float + j * padded;
      for (int64_t i = i0; i < std::min(i0 + kSquare, size); ++i) {
        item.keys[i * kKeyTile + j] = from[i];
      }
    }
  }
}

void ScoreTile(const Item& item) {
  std::memset(item.scores, 0, item.rows * kKeyTile * sizeof(float));
  const int64_t size = item.args.head_size;
  for (int64_t row0 = 0; row0 < item.rows;) {
    const int64_t height = TileHeight(item.rows - row0);
    const float* a = item.query + row0 * size;
    float* c = item.scores + row0 * kKeyTile;
    if (height == kFullTile) {
      Stripes<kFullTile, kFullTile, 1>(a, item.keys, kKeyTile, size, c, kKeyTile, kKeyTile);
    } else if (height == kSmallTile) {
      Stripes<kSmallTile, kSmallTile, 1>(a, item.keys, kKeyTile, size, c, kKeyTile, kKeyTile);
    } else {
      Stripes<1, 1, 1>(a, item.keys, kKeyTile, size, c, kKeyTile, kKeyTile);
    }
    row0 += height;
  }
}

// Scores to weights e^(score - maximum), and the running maximum, total and sums of one row.
void SoftmaxRow(const Item& item, int64_t row, int64_t first_key) {
  const hn::CappedTag<float, 16> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float* scores = item.scores + row * kKeyTile;
  const int64_t visible = std::min(kKeyTile, item.position(row) - first_key + 1);
  if (visible <= 0) {
    std::memset(scores, 0, kKeyTile * sizeof(float));
    return;
  }
  for (int64_t j = visible; j < kKeyTile; ++j) scores[j] = -std::numeric_limits<float>::infinity();
  if (item.args.visible != nullptr) {
    const uint8_t* mask = item.visible(row) + first_key;
    for (int64_t j = 0; j < visible; ++j) {
      if (mask[j] == 0) scores[j] = -std::numeric_limits<float>::infinity();
    }
  }
  auto maxima = hn::LoadU(d, scores);
  for (int64_t j = lanes; j < kKeyTile; j += lanes) {
    maxima = hn::Max(maxima, hn::LoadU(d, scores + j));
  }
  const float tile_maximum = hn::GetLane(hn::MaxOfLanes(d, maxima));
  const float maximum = std::max(item.maxima[row], tile_maximum);
  auto totals = hn::Zero(d);
  for (int64_t j = 0; j < kKeyTile; j += lanes) {
    const auto shifted = hn::Sub(hn::LoadU(d, scores + j), hn::Set(d, maximum));
    // Below -87 the weight is no normal fp32; hidden keys, at minus infinity, get exactly zero.
    const auto weight =
        hn::IfThenElseZero(hn::Ge(shifted, hn::Set(d, -87.0f)), hn::Exp(d, shifted));
    hn::StoreU(weight, d, scores + j);
    totals = hn::Add(totals, weight);
  }
  const float total = hn::GetLane(hn::SumOfLanes(d, totals));
  if (maximum != item.maxima[row]) {
    const float shrink = std::exp(item.maxima[row] - maximum);  // 0 at the first tile
    item.totals[row] *= shrink;
    float* sums = item.sums + row * item.layout.padded_head;
    for (int64_t i = 0; i < item.layout.padded_head; ++i) sums[i] *= shrink;
    item.maxima[row] = maximum;
  }
  item.totals[row] += total;
}

void AddValues(const Item& item) {
  const int64_t padded = item.layout.padded_head;
  for (int64_t row0 = 0; row0 < item.rows;) {
    const int64_t height = TileHeight(item.rows - row0);
    const float* a = item.scores + row0 * kKeyTile;
    float* c = item.sums + row0 * padded;
    if (height == kFullTile) {
      Stripes<kFullTile, 1, kKeyTile>(a, item.values, padded, kKeyTile, c, padded, padded);
    } else if (height == kSmallTile) {
      Stripes<kSmallTile, 1, kKeyTile>(a, item.values, padded, kKeyTile, c, padded, padded);
    } else {
      Stripes<1, 1, kKeyTile>(a, item.values, padded, kKeyTile, c, padded, padded);
    }
    row0 += height;
  }
}

void WriteOut(const Item& item) {
  const AttentionArgs& args = item.args;
  for (int64_t row = 0; row < item.rows; ++row) {
    const int64_t token = item.first_token + row / item.layout.group;
    const int64_t head = item.kv_head * item.layout.group + row % item.layout.group;
    float* out = args.out + (token * args.heads + head) * args.head_size;
    const float* sums = item.sums + row * item.layout.padded_head;
    const float inverse = 1.0f / item.totals[row];
    // The added zero makes -0 and +0 one: masked keys may have turned one into the other.
    for (int64_t i = 0; i < args.head_size; ++i) out[i] = sums[i] * inverse + 0.0f;
    if (args.log_sum_exp != nullptr)
      args.log_sum_exp[token * args.heads + head] = item.maxima[row] + std::log(item.totals[row]);
  }
}

void AttentionItem(const AttentionArgs& args, const AttentionLayout& layout, int64_t index) {
  float* memory = args.scratch + index * layout.item_floats();
  const auto take = [&memory](int64_t floats) {
    float* taken = memory;
    memory += floats;
    return taken;
  };
  const int64_t first_token = index / args.kv_heads * layout.item_tokens;
  const int64_t tokens = std::min(layout.item_tokens, args.rows - first_token);
  const Item item{.args = args,
                  .layout = layout,
                  .kv_head = index % args.kv_heads,
                  .first_token = first_token,
                  .rows = tokens * layout.group,
                  .query = take(layout.query_floats),
                  .keys = take(layout.keys_floats),
                  .values = take(layout.values_floats),
                  .scores = take(layout.scores_floats),
                  .sums = take(layout.sums_floats),
                  .maxima = take(layout.item_rows),
                  .totals = take(layout.item_rows),
                  .rows_as_float = take(kKeyTile * layout.padded_head)};
  std::fill_n(item.maxima, item.rows, -std::numeric_limits<float>::infinity());
  std::fill_n(item.totals, item.rows, 0.0f);
  std::fill_n(item.sums, item.rows * layout.padded_head, 0.0f);
  PackQuery(item);
  const int64_t keys = item.position(item.rows - 1) + 1;
  for (int64_t first_key = 0; first_key < keys; first_key += kKeyTile) {
    UnpackKeyTile(item, first_key, std::min(kKeyTile, keys - first_key));
    ScoreTile(item);
    for (int64_t row = 0; row < item.rows; ++row) SoftmaxRow(item, row, first_key);
    AddValues(item);
  }
  WriteOut(item);
}

}  // namespace HWY_NAMESPACE
}  // namespace kedge::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kedge::kernels {

HWY_EXPORT(AttentionItem);

int64_t AttentionScratchFloats(const AttentionArgs& args) {
  const AttentionLayout layout(args);
  return layout.items(args) * layout.item_floats();
}

void Attention(CpuDevice& device, const AttentionArgs& args) {
  ABSL_RAW_CHECK(args.positions == nullptr || args.visible == nullptr,
                 "Attention: a mask for rows that stand apart");
  const AttentionLayout layout(args);
  device.ParallelFor(layout.items(args), [&](int64_t item) {
    HWY_DYNAMIC_DISPATCH(AttentionItem)(args, layout, item);
  });
}

}  // namespace kedge::kernels
#endif  // HWY_ONCE
