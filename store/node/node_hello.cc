// kHello -> kWelcome: a session with a number that others cannot guess.

#include "absl/strings/str_cat.h"
#include "store/node/node.h"

namespace kedge {

void Node::OnHello(Session& session, const Frame& frame) {
  const int64_t start_us = clock_.NowUs();
  HelloBody hello;
  if (!BodyOk(session, frame.header, DecodeHello(frame.body, hello))) return;
  if (session.id != 0) {
    return ReplyError(session, frame.header, ResultCode::kInvalid,
                      "frame.type: a second hello on one connection");
  }
  if (session_by_id_.size() >= options_.sessions_max) {
    const std::string text =
        absl::StrCat("sessions: ", session_by_id_.size(), " are open, no more are admitted");
    metrics_.Request(Op::kHello, ResultCode::kExhausted, clock_.NowUs() - start_us);
    ReplyError(session, frame.header, ResultCode::kExhausted, text);
    return CloseSoon(session, text);
  }
  do {
    session.id = random_.Next();
  } while (session.id == 0 || session_by_id_.contains(session.id));
  session.tenant = frame.header.tenant;
  session.client_name = hello.client_name;
  session_by_id_[session.id] = &session;

  WelcomeBody welcome;
  welcome.session = session.id;
  welcome.epoch = options_.epoch;
  welcome.node_id = options_.node_id;
  welcome.lease_ms_max = options_.lease_ms_max;
  welcome.put_idle_ms = options_.put_idle_ms;
  welcome.has_ssd = ssd_ != nullptr;
  welcome.members = {{options_.node_id, data_address_, control_address_}};
  body_.clear();
  EncodeWelcome(welcome, body_);
  Reply(session, frame.header, FrameType::kWelcome);
  metrics_.Request(Op::kHello, ResultCode::kOk, clock_.NowUs() - start_us);
}

}  // namespace kedge
