#include "store/transfer/ucx_connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/frame.h"
#include "store/transfer/ucx_messages.h"

namespace kedge {
namespace {

constexpr size_t kSpareSendsMax = 256;
constexpr size_t kSpareSendBytes = 16 << 10;
constexpr int kSmallInARowMax = 16;

}  // namespace

std::unique_ptr<UcxSend> UcxLoopState::NewSend() {
  if (spare.empty()) return std::make_unique<UcxSend>();
  std::unique_ptr<UcxSend> send = std::move(spare.back());
  spare.pop_back();
  return send;
}

void UcxLoopState::Recycle(std::unique_ptr<UcxSend> send) {
  if (spare.size() >= kSpareSendsMax || send->own.capacity() > kSpareSendBytes) return;
  send->submitted = false;
  send->status = absl::OkStatus();
  spare.push_back(std::move(send));
}

absl::StatusOr<std::unique_ptr<UcxConnection>> UcxConnection::Connect(
    UcxLoopState& loop, UcxWire& wire, const ucs_sock_addr_t& address, std::string peer) {
  std::unique_ptr<UcxConnection> connection(new UcxConnection(loop, wire, std::move(peer)));
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_SOCK_ADDR | UCP_EP_PARAM_FIELD_FLAGS;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr = address;
  absl::Status status = connection->Open(params);
  if (!status.ok()) return status;
  return connection;
}

absl::StatusOr<std::unique_ptr<UcxConnection>> UcxConnection::Accept(UcxLoopState& loop,
                                                                     UcxWire& wire,
                                                                     ucp_conn_request_h request,
                                                                     std::string peer) {
  std::unique_ptr<UcxConnection> connection(new UcxConnection(loop, wire, std::move(peer)));
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  absl::Status status = connection->Open(params);
  if (!status.ok()) return status;
  return connection;
}

absl::Status UcxConnection::Open(ucp_ep_params_t& params) {
  params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &UcxConnection::OnUcxError;
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(wire_.worker.get(), &params, &endpoint_);
  if (status != UCS_OK) return UcxError(absl::StrCat("connect to ", peer_).c_str(), status);
  wire_.by_endpoint[endpoint_] = this;
  TransportCounters::Add(wire_.counters->connections_opened, 1);
  return absl::OkStatus();
}

absl::Status UcxConnection::Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                                 uint64_t cookie) {
  if (closing_) return absl::UnavailableError("send: the connection has ended");
  if (head.size() > kHeadBytesMax || payload.size() > payload_bytes_max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("send: head of ", head.size(), " bytes, payload of ", payload.size(),
                     "; at most ", kHeadBytesMax, " and ", payload_bytes_max()));
  }
  const uint64_t bytes = head.size() + payload.size();
  if (queued_bytes_ + bytes > loop_.options.send_queue_bytes_max) {
    TransportCounters::Add(wire_.counters->sends_refused, 1);
    return absl::ResourceExhaustedError(absl::StrCat("send: ", queued_bytes_,
                                                     " bytes are queued for ", peer_, ", at most ",
                                                     loop_.options.send_queue_bytes_max));
  }
  std::unique_ptr<UcxSend> send = loop_.NewSend();
  send->connection = this;
  send->own.assign(head.begin(), head.end());
  send->head_bytes = static_cast<uint32_t>(head.size());
  send->payload = payload;
  send->cookie = cookie;
  if (cookie == 0 && !payload.empty()) {
    send->own.insert(send->own.end(), payload.begin(), payload.end());
    send->payload = std::span<const uint8_t>(send->own).subspan(head.size());
  }
  queued_bytes_ += bytes;
  (payload.empty() ? small_ : bulk_).push_back(std::move(send));
  Pump();
  return absl::OkStatus();
}

void UcxConnection::Pump() {
  while (!closing_ && window_bytes_ < loop_.options.window_bytes) {
    if (small_.empty() && bulk_.empty()) return;
    const bool small = bulk_.empty() || (!small_.empty() && small_in_a_row_ < kSmallInARowMax);
    small_in_a_row_ = small ? small_in_a_row_ + 1 : 0;
    std::deque<std::unique_ptr<UcxSend>>& queue = small ? small_ : bulk_;
    std::unique_ptr<UcxSend> send = std::move(queue.front());
    queue.pop_front();
    Submit(std::move(send));
  }
}

