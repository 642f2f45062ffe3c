// The machine's memory as an argument: how much there is, and one large mapping of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace kedge {

struct MemoryLimit {
  uint64_t bytes = 0;
  std::string source;  // "machine" or the path of the cgroup file that says so, for messages
};

// What this process may use at most: the machine's memory, or its cgroup's limit (v2 or v1) when
// that is smaller.
MemoryLimit MemoryLimitOfProcess();

// Anonymous shared memory (a memfd), zero filled. Pages are taken when first touched and given back
// when the arena is destroyed; not in core dumps, because it holds what users said.
class MemoryArena {
 public:
  // RESOURCE_EXHAUSTED naming `name`, bytes and errno. `bytes` is a multiple of the page size,
  // above 0.
  static absl::StatusOr<std::unique_ptr<MemoryArena>> Create(const std::string& name,
                                                             uint64_t bytes);
  ~MemoryArena();
  MemoryArena(const MemoryArena&) = delete;
  MemoryArena& operator=(const MemoryArena&) = delete;

  uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  MemoryArena(uint8_t* data, uint64_t bytes) : data_(data), bytes_(bytes) {}
  uint8_t* const data_;
  const uint64_t bytes_;
};

}  // namespace kedge
