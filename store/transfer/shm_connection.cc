#include "store/transfer/shm_connection.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/frame.h"
#include "store/transfer/ucx_messages.h"

namespace kedge {

ShmConnection::~ShmConnection() {
  if (worker_.has_value()) loop_.epoll.Remove(worker_->event_fd());
}

// ---- meeting ----

absl::StatusOr<std::vector<uint8_t>> ShmConnection::GreetingAddress() {
  absl::StatusOr<UcxWorker> worker = UcxWorker::Make(context_);
  if (!worker.ok()) return worker.status();
  worker_.emplace(*std::move(worker));
  const absl::Status status = SetHandlers();
  if (!status.ok()) return status;
  loop_.epoll.Add(worker_->event_fd(), EPOLLIN, &worker_watched_);
  return worker_->Address();
}

absl::Status ShmConnection::SetHandlers() {
  for (const unsigned id : {kAmHeadInHeader, kAmHeadInData}) {
    ucp_am_handler_param_t params{};
    params.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                        UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    params.id = id;
    params.flags = UCP_AM_FLAG_WHOLE_MSG;
    params.cb =
        id == kAmHeadInHeader ? &ShmConnection::OnHeadInHeader : &ShmConnection::OnHeadInData;
    params.arg = this;
    const ucs_status_t status = ucp_worker_set_am_recv_handler(worker_->get(), &params);
    if (status != UCS_OK) return UcxError("ucp_worker_set_am_recv_handler", status);
  }
  return absl::OkStatus();
}

absl::Status ShmConnection::OnGreeting(const Greeting& peer) {
  if (peer.address.empty()) {
    return absl::InvalidArgumentError("greeting.address: empty, shm needs a queue's address");
  }
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer.address.data());
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &ShmConnection::OnUcxError;
  params.err_handler.arg = this;
  const ucs_status_t status = ucp_ep_create(worker_->get(), &params, &endpoint_);
  if (status != UCS_OK) {
    endpoint_ = nullptr;
    return UcxError(
        absl::StrCat("connect to ", this->peer(), " (both need one IPC namespace)").c_str(),
        status);
  }
  return absl::OkStatus();
}

std::string ShmConnection::wire() const {
  const std::string wire = endpoint_ == nullptr || close_begun_ ? "" : WireOf(endpoint_);
  return wire.empty() ? "shm" : wire;
}

// ---- the loop ----

bool ShmConnection::Progress() {
  // Before the peer's greeting is read there may be messages of it already: they wait.
  return endpoint_ != nullptr && ucp_worker_progress(worker_->get()) != 0;
}

bool ShmConnection::Arm() {
  return endpoint_ == nullptr || ucp_worker_arm(worker_->get()) == UCS_OK;
}

// Nobody writes to the socket after the greetings: it tells that the peer is gone.
void ShmConnection::OnReadable() {
  uint8_t byte = 0;
  const absl::StatusOr<size_t> got = socket_.Receive({&byte, 1});
  if (got.ok() && *got == 0) return;
  while (is_open() && Progress()) {
  }  // what it had sent before
  Close(got.ok() ? absl::InvalidArgumentError("the peer wrote to the socket of an shm connection")
                 : absl::UnavailableError(got.status().message()));
}

// ---- out ----

void ShmConnection::Pump() {
  while (is_open() && window_bytes_ < loop_.options.window_bytes) {
    std::unique_ptr<NetSend> send = NextSend();
    if (send == nullptr) return;
    Submit(std::move(send));
  }
}

void ShmConnection::Submit(std::unique_ptr<NetSend> send) {
  std::unique_ptr<InFlight> owner;
  if (spare_.empty()) {
    owner = std::make_unique<InFlight>();
  } else {
    owner = std::move(spare_.back());
    spare_.pop_back();
  }
  InFlight* const in_flight = owner.release();  // UCX's until OnUcxSent
  in_flight->connection = this;
  in_flight->send = std::move(send);
  NetSend& s = *in_flight->send;
  window_bytes_ += s.bytes();
  ++window_sends_;
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_DATATYPE;
  params.flags = UCP_AM_SEND_FLAG_EAGER;
  params.cb.send = &ShmConnection::OnUcxSent;
  params.user_data = in_flight;
  ucs_status_ptr_t request = nullptr;
  if (s.head_bytes <= worker_->am_header_bytes_max()) {
    params.datatype = ucp_dt_make_contig(1);
    request = ucp_am_send_nbx(endpoint_, kAmHeadInHeader, s.own.data(), s.head_bytes,
                              s.payload.data(), s.payload.size(), &params);
  } else {
    params.datatype = UCP_DATATYPE_IOV;
    in_flight->iov[0] = {s.own.data(), s.head_bytes};
    in_flight->iov[1] = {const_cast<uint8_t*>(s.payload.data()), s.payload.size()};
    request = ucp_am_send_nbx(endpoint_, kAmHeadInData, &s.head_bytes, sizeof(s.head_bytes),
                              in_flight->iov, s.payload.empty() ? 1 : 2, &params);
  }
  if (!UCS_PTR_IS_PTR(request)) OnUcxSent(nullptr, UCS_PTR_STATUS(request), in_flight);
}

