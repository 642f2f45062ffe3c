// What time does: leases and slots end, deadlines pass, connections that were told to go go, a
// drain goes on.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {
namespace {

constexpr int64_t kHourMs = 3'600'000;

}  // namespace

void Node::Sweep() {
  const int64_t now_ms = clock_.NowMs();
  NodeMetrics::Add(metrics_.lease_expirations, leases_.Expire(now_ms));
  SweepSlots(now_ms);
  if (!put_waits_.empty()) RetryPutWaits();
  SweepStreams(clock_.NowUs());
  SweepMixes(clock_.NowUs());
  if (now_ms - pools_written_ms_ >= kPoolCheckpointMs && !draining()) {
    pools_written_ms_ = now_ms;
    anchors_->Checkpoint([] {});
  }
  SweepSessions(now_ms);
  StepDrain(now_ms);
  NoteHour(now_ms);
  UpdateGauges();
  metrics_.last_sweep_ms.store(now_ms, std::memory_order_release);
}

// What the policy says of blocks that nobody used for long is looked at once an hour.
void Node::NoteHour(int64_t now_ms) {
  const int64_t hour = (now_ms - started_ms_) / kHourMs;
  if (hour == idle_looked_hour_) return;
  idle_looked_hour_ = hour;
  map_.SetHour(static_cast<uint16_t>(hour));
  if (!draining()) mover_->RecodeIdle(static_cast<uint16_t>(hour));
}

void Node::SweepSlots(int64_t now_ms) {
  if (slots_.size() == free_slots_.size()) return;
  for (const auto& slot : slots_) {
    if (slot->id == 0 || now_ms - slot->last_traffic_ms < options_.put_idle_ms) continue;
    AbandonSlot(*slot, "no traffic for put_idle_ms");
  }
}

void Node::SweepStreams(int64_t now_us) {
  if (streams_.size() == free_streams_.size()) return;
  for (uint32_t i = 0; i < streams_.size(); ++i) {
    GetStream& stream = *streams_[i];
    if (stream.in_use && !stream.stopped && now_us >= stream.deadline_us) {
      StopStream(i, ResultCode::kDeadline);
    }
  }
}

void Node::SweepSessions(int64_t now_ms) {
  for (const auto& held : sessions_) {
    Session& session = *held;
    if (session.connection == nullptr) continue;
    Pump(session);  // a send that was refused is tried again
    const bool silent =
        session.sender.bytes_under_way != 0 && now_ms - session.last_heard_ms > options_.silence_ms;
    if (silent) {
      session.connection->Close(absl::DeadlineExceededError(
          absl::StrCat("session: the client took nothing for ", options_.silence_ms, " ms")));
    } else if (session.close_at_ms != 0 && now_ms >= session.close_at_ms) {
      session.connection->Close(absl::UnavailableError(session.close_why));
    }
  }
}

void Node::Drain(int64_t deadline_ms, std::function<void(DrainReport)> done) {
  draining_.store(true, std::memory_order_relaxed);
  transport_->Post([this, deadline_ms, done = std::move(done)]() mutable {
    if (drain_.done.empty()) {
      drain_.deadline_ms = clock_.NowMs() + deadline_ms;
      body_.clear();
      for (const auto& session : sessions_) {
        if (session->id != 0) Reply(*session, FrameHeader{}, FrameType::kGoodbye);
      }
    }
    drain_.done.push_back(std::move(done));
    StepDrain(clock_.NowMs());
  });
}

void Node::StepDrain(int64_t now_ms) {
  if (drain_.done.empty() || drain_.flushing) return;
  const bool puts_run = slots_.size() != free_slots_.size();
  if (puts_run && now_ms < drain_.deadline_ms) return;
  drain_.flushing = true;
  anchors_->Checkpoint([this, deadline_ms = drain_.deadline_ms] {
    mover_->Flush(deadline_ms, [this](uint64_t written, uint64_t left) {
      transport_->Post([this, report = DrainReport{written, left}] {
        drain_.flushing = false;
        const auto waiting = std::exchange(drain_.done, {});
        for (const auto& done : waiting) done(report);
      });
    });
  });
}

void Node::UpdateGauges() {
  const auto relaxed = std::memory_order_relaxed;
  metrics_.puts_waiting.store(put_waits_.size(), relaxed);
  metrics_.sessions.store(sessions_.size(), relaxed);
  metrics_.leases.store(leases_.size(), relaxed);
  metrics_.leased_blocks.store(leases_.blocks(), relaxed);
  metrics_.gets_running.store(streams_.size() - free_streams_.size(), relaxed);
}

}  // namespace kedge
