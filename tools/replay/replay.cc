#include "tools/replay/replay.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tools/replay/payload.h"

namespace kedge {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr auto kRetryPause = std::chrono::milliseconds(10);

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

absl::Status Failure(const char* verb, uint64_t request, const sdk::Status& status) {
  std::string text = absl::StrCat("request ", request, ": ", verb, ": ",
                                  sdk::CodeName(status.code()), ": ", status.text());
  if (status.code() == sdk::Code::kUnavailable) return absl::UnavailableError(text);
  if (status.code() == sdk::Code::kInvalid) return absl::InvalidArgumentError(text);
  return absl::InternalError(text);
}

// One run of a trace: the state that its requests share.
class Replayer {
 public:
  Replayer(const sdk::Model& model, const ReplayOptions& options)
      : model_(model), options_(options), memory_(options.batch_blocks * model.block_bytes()) {
    for (uint32_t i = 0; i < options.batch_blocks; ++i)
      buffers_.push_back({{memory_.data() + i * model.block_bytes(), model.block_bytes()}});
    sums_.block_bytes = model.block_bytes();
  }

  absl::Status Serve(const TraceRequest& request);
  const ReplaySums& sums() const { return sums_; }

 private:
  // Blocks of [*begin, end); moves *begin along as far as it came.
  absl::Status Fetch(const TraceRequest& request, const sdk::Sequence& sequence, uint32_t* begin,
                     uint32_t end);
  // Blocks of [begin, end), again and again for those that the node has no room for yet.
  absl::Status Store(const TraceRequest& request, const sdk::Sequence& sequence, uint32_t begin,
                     uint32_t end);
  // One attempt for the blocks from `begin` on, whose bytes are in the slots; marks those that are
  // stored as settled.
  absl::Status StoreBatch(const sdk::Sequence& sequence, uint32_t begin,
                          std::span<const uint64_t> ids, std::vector<bool>* settled);
  absl::Status Compare(uint64_t hash_id, uint32_t block, std::span<const uint8_t> bytes) const;
  void Count(sdk::Code code, uint64_t hash_id);  // of a block that was stored
  std::span<uint8_t> Slot(uint32_t i) {
    return {memory_.data() + i * model_.block_bytes(), model_.block_bytes()};
  }

