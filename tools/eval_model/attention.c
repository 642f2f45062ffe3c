// Causal grouped-query attention of one training batch, forward and backward, for CPUs with AMX.
//
// Why: PyTorch 1.13 spends four fifths of a training step of this small model in its softmax and in
// copies around it. Here scores never leave the second-level cache.
//
// Layout: qkv is [batch][tokens][8 query heads, 2 key heads, 2 value heads][64] in bf16, before
// rotation; the rotation (Llama's, halves) is applied here, and undone in the gradient. Token i of
// a sequence sees token j where j <= i and (j < context[b] or j >= start[i]): every question sees
// the context and itself. `tokens` is a multiple of 32.
//
// Built and called by attention.py through ctypes. Matrix products take bf16 and add up in fp32.
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kQueryHeads = 8, kKeyHeads = 2, kGroup = 4, kSize = 64, kHalf = 32, kWidth = 768 };

typedef uint16_t bf16;

// Scores are kept times log2(e), so that softmax is made of powers of two; queries carry the
// factor.
static const float kLn2 = 0.69314718f, kScale = 0.125f * 1.44269504f;

typedef struct {
  uint8_t palette, start_row;
  uint8_t reserved[14];
  uint16_t columns[16];
  uint8_t rows[16];
} TileConfig;

// Asks the kernel for the tile registers. 0: granted.
int kedge_attention_init(void) {
  return (int)syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */);
}

static void ConfigureTiles(void) {
  TileConfig config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.columns[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
}

static inline float ToFloat(bf16 value) {
  union {
    uint32_t bits;
    float number;
  } u = {(uint32_t)value << 16};
  return u.number;
}

static inline __m512 Load16(const bf16* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline __m256i Narrow(__m512 from) { return (__m256i)_mm512_cvtneps_pbh(from); }

// 2^x to 1e-4 of itself, which bf16 does not see; 0 for very negative x.
static inline __m512 Exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, 0);
  const __m512 part = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(5.5504109e-2f);
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.4226507e-1f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.9314718e-1f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(y, whole);
}

// Rotates 64 values at `position`, times `scale`, into bf16.
static void Rotate(const bf16* from, const float* cosine, const float* sine, float scale,
                   bf16* to) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int i = 0; i < kHalf; i += 16) {
    const __m512 a = Load16(from + i), b = Load16(from + kHalf + i);
    const __m512 c = _mm512_mul_ps(_mm512_loadu_ps(cosine + i), factor);
    const __m512 s = _mm512_mul_ps(_mm512_loadu_ps(sine + i), factor);
    const __m512 first = _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s));
    const __m512 second = _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s));
    _mm256_storeu_si256((__m256i*)(to + i), Narrow(first));
    _mm256_storeu_si256((__m256i*)(to + kHalf + i), Narrow(second));
  }
}

// The gradient of Rotate.
static void RotateBack(const float* from, const float* cosine, const float* sine, float scale,
                       bf16* to) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int i = 0; i < kHalf; i += 16) {
    const __m512 a = _mm512_loadu_ps(from + i), b = _mm512_loadu_ps(from + kHalf + i);
    const __m512 c = _mm512_mul_ps(_mm512_loadu_ps(cosine + i), factor);
    const __m512 s = _mm512_mul_ps(_mm512_loadu_ps(sine + i), factor);
    const __m512 first = _mm512_add_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s));
    const __m512 second = _mm512_sub_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s));
    _mm256_storeu_si256((__m256i*)(to + i), Narrow(first));
    _mm256_storeu_si256((__m256i*)(to + kHalf + i), Narrow(second));
  }
}

// Right-hand tiles of X^T, X being [rows][64]: [step of 32 columns][block of 16 rows][16][16]
// words.
static void PackTransposed(const bf16* x, int stride, int rows, uint32_t* to) {
  const int blocks = rows / 16;
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride * 2));
  for (int block = 0; block < blocks; ++block) {
    const bf16* from = x + (size_t)block * 16 * stride;
    for (int pair = 0; pair < 32; ++pair) {
      uint32_t* line = to + ((size_t)(pair / 16 * blocks + block) * 16 + pair % 16) * 16;
      _mm512_storeu_si512(line, _mm512_i32gather_epi32(offsets, from + pair * 2, 1));
    }
  }
}

