// Codecs: how fast one core encodes and decodes blocks, how small they get, what memory that takes.
//
// Geometry of Llama-3.1-8B: 32 layers, 8 KV heads of 128, blocks of 64 tokens in f16, 8 MiB each.
// Encoding turns keys back and quantizes. Decoding is what a fetched part goes through: its digest
// (XXH3-128 over key, variant, part and bytes), the checks of header and scales, dequantizing,
// rotating keys and scattering into pages of 16 tokens that lie in no order. `decode/no-digest` is
// the same without the digest, `digest` nothing but it, over the encoded bytes: what the digest
// adds to decoding against what it takes alone says how much of it is waiting for memory. The
// yardstick copies the f16 bytes of the same blocks with memcpy, part by part or all at once,
// whichever is faster; the unit is f16 bytes a second on both sides. CPU time of one pinned thread,
// so that a shared machine disturbs less.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
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
#include "proto/block_header.h"
#include "tools/benchmarks/measure.h"
#include "tools/benchmarks/scratch.h"

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

// Parts of any size, each in a place of its own.
struct Encoded {
  void Resize(int64_t parts, uint64_t most) {
    stride = most;
    bytes.resize(parts * most);
    sizes.resize(parts);
  }
  std::span<uint8_t> Room(int64_t part) { return {bytes.data() + part * stride, stride}; }
  std::span<const uint8_t> Part(int64_t part) const {
    return {bytes.data() + part * stride, sizes[part]};
  }
  double total() const {
    return static_cast<double>(std::accumulate(sizes.begin(), sizes.end(), 0ull));
  }

