// tools/bench mix: mixing the anchors of a placeholder in the node that holds them, against
// fetching them and mixing here.
//
// GEOMETRY/near              one question over tcp to a kedged of its own: sketch out, evidence and
//                            mixed rows back, digests checked. Milliseconds by the wall clock.
//                            Baseline: all anchors are fetched by key in one request, checked,
//                            parsed and mixed in this process: what a client does that knows where
//                            they are.
// GEOMETRY/near/vs-top-p     the same against fetching only the anchors that together hold 0.9 of
//                            the weight, which takes knowing all sketches beforehand.
// GEOMETRY/near/bytes        over the wire, both ways; baseline: the fetched anchors' payloads.
// GEOMETRY/near/read         bytes of anchors that the node reads to mix.
// GEOMETRY/near/cpu, GEOMETRY/fetch/cpu   CPU seconds of the node for one.
// GEOMETRY/error             the first question after an insert, which computes the pool's own
// error
//                            (as many mixtures as there are anchors), and an insert.
//
// A pool of 20 anchors of random rows, fp32, all in the node's memory. Geometries: eval (8 layers
// of 128, 256 tokens of filling and 16 of prefix: the evaluation model's) and mid (16 layers of
// 512).
// --quick: eval only. Crossing point: near is ahead where its ratio is above 1.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"
#include "client/get.h"
#include "client/reuse/local_pools.h"
#include "client/reuse/node_pools.h"
#include "store/world/random.h"
#include "tests/cluster/kedged_process.h"
#include "tools/benchmarks/measure.h"

namespace kedge {
namespace {

constexpr int64_t kAnchors = 20;
constexpr int64_t kPrefixTokens = 16;

struct Geometry {
  const char* name;
  int64_t layers;
  int64_t width;
  int64_t tokens;
};

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "mix_bench: %s\n", std::string(status.message()).c_str());
  std::exit(1);
}

double Milliseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