// Right-hand tiles of X itself: [step of 32 rows][block of 16 columns][16][16] words of two rows.
static void PackPairs(const bf16* x, int stride, int rows, uint32_t* to) {
  for (int row = 0; row < rows; row += 2) {
    const bf16* a = x + (size_t)row * stride;
    const bf16* b = a + stride;
    for (int block = 0; block < 4; ++block) {
      const __m512i low =
          _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(a + block * 16)));
      const __m512i high =
          _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(b + block * 16)));
      uint32_t* line = to + ((size_t)((row / 32) * 4 + block) * 16 + (row % 32) / 2) * 16;
      _mm512_storeu_si512(line, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

typedef struct {
  bf16 *q, *k, *kt;               // rotated: [tokens][64]; kt: [64][tokens]
  uint32_t *k_columns, *v_pairs;  // tiles, see above
  uint32_t *q_columns, *q_pairs, *d_columns, *d_pairs, *ds_pairs;
  float *scores, *other;       // [16][tokens]
  bf16 *p, *ds;                // [16][tokens]
  float *dk, *dv, *dq, *sums;  // [tokens][64], [tokens][64], [64][16], [tokens]
} Scratch;

static void* Take(size_t bytes) {
  void* got = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!got) abort();
  return got;
}

static Scratch NewScratch(int tokens) {
  const size_t n = (size_t)tokens, plane = n * kSize * 2;
  Scratch s;
  s.q = Take(plane), s.k = Take(plane), s.kt = Take(plane);
  s.k_columns = Take(plane), s.v_pairs = Take(plane), s.q_columns = Take(plane);
  s.q_pairs = Take(plane), s.d_columns = Take(plane), s.d_pairs = Take(plane);
  s.ds_pairs = Take(n * n * 2);
  s.scores = Take(16 * n * 4), s.other = Take(16 * n * 4);
  s.p = Take(16 * n * 2), s.ds = Take(16 * n * 2);
  s.dk = Take(n * kSize * 4), s.dv = Take(n * kSize * 4);
  s.dq = Take(kSize * 16 * 4), s.sums = Take(n * 4);
  return s;
}

static void FreeScratch(Scratch* s) {
  void* all[] = {s->q,       s->k,         s->kt,      s->k_columns, s->v_pairs, s->q_columns,
                 s->q_pairs, s->d_columns, s->d_pairs, s->ds_pairs,  s->scores,  s->other,
                 s->p,       s->ds,        s->dk,      s->dv,        s->dq,      s->sums};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) free(all[i]);
}

// Masked softmax of 16 rows of scores into bf16, unnormalised; the sums go to `total`.
static void SoftmaxRows(float* scores, int tokens, int first, int end, int context,
                        const int32_t* start, const int32_t* hidden, bf16* p, float* total,
                        float* lse) {
  for (int r = 0; r < 16; ++r) {
    float* row = scores + (size_t)r * tokens;
    const int i = first + r;
    for (int j = context; j < start[i] && j < end; ++j) row[j] = -1e30f;
    if (start[i]) {
      for (int j = 0; j < context && j < end; j += 16) {
        const __mmask16 off =
            _mm512_test_epi32_mask(_mm512_loadu_si512(hidden + j), _mm512_set1_epi32(1));
        _mm512_mask_storeu_ps(row + j, off, _mm512_set1_ps(-1e30f));
      }
    }
    for (int j = i + 1; j < end; ++j) row[j] = -1e30f;
    __m512 top = _mm512_set1_ps(-1e30f);
    for (int j = 0; j < end; j += 16) top = _mm512_max_ps(top, _mm512_loadu_ps(row + j));
    const float most = _mm512_reduce_max_ps(top);
    const __m512 shift = _mm512_set1_ps(most);
    __m512 sum = _mm512_setzero_ps();
    for (int j = 0; j < end; j += 16) {
      const __m512 e = Exp2(_mm512_sub_ps(_mm512_loadu_ps(row + j), shift));
      sum = _mm512_add_ps(sum, e);
      _mm256_storeu_si256((__m256i*)(p + (size_t)r * tokens + j), Narrow(e));
    }
    total[r] = _mm512_reduce_add_ps(sum);
    lse[i] = most + log2f(total[r]);
  }
}