  const sdk::Model& model_;
  const ReplayOptions& options_;
  std::vector<uint8_t> memory_;
  std::vector<sdk::BlockBuffer> buffers_;      // one for each block of a batch, inside memory_
  std::unordered_set<uint64_t> acknowledged_;  // hash ids whose block was stored at some time
  ReplaySums sums_;
};

absl::Status Replayer::Compare(uint64_t hash_id, uint32_t block,
                               std::span<const uint8_t> bytes) const {
  uint64_t part_bytes = model_.part_bytes();
  for (uint32_t part = 0; part * part_bytes < bytes.size(); ++part) {
    std::optional<uint64_t> wrong =
        FirstWrongByte(hash_id, part, bytes.subspan(part * part_bytes, part_bytes));
    if (wrong)
      return absl::DataLossError(absl::StrCat("request ", sums_.requests, ": block ", block,
                                              " (hash id ", hash_id, "), part ", part, ", byte ",
                                              *wrong, " is wrong"));
  }
  return absl::OkStatus();
}

absl::Status Replayer::Fetch(const TraceRequest& request, const sdk::Sequence& sequence,
                             uint32_t* begin, uint32_t end) {
  while (*begin < end) {
    uint32_t count = std::min(end - *begin, options_.batch_blocks);
    std::span<const sdk::BlockBuffer> buffers(buffers_.data(), count);
    SteadyClock::time_point start = SteadyClock::now();
    auto fetch = sequence.Fetch({.block_begin = *begin, .block_count = count}, buffers);
    if (!fetch) return Failure("fetch", sums_.requests, fetch.status());
    fetch->Wait();
    sums_.fetch_seconds += SecondsSince(start);

    uint32_t arrived = fetch->prefix();
    for (uint32_t i = 0; i < arrived; ++i)
      if (absl::Status s = Compare(request.hash_ids[*begin + i], *begin + i, Slot(i)); !s.ok())
        return s;
    sums_.fetched_blocks += arrived;
    sums_.fetched_bytes += arrived * model_.block_bytes();
    *begin += arrived;
    if (arrived < count) return absl::OkStatus();  // a partial fetch is a usable prefix
  }
  return absl::OkStatus();
}

void Replayer::Count(sdk::Code code, uint64_t hash_id) {
  bool known = !acknowledged_.insert(hash_id).second;
  if (code == sdk::Code::kExists) {
    ++sums_.held_blocks;
    return;
  }
  ++sums_.stored_blocks;
  sums_.stored_bytes += model_.block_bytes();
  if (known) ++sums_.evicted_blocks;
}

absl::Status Replayer::Store(const TraceRequest& request, const sdk::Sequence& sequence,
                             uint32_t begin, uint32_t end) {
  for (; begin < end; begin += options_.batch_blocks) {
    std::span<const uint64_t> ids = std::span(request.hash_ids).subspan(begin, end - begin);
    ids = ids.first(std::min<size_t>(ids.size(), options_.batch_blocks));
    for (uint32_t i = 0; i < ids.size(); ++i)
      for (uint32_t part = 0; part * model_.part_bytes() < model_.block_bytes(); ++part)
        FillPart(ids[i], part, Slot(i).subspan(part * model_.part_bytes(), model_.part_bytes()));

    std::vector<bool> settled(ids.size());
    uint32_t left = static_cast<uint32_t>(ids.size());
    for (uint32_t retries = 0; left > 0 && retries <= options_.exhausted_retries; ++retries) {
      if (retries > 0) std::this_thread::sleep_for(kRetryPause);
      if (absl::Status s = StoreBatch(sequence, begin, ids, &settled); !s.ok()) return s;
      left = static_cast<uint32_t>(std::count(settled.begin(), settled.end(), false));
    }
    sums_.refused_blocks += left;
  }
  return absl::OkStatus();
}

absl::Status Replayer::StoreBatch(const sdk::Sequence& sequence, uint32_t begin,
                                  std::span<const uint64_t> ids, std::vector<bool>* settled) {
  uint32_t count = static_cast<uint32_t>(ids.size());
  SteadyClock::time_point start = SteadyClock::now();
  auto store = sequence.Store({.block_begin = begin, .block_count = count},
                              std::span<const sdk::BlockBuffer>(buffers_.data(), count));
  if (!store) return Failure("store", sums_.requests, store.status());
  store->Wait();
  sums_.store_seconds += SecondsSince(start);

  std::vector<sdk::Item> items = store->items();
  for (uint32_t i = 0; i < count; ++i) {
    sdk::Code code = static_cast<sdk::Code>(items[i].code);
    if ((*settled)[i] || code == sdk::Code::kExhausted) continue;
    if (!sdk::IsSuccess(code)) return Failure("store", sums_.requests, {code, store->text()});
    Count(code, ids[i]);
    (*settled)[i] = true;
  }
  return absl::OkStatus();
}

absl::Status Replayer::Serve(const TraceRequest& request) {
  ++sums_.requests;
  sums_.input_tokens += request.input_length;
  uint32_t blocks = static_cast<uint32_t>(request.whole_blocks());
  if (blocks == 0) return absl::OkStatus();

  std::span<const uint8_t> hashes(reinterpret_cast<const uint8_t*>(request.hash_ids.data()),
                                  blocks * sizeof(uint64_t));
  auto sequence = model_.FromHashes(hashes, sizeof(uint64_t));
  if (!sequence) return Failure("sequence", sums_.requests, sequence.status());
  SteadyClock::time_point start = SteadyClock::now();
  auto match = sequence->MatchRun({.lease_ms = options_.lease_ms});
  if (!match) return Failure("match", sums_.requests, match.status());
  sums_.match_seconds += SecondsSince(start);

  const kedge_match_result& found = match->result();
  sums_.hits.gpu_blocks += found.blocks_gpu;
  sums_.hits.host_blocks += found.blocks_host;
  sums_.hits.ssd_blocks += found.blocks_ssd;
  sums_.hits.miss_blocks += blocks - found.blocks;

  uint32_t fetched = 0;
  if (absl::Status s = Fetch(request, *sequence, &fetched, found.blocks); !s.ok()) return s;
  sums_.hit_tokens += uint64_t{fetched} * kTraceBlockTokens;
  sums_.unfetched_blocks += found.blocks - fetched;
  match->Release();
  return Store(request, *sequence, fetched, blocks);
}

double GbPerSecond(uint64_t bytes, double seconds) {
  return bytes == 0 || seconds <= 0 ? 0 : static_cast<double>(bytes) / seconds / 1e9;
}

}  // namespace

double ReplaySums::fetch_gb_per_second() const { return GbPerSecond(fetched_bytes, fetch_seconds); }
double ReplaySums::store_gb_per_second() const { return GbPerSecond(stored_bytes, store_seconds); }

absl::StatusOr<ReplaySums> ReplayTrace(const sdk::Client& client,
                                       std::span<const TraceRequest> trace,
                                       const ReplayOptions& options) {
  if (options.batch_blocks == 0 || options.batch_blocks > KEDGE_BATCH_MAX)
    return absl::InvalidArgumentError(absl::StrCat("batch_blocks: ", options.batch_blocks,
                                                   " is not from 1 to ", KEDGE_BATCH_MAX));
  auto model = client.OpenModel({.weights_id = "kedge/replay",
                                 .tokenizer_id = "kedge/replay",
                                 .dtype = sdk::DType::kBf16,
                                 .layer_count = options.layers,
                                 .kv_heads = options.kv_heads,
                                 .head_size = options.head_size,
                                 .block_tokens = kTraceBlockTokens});
  if (!model) return Failure("model", 0, model.status());

  Replayer replayer(*model, options);
  for (const TraceRequest& request : trace) {
    if (absl::Status s = replayer.Serve(request); !s.ok()) return s;
    if (options.on_request && !options.on_request(replayer.sums().requests)) break;
  }
  return replayer.sums();
}

}  // namespace kedge
