// How fast the wire is, with nothing around it: two processes, one connection.
//
//   transport_benchmark serve ADDRESS [--digest]     prints the bound address, serves until it is
//   killed transport_benchmark stream ADDRESS [SECONDS]     bulk messages out of a working set of 1
//   GiB; the receiver copies each
//                                                    into another 1 GiB (and digests it first with
//                                                    --digest)
//   transport_benchmark fetch ADDRESS [SECONDS]      the same the other way: the server streams,
//   this process copies transport_benchmark pingpong ADDRESS BYTES       round trips: a request
//   without payload, an answer with BYTES of it transport_benchmark idle ADDRESS [SECONDS] connects
//   and does nothing; prints the processor time it took
//
// Figures are in store/transfer/README.md. tools/bench measures the whole path.
#include <sys/mman.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "store/transfer/stream_copy.h"
#include "store/transfer/transport_net.h"
#include "store/world/clock.h"
#include "store/world/executor.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace kedge {
namespace {

constexpr uint64_t kSetBytes = 1ull << 30;
enum Kind : uint64_t { kData, kFlush, kFlushed, kStartStream, kStopStream, kAsk, kAnswer };
struct Head {
  uint64_t kind = kData;
  uint64_t number = 0;
};

uint8_t* MapSet() {
  void* p = mmap(nullptr, kSetBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(p, kSetBytes, MADV_HUGEPAGE);  // as arenas are
  std::memset(p, 1, kSetBytes);
  return static_cast<uint8_t*>(p);
}

std::span<const uint8_t> BytesOf(const Head& head) {
  return {reinterpret_cast<const uint8_t*>(&head), sizeof(head)};
}

// Both sides: copies what comes, streams when asked, answers.
class Bench final : public TransportHandler {
 public:
  explicit Bench(bool digest) : digest_(digest) {}
  std::unique_ptr<Transport> transport;

  void OnAccepted(Connection&) override {}
  void OnMessage(Connection& c, std::span<const uint8_t> head,
                 std::span<const uint8_t> payload) override {
    Head h;
    std::memcpy(&h, head.data(), std::min(head.size(), sizeof(h)));
    switch (h.kind) {
      case kData:
        Copy(payload);
        break;
      case kFlush:
        (void)c.Send(BytesOf({kFlushed, h.number}), {}, 0);
        break;
      case kStartStream:
        StartStream(c, h.number);
        break;
      case kStopStream:
        streaming_ = false;
        break;
      case kAsk:
        Answer(c, h.number);
        break;
      case kAnswer:
        StreamCopy(set_ + Next(payload.size()), payload.data(), payload.size());
        [[fallthrough]];
      case kFlushed: {
        std::lock_guard lock(mutex_);
        ++replies_;
        changed_.notify_all();
      }
    }
  }
  void OnSent(Connection& c, uint64_t cookie, const absl::Status& status) override {
    if (cookie != 1 || !status.ok()) return;
    --in_flight_;
    if (streaming_) Stream(c);
  }
  void OnClosed(Connection&, const absl::Status& why) override {
    std::fprintf(stderr, "closed: %s\n", why.ToString().c_str());
    streaming_ = false;
    in_flight_ = 0;
  }

  void StartStream(Connection& c, uint64_t message_bytes) {
    message_bytes_ = std::min<uint64_t>(message_bytes, c.payload_bytes_max());
    streaming_ = true;
    Stream(c);
  }
  void StopStream() { streaming_ = false; }
  void WaitForReply(uint64_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return replies_ >= count; });
  }
  uint64_t sent_bytes() const { return sent_bytes_; }
  std::atomic<uint64_t> copied_bytes{0};

 private:
  // Walks through the working set.
  uint64_t Next(uint64_t bytes) {
    if (position_ + bytes > kSetBytes) position_ = 0;
    return std::exchange(position_, position_ + bytes);
  }
  void Copy(std::span<const uint8_t> payload) {
    uint8_t* const to = set_ + Next(payload.size());
    if (digest_) {
      const XXH128_hash_t hash = XXH3_128bits(payload.data(), payload.size());
      sum_ ^= hash.low64;
    }
    StreamCopy(to, payload.data(), payload.size());
    copied_bytes += payload.size();
  }
  // In as many messages as it takes.
  void Answer(Connection& c, uint64_t bytes) {
    const uint8_t* from = set_ + Next(bytes);
    while (bytes > c.payload_bytes_max()) {
      (void)c.Send(BytesOf({kData, 0}), {from, c.payload_bytes_max()}, 2);
      from += c.payload_bytes_max();
      bytes -= c.payload_bytes_max();
    }
    (void)c.Send(BytesOf({kAnswer, 0}), {from, bytes}, 2);
  }
  void Stream(Connection& c) {
    while (streaming_ && in_flight_ < 16) {
      const uint64_t at = Next(message_bytes_);
      if (!c.Send(BytesOf({kData, 0}), {set_ + at, message_bytes_}, 1).ok()) return;
      ++in_flight_;
      sent_bytes_ += message_bytes_;
    }
  }