static void ForwardGroup(const bf16* qkv, int tokens, int group, int context, const int32_t* start,
                         const int32_t* hidden, const float* cosine, const float* sine, bf16* out,
                         float* lse, Scratch* s) {
  const bf16* keys = qkv + (kQueryHeads + group) * kSize;
  const bf16* values = keys + kKeyHeads * kSize;
  const int blocks = tokens / 16;
  for (int t = 0; t < tokens; ++t) {
    Rotate(keys + (size_t)t * kWidth, cosine + (size_t)t * kHalf, sine + (size_t)t * kHalf, 1.f,
           s->k + (size_t)t * kSize);
  }
  PackTransposed(s->k, kSize, tokens, s->k_columns);
  PackPairs(values, kWidth, tokens, s->v_pairs);
  for (int h = group * kGroup; h < (group + 1) * kGroup; ++h) {
    for (int t = 0; t < tokens; ++t) {
      Rotate(qkv + (size_t)t * kWidth + h * kSize, cosine + (size_t)t * kHalf,
             sine + (size_t)t * kHalf, kScale, s->q + (size_t)t * kSize);
    }
    for (int i = 0; i < tokens; i += 16) {
      const int end = (i + 16 + 31) / 32 * 32;
      _tile_loadd(0, s->q + (size_t)i * kSize, kSize * 2);
      _tile_loadd(1, s->q + (size_t)i * kSize + 32, kSize * 2);
      for (int j = 0; j < end; j += 32) {
        const uint32_t* a = s->k_columns + (size_t)(j / 16) * 256;
        const uint32_t* b = a + (size_t)blocks * 256;
        _tile_zero(2);
        _tile_zero(3);
        _tile_loadd(4, a, 64);
        _tile_loadd(5, a + 256, 64);
        _tile_dpbf16ps(2, 0, 4);
        _tile_dpbf16ps(3, 0, 5);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + 256, 64);
        _tile_dpbf16ps(2, 1, 6);
        _tile_dpbf16ps(3, 1, 7);
        _tile_stored(2, s->scores + j, tokens * 4);
        _tile_stored(3, s->scores + j + 16, tokens * 4);
      }
      float total[16];
      SoftmaxRows(s->scores, tokens, i, end, context, start, hidden, s->p, total,
                  lse + (size_t)h * tokens);
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int j = 0; j < end; j += 32) {
        const uint32_t* v = s->v_pairs + (size_t)(j / 32) * 4 * 256;
        _tile_loadd(4, s->p + j, tokens * 2);
        _tile_loadd(5, v, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, v + 256, 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, v + 512, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, v + 768, 64);
        _tile_dpbf16ps(3, 4, 5);
      }
      float o[16][kSize];
      _tile_stored(0, &o[0][0], kSize * 4);
      _tile_stored(1, &o[0][16], kSize * 4);
      _tile_stored(2, &o[0][32], kSize * 4);
      _tile_stored(3, &o[0][48], kSize * 4);
      for (int r = 0; r < 16; ++r) {
        const __m512 factor = _mm512_set1_ps(1.f / total[r]);
        bf16* to = out + (size_t)(i + r) * kQueryHeads * kSize + h * kSize;
        for (int c = 0; c < kSize; c += 16) {
          const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(&o[r][c]), factor);
          _mm256_storeu_si256((__m256i*)(to + c), Narrow(scaled));
        }
      }
    }
  }
}

