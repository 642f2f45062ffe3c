// The parts of a layer between its matrix products, forward and backward, one pass over memory
// each: residual addition with RMSNorm, and SwiGLU. fp32 residuals, bf16 for what matrix products
// read. Compiled together with attention.c; see attention.py.
#include <immintrin.h>
#include <stdint.h>

typedef uint16_t bf16;

static inline __m512 Load16(const bf16* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline void Store16(bf16* to, __m512 value) {
  _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(value));
}

// sum = x + delta; normed = sum / rms(sum) * weight; scale[row] = 1 / rms. delta may be null.
void kedge_norm_forward(const float* x, const bf16* delta, const float* weight, float epsilon,
                        long rows, int width, float* sum, bf16* normed, float* scale) {
#pragma omp parallel for schedule(static)
  for (long row = 0; row < rows; ++row) {
    const long at = row * width;
    __m512 squares = _mm512_setzero_ps();
    for (int c = 0; c < width; c += 16) {
      __m512 value = _mm512_loadu_ps(x + at + c);
      if (delta) value = _mm512_add_ps(value, Load16(delta + at + c));
      _mm512_storeu_ps(sum + at + c, value);
      squares = _mm512_fmadd_ps(value, value, squares);
    }
    const float mean = _mm512_reduce_add_ps(squares) / (float)width + epsilon;
    const float factor = 1.f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
    scale[row] = factor;
    for (int c = 0; c < width; c += 16) {
      const __m512 value = _mm512_mul_ps(_mm512_loadu_ps(sum + at + c), _mm512_set1_ps(factor));
      Store16(normed + at + c, _mm512_mul_ps(value, _mm512_loadu_ps(weight + c)));
    }
  }
}

// dx = dsum + the gradient of the norm; narrow: dx in bf16 (for delta); dweight: [parts][width],
// one line for each of `parts` shares of the rows.
void kedge_norm_backward(const float* sum, const float* weight, const float* scale,
                         const float* dsum, const bf16* dnormed, long rows, int width, int parts,
                         float* dx, bf16* narrow, float* dweight) {
#pragma omp parallel for schedule(static)
  for (int part = 0; part < parts; ++part) {
    float* mine = dweight + (long)part * width;
    for (int c = 0; c < width; ++c) mine[c] = 0.f;
    for (long row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
      const long at = row * width;
      const __m512 factor = _mm512_set1_ps(scale[row]);
      __m512 dot = _mm512_setzero_ps();
      for (int c = 0; c < width; c += 16) {
        const __m512 unit = _mm512_mul_ps(_mm512_loadu_ps(sum + at + c), factor);
        const __m512 d = Load16(dnormed + at + c);
        _mm512_storeu_ps(mine + c, _mm512_fmadd_ps(d, unit, _mm512_loadu_ps(mine + c)));
        dot = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_loadu_ps(weight + c)), unit, dot);
      }
      const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(dot) / (float)width);
      for (int c = 0; c < width; c += 16) {
        const __m512 unit = _mm512_mul_ps(_mm512_loadu_ps(sum + at + c), factor);
        const __m512 d = _mm512_mul_ps(Load16(dnormed + at + c), _mm512_loadu_ps(weight + c));
        __m512 value = _mm512_mul_ps(_mm512_fnmadd_ps(unit, mean, d), factor);
        if (dsum) value = _mm512_add_ps(value, _mm512_loadu_ps(dsum + at + c));
        _mm512_storeu_ps(dx + at + c, value);
        if (narrow) Store16(narrow + at + c, value);
      }
    }
  }
}

static inline __m512 Exp(__m512 x) {
  x = _mm512_max_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _mm512_set1_ps(-126.f));
  x = _mm512_min_ps(x, _mm512_set1_ps(126.f));
  const __m512 whole = _mm512_roundscale_ps(x, 0);
  const __m512 part = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(1.3697664e-3f);
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.6167742e-3f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(5.5503270e-2f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.4022651e-1f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.9314718e-1f));
  y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(y, whole);
}

static inline __m512 Sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.f);
  return _mm512_div_ps(one, _mm512_add_ps(one, Exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// out[row][i] = silu(both[row][i]) * both[row][inner + i]
void kedge_swiglu_forward(const bf16* both, long rows, int inner, bf16* out) {
#pragma omp parallel for schedule(static)
  for (long row = 0; row < rows; ++row) {
    const bf16* gate = both + row * 2 * inner;
    for (int i = 0; i < inner; i += 16) {
      const __m512 g = Load16(gate + i);
      const __m512 silu = _mm512_mul_ps(g, Sigmoid(g));
      Store16(out + row * inner + i, _mm512_mul_ps(silu, Load16(gate + inner + i)));
    }
  }
}

void kedge_swiglu_backward(const bf16* both, const bf16* dout, long rows, int inner, bf16* dboth) {
#pragma omp parallel for schedule(static)
  for (long row = 0; row < rows; ++row) {
    const bf16* gate = both + row * 2 * inner;
    bf16* to = dboth + row * 2 * inner;
    for (int i = 0; i < inner; i += 16) {
      const __m512 g = Load16(gate + i), up = Load16(gate + inner + i);
      const __m512 d = Load16(dout + row * inner + i), s = Sigmoid(g);
      const __m512 silu = _mm512_mul_ps(g, s);
      // silu' = s + silu * (1 - s)
      const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1.f), s), s);
      Store16(to + i, _mm512_mul_ps(_mm512_mul_ps(d, up), slope));
      Store16(to + inner + i, _mm512_mul_ps(d, silu));
    }
  }
}
