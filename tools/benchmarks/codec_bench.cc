// Codecs: how fast one core encodes and decodes blocks, and how small they get.
//
// Geometry of Llama-3.1-8B: 32 layers, 8 KV heads of 128, blocks of 64 tokens in f16, 8 MiB each.
// Encoding turns keys back and quantizes; decoding checks the part's scales, dequantizes, rotates
// keys and scatters into pages of 16 tokens that lie in no order. The yardstick copies the f16
// bytes of the same blocks with memcpy, part by part or all at once, whichever is faster; the unit
// is f16 bytes a second on both sides. CPU time of one pinned thread, so that a shared machine
// disturbs less. Digests are not part of it: the transfer checks them.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/kernels/cast.h"
#include "gpu/kernels/sampling.h"
#include "tools/benchmarks/measure.h"

namespace kedge {
namespace {

using codec::CodecChain;

constexpr int64_t kPageTokens = 16;
constexpr double kGb = 1e9;

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

KvShape Llama8B() { return KvShape::KeysAndValues(32, 8, 128, 64, DType::kF16); }

// The blocks as an engine has them, and pages that take as many.
class Workload {
 public:
  explicit Workload(int64_t blocks)
      : shape_(Llama8B()),
        blocks_(blocks),
        part_bytes_(static_cast<int64_t>(shape_.raw_part_bytes())),
        rope_(kernels::MakeRopeTable(kernels::RopeFrequencies(shape_.head_size, 500000.0f, {}), 640,
                                     shape_.block_tokens)),
        raw_(parts() * part_bytes_),
        pages_(raw_.size()) {
    // One part of values between -4 and 4, then copies of it, each begun elsewhere.
    const int64_t count = part_bytes_ / 2;
    kernels::SamplingGenerator generator(1);
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(8.0 * generator.NextUniform() - 4.0);
    std::vector<uint8_t> part(part_bytes_);
    kernels::CastFromFloat(DType::kF16, values.data(), count, part.data());
    for (int64_t i = 0; i < parts(); ++i) {
      const int64_t turn = i * 514 % part_bytes_;
      uint8_t* to = raw_.data() + i * part_bytes_;
      std::memcpy(to, part.data() + turn, part_bytes_ - turn);
      std::memcpy(to + part_bytes_ - turn, part.data(), turn);
    }
    page_order_.resize(raw_.size() / page_bytes());
    std::iota(page_order_.begin(), page_order_.end(), 0);
    std::mt19937_64 shuffle(2);
    std::shuffle(page_order_.begin(), page_order_.end(), shuffle);
  }

  const KvShape& shape() const { return shape_; }
  int64_t parts() const { return blocks_ * shape_.part_count(); }
  double raw_bytes() const { return static_cast<double>(raw_.size()); }

  // F16 bytes a second.
  absl::StatusOr<double> Encode(const CodecChain& chain, std::vector<uint8_t>& encoded) const {
    const uint64_t bytes = *chain.MaxPartBytes(shape_, Component::kK, false);
    encoded.resize(parts() * bytes);
    const double start = CpuSeconds();
    for (int64_t i = 0; i < parts(); ++i) {
      const std::span<const uint8_t> raw(raw_.data() + i * part_bytes_, part_bytes_);
      const absl::StatusOr<uint64_t> used =
          chain.EncodePart(Task(i), false, raw, {encoded.data() + i * bytes, bytes});
      if (!used.ok()) return used.status();
    }
    return raw_bytes() / (CpuSeconds() - start);
  }

  absl::StatusOr<double> Decode(const CodecChain& chain, const std::vector<uint8_t>& encoded) {
    const uint64_t bytes = *chain.MaxPartBytes(shape_, Component::kK, false);
    const int64_t part_pages = shape_.block_tokens / kPageTokens;
    std::vector<std::span<uint8_t>> pages(part_pages);
    const double start = CpuSeconds();
    for (int64_t i = 0; i < parts(); ++i) {
      for (int64_t p = 0; p < part_pages; ++p) {
        const int64_t page = page_order_[i * part_pages + p];
        pages[p] = {pages_.data() + page * page_bytes(), static_cast<size_t>(page_bytes())};
      }
      const absl::Status s =
          chain.DecodePart(Task(i), {encoded.data() + i * bytes, bytes}, {pages, kPageTokens});
      if (!s.ok()) return s;
    }
    return raw_bytes() / (CpuSeconds() - start);
  }