// User and system time of a process.
double CpuSeconds(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string word;
  for (int i = 0; i < 13; ++i) file >> word;  // kedged's name has no blanks
  double user = 0, system = 0;
  file >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

class Bench {
 public:
  Bench(const Geometry& geometry, int rounds, bench::Reporter& reporter)
      : geometry_(geometry), rounds_(rounds), reporter_(reporter) {
    auto process = KedgedProcess::Start({.flags = {"--host-capacity=2GiB", "--pool-memory=1GiB"}});
    Check(process.status());
    process_ = *std::move(process);
    auto engine = Engine::Open({.address = process_->data_address(), .client_name = "mix_bench"});
    Check(engine.status());
    engine_ = *std::move(engine);
    Check(engine_->WaitConnected(kConnectDefaultMs));
    pools_ = std::make_unique<NodePools>(
        engine_, salt_, Fingerprint{},
        NodePoolsOptions{.deadline_ms = 60'000, .learn_deadline_ms = 60'000});
    for (int64_t i = 0; i < kAnchors; ++i) Check(pools_->Learn({pool_, AnchorOf(i)}));
  }
  ~Bench() { engine_->Close(); }

  void Run() {
    Check(Near().status());  // the pool's own error is known from here on
    const auto all = bench::Compare(
        "mix", Name("near"), "ms", "fetch 20 anchors, mix here", bench::Direction::kSmallerIsBetter,
        rounds_, [this] { return Near(); }, [this] { return Fetch(keys_); });
    Check(all.status());
    reporter_.Print(*all);
    bench::Figure bytes{.bench = "mix", .name = Name("near/bytes")};
    bytes.value = static_cast<double>(answer_.bytes_moved) / 1e6;
    bytes.unit = "MB";
    bytes.baseline = "fetch 20 anchors, mix here";
    bytes.baseline_value = static_cast<double>(fetched_bytes_) / 1e6;
    bytes.ratio = *bytes.baseline_value / bytes.value;
    reporter_.Print(bytes);
    auto top = bench::Compare(
        "mix", Name("near/vs-top-p"), "ms", "fetch the top-p anchors",
        bench::Direction::kSmallerIsBetter, rounds_, [this] { return Near(); },
        [this] { return Fetch(answer_.active); });
    Check(top.status());
    top->note = absl::StrCat(answer_.active.size(), " of ", kAnchors, " anchors");
    reporter_.Print(*top);
    const int64_t rows = geometry_.tokens + kPrefixTokens;
    const int64_t read = kAnchors * 2 * (geometry_.layers - 1) * geometry_.width * rows * 4;
    reporter_.PrintValue("mix", Name("near/read"), static_cast<double>(read) / 1e6, "MB");
    reporter_.PrintValue("mix", Name("near/cpu"), Cpu([this] { return Near(); }), "s");
    reporter_.PrintValue("mix", Name("fetch/cpu"), Cpu([this] { return Fetch(keys_); }), "s");
    const double begun = Milliseconds();
    Check(pools_->Learn({pool_, AnchorOf(kAnchors)}));
    reporter_.PrintValue("mix", Name("insert"), Milliseconds() - begun, "ms");
    const double first = *Near();
    reporter_.PrintValue("mix", Name("error"), first, "ms", "the first question after an insert");
  }

 private:
  std::string Name(const std::string& what) const {
    return absl::StrCat(geometry_.name, "/", what);
  }

  // Numbers are small and random; keys follow from the anchor's number.
  offset::Anchor AnchorOf(int64_t number) {
    Random random(static_cast<uint64_t>(number) + 1);
    const auto fill = [&](std::vector<float>& values) {
      for (float& value : values)
        value = static_cast<float>(random.Next() >> 40) * 0x1.0p-23f - 1.0f;
    };
    const auto rows = [&](int64_t tokens) {
      offset::KvRows made = offset::KvRows::Of(geometry_.layers, tokens, geometry_.width);
      fill(made.keys);
      fill(made.values);
      return made;
    };
    offset::Anchor anchor{.prefix_digest = 7, .context_digest = 9};
    const std::vector<int32_t> filling = {static_cast<int32_t>(number)};
    anchor.key = offset::AnchorKey(salt_, Fingerprint{}, pool_, filling);
    anchor.sketch = offset::SketchOf(rows(geometry_.tokens));
    const offset::KvRows none =
        offset::KvRows::Of(geometry_.layers, geometry_.tokens, geometry_.width);
    anchor.filling = offset::OffsetOf(rows(geometry_.tokens), none);
    anchor.prefix = rows(kPrefixTokens);
    if (number < kAnchors) keys_.push_back(anchor.key);
    return anchor;
  }
  OffsetQuestion Question() {
    if (filling_.tokens == 0) {
      const std::vector<BlockKey> keys = keys_;
      const offset::Anchor other = AnchorOf(1000);
      keys_ = keys;
      filling_ = other.sketch;
      key_ = other.key;
      shape_ = AnchorShape::Of(other);
    }
    return {.pool = pool_,
            .shape = shape_,
            .key = key_,
            .sketch = filling_,
            .mix = {.sharpness = 10.0}};
  }

  absl::StatusOr<double> Near() {
    OffsetQuestion question = Question();
    const double start = Milliseconds();
    absl::StatusOr<OffsetAnswer> answer = pools_->Mix(std::move(question));
    if (!answer.ok()) return answer.status();
    if (!answer->has_rows) return absl::InternalError("nothing was mixed");
    answer_ = *std::move(answer);
    return Milliseconds() - start;
  }
  absl::StatusOr<double> Fetch(const std::vector<BlockKey>& keys) {
    OffsetQuestion question = Question();
    const uint64_t bytes = offset::EncodedAnchorBytes(AnchorShapeExample(), DType::kF32);
    if (landing_.size() < keys.size()) landing_.resize(keys.size());
    GetOperation::Question get;
    for (size_t i = 0; i < keys.size(); ++i) {
      landing_[i].resize(bytes);
      GetOperation::Item item{.key = keys[i],
                              .placement = offset::AnchorPlacement(salt_, Fingerprint{}, pool_)};
      item.to.Add(landing_[i].data(), bytes);
      get.items.push_back(std::move(item));
    }
    const double start = Milliseconds();
    const auto operation = std::make_shared<GetOperation>(std::move(get), kWindowDefaultBytes,
                                                          engine_->NowUs() + 60'000'000);
    engine_->Run(operation);
    operation->Wait(UINT32_MAX);
    if (operation->Prefix(false) != keys.size()) return absl::InternalError(operation->text());
    AnchorPool pool(shape_, {.capacity = kAnchors});
    std::vector<offset::Anchor> anchors;
    for (size_t i = 0; i < keys.size(); ++i) {
      absl::StatusOr<offset::Anchor> anchor = offset::ParseAnchor(keys[i], landing_[i]);
      if (!anchor.ok()) return anchor.status();
      anchors.push_back(*std::move(anchor));
    }
    // The pool's own error is taken as known, as it is on the node.
    Check(pool.Restore(std::move(anchors), std::vector<uint64_t>(keys.size())));
    const PoolAnswer answer = pool.Ask(question.sketch, {.mix = question.mix, .with_error = false});
    if (!answer.has_rows) return absl::InternalError("nothing was mixed");
    fetched_bytes_ = bytes * keys.size();
    return Milliseconds() - start;
  }
  const offset::Anchor& AnchorShapeExample() {
    if (example_.sketch.tokens == 0) {
      example_.sketch.tokens = geometry_.tokens;
      example_.filling = offset::KvRows::Of(geometry_.layers, geometry_.tokens, geometry_.width);
      example_.prefix = offset::KvRows::Of(geometry_.layers, kPrefixTokens, geometry_.width);
    }
    return example_;
  }
  template <typename Call>
  double Cpu(Call call) {
    const int times = 5 * rounds_;  // the clock has ticks of 10 ms
    const double before = CpuSeconds(process_->pid());
    for (int i = 0; i < times; ++i) Check(call().status());
    return (CpuSeconds(process_->pid()) - before) / times;
  }

  const Geometry geometry_;
  const int rounds_;
  bench::Reporter& reporter_;
  const TenantSalt salt_ = *TenantSalt::FromText("bench");
  const offset::PoolName pool_{"agent", "question", offset::BaseKind::kCanonical};
  std::unique_ptr<KedgedProcess> process_;
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<NodePools> pools_;
  std::vector<BlockKey> keys_;
  offset::Sketch filling_;  // of the question
  BlockKey key_;
  AnchorShape shape_;
  offset::Anchor example_;
  OffsetAnswer answer_;
  uint64_t fetched_bytes_ = 0;
  std::vector<std::vector<uint8_t>> landing_;
};

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  CLI::App app{"Mixing anchors in the node, against fetching them"};
  bool json = false, quick = false;
  app.add_flag("--json", json, "One JSON object a line");
  app.add_flag("--quick", quick, "The evaluation model's geometry only");
  CLI11_PARSE(app, argc, argv);
  kedge::bench::Reporter reporter(json);
  std::vector<kedge::Geometry> geometries = {{"eval", 8, 128, 256}};
  if (!quick) geometries.push_back({"mid", 16, 512, 256});
  for (const kedge::Geometry& geometry : geometries)
    kedge::Bench(geometry, quick ? 5 : 7, reporter).Run();
  return 0;
}
