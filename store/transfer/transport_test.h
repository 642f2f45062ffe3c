// What the transport tests share: a handler made of lambdas, waiting with a generous limit, and
// payloads that tell their number.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "store/transfer/transport.h"
#include "store/world/clock.h"
#include "store/world/executor.h"

namespace kedge {

class LambdaHandler final : public TransportHandler {
 public:
  using Bytes = std::span<const uint8_t>;
  std::function<void(Connection&)> on_accepted = [](Connection&) {};
  std::function<void(Connection&, Bytes, Bytes)> on_message = [](Connection&, Bytes, Bytes) {};
  std::function<void(Connection&, uint64_t, const absl::Status&)> on_sent =
      [](Connection&, uint64_t, const absl::Status&) {};
  std::function<void(Connection&, const absl::Status&)> on_closed = [](Connection&,
                                                                       const absl::Status&) {};

  void OnAccepted(Connection& c) override { on_accepted(c); }
  void OnMessage(Connection& c, Bytes head, Bytes payload) override {
    on_message(c, head, payload);
  }
  void OnSent(Connection& c, uint64_t cookie, const absl::Status& status) override {
    on_sent(c, cookie, status);
  }
  void OnClosed(Connection& c, const absl::Status& why) override { on_closed(c, why); }
};

// A number that threads count up and tests wait for.
class Count {
 public:
  void Add(uint64_t by = 1) {
    std::lock_guard lock(mutex_);
    value_ += by;
    changed_.notify_all();
  }
  uint64_t value() const {
    std::lock_guard lock(mutex_);
    return value_;
  }
  // False after two minutes: something hangs.
  [[nodiscard]] bool WaitFor(uint64_t at_least) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::minutes(2), [&] { return value_ >= at_least; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t value_ = 0;
};

// Runs `body` on the loop and returns what it returns.
template <typename F>
auto OnLoop(Transport& transport, F body) -> decltype(body()) {
  std::promise<decltype(body())> promise;
  auto future = promise.get_future();
  transport.Post([&] {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      promise.set_value();
    } else {
      promise.set_value(body());
    }
  });
  return future.get();
}

// Every word of the payload is a function of `number`, so a mixture of two payloads shows.
inline uint64_t PatternWord(uint64_t number) { return (number + 1) * 0x9E3779B97F4A7C15u; }
inline void FillPattern(std::span<uint8_t> payload, uint64_t number) {
  const uint64_t word = PatternWord(number);
  for (size_t i = 0; i + 8 <= payload.size(); i += 8) std::memcpy(&payload[i], &word, 8);
}
inline bool HasPattern(std::span<const uint8_t> payload, uint64_t number) {
  const uint64_t word = PatternWord(number);
  for (size_t i = 0; i + 8 <= payload.size(); i += 8) {
    if (std::memcmp(&payload[i], &word, 8) != 0) return false;
  }
  return true;
}
inline std::span<const uint8_t> BytesOf(const uint64_t& number) {
  return {reinterpret_cast<const uint8_t*>(&number), sizeof(number)};
}
inline uint64_t NumberIn(std::span<const uint8_t> head) {
  uint64_t number = 0;
  std::memcpy(&number, head.data(), std::min<size_t>(head.size(), 8));
  return number;
}

struct TransportLimits {
  uint64_t send_queue_bytes_max = 64ull << 20;
};

// One wire under test: how to make transports that can reach each other, and where to listen.
struct Wire {
  std::string name;
  std::string address;
  bool between_processes;
  std::function<std::unique_ptr<Transport>(TransportHandler&, TransportLimits)> make;
};

}  // namespace kedge
