#include "tools/worker/runner_session.h"

#include "tools/worker/kv_blocks.h"

namespace kedge {

std::vector<sdk::BlockBuffer> RunnerSession::Pages(uint32_t first, uint32_t count) {
  return BlockSpans(cache_, model_.block_tokens(), first, count);
}

absl::Status RunnerSession::Place(const OfferedRun& run) {
  absl::StatusOr<KvSpan> span = donor_(run);
  if (!span.ok()) return span.status();
  if (span->tokens != run.count) return absl::DataLossError("donor: it has other tokens");
  return PlaceSpan(model_, *span, run.first, cache_);
}

absl::Status RunnerSession::Start(std::span<const int32_t> tokens) {
  tokens_.assign(tokens.begin(), tokens.end());
  if (cache_.capacity() < static_cast<int64_t>(tokens_.size()))
    return absl::OutOfRangeError("cache: the prompt does not fit");
  cache_.set_length(static_cast<int64_t>(tokens_.size()));
  engine_.emplace(model_, tokens_, cache_);
  return absl::OkStatus();
}

}  // namespace kedge
