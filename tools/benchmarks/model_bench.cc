// tools/bench model: the reference runner against what the machine could do.
//
// prefill/M    tokens a second of a dense prefill of M tokens from an empty cache. Yardstick:
// OpenBLAS
//              sgemm over the matrices of all layers (each with memory of its own), with the number
//              of rows up to 1024 that is fastest here, as tokens a second. Attention, norms and
//              activations are work of ours that the yardstick does not do.
// decode/1024  tokens a second of greedy decoding behind 1024 tokens. Yardstick: reading the
// weights once
//              a token, summed by the same threads.
//
// The model has random weights (bench_model.h). Both sides use the same threads. Weights may fit
// into a large last-level cache; the note says how large they are.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/device/device_cpu.h"
#include "gpu/kernels/sampling.h"
#include "gpu/model/model.h"
#include "tools/benchmarks/bench_model.h"
#include "tools/benchmarks/measure.h"

// Declared here: Debian's cblas.h lies where only the chosen BLAS alternative's path finds it.
extern "C" {
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);
void openblas_set_num_threads(int threads);
}

namespace kedge {
namespace {

constexpr int kRowMajor = 101;
constexpr int kNoTrans = 111;
constexpr int kTrans = 112;
constexpr int64_t kRowsMax = 1024;
constexpr int kDecodeSteps = 8;
// OpenBLAS's threads spin for some 25 ms after a call; ours must not compete with them.
constexpr int kSettleUs = 60 * 1000;

double Seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// The products of one forward pass, by OpenBLAS.
class SgemmYardstick {
 public:
  SgemmYardstick(const ModelConfig& config, int threads) {
    openblas_set_num_threads(threads);
    const int64_t q = config.heads * config.head_size;
    const int64_t kv = config.kv_heads * config.head_size;
    for (int64_t layer = 0; layer < config.layers; ++layer) {
      Add(config.hidden_size, q + 2 * kv);
      Add(q, config.hidden_size);
      Add(config.hidden_size, 2 * config.intermediate_size);
      Add(config.intermediate_size, config.hidden_size);
    }
    const int64_t widest = std::max(2 * config.intermediate_size, q + 2 * kv);
    x_.assign(kRowsMax * config.intermediate_size, 0.5f);
    y_.resize(kRowsMax * widest);
  }

  // Rows a second through all products, `rows` at a time.
  double RowsPerSecond(int64_t rows) {
    ::usleep(kSettleUs);
    const double start = Seconds();
    for (const Matrix& matrix : matrices_) {
      const int n = static_cast<int>(matrix.outputs);
      const int k = static_cast<int>(matrix.inputs);
      cblas_sgemm(kRowMajor, kNoTrans, kTrans, static_cast<int>(rows), n, k, 1.0f, x_.data(), k,
                  matrix.weights.data(), k, 0.0f, y_.data(), n);
    }
    return static_cast<double>(rows) / (Seconds() - start);
  }

  // The number of rows that is fastest on this machine.
  int64_t BestRows() {
    int64_t best = kRowsMax;
    double best_rate = 0.0;
    for (int64_t rows : {64, 128, 192, 256, 384, 512, 768, 1024}) {
      double rate = 0.0;
      for (int repetition = 0; repetition < 3; ++repetition) {
        rate = std::max(rate, RowsPerSecond(rows));
      }
      if (rate > best_rate) {
        best_rate = rate;
        best = rows;
      }
    }
    return best;
  }

  int64_t weights() const {
    int64_t sum = 0;
    for (const Matrix& matrix : matrices_) sum += matrix.inputs * matrix.outputs;
    return sum;
  }

 private:
  struct Matrix {
    int64_t inputs;
    int64_t outputs;
    std::vector<float> weights;
  };

  void Add(int64_t inputs, int64_t outputs) {
    matrices_.push_back({inputs, outputs, std::vector<float>(inputs * outputs, 0.25f)});
  }

  std::vector<Matrix> matrices_;
  std::vector<float> x_;
  std::vector<float> y_;
};

// Reads as much memory as the weights take, by the device's threads.
class ReadYardstick {
 public:
  // Memory of the device, as the weights are.
  static absl::StatusOr<ReadYardstick> Create(int64_t floats, CpuDevice& device) {
    absl::StatusOr<DeviceBuffer> memory = DeviceBuffer::Create(device, floats * sizeof(float));
    if (!memory.ok()) return memory.status();
    std::fill_n(memory->as<float>(), floats, 1.0f);
    return ReadYardstick(device, *std::move(memory));
  }

  double PassesPerSecond() {
    ::usleep(kSettleUs);
    const double start = Seconds();
    for (int pass = 0; pass < kDecodeSteps; ++pass) ReadAll();
    return kDecodeSteps / (Seconds() - start);
  }

 private:
  static constexpr int64_t kPiece = 1 << 16;

  ReadYardstick(CpuDevice& device, DeviceBuffer memory)
      : device_(device), memory_(std::move(memory)) {}