void UcxConnection::Submit(std::unique_ptr<UcxSend> send) {
  UcxSend* const s = send.release();  // UCX's until OnUcxSent
  s->submitted = true;
  window_bytes_ += s->bytes();
  ++window_sends_;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_DATATYPE;
  params.flags = UCP_AM_SEND_FLAG_EAGER | UCP_AM_SEND_FLAG_REPLY;
  params.cb.send = &UcxConnection::OnUcxSent;
  params.user_data = s;
  ucs_status_ptr_t request = nullptr;
  if (s->head_bytes <= wire_.worker.am_header_bytes_max()) {
    params.datatype = ucp_dt_make_contig(1);
    request = ucp_am_send_nbx(endpoint_, kAmHeadInHeader, s->own.data(), s->head_bytes,
                              s->payload.data(), s->payload.size(), &params);
  } else {
    params.datatype = UCP_DATATYPE_IOV;
    s->iov[0] = {s->own.data(), s->head_bytes};
    s->iov[1] = {const_cast<uint8_t*>(s->payload.data()), s->payload.size()};
    request = ucp_am_send_nbx(endpoint_, kAmHeadInData, &s->head_bytes, sizeof(s->head_bytes),
                              s->iov, s->payload.empty() ? 1 : 2, &params);
  }
  if (!UCS_PTR_IS_PTR(request)) OnUcxSent(nullptr, UCS_PTR_STATUS(request), s);
}

void UcxConnection::OnUcxSent(void* request, ucs_status_t status, void* user_data) {
  if (request != nullptr) ucp_request_free(request);
  std::unique_ptr<UcxSend> send(static_cast<UcxSend*>(user_data));
  if (status != UCS_OK) send->status = UcxError("send", status);
  UcxLoopState& loop = send->connection->loop_;
  loop.ended.push_back(std::move(send));
}

void UcxConnection::OnUcxError(void* arg, ucp_ep_h, ucs_status_t status) {
  UcxConnection* const connection = static_cast<UcxConnection*>(arg);
  connection->Close(UcxError(absl::StrCat("connection to ", connection->peer_).c_str(), status));
}

void UcxConnection::Tell(std::unique_ptr<UcxSend> send) {
  queued_bytes_ -= send->bytes();
  if (send->submitted) {
    window_bytes_ -= send->bytes();
    --window_sends_;
  }
  if (send->status.ok()) wire_.counters->Sent(send->bytes());
  if (send->cookie != 0) loop_.handler.OnSent(*this, send->cookie, send->status);
  loop_.Recycle(std::move(send));
  Pump();
}

void UcxConnection::Close(const absl::Status& why) {
  if (closing_) return;
  closing_ = true;
  why_ = why;
  const absl::Status status = why.ok() ? absl::CancelledError("closed before it was sent") : why;
  for (auto* queue : {&small_, &bulk_}) {
    for (std::unique_ptr<UcxSend>& send : *queue) {
      send->status = status;
      loop_.ended.push_back(std::move(send));
    }
    queue->clear();
  }
  loop_.closing.push_back(this);
}

bool UcxConnection::CloseStep() {
  if (!close_begun_) {
    close_begun_ = true;
    wire_.by_endpoint.erase(endpoint_);
    ucp_request_param_t params{};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    // By force: a stalled peer would hold up a flush for ever.
    params.flags = UCP_EP_CLOSE_FLAG_FORCE;
    close_request_ = ucp_ep_close_nbx(endpoint_, &params);
  }
  if (UCS_PTR_IS_PTR(close_request_)) {
    if (ucp_request_check_status(close_request_) == UCS_INPROGRESS) return false;
    ucp_request_free(close_request_);
    close_request_ = nullptr;
  }
  return queued_bytes_ == 0 && window_sends_ == 0;
}

std::string UcxConnection::wire() const {
  const std::string wire = close_begun_ ? "" : WireOf(endpoint_);
  return wire.empty() ? wire_.scheme : wire;
}

}  // namespace kedge