void ShmConnection::OnUcxSent(void* request, ucs_status_t status, void* user_data) {
  if (request != nullptr) ucp_request_free(request);
  std::unique_ptr<InFlight> in_flight(static_cast<InFlight*>(user_data));
  ShmConnection& connection = *in_flight->connection;
  connection.window_bytes_ -= in_flight->send->bytes();
  --connection.window_sends_;
  connection.End(std::move(in_flight->send),
                 status == UCS_OK ? absl::OkStatus() : UcxError("send", status));
  connection.spare_.push_back(std::move(in_flight));
}

void ShmConnection::OnUcxError(void* arg, ucp_ep_h, ucs_status_t status) {
  ShmConnection* const connection = static_cast<ShmConnection*>(arg);
  connection->Close(UcxError(absl::StrCat("connection to ", connection->peer()).c_str(), status));
}

// ---- in ----

ucs_status_t ShmConnection::OnHeadInHeader(void* connection, const void* header,
                                           size_t header_bytes, void* data, size_t bytes,
                                           const ucp_am_recv_param_t* param) {
  ShmConnection& c = *static_cast<ShmConnection*>(connection);
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    c.Close(absl::InvalidArgumentError("the peer asked for a rendezvous"));
    return UCS_OK;
  }
  c.Deliver({static_cast<const uint8_t*>(header), header_bytes},
            {static_cast<const uint8_t*>(data), bytes});
  return UCS_OK;
}

ucs_status_t ShmConnection::OnHeadInData(void* connection, const void* header, size_t header_bytes,
                                         void* data, size_t bytes,
                                         const ucp_am_recv_param_t* param) {
  ShmConnection& c = *static_cast<ShmConnection*>(connection);
  uint32_t head_bytes = 0;
  if (header_bytes == sizeof(head_bytes)) std::memcpy(&head_bytes, header, sizeof(head_bytes));
  const bool rendezvous = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0;
  if (rendezvous || header_bytes != sizeof(head_bytes) || head_bytes > bytes) {
    c.Close(absl::InvalidArgumentError(
        absl::StrCat("message of ", bytes, " bytes with a head of ", head_bytes)));
    return UCS_OK;
  }
  const std::span<const uint8_t> all(static_cast<const uint8_t*>(data), bytes);
  c.Deliver(all.first(head_bytes), all.subspan(head_bytes));
  return UCS_OK;
}

void ShmConnection::Deliver(std::span<const uint8_t> head, std::span<const uint8_t> payload) {
  if (!is_open()) return;
  if (head.size() > kHeadBytesMax || payload.size() > payload_bytes_max()) {
    return Close(absl::InvalidArgumentError(absl::StrCat(
        "message with a head of ", head.size(), " bytes and a payload of ", payload.size())));
  }
  counters().Received(head.size() + payload.size());
  loop_.handler.OnMessage(*this, head, payload);
}

// ---- ending ----

bool ShmConnection::ReleaseStep() {
  if (endpoint_ == nullptr) return true;
  if (!close_begun_) {
    close_begun_ = true;
    ucp_request_param_t params{};
    params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    // By force: a stalled peer would hold up a flush for ever.
    params.flags = UCP_EP_CLOSE_FLAG_FORCE;
    close_request_ = ucp_ep_close_nbx(endpoint_, &params);
  }
  Progress();
  if (UCS_PTR_IS_PTR(close_request_)) {
    if (ucp_request_check_status(close_request_) == UCS_INPROGRESS) return false;
    ucp_request_free(close_request_);
    close_request_ = nullptr;
  }
  return window_sends_ == 0;
}

}  // namespace kedge
