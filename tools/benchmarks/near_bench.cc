// tools/bench near: finding a prompt's chunks and near matches among a million chunks of a node.
//
// recall           share of planted donors that a plan takes rows of: 256 tokens of a stored chunk,
//                  each token replaced with probability 0.1, one inserted, one deleted, at any
//                  offset in a prompt of 4,096 tokens.
// recall/rows      rows that those plans reuse, of the planted tokens that are unchanged.
// exact/recall     unchanged chunks at any offset that are found exactly; exact/false: segments
//                  called exact whose tokens are not the chunk's (the bench fails unless it is 0).
// lookup/p99       one whole match of such a prompt, by the wall clock: naming what is asked, one
//                  request to the node, the node's lookup, reading donors' texts where there are
//                  candidates, verification by the strong key, alignment. The node is a kedged of
//                  its own, over tcp. Baseline: 100 raw round trips of 64 bytes over a loopback
//                  TCP connection to a thread, interleaved with the matches; the median. A ratio
//                  of 1 or more is within 100 round trips.
// lookup/p50, ids/prompt, texts/prompt: values.
// bytes_per_chunk  memory of the node's index over its chunks, everything that is reserved.
//
// Tokens follow Zipf's law (exponent 1 over 32,768 words); a chunk is 4 blocks of 64 tokens. All
// chunks are in the node's index; the texts that it holds are those of the chunks that the prompts
// lead to, found out by a first pass over them, which also warms up.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"
#include "client/match/matcher.h"
#include "client/near.h"
#include "store/world/random.h"
#include "tests/cluster/kedged_process.h"
#include "tools/benchmarks/measure.h"
#include "tools/demonstration/metrics_page.h"

namespace kedge {
namespace {

using match::HybridPlan;
using match::Segment;
using Tokens = std::vector<int32_t>;

constexpr uint32_t kBlockTokens = 64;
constexpr uint32_t kChunkTokens = 256;
constexpr uint32_t kPromptTokens = 4096;
constexpr size_t kPingBytes = 64;
constexpr int kRoundTrips = 100;

double Milliseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(now).count();
}

// Tokens by Zipf's law. A chunk's are made from its number, so they need not be kept.
class Words {
 public:
  Words() : table_(1 << 16) {
    for (size_t i = 0; i < table_.size(); ++i) {
      const double u = (static_cast<double>(i) + 0.5) / static_cast<double>(table_.size());
      table_[i] = static_cast<int32_t>(std::pow(32768.0, u)) - 1;
    }
  }
  int32_t Next(Random& random) const { return table_[random.Next() >> 48]; }
  Tokens Text(uint64_t seed, uint32_t count) const {
    Random random(seed);
    Tokens tokens(count);
    for (int32_t& token : tokens) token = Next(random);
    return tokens;
  }

 private:
  std::vector<int32_t> table_;
};

// Sockets. A failure ends the benchmark: there is nothing to measure then.
void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "near_bench: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}
void SendAll(int socket, const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t sent = ::send(socket, at, bytes, MSG_NOSIGNAL);
    Require(sent > 0, "send");
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
}
bool ReceiveAll(int socket, void* to, size_t bytes) {
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::recv(socket, at, bytes, 0);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}
// Two ends of a TCP connection over loopback.
struct Connection {
  int client = -1;
  int server = -1;

  static Connection Open() {
    const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
    Require(listener >= 0, "socket");
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    Require(::bind(listener, generic, length) == 0 && ::listen(listener, 1) == 0 &&
                ::getsockname(listener, generic, &length) == 0,
            "listen");
    Connection made;
    made.client = ::socket(AF_INET, SOCK_STREAM, 0);
    Require(made.client >= 0 && ::connect(made.client, generic, length) == 0, "connect");
    made.server = ::accept(listener, nullptr, nullptr);
    Require(made.server >= 0, "accept");
    ::close(listener);
    const int on = 1;
    for (int end : {made.client, made.server}) {
      ::setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    return made;
  }
};

// Chunks by number, as they are registered.
class Chunks {
 public:
  explicit Chunks(const Words& words)
      : words_(words),
        salt_(*TenantSalt::FromText("bench")),
        keys_(salt_, Fingerprint{}),
        chain_(match::ChunkChain(salt_, Fingerprint{}, {})) {}

  Tokens Text(uint32_t number) const {
    return words_.Text((uint64_t{number} + 1) << 20, kChunkTokens);
  }
  match::Registration Register(uint32_t number) const {
    return match::Registrations(Text(number), kBlockTokens, chain_, Keyspace::kChunk, keys_)[0];
  }
  const TenantSalt& salt() const { return salt_; }

 private:
  const Words& words_;
  TenantSalt salt_;
  MatchKeys keys_;
  KeyChain chain_;
};

// A kedged with that many chunks in its index, and a client of it.
class Node {
 public:
  explicit Node(uint32_t chunks) {
    auto process = KedgedProcess::Start(
        {.flags = {"--host-capacity=1GiB", absl::StrCat("--near-donors=", chunks)}});
    Check(process.status());
    process_ = *std::move(process);
    auto engine = Engine::Open({.address = process_->data_address(), .client_name = "near_bench"});
    Check(engine.status());
    engine_ = *std::move(engine);
    Check(engine_->WaitConnected(kConnectDefaultMs));
  }
  ~Node() { engine_->Close(); }

