// Causal attention of grouped query heads over a KV cache, with row-invariant bits.
// Vaswani et al. (arXiv 1706.03762); grouped queries: Ainslie et al. (arXiv 2305.13245); running
// softmax: Milakov and Gimelshein (arXiv 1805.02867).
//
//     out[r][h] = sum over keys j <= first_position + r of softmax_j(scale q[r][h] . k[j][g])
//     v[j][g]
//
// with g = h / (heads / kv_heads). The keys of the new rows themselves must already be in the
// cache.
//
// Row invariance. Keys are visited in tiles of kKeyTile that start at multiples of it, counted from
// key 0; inside a tile scores, maximum, sum and weighted values are made in one fixed order. A tile
// or a key that the causal mask hides adds exactly zero. So a row's bits depend on its query and on
// the keys it may see, not on the rows computed with it: a decode step gives the same bits as the
// last row of a longer prefill. The CUDA twin agrees within 1e-5 of the largest |v|.
#pragma once

#include <cstdint>

#include "gpu/device/device_cpu.h"
#include "proto/kv_shape.h"

namespace kedge::kernels {

inline constexpr int64_t kKeyTile = 64;

struct AttentionArgs {
  const float* q = nullptr;  // [rows, q_stride]; the first heads * head_size of a row are used
  int64_t q_stride = 0;
  const void* k = nullptr;  // one layer, [first_position + rows, kv_heads, head_size] of kv_dtype
  const void* v = nullptr;
  DType kv_dtype = DType::kF32;  // f32, f16 or bf16
  float* out = nullptr;          // [rows, heads * head_size]
  float* scratch = nullptr;      // AttentionScratchFloats(args)
  int64_t rows = 0;
  int64_t first_position = 0;  // of row 0: the keys before it in k and v
  int64_t heads = 0;           // a multiple of kv_heads
  int64_t kv_heads = 0;
  int64_t head_size = 0;
  float scale = 1.0f;  // usually 1 / sqrt(head_size)
  // Hides more than the causal mask does: [rows, first_position + rows], 0 hides the key from the
  // row; null hides nothing. A row must see itself. A hidden key adds exactly zero.
  const uint8_t* visible = nullptr;  // memory of the device
  // What column_mass.h needs: [rows, heads], log(sum of e^(scale q . k)) over the keys that the row
  // sees. Null: not written. `out` has the same bits either way.
  float* log_sum_exp = nullptr;
  // Rows that stand apart (recompute.h): row r stands at positions[r] and sees the keys up to it,
  // so that causality goes by position, not by place. Ascending, each at least 0; k and v hold keys
  // up to the last one. Null: row r stands at first_position + r. Not together with `visible`.
  const int32_t* positions = nullptr;  // [rows], memory of the device
};

// Depends on rows and heads only, not on first_position; ignores the pointers.
int64_t AttentionScratchFloats(const AttentionArgs& args);

void Attention(CpuDevice& device, const AttentionArgs& args);
// The twin uses no scratch.
void AttentionCuda(const AttentionArgs& args, void* stream);

}  // namespace kedge::kernels
