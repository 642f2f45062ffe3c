// Times the CUDA twins of codecs and of offsets against a device-to-device memcpy, and score
// capture against the attention that it goes with. `tools/gpu_check` runs it.
//
// Geometry of Llama-3.1-8B's keys or values: 8 heads of 128 in f16, 65,536 tokens in one launch, so
// that launching costs nothing beside it; 128 MiB. A figure is the f16 bytes over the time of one
// call, the median of several, by CUDA's events; the yardstick copies the same bytes in between.
// Keys are turned by angles on the way.
//
// rANS is the entropy coder alone: 1,024 streams, each of a kivi4g32 body of 64 tokens with the
// five tables that it would have. archive/rows is the archive's transform alone, from 400
// components to fp32 rows of 1,024.
//
// Offsets are fp32, of one layer of the same model. What an operator reads and writes, rows without
// angles and factors, stands to a memcpy of half as many bytes, which reads and writes them each.
//
// Score capture (column_mass) is of one layer of the same model: 32 query heads, 1,024 rows behind
// 7,168 keys; the last 32, 64 or all of them are observed. A figure is its time over attention's.
#include <cstdio>

#if KEDGE_CUDA
#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "gpu/codec/fp8.h"
#include "gpu/codec/hadamard.h"
#include "gpu/codec/kivi.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/codec/row_transform.h"
#include "gpu/device/device_cuda.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/column_mass.h"
#include "gpu/kernels/value_deviation.h"
#include "gpu/offset/blend_row.h"
#include "gpu/offset/kv_rows.h"
#include "gpu/offset/linear_map.h"
#include "gpu/offset/mixture.h"
#include "gpu/offset/sketch.h"

namespace kedge {
namespace {

using codec::GroupAxis;
using codec::GroupScales;
using codec::KiviLayout;

constexpr int64_t kTokens = 65536, kHeads = 8, kHeadSize = 128, kWidth = kHeads * kHeadSize;
constexpr int64_t kBytes = kTokens * kWidth * 2;
constexpr int64_t kHeadsOfQueries = 32, kRows = 1024, kKeysBefore = 7168;
constexpr int64_t kFloatBytes = kTokens * kWidth * 4;
constexpr int64_t kAnchors = 8, kRank = 32;
constexpr int64_t kBlock = 64, kBlocks = kTokens / kBlock, kKept = 400;
constexpr int kRounds = 9;

// Ends the program: a machine whose CUDA fails gives no figures.
void Must(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "gpu_timing: %s: %s\n", what, ::cudaGetErrorString(::cudaGetLastError()));
  std::exit(1);
}

template <typename T>
T* Room(int64_t count) {
  void* memory = nullptr;
  Must(::cudaMalloc(&memory, count * sizeof(T)) == cudaSuccess, "cudaMalloc");
  return static_cast<T*>(memory);
}

template <typename T>
T* ToGpu(const std::vector<T>& values) {
  T* memory = Room<T>(static_cast<int64_t>(values.size()));
  Must(::cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) ==
           cudaSuccess,
       "cudaMemcpy");
  return memory;
}

