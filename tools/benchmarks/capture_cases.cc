#include "tools/benchmarks/capture_cases.h"

#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/model/score_capture.h"
#include "tools/benchmarks/bench_model.h"

namespace kedge::bench {
namespace {

constexpr int64_t kTokens = 1024;

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Tokens a second of this thread; the model's device has no other. `window` < 0 captures nothing.
absl::StatusOr<double> CaptureRate(Model& model, std::span<const int32_t> tokens, int64_t window) {
  absl::StatusOr<KvCache> cache = model.NewCache(static_cast<int64_t>(tokens.size()));
  if (!cache.ok()) return cache.status();
  const double start = CpuSeconds();
  PrefillOptions options;
  std::optional<ScoreCapture> capture;
  if (window >= 0) {
    capture.emplace(model, static_cast<int64_t>(tokens.size()), window);
    capture->Attach(options);
  }
  absl::StatusOr<Logits> logits = model.Prefill(tokens, *cache, options);
  if (!logits.ok()) return logits.status();
  if (capture) {
    const absl::StatusOr<codec::ScoreSidecar> sidecar = capture->Finish();
    if (!sidecar.ok()) return sidecar.status();
  }
  return static_cast<double>(tokens.size()) / (CpuSeconds() - start);
}

}  // namespace

absl::Status BenchCapture(bool quick, Reporter& reporter) {
  const ModelConfig config = MidSizeModel(quick ? 4 : 8);
  const int rounds = quick ? 3 : 9;
  CpuDevice device(1);
  absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(config, device);
  if (!model.ok()) return model.status();
  const std::vector<int32_t> tokens = RandomTokens(kTokens, config);
  for (const int64_t window : {32, 64, 0}) {
    if (quick && window == 0) continue;
    const std::string name =
        window == 0 ? "scores/columns" : absl::StrCat("scores/capture/", window);
    absl::StatusOr<Figure> figure = Compare(
        "codec", name, "tokens/s", "prefill", Direction::kLargerIsBetter, rounds,
        [&] { return CaptureRate(**model, tokens, window); },
        [&] { return CaptureRate(**model, tokens, -1); });
    if (!figure.ok()) return figure.status();
    figure->note = absl::StrCat("1024 tokens, ", config.layers, " layers, CPU time of one thread");
    reporter.Print(*figure);
  }
  return absl::OkStatus();
}

}  // namespace kedge::bench
