#include "tools/benchmarks/store_workload.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <fstream>
#include <thread>

#include "tools/benchmarks/measure.h"

namespace kedge::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

double Seconds(SteadyClock::time_point since) {
  return std::chrono::duration<double>(SteadyClock::now() - since).count();
}

absl::Status ToStatus(const sdk::Status& status) {
  if (status) return absl::OkStatus();
  return absl::InternalError(std::string(sdk::CodeName(status.code())) + ": " + status.text());
}

// Incompressible bytes that differ in every word.
void FillRandom(std::vector<uint8_t>& bytes) {
  uint64_t state = 0x9e3779b97f4a7c15;
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    std::memcpy(&bytes[i], &state, 8);
  }
}

// User and system time of a process, in clock ticks.
absl::StatusOr<uint64_t> CpuTicks(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t after_name = text.rfind(')');
  if (after_name == std::string::npos) return absl::InternalError("kedged is gone");
  std::istringstream fields(text.substr(after_name + 2));
  std::string skipped;
  for (int i = 3; i < 14; ++i) fields >> skipped;
  uint64_t user = 0, system = 0;
  fields >> user >> system;
  return user + system;
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreWorkload>> StoreWorkload::Start(const Options& options) {
  std::unique_ptr<StoreWorkload> w(new StoreWorkload(options));
  const uint64_t room = options.working_set_bytes * 3 / 2 + (256ull << 20);
  KedgedProcess::Options node;
  node.listen = options.listen;
  node.flags = {"--host-capacity=" + std::to_string(room >> 20) + "MiB", "--log-level=warn"};
  node.core = 1;
  auto process = KedgedProcess::Start(node);
  if (!process.ok()) return process.status();
  w->node_ = *std::move(process);
  auto client = sdk::Client::Open({.address = w->node_->data_address(),
                                   .salt = "benchmark",
                                   .client_name = "store_bench",
                                   .deadline_ms = 60'000});
  if (!client) return ToStatus(client.status());
  w->client_ = std::make_unique<sdk::Client>(std::move(*client));
  w->source_.resize(options.working_set_bytes);
  w->target_.assign(options.working_set_bytes, 1);
  FillRandom(w->source_);
  w->keys_.resize(options.working_set_bytes / options.value_bytes);
  // Twice: the first pass touches the node's memory, the second shows that it is reused.
  for (int pass = 0; pass < 2; ++pass) {
    if (auto rate = w->Put(); !rate.ok()) return rate.status();
  }
  w->TakeLatencies();
  return w;
}

void StoreWorkload::NameKeys() {
  ++generation_;
  for (size_t i = 0; i < keys_.size(); ++i) {
    keys_[i] = client_->KeyOf("value " + std::to_string(i) + " of " + std::to_string(generation_));
  }
}

absl::Status StoreWorkload::RemoveAll() {
  if (generation_ == 0) return absl::OkStatus();
  for (size_t first = 0; first < keys_.size(); first += KEDGE_BATCH_MAX) {
    const size_t count = std::min<size_t>(KEDGE_BATCH_MAX, keys_.size() - first);
    auto request = client_->Remove(std::span(keys_).subspan(first, count));
    if (!request) return ToStatus(request.status());
    if (auto s = sdk::Client::Finish(*request); !s) return ToStatus(s);
  }
  return absl::OkStatus();
}

template <typename Begin>
absl::StatusOr<double> StoreWorkload::Drive(const Begin& begin) {
  struct InFlight {
    sdk::Request request;
    SteadyClock::time_point since;
  };
  std::deque<InFlight> in_flight;
  const auto finish_first = [&]() -> absl::Status {
    const absl::Status status = ToStatus(sdk::Client::Finish(in_flight.front().request));
    latencies_us_.push_back(Seconds(in_flight.front().since) * 1e6);
    in_flight.pop_front();
    return status;
  };
  const auto start = SteadyClock::now();
  for (uint64_t first = 0; first < keys_.size(); first += options_.batch) {
    if (in_flight.size() == options_.requests) {
      if (absl::Status s = finish_first(); !s.ok()) return s;
    }
    const auto count =
        static_cast<uint32_t>(std::min<uint64_t>(options_.batch, keys_.size() - first));
    const auto since = SteadyClock::now();
    auto request = begin(first, count);
    if (!request) return ToStatus(request.status());
    in_flight.push_back({std::move(*request), since});
  }
  while (!in_flight.empty()) {
    if (absl::Status s = finish_first(); !s.ok()) return s;
  }
  return static_cast<double>(keys_.size() * options_.value_bytes) / Seconds(start);
}

absl::StatusOr<double> StoreWorkload::Put() {
  if (absl::Status s = RemoveAll(); !s.ok()) return s;
  NameKeys();
  std::vector<sdk::PutItem> items(options_.batch);
  return Drive([&](uint64_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      items[i] = {keys_[first + i], &source_[(first + i) * options_.value_bytes],
                  options_.value_bytes};
    }
    return client_->Put(std::span<const sdk::PutItem>(items).first(count), sdk::Durability::kHost);
  });
}

absl::StatusOr<double> StoreWorkload::Get() {
  std::vector<sdk::GetItem> items(options_.batch);
  return Drive([&](uint64_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
      items[i] = {keys_[first + i], &target_[(first + i) * options_.value_bytes],
                  options_.value_bytes};
    }
    return client_->Get(std::span<const sdk::GetItem>(items).first(count));
  });
}

absl::StatusOr<double> StoreWorkload::GetLatencyUs(int requests) {
  std::vector<double> times;
  for (int i = 0; i < requests; ++i) {
    const uint64_t at = (static_cast<uint64_t>(i) * 7919) % keys_.size();
    const sdk::GetItem item{keys_[at], &target_[at * options_.value_bytes], options_.value_bytes};
    const auto since = SteadyClock::now();
    auto request = client_->Get(std::span<const sdk::GetItem>(&item, 1));
    if (!request) return ToStatus(request.status());
    if (auto s = sdk::Client::Finish(*request); !s) return ToStatus(s);
    times.push_back(Seconds(since) * 1e6);
  }
  latencies_us_.insert(latencies_us_.end(), times.begin(), times.end());
  return Median(times);
}

absl::StatusOr<double> StoreWorkload::ExistsLatencyUs(int requests, uint32_t keys) {
  std::vector<double> times;
  const auto asked = std::span<const sdk::Key>(keys_).first(std::min<size_t>(keys, keys_.size()));
  for (int i = 0; i < requests; ++i) {
    const auto since = SteadyClock::now();
    auto request = client_->Exists(asked);
    if (!request) return ToStatus(request.status());
    if (auto s = sdk::Client::Finish(*request); !s) return ToStatus(s);
    times.push_back(Seconds(since) * 1e6);
  }
  latencies_us_.insert(latencies_us_.end(), times.begin(), times.end());
  return Median(times);
}

absl::StatusOr<double> StoreWorkload::IdleCoreShare(int seconds) const {
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // what the last request left behind
  const auto before = CpuTicks(node_->pid());
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  const auto after = CpuTicks(node_->pid());
  if (!before.ok()) return before.status();
  if (!after.ok()) return after.status();
  return static_cast<double>(*after - *before) / static_cast<double>(sysconf(_SC_CLK_TCK)) /
         seconds;
}

}  // namespace kedge::bench
