// What the tests of the codecs' CUDA twins share: a part, and rows to decode it into.
//
// Only for code under `#if KEDGE_CUDA`. Where no GPU is, such tests skip themselves.
#pragma once

#include <cstdint>
#include <vector>

#include "gpu/kernels/cast.h"
#include "gpu/kernels/cuda_test_device.h"
#include "gpu/kernels/random_floats.h"
#include "gpu/kernels/rope.h"

namespace kedge::codec {

inline constexpr int64_t kTokens = 64, kHeads = 3, kHeadSize = 64, kWidth = kHeads * kHeadSize;

class CodecCudaTest : public kernels::CudaTwin {
 protected:
  void Fill(DType dtype) {
    std::vector<float> values = kernels::RandomFloats(kTokens * kWidth, 1);
    for (size_t i = 0; i < values.size(); i += 7) values[i] *= i % 2 == 0 ? 100.0f : 0.0f;
    raw_.resize(values.size() * kernels::FloatBytes(dtype));
    kernels::CastFromFloat(dtype, values.data(), kTokens * kWidth, raw_.data());
    rope_ = kernels::MakeRopeTable(kernels::RopeFrequencies(kHeadSize, 10000.0f, {}), 50, kTokens);
  }
  // Row pointers into memory of the size of the part.
  std::vector<uint8_t*> Rows(uint8_t* memory) const {
    std::vector<uint8_t*> rows;
    for (int64_t t = 0; t < kTokens; ++t) rows.push_back(memory + t * (raw_.size() / kTokens));
    return rows;
  }

  std::vector<uint8_t> raw_;
  kernels::RopeTable rope_;
};

}  // namespace kedge::codec