  NearNodes nodes() const {
    return NearNodes(engine_, engine_->NowUs() + kDeadlineUs, kWindowDefaultBytes);
  }
  // Returns the chunks by their donors' keys.
  absl::flat_hash_map<BlockKey, uint32_t> Fill(const Chunks& chunks, uint32_t count) {
    absl::flat_hash_map<BlockKey, uint32_t> numbers;
    numbers.reserve(count);
    std::vector<NearInsertItem> items;
    for (uint32_t i = 0; i < count; ++i) {
      match::Registration made = chunks.Register(i);
      numbers[made.donor.key] = i;
      items.push_back({made.donor, std::move(made.postings)});
      if (items.size() == kInsertAtOnce || i + 1 == count) Insert(std::exchange(items, {}));
    }
    return numbers;
  }
  void PutText(const match::Registration& made) {
    Check(nodes().Register({&made, 1}, kDurabilityDefault));
  }
  std::vector<MetricSample> Metrics() const {
    auto page = ReadMetrics(process_->metrics_address());
    Check(page.status());
    return *std::move(page);
  }

 private:
  static constexpr size_t kInsertAtOnce = 4096;
  static constexpr int64_t kDeadlineUs = 60'000'000;

  static void Check(const absl::Status& status) {
    if (status.ok()) return;
    std::fprintf(stderr, "near_bench: %s\n", std::string(status.message()).c_str());
    std::exit(1);
  }
  void Insert(std::vector<NearInsertItem> items) {
    const auto insert =
        std::make_shared<NearInsertOperation>(std::move(items), engine_->NowUs() + kDeadlineUs);
    engine_->Run(insert);
    insert->Wait(UINT32_MAX);
    if (insert->Prefix(false) != insert->count()) Check(absl::InternalError(insert->text()));
  }

