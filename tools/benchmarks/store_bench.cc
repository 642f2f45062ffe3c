// tools/bench store: the data path of one node over loopback, with verification on.
//
//   put|get/1MiB/tcp/batch32   against the best that ucx_perftest does in put, get, tag or am at
//   any segment size, measured in the same run put|get/1MiB/shm/batch32   against a loop in this
//   process that does digest, memcpy, digest over the same working set get/64KiB/tcp/batch1 p50
//   against a raw UCX round trip of 64 KiB (ratio 0.33: three times as long) exist/128/tcp p50
//   against a raw UCX round trip of the same 4 KiB of keys get/1MiB/tcp/batch32/vs-redis   against
//   Redis' GET on one connection (where redis-server is installed) index/bytes_per_block,
//   idle/core_share   plain values
//
// Node and client are pinned to a core each, as are the two processes of ucx_perftest. The working
// set is 1 GiB (--quick: 256 MiB).
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>

#include "absl/strings/str_format.h"
#include "proto/block_header.h"
#include "tools/benchmarks/measure.h"
#include "tools/benchmarks/node_status.h"
#include "tools/benchmarks/perftest.h"
#include "tools/benchmarks/redis_yardstick.h"
#include "tools/benchmarks/store_workload.h"

namespace kedge::bench {
namespace {

struct Run {
  Reporter reporter;
  bool quick;
  int rounds() const { return quick ? 2 : 5; }
  uint64_t working_set() const { return quick ? 256ull << 20 : 1ull << 30; }
};

std::string Percentiles(const std::vector<double>& latencies_us) {
  return absl::StrFormat("p50 %.0f us, p99 %.0f us", Percentile(latencies_us, 50),
                         Percentile(latencies_us, 99));
}

Measurement Gigabytes(std::function<absl::StatusOr<double>()> bytes_per_second) {
  return [measure = std::move(bytes_per_second)]() -> absl::StatusOr<double> {
    auto rate = measure();
    if (!rate.ok()) return rate;
    return *rate / 1e9;
  };
}

Measurement PerftestRate(const PerftestCase& perftest) {
  return Gigabytes([perftest]() -> absl::StatusOr<double> {
    auto result = RunPerftest(perftest);
    if (!result.ok()) return result.status();
    return result->bytes_per_second;
  });
}

Measurement PerftestRoundTrip(const PerftestCase& perftest) {
  return [perftest]() -> absl::StatusOr<double> {
    auto result = RunPerftest(perftest);
    if (!result.ok()) return result.status();
    return 2 * result->latency_us;
  };
}

// Digest, memcpy, digest: the least that a verified copy through shared memory can do on one core.
Measurement DigestCopyDigest(uint64_t working_set_bytes) {
  constexpr size_t kValueBytes = 1 << 20;
  auto source = std::make_shared<std::vector<uint8_t>>(working_set_bytes, 3);
  auto target = std::make_shared<std::vector<uint8_t>>(working_set_bytes, 1);
  return Gigabytes([=]() -> absl::StatusOr<double> {
    const BlockKey key;
    const auto start = std::chrono::steady_clock::now();
    for (size_t at = 0; at + kValueBytes <= source->size(); at += kValueBytes) {
      const Digest128 sent = PartDigest(key, Variant::Raw(), 0, {source->data() + at, kValueBytes});
      std::memcpy(target->data() + at, source->data() + at, kValueBytes);
      if (!(PartDigest(key, Variant::Raw(), 0, {target->data() + at, kValueBytes}) == sent)) {
        return absl::DataLossError("memcpy changed bytes");
      }
    }
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    return static_cast<double>(source->size()) / time.count();
  });
}

// Compares and prints one case; an error skips it and is told.
void Case(Run& run, StoreWorkload& workload, const std::string& name, const std::string& unit,
          const std::string& baseline, Direction direction, const Measurement& ours,
          const Measurement& yardstick) {
  workload.TakeLatencies();
  auto figure = Compare("store", name, unit, baseline, direction, run.rounds(), ours, yardstick);
  if (!figure.ok()) return run.reporter.Skip(name, figure.status().ToString());
  figure->note = Percentiles(workload.TakeLatencies()) +
                 (workload.wire().empty() ? "" : ", " + workload.wire());
  run.reporter.Print(*figure);
}

absl::StatusOr<std::unique_ptr<StoreWorkload>> Workload(const Run& run, const std::string& scheme,
                                                        uint64_t value_bytes, uint32_t batch) {
  StoreWorkload::Options options;
  options.listen = scheme + "://127.0.0.1:0";
  options.working_set_bytes = run.working_set();
  options.value_bytes = value_bytes;
  options.batch = batch;
  return StoreWorkload::Start(options);
}

absl::Status Bulk(Run& run, const std::string& scheme, const std::string& baseline,
                  const Measurement& yardstick) {
  auto workload = Workload(run, scheme, 1 << 20, 32);
  if (!workload.ok()) return workload.status();
  StoreWorkload& w = **workload;
  for (const bool put : {true, false}) {
    const std::string name = std::string(put ? "put" : "get") + "/1MiB/" + scheme + "/batch32";
    Case(run, w, name, "GB/s", baseline, Direction::kLargerIsBetter,
         Gigabytes([&w, put] { return put ? w.Put() : w.Get(); }), yardstick);
  }
  if (scheme == "tcp") {
    auto redis = RedisYardstick::Start(run.quick ? 64 : 256, 1 << 20);
    const std::string name = "get/1MiB/tcp/batch32/vs-redis";
    if (!redis.ok()) {
      run.reporter.Skip(name, redis.status().ToString());
    } else {
      Case(run, w, name, "GB/s", "redis GET, pipelined, one connection", Direction::kLargerIsBetter,
           Gigabytes([&w] { return w.Get(); }), Gigabytes([&redis] { return (*redis)->Get(); }));
    }
  }
  return absl::OkStatus();
}

absl::Status Small(Run& run) {
  auto workload = Workload(run, "tcp", 64 << 10, 32);
  if (!workload.ok()) return workload.status();
  StoreWorkload& w = **workload;
  const int requests = run.quick ? 2000 : 10'000;
  for (const auto& [name, bytes] :
       {std::pair<std::string, size_t>{"get/64KiB/tcp/batch1", 64 << 10},
        {"exist/128/tcp", 4 << 10}}) {
    auto best = BestTcpLatency(bytes, run.quick ? 2000 : 10'000);
    if (!best.ok()) {
      run.reporter.Skip(name, best.status().ToString());
      continue;
    }
    const bool get = name.starts_with("get");
    Case(
        run, w, name, "us", "round trip, " + best->Name(), Direction::kSmallerIsBetter,
        [&w, get, requests] {
          return get ? w.GetLatencyUs(requests) : w.ExistsLatencyUs(requests, 128);
        },
        PerftestRoundTrip(*best));
  }
  if (auto share = w.IdleCoreShare(run.quick ? 3 : 10); share.ok()) {
    run.reporter.PrintValue("store", "idle/core_share", *share * 100, "percent");
  }
  return absl::OkStatus();
}

// Small blocks, many of them: what the node spends on knowing a block.
absl::Status Index(Run& run) {
  StoreWorkload::Options options;
  options.listen = "tcp://127.0.0.1:0";
  options.working_set_bytes = 256ull << 20;
  options.value_bytes = 4 << 10;
  options.batch = 256;
  auto workload = StoreWorkload::Start(options);
  if (!workload.ok()) return workload.status();
  auto status = NodeStatus((*workload)->control_address());
  if (!status.ok()) return status.status();
  run.reporter.PrintValue(
      "store", "index/bytes_per_block",
      static_cast<double>(status->index_bytes) / static_cast<double>(status->blocks), "bytes",
      absl::StrFormat("%d blocks", status->blocks));
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app{"Benchmarks the data path of one node over loopback.", "store_bench"};
  bool json = false, quick = false;
  app.add_flag("--json", json, "one JSON object a line");
  app.add_flag("--quick", quick, "a smaller working set, fewer rounds");
  std::string only;
  app.add_option("--only", only, "run one group: tcp, shm, small or index");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  Run run{Reporter(json), quick};
  PinTo(0);
  int failures = 0;
  const auto group = [&](const std::string& name, const std::function<absl::Status()>& body) {
    if (!only.empty() && only != name) return;
    if (absl::Status s = body(); !s.ok()) {
      ++failures;
      run.reporter.Skip(name, s.ToString());
    }
  };
  group("tcp", [&]() -> absl::Status {
    auto best = BestTcpBandwidth(1 << 20, quick ? 500 : 2000);
    if (!best.ok()) return best.status();
    best->iterations = quick ? 2000 : 5000;
    return Bulk(run, "tcp", best->Name(), PerftestRate(*best));
  });
  group("shm", [&] {
    return Bulk(run, "shm", "digest, memcpy, digest on one core",
                DigestCopyDigest(run.working_set()));
  });
  group("small", [&] { return Small(run); });
  group("index", [&] { return Index(run); });
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace kedge::bench

int main(int argc, char** argv) { return kedge::bench::Main(argc, argv); }