// out: [batch][tokens][8][64] bf16; lse: [batch][8][tokens]; cosine and sine: [batch][tokens][32].
void kedge_attention_forward(const bf16* qkv, int batch, int tokens, const int32_t* context,
                             const int32_t* start, const int32_t* hidden, const float* cosine,
                             const float* sine, bf16* out, float* lse) {
#pragma omp parallel
  {
    ConfigureTiles();
    Scratch s = NewScratch(tokens);
#pragma omp for schedule(dynamic, 1)
    for (int task = 0; task < batch * kKeyHeads; ++task) {
      const size_t b = (size_t)(task / kKeyHeads), at = b * (size_t)tokens;
      ForwardGroup(qkv + at * kWidth, tokens, task % kKeyHeads, context[b], start + at, hidden + at,
                   cosine + at * kHalf, sine + at * kHalf, out + at * kQueryHeads * kSize,
                   lse + at * kQueryHeads, &s);
    }
    FreeScratch(&s);
    _tile_release();
  }
}

// 16 keys against all queries from `first` on: s->scores = K Q^T, s->other = V dO^T.
static void KeyRows(const Scratch* s, const bf16* values, int tokens, int key, int first) {
  const int blocks = tokens / 16;
  _tile_loadd(0, s->k + (size_t)key * kSize, kSize * 2);
  _tile_loadd(1, s->k + (size_t)key * kSize + 32, kSize * 2);
  _tile_loadd(2, values + (size_t)key * kWidth, kWidth * 2);
  _tile_loadd(3, values + (size_t)key * kWidth + 32, kWidth * 2);
  for (int i = first; i < tokens; i += 16) {
    const size_t a = (size_t)(i / 16) * 256, b = a + (size_t)blocks * 256;
    _tile_zero(4);
    _tile_zero(5);
    _tile_loadd(6, s->q_columns + a, 64);
    _tile_dpbf16ps(4, 0, 6);
    _tile_loadd(7, s->d_columns + a, 64);
    _tile_dpbf16ps(5, 2, 7);
    _tile_loadd(6, s->q_columns + b, 64);
    _tile_dpbf16ps(4, 1, 6);
    _tile_loadd(7, s->d_columns + b, 64);
    _tile_dpbf16ps(5, 3, 7);
    _tile_stored(4, s->scores + i, tokens * 4);
    _tile_stored(5, s->other + i, tokens * 4);
  }
}

// P and dS of one key and 16 queries.
static inline __m256i OneKey(const Scratch* s, size_t at, __m512 shift, __m512 sum,
                             __mmask16 seen) {
  const __m512 p =
      _mm512_maskz_mov_ps(seen, Exp2(_mm512_sub_ps(_mm512_loadu_ps(s->scores + at), shift)));
  const __m512 ds = _mm512_mul_ps(p, _mm512_sub_ps(_mm512_loadu_ps(s->other + at), sum));
  const __m256i narrow = Narrow(ds);
  _mm256_storeu_si256((__m256i*)(s->p + at), Narrow(p));
  _mm256_storeu_si256((__m256i*)(s->ds + at), narrow);
  return narrow;
}

// P and dS of those 16 keys, in rows for the gradients of K and V and in pairs for that of Q.
static void KeyGradients(const Scratch* s, int tokens, int key, int first, int context,
                         const int32_t* start, const int32_t* hidden, const float* lse) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int any_hidden = 0;
  for (int j = key; j < key + 16; ++j) any_hidden |= hidden[j];
  for (int i = first; i < tokens; i += 16) {
    const __m512i query = _mm512_add_epi32(lanes, _mm512_set1_epi32(i));
    const __m512i from = _mm512_loadu_si512(start + i);
    const __m512 shift = _mm512_loadu_ps(lse + i), sum = _mm512_loadu_ps(s->sums + i);
    uint32_t* pairs = s->ds_pairs + ((size_t)(key / 32) * (size_t)(tokens / 16) + i / 16) * 256 +
                      (key % 32) / 2 * 16;
    const int all = i >= key + 15 && key + 16 <= context && !any_hidden;
    for (int r = 0; r < 16; r += 2) {
      __mmask16 seen[2] = {0xffff, 0xffff};
      for (int two = 0; two < 2 && !all; ++two) {
        const __m512i j = _mm512_set1_epi32(key + r + two);
        seen[two] = _mm512_cmpge_epi32_mask(query, j);
        if (key + r + two >= context) seen[two] &= _mm512_cmple_epi32_mask(from, j);
        if (hidden[key + r + two]) seen[two] &= _mm512_testn_epi32_mask(from, from);
      }
      const size_t at = (size_t)r * tokens + i;
      const __m256i a = OneKey(s, at, shift, sum, seen[0]);
      const __m256i b = OneKey(s, at + tokens, shift, sum, seen[1]);
      const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16);
      _mm512_storeu_si512(pairs + r / 2 * 16, _mm512_or_si512(_mm512_cvtepu16_epi32(a), high));
    }
  }
}

