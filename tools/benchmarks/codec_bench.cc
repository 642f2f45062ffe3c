// Codecs: how fast one core encodes and decodes blocks, how small they get, what memory that takes.
//
// Geometry of Llama-3.1-8B: 32 layers, 8 KV heads of 128, blocks of 64 tokens in f16, 8 MiB each.
// Encoding turns keys back and quantizes. Decoding is what a fetched part goes through: its digest
// (XXH3-128 over key, variant, part and bytes), the checks of header and scales, dequantizing,
// rotating keys and scattering into pages of 16 tokens that lie in no order. `decode/no-digest` is
// the same without the digest, `digest` nothing but it, over the encoded bytes: what the digest
// adds to decoding against what it takes alone says how much of it is waiting for memory. `rans` is
// the entropy coder alone, over the bytes of kivi4g32, `archive` the chain archive1. The
// yardstick copies the f16 bytes of the same blocks with memcpy, part by part or all at once,
// whichever is faster; the unit is f16 bytes a second on both sides. CPU time of one pinned thread,
// so that a shared machine disturbs less. `scores` is what capturing scores costs a prefill
// (capture_cases.h).
//
// Values and the profile that entropy coding needs are made up (codec_values.h): bits a value of
// chains without it follow from the format, those with it from how the values were made.
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/kivi_rans_codec.h"
#include "tools/benchmarks/capture_cases.h"
#include "tools/benchmarks/codec_values.h"
#include "tools/benchmarks/codec_workload.h"
#include "tools/benchmarks/measure.h"

namespace kedge {
namespace {

using bench::CodecWorkload;
using bench::EncodedParts;
using bench::Sample;
using codec::CodecChain;

constexpr double kGb = 1e9;
// The case `rans`: its name, and the chain whose bytes it codes.
constexpr char kRans[] = "rans";
constexpr char kRansOver[] = "kivi4g32";
// The cases of capture_cases.h.
constexpr char kScores[] = "scores";
// The chain that cases call `archive`.
constexpr char kArchive[] = "archive1";
// Transform coding is slow: it takes a sample of the parts.
constexpr int64_t kArchiveEvery = 31;
constexpr int64_t kArchiveEveryQuick = 15;

class Bench {
 public:
  Bench(bool quick, bool json)
      : quick_(quick),
        reporter_(json),
        workload_(quick ? 32 : 128),
        piece_(workload_.BestPiece()) {}

  absl::Status Run(const std::vector<std::string>& names) {
    for (const std::string& name : names) {
      const absl::Status s = name == kRans     ? RunRans()
                             : name == kScores ? bench::BenchCapture(quick_, reporter_)
                                               : RunChain(name);
      if (!s.ok()) return s;
    }
    return absl::OkStatus();
  }

 private:
  // Made when the first chain needs it.
  absl::StatusOr<const ModelProfile*> Profile() {
    if (!profile_.has_value()) {
      absl::StatusOr<ModelProfile> made =
          bench::MakeCodecProfile(workload_.shape(), workload_.rope());
      if (!made.ok()) return made.status();
      profile_ = *std::move(made);
    }
    return &*profile_;
  }

  absl::StatusOr<CodecChain> Chain(const std::string& name) {
    const bool archive = name.rfind("archive", 0) == 0;
    if (!archive && name.find("+rans") == std::string::npos) return CodecChain::Parse(name);
    const absl::StatusOr<const ModelProfile*> profile = Profile();
    if (!profile.ok()) return profile.status();
    return CodecChain::Parse(name, *profile);
  }

  absl::Status RunChain(const std::string& name) {
    const absl::StatusOr<CodecChain> chain = Chain(name);
    if (!chain.ok()) return chain.status();
    const std::string label = name == kArchive ? "archive" : name;
    Sample sample;
    if (name == kArchive) sample.every = quick_ ? kArchiveEveryQuick : kArchiveEvery;
    EncodedParts encoded;
    absl::Status s = Compare(label + "/encode", sample,
                             [&] { return workload_.Encode(*chain, sample, encoded); });
    if (!s.ok()) return s;
    if (s = workload_.AddHeaders(*chain, encoded); !s.ok()) return s;
    s = Compare(label + "/decode", sample,
                [&] { return workload_.Decode(*chain, sample, encoded, true); });
    if (!s.ok()) return s;
    if (!quick_) {
      s = Compare(label + "/decode/no-digest", sample,
                  [&] { return workload_.Decode(*chain, sample, encoded, false); });
      if (!s.ok()) return s;
      s = Compare(label + "/digest", sample, [&] { return workload_.Digest(sample, encoded); });
      if (!s.ok()) return s;
    }
    PrintSize(label, sample, encoded);
    return PrintScratch(label, *chain);
  }

