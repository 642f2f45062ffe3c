// Redis as a yardstick: a redis-server of our own on loopback, one connection, pipelined GETs into
// one buffer after the other.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

namespace kedge::bench {

class RedisYardstick {
 public:
  // NOT_FOUND when redis-server is not installed. Sets `values` values of `value_bytes` each.
  static absl::StatusOr<std::unique_ptr<RedisYardstick>> Start(uint32_t values,
                                                               uint32_t value_bytes);
  ~RedisYardstick();
  // Gets every value once, in pipelines of 32; bytes per second.
  absl::StatusOr<double> Get();

 private:
  absl::Status Connect(int port);
  absl::Status Write(const void* bytes, size_t count);
  absl::Status ReadExactly(void* bytes, size_t count);
  absl::StatusOr<std::string> ReadLine();

  pid_t pid_ = -1;
  int fd_ = -1;
  uint32_t values_ = 0;
  uint32_t value_bytes_ = 0;
  std::vector<uint8_t> target_;
};

}  // namespace kedge::bench
