// A node, a client and a working set: what the store benchmark drives.
//
// The node is a real kedged pinned to one core, the client (this process) is pinned to another;
// bulk crosses between them as it would between machines, with verification on. Data is random,
// keys are fresh for every put, memory pages are touched before the clock starts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/kv_client.h"
#include "tests/cluster/kedged_process.h"

namespace kedge::bench {

class StoreWorkload {
 public:
  struct Options {
    std::string listen;  // "tcp://127.0.0.1:0" or "shm://127.0.0.1:0"
    uint64_t working_set_bytes = 1ull << 30;
    uint64_t value_bytes = 1 << 20;
    uint32_t batch = 32;    // values in one request
    uint32_t requests = 2;  // requests in flight
  };
  static absl::StatusOr<std::unique_ptr<StoreWorkload>> Start(const Options& options);

  // Each stores or fetches the whole working set once and returns bytes per second. The set that
  // was put last is what gets fetch.
  absl::StatusOr<double> Put();
  absl::StatusOr<double> Get();
  // Median time of one `batch`-sized request, nothing else in flight, in microseconds.
  absl::StatusOr<double> GetLatencyUs(int requests);
  absl::StatusOr<double> ExistsLatencyUs(int requests, uint32_t keys);

  // Times of single requests since the last call, in microseconds.
  std::vector<double> TakeLatencies() { return std::exchange(latencies_us_, {}); }
  // Share of one core that the node uses over `seconds` in which nobody asks it anything.
  absl::StatusOr<double> IdleCoreShare(int seconds) const;
  std::string wire() const { return client_->info().wire; }
  const std::string& control_address() const { return node_->control_address(); }
  uint64_t values() const { return keys_.size(); }

 private:
  explicit StoreWorkload(const Options& options) : options_(options) {}
  void NameKeys();
  absl::Status RemoveAll();
  // Runs `begin(first, count)` over the set with `requests` in flight; bytes per second.
  template <typename Begin>
  absl::StatusOr<double> Drive(const Begin& begin);

  Options options_;
  std::unique_ptr<KedgedProcess> node_;
  std::unique_ptr<sdk::Client> client_;
  std::vector<uint8_t> source_;
  std::vector<uint8_t> target_;
  std::vector<sdk::Key> keys_;
  std::vector<double> latencies_us_;
  uint64_t generation_ = 0;
};

}  // namespace kedge::bench