  const bool digest_;
  uint8_t* const set_ = MapSet();
  uint64_t position_ = 0;
  uint64_t message_bytes_ = 0;
  bool streaming_ = false;
  int in_flight_ = 0;
  uint64_t sent_bytes_ = 0;
  uint64_t sum_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t replies_ = 0;
};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}
void Wait(double seconds) {
  std::promise<void> never;
  never.get_future().wait_for(std::chrono::duration<double>(seconds));
}
template <typename F>
void On(Transport& transport, F body) {
  std::promise<void> done;
  transport.Post([&] {
    body();
    done.set_value();
  });
  done.get_future().wait();
}

void PingPong(Bench& bench, Connection& c, uint64_t bytes) {
  std::vector<double> us;
  for (uint64_t i = 1; i <= 20000; ++i) {
    const double began = Seconds();
    bench.transport->Post([&c, bytes] { (void)c.Send(BytesOf({kAsk, bytes}), {}, 0); });
    bench.WaitForReply(i + 1);
    us.push_back((Seconds() - began) * 1e6);
  }
  std::sort(us.begin(), us.end());
  std::printf("pingpong %llu bytes: p50 %.1f us, p99 %.1f us (with two thread hand-overs)\n",
              static_cast<unsigned long long>(bytes), us[us.size() / 2], us[us.size() * 99 / 100]);
}

int Main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: transport_benchmark serve|stream|fetch|pingpong|idle ADDRESS\n");
    return 2;
  }
  const std::string mode = argv[1], address = argv[2];
  const std::string third = argc > 3 ? argv[3] : "";
  const bool digest = argc > 3 && std::string(argv[argc - 1]) == "--digest";
  RealClock clock;
  std::unique_ptr<Executor> executor = MakeThreadExecutor("bench", 1);
  Bench bench(digest);
  auto transport = MakeNetTransport(bench, *executor, clock);
  if (!transport.ok()) return 1;
  bench.transport = *std::move(transport);
  if (mode == "serve") {
    const absl::StatusOr<std::string> bound = bench.transport->Listen(address);
    std::printf("%s\n", bound.ok() ? bound->c_str() : bound.status().ToString().c_str());
    std::fflush(stdout);
    Wait(1e6);
    return 0;
  }
  Connection* c = nullptr;
  On(*bench.transport, [&] {
    absl::StatusOr<Connection*> connection = bench.transport->Connect(address);
    if (connection.ok()) c = *connection;
    if (c != nullptr) (void)c->Send(BytesOf({kFlush, 0}), {}, 0);
  });
  if (c == nullptr) return 1;
  bench.WaitForReply(1);
  std::string wire;
  On(*bench.transport, [&] { wire = c->wire(); });
  const double seconds = third.empty() || third[0] == '-' ? 3 : std::atof(third.c_str());
  const double began = Seconds(), cpu_began = CpuSeconds();
  if (mode == "stream") {
    On(*bench.transport, [&] { bench.StartStream(*c, 4 << 20); });
    Wait(seconds);
    uint64_t bytes = 0;
    On(*bench.transport, [&] {
      bench.StopStream();
      bytes = bench.sent_bytes();
    });
    const double took = Seconds() - began;
    std::printf("stream over %s: %.2f GB/s, sender's processor %.0f%%\n", wire.c_str(),
                static_cast<double>(bytes) / took * 1e-9, (CpuSeconds() - cpu_began) / took * 100);
  } else if (mode == "fetch") {
    On(*bench.transport, [&] { (void)c->Send(BytesOf({kStartStream, 4 << 20}), {}, 0); });
    Wait(seconds);
    const double took = Seconds() - began;
    std::printf("fetch over %s: %.2f GB/s, receiver's processor %.0f%%\n", wire.c_str(),
                static_cast<double>(bench.copied_bytes) / took * 1e-9,
                (CpuSeconds() - cpu_began) / took * 100);
    On(*bench.transport, [&] { (void)c->Send(BytesOf({kStopStream, 0}), {}, 0); });
    Wait(0.1);
  } else if (mode == "idle") {
    Wait(seconds);
    std::printf("idle on %s: %.3f%% of a core\n", wire.c_str(),
                (CpuSeconds() - cpu_began) / (Seconds() - began) * 100);
  } else if (mode == "pingpong") {
    PingPong(bench, *c, std::strtoull(third.c_str(), nullptr, 10));
  }
  bench.transport->Shutdown();
  return 0;
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) { return kedge::Main(argc, argv); }