  std::unique_ptr<KedgedProcess> process_;
  std::shared_ptr<Engine> engine_;
};

void Echo(int socket) {
  char ping[kPingBytes];
  while (ReceiveAll(socket, ping, sizeof ping)) SendAll(socket, ping, sizeof ping);
}
double RoundTrips(int socket) {
  char ping[kPingBytes] = {};
  const double start = Milliseconds();
  for (int i = 0; i < kRoundTrips; ++i) {
    SendAll(socket, ping, sizeof ping);
    Require(ReceiveAll(socket, ping, sizeof ping), "receive");
  }
  return Milliseconds() - start;
}

// A prompt with one stored chunk in it, changed or not.
struct Planted {
  Tokens prompt;
  uint32_t begin = 0;
  uint32_t tokens = 0;
  uint32_t unchanged = 0;
};
Planted Plant(Tokens donor, bool changed, const Words& words, Random& random) {
  Planted planted{.prompt = words.Text(random.Next() | 1, kPromptTokens)};
  planted.unchanged = kChunkTokens;
  if (changed) {
    for (int32_t& token : donor) {
      if (!random.Chance(0.1)) continue;
      token = words.Next(random);
      --planted.unchanged;
    }
    donor.insert(donor.begin() + static_cast<long>(random.Below(donor.size())), words.Next(random));
    donor.erase(donor.begin() + static_cast<long>(random.Below(donor.size())));
  }
  planted.tokens = static_cast<uint32_t>(donor.size());
  planted.begin = static_cast<uint32_t>(random.Below(kPromptTokens - kChunkTokens - 8));
  std::copy(donor.begin(), donor.end(), planted.prompt.begin() + planted.begin);
  return planted;
}

struct Tally {
  int planted = 0, found = 0, exact_planted = 0, exact_found = 0, exact_false = 0;
  uint64_t rows = 0, unchanged = 0, questions = 0, other_texts = 0;
};

// Looks at one plan: was the planted chunk used, is what is called exact exact?
void Judge(const HybridPlan& plan, const Planted& planted, const Tokens& chunk,
           const BlockKey& tail, bool changed, Tally& tally) {
  bool found = false;
  bool exact = false;
  for (const Segment& segment : plan.Segments()) {
    const bool own = plan.donors[segment.donor].donor.key == tail;
    found |= own;
    if (own) tally.rows += changed ? segment.tokens : 0;
    if (!segment.exact) continue;
    const bool equal =
        own && segment.row + segment.tokens <= chunk.size() &&
        std::equal(chunk.begin() + segment.row, chunk.begin() + segment.row + segment.tokens,
                   planted.prompt.begin() + segment.prompt);
    tally.exact_false += !equal;
    exact |= equal && segment.prompt == planted.begin && segment.tokens == kChunkTokens;
  }
  (changed ? tally.planted : tally.exact_planted) += 1;
  (changed ? tally.found : tally.exact_found) += changed ? found : exact;
  tally.unchanged += changed ? planted.unchanged : 0;
  tally.questions += plan.questions;
  tally.other_texts += plan.texts_read;
}

void Print(const Tally& tally, const Node& node, const std::vector<double>& match_ms,
           const std::vector<double>& round_trips_ms, bench::Reporter& reporter) {
  const auto share = [](double part, double whole) { return part / whole; };
  const auto value = [&](const char* name, double figure, const char* unit,
                         const std::string& note = "") {
    reporter.PrintValue("near", name, figure, unit, note);
  };
  value("recall", share(tally.found, tally.planted), "",
        absl::StrCat(tally.found, " of ", tally.planted));
  value("recall/rows", share(tally.rows, tally.unchanged), "", "of unchanged tokens");
  value("exact/recall", share(tally.exact_found, tally.exact_planted), "",
        absl::StrCat(tally.exact_found, " of ", tally.exact_planted));
  value("exact/false", tally.exact_false, "segments");

  bench::Figure figure{.bench = "near",
                       .name = "lookup/p99",
                       .value = bench::Percentile(match_ms, 99),
                       .unit = "ms",
                       .baseline = "100 raw round trips, loopback tcp"};
  figure.baseline_value = bench::Median(round_trips_ms);
  figure.ratio = *figure.baseline_value / figure.value;
  figure.spread = bench::Spread(match_ms);
  figure.baseline_spread = bench::Spread(round_trips_ms);
  figure.is_void = figure.baseline_spread > bench::kVoidSpread;
  figure.note = absl::StrCat(match_ms.size(), " matches");
  reporter.Print(figure);
  const double matches = static_cast<double>(match_ms.size());
  value("lookup/p50", bench::Median(match_ms), "ms");
  value("ids/prompt", static_cast<double>(tally.questions) / matches, "ids");
  value("texts/prompt", static_cast<double>(tally.other_texts) / matches, "texts");
  const std::vector<MetricSample> metrics = node.Metrics();
  const double donors = SumOf(metrics, "kedge_near_donors");
  value("bytes_per_chunk", share(SumOf(metrics, "kedge_near_bytes"), donors), "bytes",
        absl::StrCat(donors, " chunks, ", SumOf(metrics, "kedge_near_postings_dropped_total"),
                     " postings dropped"));
}

struct Round {
  uint32_t number = 0;
  bool changed = false;
  Planted planted;
};

std::vector<Round> MakeRounds(const Chunks& chunks, uint32_t count, int rounds,
                              const Words& words) {
  Random random(17);
  std::vector<Round> made;
  for (int round = 0; round < rounds; ++round) {
    Round& next = made.emplace_back();
    next.number = static_cast<uint32_t>(random.Below(count));
    next.changed = round % 4 != 0;
    next.planted = Plant(chunks.Text(next.number), next.changed, words, random);
  }
  return made;
}

int Run(uint32_t count, int rounds, bool json) {
  const Words words;
  const Chunks chunks(words);
  Node node(count);
  const absl::flat_hash_map<BlockKey, uint32_t> numbers = node.Fill(chunks, count);
  const std::vector<Round> made = MakeRounds(chunks, count, rounds, words);
  const match::Matcher matcher(chunks.salt(), Fingerprint{}, {}, {.block_tokens = kBlockTokens});
  // Which texts are asked for: those of the planted chunks, and of others that share a band.
  for (const Round& round : made) {
    NearNodes nodes = node.nodes();
    for (const NearDonor& donor : matcher.Match(round.planted.prompt, 0, nodes).stale)
      node.PutText(chunks.Register(numbers.at(donor.key)));
  }

  const Connection raw = Connection::Open();
  std::thread echo([&] { Echo(raw.server); });
  Tally tally;
  std::vector<double> match_ms;
  std::vector<double> round_trips_ms;
  for (size_t i = 0; i < made.size(); ++i) {
    const Round& round = made[i];
    NearNodes nodes = node.nodes();
    const double start = Milliseconds();
    const HybridPlan plan = matcher.Match(round.planted.prompt, 0, nodes);
    match_ms.push_back(Milliseconds() - start);
    if (i % 4 == 0) round_trips_ms.push_back(RoundTrips(raw.client));
    Judge(plan, round.planted, chunks.Text(round.number), chunks.Register(round.number).donor.key,
          round.changed, tally);
  }
  ::shutdown(raw.client, SHUT_RDWR);
  echo.join();
  ::close(raw.client);
  ::close(raw.server);
  bench::Reporter reporter(json);
  Print(tally, node, match_ms, round_trips_ms, reporter);
  if (tally.exact_false == 0) return 0;
  std::fprintf(stderr, "near_bench: %d false exact matches\n", tally.exact_false);
  return 1;
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  CLI::App app("Benchmarks matching against a node's index of chunks.");
  bool quick = false;
  bool json = false;
  uint32_t chunks = 1000000;
  app.add_flag("--quick", quick, "400 prompts instead of 2,000: under a minute");
  app.add_flag("--json", json, "one JSON object a line");
  app.add_option("--chunks", chunks, "in the node's index")->check(CLI::Range(1000, 60000000));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return kedge::Run(chunks, quick ? 400 : 2000, json);
}