template <typename T>
std::vector<T> FromGpu(const T* memory, int64_t count) {
  std::vector<T> values(count);
  Must(
      ::cudaMemcpy(values.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess,
      "cudaMemcpy");
  return values;
}

class Timing {
 public:
  explicit Timing(void* stream) : stream_(static_cast<cudaStream_t>(stream)) {
    Must(::cudaEventCreate(&begin_) == cudaSuccess, "cudaEventCreate");
    Must(::cudaEventCreate(&end_) == cudaSuccess, "cudaEventCreate");
    std::vector<float> values(kTokens * kWidth);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(i * 2654435761u % 65536u) * 0x1p-13f - 4.0f;
    std::vector<uint8_t> raw(kBytes);
    kernels::CastFromFloat(DType::kF16, values.data(), kTokens * kWidth, raw.data());
    raw_ = ToGpu(raw);
    pages_ = Room<uint8_t>(kBytes);
    encoded_ = Room<uint8_t>(kBytes * 2);
    floats_ = ToGpu(values);
    cos_ = ToGpu(std::vector<float>(kTokens * kHeadSize / 2, 0.6f));
    sin_ = ToGpu(std::vector<float>(kTokens * kHeadSize / 2, 0.8f));
    bad_ = ToGpu(std::vector<int>{0});
    scale_ = ToGpu(std::vector<float>{0.0f});
    rows_ = ToGpu(Rows(pages_, kWidth * 2));
    float_rows_ = ToGpu(Rows(reinterpret_cast<uint8_t*>(floats_), kWidth * 4));
    queries_ = ToGpu(std::vector<float>(kRows * kHeadsOfQueries * kHeadSize, 0.01f));
    log_sum_exp_ = Room<float>(kRows * kHeadsOfQueries);
    attended_ = Room<float>(kRows * kHeadsOfQueries * kHeadSize);
    mass_ = ToGpu(std::vector<float>(kHeadsOfQueries * (kKeysBefore + kRows)));
  }

  void Kivi(const char* name, int bits, GroupScales scales) {
    for (const GroupAxis axis : {GroupAxis::kTokens, GroupAxis::kChannels}) {
      const bool keys = axis == GroupAxis::kTokens;
      const KiviLayout layout{bits, 32, axis, kTokens, kHeads, kHeadSize, scales};
      const float* cos = keys ? cos_ : nullptr;
      const float* sin = keys ? sin_ : nullptr;
      const std::string of = std::string(name) + (keys ? "/keys/" : "/values/");
      Report(of + "encode", [&] {
        KiviEncodeCuda(layout, DType::kF16, raw_, cos, sin, 0, encoded_, bad_, stream_);
      });
      Report(of + "decode",
             [&] { KiviDecodeCuda(layout, encoded_, DType::kF16, rows_, cos, sin, 0, stream_); });
      if (bits != 2) continue;
      Report("had+" + of + "encode", [&] {
        codec::HadamardReadCuda(DType::kF16, raw_, cos, sin, kTokens, kHeads, kHeadSize, floats_,
                                stream_);
        KiviEncodeCuda(layout, DType::kF32, floats_, nullptr, nullptr, 0, encoded_, bad_, stream_);
      });
      Report("had+" + of + "decode", [&] {
        KiviDecodeCuda(layout, encoded_, DType::kF32, float_rows_, nullptr, nullptr, 0, stream_);
        codec::HadamardWriteCuda(floats_, DType::kF16, rows_, cos, sin, kTokens, kHeads, kHeadSize,
                                 0, stream_);
      });
    }
  }

  void Fp8() {
    const codec::Fp8Layout layout{kTokens, kHeads, kHeadSize};
    Report("fp8/keys/encode", [&] {
      Must(::cudaMemsetAsync(scale_, 0, sizeof(float), stream_) == cudaSuccess, "cudaMemset");
      Fp8EncodeCuda(layout, DType::kF16, raw_, cos_, sin_, 0, scale_, encoded_, bad_, stream_);
    });
    Report("fp8/keys/decode", [&] {
      Fp8DecodeCuda(layout, scale_, encoded_, DType::kF16, rows_, cos_, sin_, 0, stream_);
    });
  }

  // Bodies go to encoded_, one behind the other.
  void Rans() {
    const KiviLayout layout{4,      32,        GroupAxis::kTokens, kBlock,
                            kHeads, kHeadSize, GroupScales::kF16};
    std::vector<uint8_t> bytes;
    const codec::KiviTables tables = KiviRansPart(layout, bytes);
    const auto size = static_cast<int64_t>(bytes.size());
    std::vector<codec::RansCudaRun> runs;
    for (int i = 0; i < codec::kKiviStreams; ++i) {
      const uint32_t* slots = tables[i].slots();
      const codec::KiviStream to = KiviStreamsOf(layout)[i];
      runs.push_back({.slots = ToGpu(std::vector<uint32_t>(slots, slots + codec::kRansTotal)),
                      .count = to.count,
                      .to = encoded_ + to.at,
                      .stride = to.stride});
    }
    uint8_t* const in = Room<uint8_t>(kBlocks * size);
    std::vector<codec::RansCudaStream> streams;
    for (int64_t b = 0; b < kBlocks; ++b) {
      Must(::cudaMemcpy(in + b * size, bytes.data(), size, cudaMemcpyHostToDevice) == cudaSuccess,
           "cudaMemcpy");
      streams.push_back({.runs = ToGpu(runs),
                         .symbols = layout.bytes(),
                         .lanes = codec::RansLanes(layout.bytes()),
                         .in = in + b * size,
                         .bytes = size});
      for (codec::RansCudaRun& run : runs) run.to += layout.bytes();
    }
    const codec::RansCudaStream* on_gpu = ToGpu(streams);
    int64_t* results = Room<int64_t>(kBlocks);
    Report("rans/decode", [&] { RansDecodeCuda(on_gpu, kBlocks, results, stream_); });
    Must(FromGpu(results, kBlocks) == std::vector<int64_t>(kBlocks, size), "rANS's answer");
  }

  void ArchiveRows() {
    const std::vector<float> matrix(codec::PanelFloats(kKept, kWidth), 0.01f);
    const codec::RowTransform task{.in = floats_,
                                   .row_stride = 1,
                                   .inner_stride = kTokens,
                                   .rows = kTokens,
                                   .inner = kKept,
                                   .matrix = ToGpu(matrix),
                                   .width = kWidth,
                                   .start = ToGpu(std::vector<float>(kWidth, 0.5f))};
    float* const rows = reinterpret_cast<float*>(encoded_);
    Report("archive/rows", [&] { TransformRowsCuda(task, rows, stream_); });
  }

  void Scores() {
    const kernels::AttentionArgs args{.q = queries_,
                                      .q_stride = kHeadsOfQueries * kHeadSize,
                                      .k = raw_,
                                      .v = raw_,
                                      .kv_dtype = DType::kF16,
                                      .out = attended_,
                                      .rows = kRows,
                                      .first_position = kKeysBefore,
                                      .heads = kHeadsOfQueries,
                                      .kv_heads = kHeads,
                                      .head_size = kHeadSize,
                                      .scale = 0.088f,
                                      .log_sum_exp = log_sum_exp_};
    const auto attention = [&] { AttentionCuda(args, stream_); };
    Seconds(attention);
    for (const int64_t observed : {int64_t{32}, int64_t{64}, kRows}) {
      const auto capture = [&] {
        ColumnMassCuda(args, kRows - observed, kKeysBefore + kRows, mass_, stream_);
      };
      Seconds(capture);
      std::vector<double> ours, theirs;
      for (int i = 0; i < kRounds; ++i) {
        ours.push_back(Seconds(capture));
        theirs.push_back(Seconds(attention));
      }
      std::sort(ours.begin(), ours.end());
      std::sort(theirs.begin(), theirs.end());
      std::printf("%-28s %10.1f us    %6.3f of the attention's time\n",
                  ("scores/capture/" + std::to_string(observed)).c_str(), ours[kRounds / 2] * 1e6,
                  ours[kRounds / 2] / theirs[kRounds / 2]);
    }
  }

  // What stands in encoded_ before no longer matters.
  void Offsets() {
    float* const target = reinterpret_cast<float*>(encoded_);
    Sums(target);
    const float* matrix = ToGpu(offset::SketchMatrix(kWidth));
    ReportFloats("offset/sketch", kFloatBytes + kTokens * offset::kSketchSize * 4,
                 [&] { offset::SketchCuda(floats_, matrix, kTokens, kWidth, target, stream_); });
    for (const bool keys : {true, false}) {
      const offset::PlaceRowsArgs args{.dtype = DType::kF16,
                                       .base = raw_,
                                       .offset = floats_,
                                       .cos = keys ? cos_ : nullptr,
                                       .sin = keys ? sin_ : nullptr,
                                       .rows = rows_,
                                       .tokens = kTokens,
                                       .heads = kHeads,
                                       .head_size = kHeadSize};
      ReportFloats(keys ? "offset/place/keys" : "offset/place/values", kFloatBytes + 2 * kBytes,
                   [&] { PlaceRowsCuda(args, stream_); });
    }
    // Base keys and values of a quarter of the tokens, and as much that is written.
    constexpr int64_t kFew = kTokens / 4;
    const std::vector<float> small(kWidth * kRank * 2 + offset::kExtraFeatures * kRank, 0.01f);
    const offset::LinearMapArgs map{.keys = floats_,
                                    .values = floats_ + kFew * kWidth,
                                    .in = ToGpu(small),
                                    .out = ToGpu(small),
                                    .tokens = kFew,
                                    .width = kWidth,
                                    .rank = kRank,
                                    .scratch = Room<float>(kFew * kRank),
                                    .key_offsets = target,
                                    .value_offsets = target + kFew * kWidth};
    ReportFloats("offset/linear/32", kFloatBytes, [&] { LinearMapCuda(map, stream_); });
    std::vector<int32_t> positions(kTokens);
    for (int64_t t = 0; t < kTokens; ++t) positions[t] = static_cast<int32_t>(t);
    const kernels::ValueDeviationArgs deviation{.dtype = DType::kF16,
                                                .fresh = floats_,
                                                .fresh_stride = kWidth,
                                                .cached = raw_,
                                                .positions = ToGpu(positions),
                                                .rows = kTokens,
                                                .width = kWidth,
                                                .deviation = target};
    ReportFloats("value deviation", kFloatBytes + kBytes,
                 [&] { ValueDeviationCuda(deviation, stream_); });
  }

 private:
  // The first tokens of raw_ as an entropy-coded part, and the tables that they would have.
  codec::KiviTables KiviRansPart(const KiviLayout& layout, std::vector<uint8_t>& bytes) {
    const std::vector<uint8_t> raw = FromGpu(raw_, layout.tokens * kWidth * 2);
    std::vector<uint8_t> body(layout.bytes());
    Must(KiviEncode(layout, {.dtype = DType::kF16, .data = raw.data()}, body.data()), "KIVI");
    codec::KiviCounts counts(2);
    for (auto& of_part : counts) CountKivi(layout, body, of_part);
    const auto parts = codec::ParseKiviTables("made up", codec::EncodeKiviTables(counts));
    Must(parts.ok(), "tables");
    bytes.resize(KiviRansBytesMax(layout));
    bytes.resize(KiviRansEncode(layout, parts->front(), body.data(), bytes));
    return parts->front();
  }

  // Sums of e * offset: over anchors at once, and of two parts.
  void Sums(float* target) {
    constexpr int64_t kEach = kTokens / kAnchors;
    std::vector<const float*> anchors;
    for (int64_t a = 0; a < kAnchors; ++a) anchors.push_back(floats_ + a * kEach * kWidth);
    const offset::MixRowsArgs mix{.offsets = ToGpu(anchors),
                                  .logits = ToGpu(std::vector<float>(kTokens, -1.0f)),
                                  .anchors = kAnchors,
                                  .tokens = kEach,
                                  .width = kWidth,
                                  .rows = target};
    ReportFloats("offset/mix/8", kFloatBytes + kFloatBytes / kAnchors,
                 [&] { MixRowsCuda(mix, stream_); });
    const float* half = ToGpu(std::vector<float>(kTokens, 0.5f));
    ReportFloats("offset/merge", kFloatBytes / 2 * 3, [&] {
      offset::BlendRowsCuda(half, half, floats_, kTokens / 2, kWidth, target, stream_);
    });
  }

  static std::vector<uint8_t*> Rows(uint8_t* memory, int64_t bytes) {
    std::vector<uint8_t*> rows;
    for (int64_t t = 0; t < kTokens; ++t) rows.push_back(memory + t * bytes);
    return rows;
  }

  double Seconds(const std::function<void()>& call) {
    Must(::cudaEventRecord(begin_, stream_) == cudaSuccess, "cudaEventRecord");
    call();
    Must(::cudaEventRecord(end_, stream_) == cudaSuccess, "cudaEventRecord");
    Must(::cudaEventSynchronize(end_) == cudaSuccess, "a kernel");
    float ms = 0.0f;
    Must(::cudaEventElapsedTime(&ms, begin_, end_) == cudaSuccess, "cudaEventElapsedTime");
    return ms * 1e-3;
  }

  void Report(const std::string& name, const std::function<void()>& call) {
    Compare(name, kBytes, pages_, raw_, call);
  }

  // `touched`: bytes read and bytes written.
  void ReportFloats(const std::string& name, int64_t touched, const std::function<void()>& call) {
    Compare(name, touched / 2, encoded_, floats_, call);
  }

  void Compare(const std::string& name, int64_t bytes, void* to, const void* from,
               const std::function<void()>& call) {
    const auto copy = [&] {
      Must(::cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_) == cudaSuccess,
           "cudaMemcpyAsync");
    };
    const auto rate = [&](const std::function<void()>& what) {  // GB/s
      return static_cast<double>(bytes) / (Seconds(what) * 1e9);
    };
    std::vector<double> ours, theirs;
    rate(copy);
    rate(call);
    for (int i = 0; i < kRounds; ++i) {
      ours.push_back(rate(call));
      theirs.push_back(rate(copy));
    }
    std::sort(ours.begin(), ours.end());
    std::sort(theirs.begin(), theirs.end());
    std::printf("%-28s %10.1f GB/s  %6.2f of a device memcpy\n", name.c_str(), ours[kRounds / 2],
                ours[kRounds / 2] / theirs[kRounds / 2]);
  }

  const cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  uint8_t* raw_ = nullptr;
  uint8_t* pages_ = nullptr;
  uint8_t* encoded_ = nullptr;
  float* floats_ = nullptr;
  float* cos_ = nullptr;
  float* sin_ = nullptr;
  int* bad_ = nullptr;
  float* scale_ = nullptr;
  uint8_t** rows_ = nullptr;
  uint8_t** float_rows_ = nullptr;
  float* queries_ = nullptr;
  float* log_sum_exp_ = nullptr;
  float* attended_ = nullptr;
  float* mass_ = nullptr;
};

int Main() {
  absl::StatusOr<std::unique_ptr<CudaDevice>> device = CudaDevice::Open(0);
  if (!device.ok()) {
    std::fprintf(stderr, "gpu_timing: %s\n", device.status().ToString().c_str());
    return 3;
  }
  std::printf("%s, %lld MiB of f16 a call, median of %d\n", (*device)->name().c_str(),
              static_cast<long long>(kBytes >> 20), kRounds);
  Timing timing((*device)->stream());
  timing.Kivi("kivi2g32", 2, GroupScales::kF16);
  timing.Kivi("kivi4g32", 4, GroupScales::kF16);
  timing.Kivi("kivi4g32s8", 4, GroupScales::kTwoLevel);
  timing.Fp8();
  timing.Rans();
  timing.ArchiveRows();
  timing.Scores();
  timing.Offsets();
  return 0;
}

}  // namespace
}  // namespace kedge

int main() { return kedge::Main(); }

#else

int main() {
  std::fprintf(stderr, "gpu_timing: built without --config=cuda\n");
  return 4;
}

#endif  // KEDGE_CUDA
