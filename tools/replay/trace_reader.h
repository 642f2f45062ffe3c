// Reads request traces in the format of Mooncake's published conversation trace: one JSON object a
// line,
//
//   {"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, ...]}
//
// timestamp in ms, lengths in tokens, one hash id for each 512 tokens of input (the last one may
// stand for fewer). An id names its block and everything before it, as an engine's chained block
// hash does. Other fields are ignored. Source: Mooncake (arXiv 2407.00079), section on the trace.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

inline constexpr uint32_t kTraceBlockTokens = 512;
inline constexpr uint64_t kTraceLineBytesMax = 4 << 20;     // 65,536 ids fit
inline constexpr uint64_t kTraceBlocksMax = 65536;          // KEDGE_SEQUENCE_BLOCKS_MAX
inline constexpr uint64_t kTraceOutputLengthMax = 1 << 24;  // far above any model's context

struct TraceRequest {
  int64_t timestamp_ms = 0;
  uint64_t input_length = 0;   // tokens
  uint64_t output_length = 0;  // tokens
  std::vector<uint64_t> hash_ids;

  // Blocks that are full: only they are stored.
  uint64_t whole_blocks() const { return input_length / kTraceBlockTokens; }
};

// One line. InvalidArgument names the field and the value.
absl::StatusOr<TraceRequest> ParseTraceLine(std::string_view line);

// The first `requests` requests of a file; fewer when the file is shorter. NotFound names the path,
// InvalidArgument path, line number and field; a file without any request is InvalidArgument too.
// Blank lines are skipped.
absl::StatusOr<std::vector<TraceRequest>> ReadTrace(const std::string& path, uint64_t requests);

}  // namespace kedge
