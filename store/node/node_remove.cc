// kRemove: out of sight at once, and for good before the answer: with an SSD, a tombstone is on
// disk first.

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {

void Node::OnRemove(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  RemoveBody remove;
  if (!BodyOk(session, frame.header, DecodeRemove(frame.body, remove))) return;
  RemoveReplyBody reply;
  std::vector<BlockKey> gone;
  for (const KeyItem& item : remove.items) {
    // A copy that was dropped as damaged may be readable again after a restart; a tombstone keeps
    // it away.
    const bool damaged = map_.WhyGone(item.key, item.placement) == ResultCode::kCorrupt;
    const bool held = map_.Remove(item.key, item.placement) != 0;
    reply.codes.push_back(held ? ResultCode::kOk : ResultCode::kAbsent);
    if (ssd_ != nullptr && (held || damaged)) gone.push_back(item.key);
    EraseNear({&item.key, 1});
  }
  const auto answer = [this, session_id = session.id, header = frame.header, start_us](
                          RemoveReplyBody codes, const absl::Status& status) {
    if (!status.ok()) {
      for (ResultCode& code : codes.codes) {
        if (code == ResultCode::kOk) code = FromStatus(status);
      }
    }
    metrics_.Request(Op::kRemove, FromStatus(status), clock_.NowUs() - start_us);
    Session* waiting = FindSession(session_id);
    if (waiting == nullptr) return;
    body_.clear();
    EncodeRemoveReply(codes, body_);
    Reply(*waiting, header, FrameType::kRemoveReply);
  };
  if (gone.empty()) return answer(std::move(reply), absl::OkStatus());
  mover_->WriteTombstones(std::move(gone),
                          [this, answer, reply = std::move(reply)](const absl::Status& status) {
                            transport_->Post([answer, reply, status] { answer(reply, status); });
                          });
}

void Node::Remove(const BlockKey& key, bool force,
                  std::function<void(absl::StatusOr<uint32_t>)> done) {
  bool pinned = false;
  const uint32_t removed = map_.RemoveAnywhere(key, !force, &pinned);
  if (pinned) {
    return done(absl::FailedPreconditionError(
        absl::StrCat("key ", key.ToHex(), ": a block is leased or being read")));
  }
  if (removed == 0)
    return done(absl::NotFoundError(absl::StrCat("key ", key.ToHex(), ": not held")));
  transport_->Post([this, key] { EraseNear({&key, 1}); });
  if (ssd_ == nullptr) return done(removed);
  mover_->WriteTombstones({key}, [removed, done = std::move(done)](const absl::Status& status) {
    done(status.ok() ? absl::StatusOr<uint32_t>(removed) : absl::StatusOr<uint32_t>(status));
  });
}

}  // namespace kedge