  void ReadAll() {
    const int64_t pieces = static_cast<int64_t>(memory_.bytes() / sizeof(float)) / kPiece;
    std::vector<float> sums(pieces);
    device_.ParallelFor(pieces, [&](int64_t piece) {
      const float* from = memory_.as<const float>() + piece * kPiece;
      float lanes[32] = {};  // as many sums as vector registers like to add
      for (int64_t i = 0; i < kPiece; i += 32) {
#pragma GCC unroll 32
        for (int lane = 0; lane < 32; ++lane) lanes[lane] += from[i + lane];
      }
      for (float lane : lanes) sums[piece] += lane;
    });
    float total = 0.0f;
    for (float sum : sums) total += sum;
    volatile float kept = total;
    (void)kept;
  }

  CpuDevice& device_;
  DeviceBuffer memory_;
};

absl::StatusOr<double> PrefillRate(Model& model, std::span<const int32_t> tokens) {
  absl::StatusOr<KvCache> cache = model.NewCache(static_cast<int64_t>(tokens.size()));
  if (!cache.ok()) return cache.status();
  ::usleep(kSettleUs);
  const double start = Seconds();
  absl::StatusOr<Logits> logits = model.Prefill(tokens, *cache);
  if (!logits.ok()) return logits.status();
  return static_cast<double>(tokens.size()) / (Seconds() - start);
}

absl::StatusOr<double> DecodeRate(Model& model, KvCache& cache) {
  cache.set_length(kRowsMax);
  ::usleep(kSettleUs);
  int32_t token = 1;
  const double start = Seconds();
  for (int step = 0; step < kDecodeSteps; ++step) {
    absl::StatusOr<Logits> logits = model.Decode(token, cache);
    if (!logits.ok()) return logits.status();
    token = kernels::ArgMax(logits->row(0));
  }
  return kDecodeSteps / (Seconds() - start);
}

absl::Status BenchPrefill(Model& model, CpuDevice& device, int rounds, const std::string& size_note,
                          bench::Reporter& reporter) {
  SgemmYardstick yardstick(model.config(), device.threads());
  const int64_t best_rows = yardstick.BestRows();
  for (int64_t rows : {64, 128, 256, 512, 1024}) {
    const std::vector<int32_t> tokens = bench::RandomTokens(rows, model.config());
    absl::StatusOr<bench::Figure> figure = bench::Compare(
        "model", absl::StrCat("prefill/", rows), "tokens/s", "sgemm",
        bench::Direction::kLargerIsBetter, rounds, [&] { return PrefillRate(model, tokens); },
        [&]() -> absl::StatusOr<double> { return yardstick.RowsPerSecond(best_rows); });
    if (!figure.ok()) return figure.status();
    const double gflops = *figure->baseline_value * 2e-9 * static_cast<double>(yardstick.weights());
    figure->note = absl::StrCat("sgemm with ", best_rows, " rows: ", static_cast<int>(gflops),
                                " GFLOP/s; ", size_note);
    reporter.Print(*figure);
  }
  return absl::OkStatus();
}

absl::Status BenchDecode(Model& model, CpuDevice& device, int rounds, const std::string& size_note,
                         bench::Reporter& reporter) {
  absl::StatusOr<KvCache> cache = model.NewCache(kRowsMax + kDecodeSteps);
  if (!cache.ok()) return cache.status();
  absl::StatusOr<Logits> logits =
      model.Prefill(bench::RandomTokens(kRowsMax, model.config()), *cache);
  if (!logits.ok()) return logits.status();
  absl::StatusOr<ReadYardstick> yardstick = ReadYardstick::Create(model.parameters(), device);
  if (!yardstick.ok()) return yardstick.status();
  absl::StatusOr<bench::Figure> figure = bench::Compare(
      "model", "decode/1024", "tokens/s", "read_weights", bench::Direction::kLargerIsBetter, rounds,
      [&] { return DecodeRate(model, *cache); },
      [&]() -> absl::StatusOr<double> { return yardstick->PassesPerSecond(); });
  if (!figure.ok()) return figure.status();
  const double rate = *figure->baseline_value * 4e-9 * static_cast<double>(model.parameters());
  figure->note = absl::StrCat("read at ", static_cast<int>(rate * 10) / 10.0, " GB/s; ", size_note);
  reporter.Print(*figure);
  return absl::OkStatus();
}

absl::Status Run(bool quick, bool json, int threads) {
  CpuDevice device(threads);
  const int64_t layers = quick ? 4 : 8;
  const int rounds = quick ? 5 : 9;
  bench::Reporter reporter(json);
  absl::StatusOr<std::unique_ptr<Model>> model =
      bench::MakeModel(bench::MidSizeModel(layers), device);
  if (!model.ok()) return model.status();
  const int64_t mib = (*model)->parameters() * 4 >> 20;
  const std::string size_note =
      absl::StrCat(layers, " layers, ", mib, " MiB of weights, ", device.threads(), " threads");
  absl::Status status = BenchPrefill(**model, device, rounds, size_note, reporter);
  if (!status.ok()) return status;
  return BenchDecode(**model, device, rounds, size_note, reporter);
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  CLI::App app("Benchmarks the reference runner against sgemm and memory.");
  bool quick = false;
  bool json = false;
  int threads = 0;
  app.add_flag("--quick", quick, "4 layers and 5 rounds: under a minute");
  app.add_flag("--json", json, "one JSON object a line");
  app.add_option("--threads", threads, "of both sides; 0 takes all cores")
      ->check(CLI::Range(0, 1024));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = kedge::Run(quick, json, threads);
  if (status.ok()) return 0;
  std::fprintf(stderr, "model_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