// to[16 keys][64] += rows[16][queries from `first`] times pairs; `first` is a multiple of 32.
static void AddProduct(const bf16* rows, const uint32_t* pairs, int tokens, int first, float* to) {
  _tile_loadd(0, to, kSize * 4);
  _tile_loadd(1, to + 16, kSize * 4);
  _tile_loadd(2, to + 32, kSize * 4);
  _tile_loadd(3, to + 48, kSize * 4);
  for (int i = first; i < tokens; i += 32) {
    const uint32_t* x = pairs + (size_t)(i / 32) * 4 * 256;
    _tile_loadd(4, rows + i, tokens * 2);
    _tile_loadd(5, x, 64);
    _tile_dpbf16ps(0, 4, 5);
    _tile_loadd(6, x + 256, 64);
    _tile_dpbf16ps(1, 4, 6);
    _tile_loadd(7, x + 512, 64);
    _tile_dpbf16ps(2, 4, 7);
    _tile_loadd(5, x + 768, 64);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, to, kSize * 4);
  _tile_stored(1, to + 16, kSize * 4);
  _tile_stored(2, to + 32, kSize * 4);
  _tile_stored(3, to + 48, kSize * 4);
}

// The gradient of 16 queries: dQ^T = K^T dS^T.
static void QueryGradient(const Scratch* s, int tokens, int i, const float* cosine,
                          const float* sine, bf16* to) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int j = 0; j < i + 16; j += 32) {
    const uint32_t* ds = s->ds_pairs + ((size_t)(j / 32) * (size_t)(tokens / 16) + i / 16) * 256;
    _tile_loadd(4, ds, 64);
    _tile_loadd(5, s->kt + j, tokens * 2);
    _tile_dpbf16ps(0, 5, 4);
    _tile_loadd(6, s->kt + (size_t)16 * tokens + j, tokens * 2);
    _tile_dpbf16ps(1, 6, 4);
    _tile_loadd(7, s->kt + (size_t)32 * tokens + j, tokens * 2);
    _tile_dpbf16ps(2, 7, 4);
    _tile_loadd(5, s->kt + (size_t)48 * tokens + j, tokens * 2);
    _tile_dpbf16ps(3, 5, 4);
  }
  _tile_stored(0, s->dq, 64);
  _tile_stored(1, s->dq + 256, 64);
  _tile_stored(2, s->dq + 512, 64);
  _tile_stored(3, s->dq + 768, 64);
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i columns = _mm512_slli_epi32(lanes, 4);
  for (int r = 0; r < 16; ++r) {
    float row[kSize];
    for (int c = 0; c < kSize; c += 16) {
      _mm512_storeu_ps(row + c, _mm512_i32gather_ps(columns, s->dq + c * 16 + r, 4));
    }
    RotateBack(row, cosine + (size_t)(i + r) * kHalf, sine + (size_t)(i + r) * kHalf, 0.125f,
               to + (size_t)(i + r) * kWidth);
  }
}

