// Puts that wait before their bytes may come: for the SSD to have a block that is held in memory
// only, or for room.
//
// When puts come faster than the SSD takes them, host memory fills with blocks that cannot be
// evicted without being lost. Then the answer to kPutBegin waits until the mover has written some:
// the client sends nothing meanwhile, so it goes at the SSD's speed. Past kPutRoomWaitMs, or the
// request's deadline, what has no slot by then is answered kExhausted.

#include <algorithm>
#include <utility>

#include "store/node/node.h"

namespace kedge {

// --- For the SSD --------------------------------------------------------------------------------

void Node::WaitForSsd(const std::shared_ptr<PutWait>& wait, size_t index, BlockRef block) {
  ++wait->waits_for;
  mover_->Write(std::move(block), [this, wait, index](const absl::Status& status) {
    transport_->Post([this, wait, index, status] {
      wait->items[index].code = status.ok() ? ResultCode::kExists : FromStatus(status);
      EndPutWait(*wait, 1);
    });
  });
}

// --- For room -----------------------------------------------------------------------------------

void Node::WaitForRoom(std::shared_ptr<PutWait> wait) {
  NodeMetrics::Add(metrics_.put_room_waits);
  int64_t wait_ms = kPutRoomWaitMs;
  if (wait->request.deadline_ms != 0) {
    wait_ms = std::min<int64_t>(wait_ms, wait->request.deadline_ms);
  }
  wait->room_until_ms = clock_.NowMs() + wait_ms;
  put_waits_.push_back(std::move(wait));
  puts_wait_.store(true, std::memory_order_relaxed);
}

// First come, first served, until there is no more room. Called when the mover has written
// something, and by the sweep.
void Node::RetryPutWaits() {
  const bool writing = mover_->writing();
  const int64_t now_ms = clock_.NowMs();
  bool room = true;
  for (const std::shared_ptr<PutWait>& wait : put_waits_) {
    Session* session = FindSession(wait->session);
    const bool over = session == nullptr || now_ms >= wait->room_until_ms || draining();
    size_t ended = 0;
    for (auto& [index, item] : wait->for_room) {
      PutReadyItem& ready = wait->items[index];
      if (session != nullptr && room && !draining()) {
        ready.code = TakeSlot(*session, wait->variant, item, &ready.slot);
      }
      if (ready.code == ResultCode::kExhausted) {
        room = false;
        if (writing && !over) break;  // this one and those behind it go on waiting
        if (draining()) ready.code = ResultCode::kUnavailable;
        NodeMetrics::Add(metrics_.put_room_refused);
      }
      ++ended;
    }
    wait->for_room.erase(wait->for_room.begin(),
                         wait->for_room.begin() + static_cast<ptrdiff_t>(ended));
    EndPutWait(*wait, ended);
  }
  std::erase_if(put_waits_, [](const auto& wait) { return wait->for_room.empty(); });
  puts_wait_.store(!put_waits_.empty(), std::memory_order_relaxed);
}

void Node::EndPutWait(PutWait& wait, size_t items) {
  wait.waits_for -= items;
  Session* session = FindSession(wait.session);
  if (items == 0 || wait.waits_for != 0 || session == nullptr) return;
  put_ready_.items = wait.items;
  SendPutReady(*session, wait.request, wait.started_us);
}

}  // namespace kedge
