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
//                  candidates, verification by the strong key, alignment. The node is a thread
//                  behind a loopback TCP connection. Baseline: 100 raw round trips of 64 bytes over
//                  such a connection to such a thread, interleaved with the matches; the median. A
//                  ratio of 1 or more is within 100 round trips.
// lookup/p50, lookup/index (p99 of the node's own part), ids/prompt, bytes_on_wire/prompt: values.
// bytes_per_chunk  memory of the index over its chunks, everything that is reserved.
//
// Tokens follow Zipf's law (exponent 1 over 32,768 words); a chunk is 4 blocks of 64 tokens. The
// chunks' texts are kept by the benchmark and enciphered when they are asked for.
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
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "client/match/matcher.h"
#include "store/block/near_index.h"
#include "store/world/random.h"
#include "tools/benchmarks/measure.h"

namespace kedge {
namespace {

using match::HybridPlan;
using match::Segment;
using Tokens = std::vector<int32_t>;

constexpr uint32_t kBlockTokens = 64;
constexpr uint32_t kChunkTokens = 256;
constexpr uint32_t kPromptTokens = 4096;
constexpr uint32_t kPostingsOfChunk = 40;
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
template <typename T>
void SendVector(int socket, const std::vector<T>& values) {
  const uint64_t count = values.size();
  SendAll(socket, &count, sizeof count);
  SendAll(socket, values.data(), count * sizeof(T));
}
template <typename T>
bool ReceiveVector(int socket, std::vector<T>& values) {
  uint64_t count = 0;
  if (!ReceiveAll(socket, &count, sizeof count)) return false;
  values.resize(count);
  return ReceiveAll(socket, values.data(), count * sizeof(T));
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

// The node: an index of chunks, and their texts.
class Node {
 public:
  Node(uint32_t chunks, const Words& words)
      : words_(words),
        salt_(*TenantSalt::FromText("bench")),
        keys_(salt_, Fingerprint{}),
        chain_(match::ChunkChain(salt_, Fingerprint{}, {})),
        index_({.donors_max = chunks, .postings_max = uint64_t{chunks} * kPostingsOfChunk}) {
    chunk_of_.reserve(chunks);
    for (uint32_t i = 0; i < chunks; ++i) {
      for (const match::Registration& made : Register(i)) {
        Require(index_.Insert(made.donor, made.postings).ok(), "insert");
        postings_ += made.postings.size();
        chunk_of_[made.text_name] = i;
      }
    }
  }

  Tokens Chunk(uint32_t number) const {
    return words_.Text((uint64_t{number} + 1) << 20, kChunkTokens);
  }
  std::vector<match::Registration> Register(uint32_t number) const {
    return match::Registrations(Chunk(number), kBlockTokens, chain_, Keyspace::kChunk, keys_);
  }
  const TenantSalt& salt() const { return salt_; }
  const NearIndex& index() const { return index_; }
  double postings_of_chunk() const {
    return static_cast<double>(postings_) / static_cast<double>(index_.donors());
  }

  // Answers requests until the connection ends.
  void Serve(int socket) {
    char kind = 0;
    while (ReceiveAll(socket, &kind, 1)) {
      if (kind == 'L') {
        std::vector<MatchId> ids;
        if (!ReceiveVector(socket, ids)) return;
        const double start = Milliseconds();
        const NearReply reply = index_.Lookup(ids);
        lookup_ms_.push_back(Milliseconds() - start);
        SendVector(socket, reply.donors);
        SendVector(socket, reply.hits);
      } else {
        std::vector<BlockKey> names;
        if (!ReceiveVector(socket, names)) return;
        for (const BlockKey& name : names) {
          const auto at = chunk_of_.find(name);
          SendVector(socket,
                     at == chunk_of_.end() ? std::vector<uint8_t>() : Register(at->second)[0].text);
        }
      }
    }
  }
  const std::vector<double>& lookup_ms() const { return lookup_ms_; }  // once Serve has ended

 private:
  const Words& words_;
  TenantSalt salt_;
  MatchKeys keys_;
  KeyChain chain_;
  NearIndex index_;
  absl::flat_hash_map<BlockKey, uint32_t> chunk_of_;
  uint64_t postings_ = 0;
  std::vector<double> lookup_ms_;
};

// The matcher's way to the node.
class RemoteNode final : public match::MatchNodes {
 public:
  explicit RemoteNode(int socket) : socket_(socket) {}
  uint32_t NodeOf(uint64_t /*placement*/) const override { return 0; }
  void Lookup(std::span<match::LookupRequest> requests) override {
    for (match::LookupRequest& request : requests) {
      SendAll(socket_, "L", 1);
      SendVector(socket_, request.ids);
      Require(ReceiveVector(socket_, request.reply.donors) &&
                  ReceiveVector(socket_, request.reply.hits),
              "receive");
      bytes += request.ids.size() * sizeof(MatchId) +
               request.reply.donors.size() * sizeof(NearDonor) +
               request.reply.hits.size() * sizeof(NearHit);
    }
  }
  void ReadTexts(std::span<match::TextRequest> requests) override {
    for (match::TextRequest& request : requests) {
      SendAll(socket_, "T", 1);
      SendVector(socket_, request.names);
      request.texts.resize(request.names.size());
      for (std::vector<uint8_t>& text : request.texts) {
        Require(ReceiveVector(socket_, text), "receive");
        bytes += text.size();
      }
    }
  }
  uint64_t bytes = 0;

 private:
  int socket_;
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

void Print(const Tally& tally, const Node& node, const RemoteNode& remote,
           const std::vector<double>& match_ms, const std::vector<double>& round_trips_ms,
           bench::Reporter& reporter) {
  const auto share = [](uint64_t part, uint64_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  };
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
  value("lookup/index", bench::Percentile(node.lookup_ms(), 99), "ms", "p99 in the node");
  value("ids/prompt", static_cast<double>(tally.questions) / matches, "ids");
  value("texts/prompt", static_cast<double>(tally.other_texts) / matches, "texts");
  value("bytes_on_wire/prompt", static_cast<double>(remote.bytes) / matches, "bytes");
  value("bytes_per_chunk", share(node.index().memory_bytes(), node.index().donors()), "bytes",
        absl::StrCat(node.index().donors(), " chunks of ", node.postings_of_chunk(), " postings, ",
                     node.index().postings_dropped(), " dropped"));
}

int Run(uint32_t chunks, int rounds, bool json) {
  const Words words;
  Node node(chunks, words);
  const Connection data = Connection::Open();
  const Connection raw = Connection::Open();
  std::thread server([&] { node.Serve(data.server); });
  std::thread echo([&] { Echo(raw.server); });
  RemoteNode remote(data.client);
  const match::Matcher matcher(node.salt(), Fingerprint{}, {}, {.block_tokens = kBlockTokens});

  Random random(17);
  Tally tally;
  std::vector<double> match_ms;
  std::vector<double> round_trips_ms;
  for (int round = -10; round < rounds; ++round) {  // the first ten warm up
    const auto number = static_cast<uint32_t>(random.Below(chunks));
    const Tokens chunk = node.Chunk(number);
    const BlockKey tail = node.Register(number)[0].donor.key;
    const bool changed = round % 4 != 0;
    const Planted planted = Plant(chunk, changed, words, random);
    const double start = Milliseconds();
    const HybridPlan plan = matcher.Match(planted.prompt, 0, remote);
    const double ms = Milliseconds() - start;
    if (round % 4 == 0) round_trips_ms.push_back(RoundTrips(raw.client));
    if (round < 0) {
      round_trips_ms.clear();
      remote.bytes = 0;
      continue;
    }
    match_ms.push_back(ms);
    Judge(plan, planted, chunk, tail, changed, tally);
  }
  for (const Connection& connection : {data, raw}) ::shutdown(connection.client, SHUT_RDWR);
  server.join();
  echo.join();
  for (const Connection& connection : {data, raw}) {
    ::close(connection.client);
    ::close(connection.server);
  }
  bench::Reporter reporter(json);
  Print(tally, node, remote, match_ms, round_trips_ms, reporter);
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