  double Copy(int64_t piece) {
    const double start = CpuSeconds();
    const auto total = static_cast<int64_t>(raw_.size());
    for (int64_t at = 0; at < total; at += piece)
      std::memcpy(pages_.data() + at, raw_.data() + at, std::min(piece, total - at));
    return raw_bytes() / (CpuSeconds() - start);
  }

  int64_t BestPiece() {
    int64_t best = part_bytes_;
    double best_rate = 0.0;
    for (int64_t piece : {part_bytes_, part_bytes_ * 64, static_cast<int64_t>(raw_.size())}) {
      double rate = 0.0;
      for (int i = 0; i < 3; ++i) rate = std::max(rate, Copy(piece));
      if (rate <= best_rate) continue;
      best_rate = rate;
      best = piece;
    }
    return best;
  }

 private:
  int64_t page_bytes() const { return part_bytes_ / shape_.block_tokens * kPageTokens; }
  // Keys and values in turns.
  codec::PartTask Task(int64_t part) const {
    return {shape_, static_cast<uint32_t>(part / 2 % shape_.layer_count),
            part % 2 == 0 ? Component::kK : Component::kV, &rope_};
  }

  const KvShape shape_;
  const int64_t blocks_;
  const int64_t part_bytes_;
  const kernels::RopeTable rope_;
  std::vector<uint8_t> raw_;
  std::vector<uint8_t> pages_;
  std::vector<int64_t> page_order_;
};

absl::Status Run(bool quick, bool json) {
  bench::PinTo(1);
  const int64_t blocks = quick ? 32 : 128;
  Workload workload(blocks);
  const int rounds = quick ? 5 : 9;
  const std::string size_note = absl::StrCat(
      blocks * 8, " MiB of f16", quick ? ", may fit the last-level cache" : "", ", CPU time");
  const int64_t piece = workload.BestPiece();
  bench::Reporter reporter(json);
  for (const char* name : {"kivi2g32", "kivi4g32", "fp8", "had+kivi2g32"}) {
    const absl::StatusOr<CodecChain> chain = CodecChain::Parse(name);
    if (!chain.ok()) return chain.status();
    std::vector<uint8_t> encoded;
    const auto copy = [&]() -> absl::StatusOr<double> { return workload.Copy(piece) / kGb; };
    const auto report = [&](const char* what, const bench::Measurement& ours) -> absl::Status {
      absl::StatusOr<bench::Figure> figure =
          bench::Compare("codec", absl::StrCat(name, "/", what), "GB/s", "memcpy",
                         bench::Direction::kLargerIsBetter, rounds, ours, copy);
      if (!figure.ok()) return figure.status();
      figure->note = size_note;
      reporter.Print(*figure);
      return absl::OkStatus();
    };
    absl::Status s = report("encode", [&]() -> absl::StatusOr<double> {
      const absl::StatusOr<double> rate = workload.Encode(*chain, encoded);
      return rate.ok() ? *rate / kGb : rate;
    });
    if (!s.ok()) return s;
    s = report("decode", [&]() -> absl::StatusOr<double> {
      const absl::StatusOr<double> rate = workload.Decode(*chain, encoded);
      return rate.ok() ? *rate / kGb : rate;
    });
    if (!s.ok()) return s;
    const double tokens = static_cast<double>(blocks) * workload.shape().block_tokens;
    reporter.PrintValue("codec", absl::StrCat(name, "/bytes_per_token"),
                        static_cast<double>(encoded.size()) / tokens, "B",
                        "with the parts' headers");
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  CLI::App app("Benchmarks the codecs against memcpy, on one core.");
  bool quick = false;
  bool json = false;
  app.add_flag("--quick", quick, "256 MiB instead of 1 GiB, and 5 rounds: under a minute");
  app.add_flag("--json", json, "one JSON object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = kedge::Run(quick, json);
  if (status.ok()) return 0;
  std::fprintf(stderr, "codec_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