static void BackwardGroup(const bf16* qkv, int tokens, int group, int context, const int32_t* start,
                          const int32_t* hidden, const float* cosine, const float* sine,
                          const bf16* out, const bf16* dout, const float* lse, bf16* dqkv,
                          Scratch* s) {
  const int key_at = (kQueryHeads + group) * kSize, value_at = key_at + kKeyHeads * kSize;
  const bf16* values = qkv + value_at;
  const int row = kQueryHeads * kSize;
  for (int t = 0; t < tokens; ++t) {
    bf16* k = s->k + (size_t)t * kSize;
    Rotate(qkv + (size_t)t * kWidth + key_at, cosine + (size_t)t * kHalf, sine + (size_t)t * kHalf,
           1.f, k);
    for (int c = 0; c < kSize; ++c) s->kt[(size_t)c * tokens + t] = k[c];
  }
  memset(s->dk, 0, (size_t)tokens * kSize * 4);
  memset(s->dv, 0, (size_t)tokens * kSize * 4);
  for (int h = group * kGroup; h < (group + 1) * kGroup; ++h) {
    for (int t = 0; t < tokens; ++t) {
      Rotate(qkv + (size_t)t * kWidth + h * kSize, cosine + (size_t)t * kHalf,
             sine + (size_t)t * kHalf, kScale, s->q + (size_t)t * kSize);
      const bf16 *o = out + (size_t)t * row + h * kSize, *d = dout + (size_t)t * row + h * kSize;
      __m512 sum = _mm512_setzero_ps();
      for (int c = 0; c < kSize; c += 16) sum = _mm512_fmadd_ps(Load16(o + c), Load16(d + c), sum);
      s->sums[t] = _mm512_reduce_add_ps(sum);
    }
    PackTransposed(s->q, kSize, tokens, s->q_columns);
    PackPairs(s->q, kSize, tokens, s->q_pairs);
    PackTransposed(dout + h * kSize, row, tokens, s->d_columns);
    PackPairs(dout + h * kSize, row, tokens, s->d_pairs);
    for (int key = 0; key < tokens; key += 16) {
      const int first = key / 32 * 32;
      KeyRows(s, values, tokens, key, first);
      KeyGradients(s, tokens, key, first, context, start, hidden, lse + (size_t)h * tokens);
      AddProduct(s->p, s->d_pairs, tokens, first, s->dv + (size_t)key * kSize);
      AddProduct(s->ds, s->q_pairs, tokens, first, s->dk + (size_t)key * kSize);
    }
    for (int i = 0; i < tokens; i += 16) {
      QueryGradient(s, tokens, i, cosine, sine, dqkv + h * kSize);
    }
  }
  for (int t = 0; t < tokens; ++t) {
    RotateBack(s->dk + (size_t)t * kSize, cosine + (size_t)t * kHalf, sine + (size_t)t * kHalf,
               kLn2, dqkv + (size_t)t * kWidth + key_at);
    for (int c = 0; c < kSize; c += 16) {
      const __m512 value = _mm512_loadu_ps(s->dv + (size_t)t * kSize + c);
      _mm256_storeu_si256((__m256i*)(dqkv + (size_t)t * kWidth + value_at + c), Narrow(value));
    }
  }
}

// dqkv: like qkv, every value written.
void kedge_attention_backward(const bf16* qkv, int batch, int tokens, const int32_t* context,
                              const int32_t* start, const int32_t* hidden, const float* cosine,
                              const float* sine, const bf16* out, const bf16* dout,
                              const float* lse, bf16* dqkv) {
#pragma omp parallel
  {
    ConfigureTiles();
    Scratch s = NewScratch(tokens);
#pragma omp for schedule(dynamic, 1)
    for (int task = 0; task < batch * kKeyHeads; ++task) {
      const size_t b = (size_t)(task / kKeyHeads), at = b * (size_t)tokens;
      BackwardGroup(qkv + at * kWidth, tokens, task % kKeyHeads, context[b], start + at,
                    hidden + at, cosine + at * kHalf, sine + at * kHalf,
                    out + at * kQueryHeads * kSize, dout + at * kQueryHeads * kSize,
                    lse + at * kQueryHeads, dqkv + at * kWidth, &s);
    }
    FreeScratch(&s);
    _tile_release();
  }
}