  absl::Status RunRans() {
    const absl::StatusOr<CodecChain> kivi = Chain(kRansOver);
    if (!kivi.ok()) return kivi.status();
    const absl::StatusOr<const ModelProfile*> profile = Profile();
    if (!profile.ok()) return profile.status();
    const std::string coded_name = absl::StrCat(kRansOver, "+rans");
    const auto section = (*profile)->Section("entropy/" + coded_name);
    if (!section.ok()) return section.status();
    const auto tables = codec::ParseKiviTables(coded_name, *section);
    if (!tables.ok()) return tables.status();
    std::vector<codec::KiviLayout> layouts;
    for (const Component component : {Component::kK, Component::kV}) {
      const auto layout = codec::KiviChainLayout(kRansOver, workload_.shape(), component);
      if (!layout.ok()) return layout.status();
      layouts.push_back(*layout);
    }
    const std::span<const codec::KiviLayout, 2> both(layouts.data(), 2);
    EncodedParts bodies;
    absl::Status s = workload_.Encode(*kivi, {}, bodies).status();
    if (!s.ok()) return s;
    EncodedParts coded;
    s = Compare(absl::StrCat(kRans, "/encode"), {}, [&]() -> absl::StatusOr<double> {
      return workload_.RansEncode(bodies, both, *tables, coded);
    });
    if (!s.ok()) return s;
    s = Compare(absl::StrCat(kRans, "/decode"), {},
                [&] { return workload_.RansDecode(coded, both, *tables); });
    if (!s.ok()) return s;
    PrintSize(kRans, {}, coded);
    return absl::OkStatus();
  }

  void PrintSize(const std::string& label, Sample sample, const EncodedParts& encoded) {
    double bytes = 0;
    for (uint64_t size : encoded.sizes) bytes += static_cast<double>(size);
    const double share = bytes / workload_.SampleBytes(sample);  // of f16
    const KvShape& shape = workload_.shape();
    const double token_bytes =
        static_cast<double>(shape.raw_block_bytes()) / static_cast<double>(shape.block_tokens);
    reporter_.PrintValue("codec", label + "/bytes_per_token", share * token_bytes, "B",
                         "with the parts' headers");
    reporter_.PrintValue("codec", label + "/bits_per_value", share * 16, "bits");
  }

  absl::Status PrintScratch(const std::string& label, const CodecChain& chain) {
    const bench::ScratchUse scratch = workload_.Scratch(chain);
    const uint64_t limit = codec::kScratchBytesMax;
    const auto used = static_cast<uint64_t>(scratch.heap_bytes + scratch.stack_bytes);
    reporter_.PrintValue("codec", label + "/scratch", static_cast<double>(used), "B",
                         absl::StrCat("heap ", scratch.heap_bytes, ", stack ", scratch.stack_bytes,
                                      "; at most ", limit));
    if (used <= limit) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat(label, ": scratch: ", used, " bytes, at most ", limit, " allowed"));
  }

  absl::Status Compare(const std::string& name, Sample sample,
                       const std::function<absl::StatusOr<double>()>& rate) {
    const auto ours = [&]() -> absl::StatusOr<double> {
      const absl::StatusOr<double> bytes = rate();
      return bytes.ok() ? *bytes / kGb : bytes;
    };
    const auto copy = [&]() -> absl::StatusOr<double> { return workload_.Copy(piece_) / kGb; };
    absl::StatusOr<bench::Figure> figure =
        bench::Compare("codec", name, "GB/s", "memcpy", bench::Direction::kLargerIsBetter,
                       quick_ ? 3 : 7, ours, copy);
    if (!figure.ok()) return figure.status();
    figure->note = absl::StrCat(static_cast<int64_t>(workload_.raw_bytes()) >> 20, " MiB of f16",
                                quick_ ? ", may fit the last-level cache" : "", ", CPU time");
    if (sample.every > 1)
      absl::StrAppend(&figure->note, "; ours every ", sample.every, "th part of it");
    reporter_.Print(*figure);
    return absl::OkStatus();
  }

  const bool quick_;
  bench::Reporter reporter_;
  CodecWorkload workload_;
  const int64_t piece_;
  std::optional<ModelProfile> profile_;
};

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  CLI::App app("Benchmarks the codecs against memcpy, on one core.");
  bool quick = false;
  bool json = false;
  std::vector<std::string> chains;
  app.add_option("--chain", chains,
                 "These only: chains, `rans` (the entropy coder alone), `scores` (capturing)")
      ->delimiter(',')
      ->type_name("NAME,...");
  app.add_flag("--quick", quick, "256 MiB instead of 1 GiB, and 3 rounds: under a minute");
  app.add_flag("--json", json, "one JSON object a line");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (chains.empty()) {
    chains = {"kivi2g32",   "kivi4g32",      "kivi2g32s8",    "had+kivi2g32",  "fp8",
              kedge::kRans, "kivi2g32+rans", "kivi4g32+rans", kedge::kArchive, kedge::kScores};
    if (!quick) chains.insert(chains.end(), {"kivi8g32", "kivi4g32s8", "had+kivi4g32", "raw"});
  }
  kedge::bench::PinTo(1);
  const absl::Status status = kedge::Bench(quick, json).Run(chains);
  if (status.ok()) return 0;
  std::fprintf(stderr, "codec_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}
