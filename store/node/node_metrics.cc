#include "store/node/node_metrics.h"

namespace kedge {
namespace {

using Label = std::pair<std::string_view, std::string_view>;

double Value(const std::atomic<uint64_t>& counter) {
  return static_cast<double>(counter.load(std::memory_order_relaxed));
}

// The ways a key can be missed.
constexpr ResultCode kMissReasons[] = {
    ResultCode::kAbsent,  ResultCode::kEvicted,   ResultCode::kRemoved,  ResultCode::kNoVariant,
    ResultCode::kCorrupt, ResultCode::kExhausted, ResultCode::kDeadline, ResultCode::kTooSmall,
    ResultCode::kInvalid, ResultCode::kInternal};

}  // namespace

const char* OpName(Op op) {
  switch (op) {
    case Op::kHello:
      return "hello";
    case Op::kMatch:
      return "match";
    case Op::kGet:
      return "get";
    case Op::kPutBegin:
      return "put_begin";
    case Op::kPutCommit:
      return "put_commit";
    case Op::kRemove:
      return "remove";
    case Op::kRelease:
      return "release";
    case Op::kAnchorInsert:
      return "anchor_insert";
    case Op::kMix:
      return "mix";
    case Op::kNearInsert:
      return "near_insert";
    case Op::kNearLookup:
      return "near_lookup";
  }
  return "unknown";
}

const char* FrameErrorName(FrameError error) {
  switch (error) {
    case FrameError::kMalformed:
      return "malformed";
    case FrameError::kVersion:
      return "version";
    case FrameError::kCrc:
      return "crc";
    case FrameError::kBody:
      return "body";
    case FrameError::kSession:
      return "session";
    case FrameError::kUnexpected:
      return "unexpected";
  }
  return "unknown";
}

void NodeMetrics::Lookup(Op op, ResultCode code, TierId tier) {
  const int which = op == Op::kGet ? 1 : 0;
  Add(lookups_[which]);
  if (code == ResultCode::kOk) {
    Add(hits_[which][static_cast<int>(tier)]);
  } else {
    Add(misses_[which][static_cast<int>(code)]);
  }
}

void NodeMetrics::Visit(MetricsVisitor& visitor) const {
  for (int op = 0; op < kOpCount; ++op) {
    const Label op_label{"op", OpName(static_cast<Op>(op))};
    for (int code = 0; code < kCodes; ++code) {
      const Label labels[] = {op_label, {"code", ResultCodeName(static_cast<ResultCode>(code))}};
      visitor.Counter("kedge_requests_total", "Requests answered, by operation and result.", labels,
                      Value(requests_[op][code]));
    }
    durations_[op].Visit(visitor, "kedge_request_duration_seconds",
                         "From the request's arrival to its last answer.", {&op_label, 1});
  }
  for (int which = 0; which < 2; ++which) {
    const Label op_label{"op", which == 0 ? "match" : "get"};
    visitor.Counter("kedge_lookup_keys_total", "Keys asked for.", {&op_label, 1},
                    Value(lookups_[which]));
    for (const TierId tier : {TierId::kHost, TierId::kSsd}) {
      const Label labels[] = {op_label, {"tier", TierName(tier)}};
      visitor.Counter("kedge_lookup_hit_keys_total", "Keys found, by the tier that held them.",
                      labels, Value(hits_[which][static_cast<int>(tier)]));
    }
    for (const ResultCode reason : kMissReasons) {
      const Label labels[] = {op_label, {"reason", ResultCodeName(reason)}};
      visitor.Counter("kedge_miss_total", "Keys that could not be served, by reason.", labels,
                      Value(misses_[which][static_cast<int>(reason)]));
    }
  }
  for (int error = 0; error < kFrameErrorCount; ++error) {
    const Label reason{"reason", FrameErrorName(static_cast<FrameError>(error))};
    visitor.Counter("kedge_frame_errors_total", "Frames that were refused, by reason.",
                    {&reason, 1}, Value(frame_errors_[error]));
  }
  const auto counter = [&](std::string_view name, std::string_view help, const Counter& value) {
    visitor.Counter(name, help, {}, Value(value));
  };
  const auto gauge = [&](std::string_view name, std::string_view help,
                         const std::atomic<uint64_t>& value) {
    visitor.Gauge(name, help, {}, Value(value));
  };
  counter("kedge_put_blocks_total", "Blocks committed.", put_blocks);
  counter("kedge_put_bytes_total", "Payload bytes of committed blocks.", put_bytes);
  counter("kedge_put_existing_total", "Puts of blocks that were held already.", put_existing);
  counter("kedge_put_mismatches_total", "Puts whose bytes did not match their digests or name.",
          put_mismatches);
  counter("kedge_puts_abandoned_total", "Put slots dropped by time or with their session.",
          puts_abandoned);
  counter("kedge_put_room_waits_total",
          "Put requests that waited until the SSD had taken some of what fills host memory.",
          put_room_waits);
  counter("kedge_put_room_refused_total", "Blocks of them that got no room in time.",
          put_room_refused);
  counter("kedge_get_bytes_total", "Payload bytes handed to the transport.", get_bytes);
  counter("kedge_chunks_dropped_total", "Chunks for a slot that was not open.", chunks_dropped);
  counter("kedge_lease_expirations_total", "Leases that ended by time.", lease_expirations);
  counter("kedge_leases_refused_total", "Leases not granted because of a limit.", leases_refused);
  counter("kedge_near_lookup_ids_total", "Match ids looked up in the near index.", near_ids);
  counter("kedge_near_hits_total", "Donors found by them, with repetitions.", near_hits);
  counter("kedge_near_strikes_total", "Donors that a client did not find where they should be.",
          near_strikes);
  counter("kedge_near_donors_evicted_total", "Donors that made room for others.",
          near_donors_evicted);
  counter("kedge_near_postings_dropped_total", "Postings that a full line of the index dropped.",
          near_postings_dropped);
  gauge("kedge_near_donors", "Donors in the near index.", near_donors);
  gauge("kedge_near_bytes", "Memory of the near index.", near_bytes);
  gauge("kedge_sessions", "Open sessions.", sessions);
  gauge("kedge_leases", "Leases held.", leases);
  gauge("kedge_leased_blocks", "Pins of all leases.", leased_blocks);
  gauge("kedge_puts_open", "Put slots in use.", puts_open);
  gauge("kedge_puts_waiting", "Put requests that wait for room.", puts_waiting);
  gauge("kedge_gets_running", "Get requests not yet answered in full.", gets_running);
}

}  // namespace kedge