  uint64_t stride = 0;
  std::vector<uint8_t> bytes;
  std::vector<uint64_t> sizes;
  std::vector<BlockHeader> headers;
};

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
  double token_bytes() const {
    return static_cast<double>(shape_.raw_block_bytes()) / shape_.block_tokens;
  }

  // F16 bytes a second.
  absl::StatusOr<double> Encode(const CodecChain& chain, Encoded& encoded) const {
    encoded.Resize(parts(), *chain.MaxPartBytes(shape_, Component::kK, false));
    const double start = CpuSeconds();
    for (int64_t i = 0; i < parts(); ++i) {
      const absl::StatusOr<uint64_t> used =
          chain.EncodePart(Task(i), false, Raw(i), encoded.Room(i));
      if (!used.ok()) return used.status();
      encoded.sizes[i] = *used;
    }
    return raw_bytes() / (CpuSeconds() - start);
  }

  // The blocks' headers, as a put would have made them.
  absl::Status AddHeaders(const CodecChain& chain, Encoded& encoded) const {
    encoded.headers.assign(blocks_, {});
    for (int64_t block = 0; block < blocks_; ++block) {
      BlockHeader& header = encoded.headers[block];
      header.key.bytes[0] = static_cast<uint8_t>(block);
      const absl::StatusOr<Variant> variant = Variant::Parse(chain.name());
      if (!variant.ok()) return variant.status();
      header.variant = *variant;
      header.shape = shape_;
      for (uint32_t part = 0; part < shape_.part_count(); ++part) {
        const std::span<const uint8_t> bytes = encoded.Part(block * shape_.part_count() + part);
        header.parts.push_back({static_cast<uint32_t>(bytes.size()),
                                PartDigest(header.key, header.variant, part, bytes)});
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<double> Decode(const CodecChain& chain, const Encoded& encoded, bool with_digest) {
    const int64_t part_pages = shape_.block_tokens / kPageTokens;
    std::vector<std::span<uint8_t>> pages(part_pages);
    const double start = CpuSeconds();
    for (int64_t i = 0; i < parts(); ++i) {
      for (int64_t p = 0; p < part_pages; ++p) {
        const int64_t page = page_order_[i * part_pages + p];
        pages[p] = {pages_.data() + page * page_bytes(), static_cast<size_t>(page_bytes())};
      }
      const codec::PartPages target{pages, kPageTokens};
      const BlockHeader& header = encoded.headers[i / shape_.part_count()];
      const absl::Status s = with_digest
                                 ? chain.DecodeFetchedPart(header, Task(i), encoded.Part(i), target)
                                 : chain.DecodePart(Task(i), encoded.Part(i), target);
      if (!s.ok()) return s;
    }
    return raw_bytes() / (CpuSeconds() - start);
  }

  absl::StatusOr<double> Digest(const Encoded& encoded) const {
    const double start = CpuSeconds();
    for (int64_t i = 0; i < parts(); ++i) {
      const auto part = static_cast<uint32_t>(i % shape_.part_count());
      const absl::Status s =
          VerifyPart(encoded.headers[i / shape_.part_count()], part, encoded.Part(i));
      if (!s.ok()) return s;
    }
    return raw_bytes() / (CpuSeconds() - start);
  }

  // What the dearest of encoding and decoding one part of keys or values takes.
  bench::ScratchUse Scratch(const CodecChain& chain) {
    std::vector<uint8_t> encoded(*chain.MaxPartBytes(shape_, Component::kK, false));
    const std::span<uint8_t> page(pages_.data(), part_bytes_);
    bench::ScratchUse most;
    for (int64_t part : {0, 1}) {
      uint64_t used = 0;
      const auto add = [&](const bench::ScratchUse& use) {
        most.heap_bytes = std::max(most.heap_bytes, use.heap_bytes);
        most.stack_bytes = std::max(most.stack_bytes, use.stack_bytes);
      };
      add(bench::MeasureScratch(
          [&] { used = chain.EncodePart(Task(part), false, Raw(part), encoded).value_or(0); }));
      add(bench::MeasureScratch([&] {
        const std::span<const uint8_t> bytes = std::span<const uint8_t>(encoded).first(used);
        if (!chain.DecodePart(Task(part), bytes, {{&page, 1}, shape_.block_tokens}).ok())
          std::abort();
      }));
    }
    return most;
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
  std::span<const uint8_t> Raw(int64_t part) const {
    return {raw_.data() + part * part_bytes_, static_cast<size_t>(part_bytes_)};
  }
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

class Bench {
 public:
  Bench(bool quick, bool json)
      : quick_(quick),
        reporter_(json),
        workload_(quick ? 32 : 128),
        piece_(workload_.BestPiece()) {}

  absl::Status Run(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const absl::StatusOr<CodecChain> chain = CodecChain::Parse(name);
      if (!chain.ok()) return chain.status();
      if (absl::Status s = RunChain(*chain); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

 private:
  absl::Status RunChain(const CodecChain& chain) {
    Encoded encoded;
    absl::Status s = Compare(chain, "encode", [&] { return workload_.Encode(chain, encoded); });
    if (!s.ok()) return s;
    if (s = workload_.AddHeaders(chain, encoded); !s.ok()) return s;
    s = Compare(chain, "decode", [&] { return workload_.Decode(chain, encoded, true); });
    if (!s.ok()) return s;
    if (!quick_) {
      s = Compare(chain, "decode/no-digest",
                  [&] { return workload_.Decode(chain, encoded, false); });
      if (!s.ok()) return s;
      s = Compare(chain, "digest", [&] { return workload_.Digest(encoded); });
      if (!s.ok()) return s;
    }
    const double tokens = workload_.raw_bytes() / workload_.token_bytes();
    reporter_.PrintValue("codec", chain.name() + "/bytes_per_token", encoded.total() / tokens, "B",
                         "with the parts' headers");
    const bench::ScratchUse scratch = workload_.Scratch(chain);
    const uint64_t limit = codec::kScratchBytesMax;
    const auto used = static_cast<uint64_t>(scratch.heap_bytes + scratch.stack_bytes);
    reporter_.PrintValue("codec", chain.name() + "/scratch", static_cast<double>(used), "B",
                         absl::StrCat("heap ", scratch.heap_bytes, ", stack ", scratch.stack_bytes,
                                      "; at most ", limit));
    if (used <= limit) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat(chain.name(), ": scratch: ", used, " bytes, at most ", limit, " allowed"));
  }

  absl::Status Compare(const CodecChain& chain, const char* what,
                       const std::function<absl::StatusOr<double>()>& rate) {
    const auto ours = [&]() -> absl::StatusOr<double> {
      const absl::StatusOr<double> bytes = rate();
      return bytes.ok() ? *bytes / kGb : bytes;
    };
    const auto copy = [&]() -> absl::StatusOr<double> { return workload_.Copy(piece_) / kGb; };
    absl::StatusOr<bench::Figure> figure =
        bench::Compare("codec", absl::StrCat(chain.name(), "/", what), "GB/s", "memcpy",
                       bench::Direction::kLargerIsBetter, quick_ ? 3 : 7, ours, copy);
    if (!figure.ok()) return figure.status();
    figure->note = absl::StrCat(static_cast<int64_t>(workload_.raw_bytes()) >> 20, " MiB of f16",
                                quick_ ? ", may fit the last-level cache" : "", ", CPU time");
    reporter_.Print(*figure);
    return absl::OkStatus();
  }

  const bool quick_;
  bench::Reporter reporter_;
  Workload workload_;
  const int64_t piece_;
};

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  CLI::App app("Benchmarks the codecs against memcpy, on one core.");
  bool quick = false;
  bool json = false;
  std::vector<std::string> chains;
  app.add_option("--chain", chains, "These chains only")->delimiter(',')->type_name("NAME,...");
  app.add_flag("--quick", quick, "256 MiB instead of 1 GiB, and 3 rounds: under a minute");
  app.add_flag("--json", json, "one JSON object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (chains.empty()) {
    chains = {"kivi2g32", "kivi4g32", "kivi2g32s8", "had+kivi2g32", "fp8"};
    if (!quick) chains.insert(chains.end(), {"kivi8g32", "kivi4g32s8", "had+kivi4g32", "raw"});
  }
  kedge::bench::PinTo(1);
  const absl::Status status = kedge::Bench(quick, json).Run(chains);
  if (status.ok()) return 0;
  std::fprintf(stderr, "codec_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
