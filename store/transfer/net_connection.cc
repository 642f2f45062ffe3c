#include "store/transfer/net_connection.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/frame.h"

namespace kedge {
namespace {

constexpr size_t kSpareSendsMax = 256;
constexpr size_t kSpareSendBytes = 16 << 10;
constexpr int kSmallInARowMax = 16;
constexpr uint32_t kWindowBytes = 4 << 20;  // of the socket's: some messages

GreetingStatus StatusFor(const absl::Status& why) {
  if (why.code() == absl::StatusCode::kUnimplemented) return GreetingStatus::kOtherVersion;
  if (why.code() == absl::StatusCode::kFailedPrecondition) return GreetingStatus::kOtherWire;
  return GreetingStatus::kRefused;
}

}  // namespace

std::unique_ptr<NetSend> NetLoopState::NewSend() {
  if (spare_sends.empty()) return std::make_unique<NetSend>();
  std::unique_ptr<NetSend> send = std::move(spare_sends.back());
  spare_sends.pop_back();
  return send;
}

void NetLoopState::Recycle(std::unique_ptr<NetSend> send) {
  if (spare_sends.size() >= kSpareSendsMax || send->own.capacity() > kSpareSendBytes) return;
  send->status = absl::OkStatus();
  spare_sends.push_back(std::move(send));
}

NetConnection::NetConnection(NetLoopState& loop, StreamWire wire, std::string peer)
    : loop_(loop),
      wire_(wire),
      counters_(wire == StreamWire::kTcp ? loop.tcp_counters : loop.shm_counters),
      peer_(std::move(peer)),
      watched_{Watched::Kind::kSocket, this} {}

NetConnection::~NetConnection() {
  if (socket_.get() >= 0) loop_.epoll.Remove(socket_.get());
}

// ---- meeting ----

absl::Status NetConnection::BeginConnect(const NetAddress& address) {
  absl::StatusOr<Socket> socket = Socket::Connect(address.socket);
  if (!socket.ok()) {
    return absl::UnavailableError(
        absl::StrCat("address '", peer_, "': ", std::string(socket.status().message())));
  }
  socket_ = *std::move(socket);
  connecting_side_ = true;
  phase_ = Phase::kConnecting;
  want_writable_ = true;
  loop_.epoll.Add(socket_.get(), EPOLLOUT, &watched_);
  return absl::OkStatus();
}

void NetConnection::BeginAccepted(Socket socket) {
  socket_ = std::move(socket);
  socket_.WidenWindow(kWindowBytes);
  loop_.epoll.Add(socket_.get(), EPOLLIN, &watched_);
}

void NetConnection::FinishConnect() {
  const int error = socket_.TakeError();
  if (error != 0) return Close(SocketError(absl::StrCat("connect to ", peer_), error));
  socket_.WidenWindow(kWindowBytes);
  const absl::StatusOr<std::vector<uint8_t>> address = GreetingAddress();
  if (!address.ok()) return Close(address.status());
  const absl::Status status = SendGreeting(GreetingStatus::kOk, *address);
  if (!status.ok()) return Close(status);
  phase_ = Phase::kGreeting;
  want_writable_ = false;
  loop_.epoll.Change(socket_.get(), EPOLLIN, &watched_);
}

absl::Status NetConnection::SendGreeting(GreetingStatus status, std::span<const uint8_t> address) {
  std::vector<uint8_t> bytes(kGreetingHeaderBytes + address.size());
  EncodeGreeting({wire_, status, payload_bytes_max(), address}, bytes);
  const std::span<const uint8_t> pieces[] = {bytes};
  const absl::StatusOr<size_t> sent = socket_.Send(pieces);
  if (!sent.ok()) return sent.status();
  // The first bytes on a new socket: its buffer has room for them.
  if (*sent != bytes.size()) return absl::UnavailableError("the greeting could not be sent");
  return absl::OkStatus();
}

// Never reads past the greeting: over tcp messages follow.
void NetConnection::ReadGreeting() {
  for (;;) {
    uint32_t bytes = kGreetingHeaderBytes;
    if (greeting_.size() >= kGreetingHeaderBytes) {
      const absl::StatusOr<uint32_t> all = GreetingBytes(greeting_);
      if (!all.ok()) return Refuse(all.status());
      bytes = *all;
    }
    const size_t have = greeting_.size();
    if (have == bytes) break;
    greeting_.resize(bytes);
    const absl::StatusOr<size_t> got = socket_.Receive(std::span(greeting_).subspan(have));
    greeting_.resize(have + (got.ok() ? *got : 0));
    if (!got.ok()) return Close(absl::UnavailableError(got.status().message()));
    if (*got == 0) return;
  }
  const absl::StatusOr<Greeting> greeting = DecodeGreeting(greeting_);
  const absl::Status status = greeting.ok() ? TakeGreeting(*greeting) : greeting.status();
  if (!status.ok()) return Refuse(status);
  greeting_ = {};
  phase_ = Phase::kOpen;
  was_open_ = true;
  TransportCounters::Add(counters_.connections_opened, 1);
  if (!connecting_side_) loop_.on_accepted(*this);
  if (is_open()) Pump();
}

absl::Status NetConnection::TakeGreeting(const Greeting& greeting) {
  if (greeting.wire != wire_) {
    return absl::FailedPreconditionError(absl::StrCat("the peer speaks ",
                                                      StreamWireName(greeting.wire),
                                                      " here, expected ", StreamWireName(wire_)));
  }
  if (greeting.status != GreetingStatus::kOk) {
    return absl::UnavailableError(absl::StrCat("the peer at ", peer_, " refused: status ",
                                               static_cast<int>(greeting.status)));
  }
  if (greeting.payload_bytes_max < payload_bytes_max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("greeting.payload_bytes_max: ", greeting.payload_bytes_max, ", expected ",
                     payload_bytes_max(), " or more"));
  }
  if (connecting_side_) return OnGreeting(greeting);
  // The answer comes last: until then the peer can still be told that it is refused.
  const absl::StatusOr<std::vector<uint8_t>> address = GreetingAddress();
  if (!address.ok()) return address.status();
  const absl::Status status = OnGreeting(greeting);
  return status.ok() ? SendGreeting(GreetingStatus::kOk, *address) : status;
}

// A stranger, or a peer of another release: the second is told why.
void NetConnection::Refuse(const absl::Status& why) {
  TransportCounters::Add(counters_.greetings_refused, 1);
  if (!connecting_side_) (void)SendGreeting(StatusFor(why), {});
  Close(why);
}

// ---- open ----

void NetConnection::OnSocketEvents(uint32_t events) {
  switch (phase_) {
    case Phase::kConnecting:
      return FinishConnect();
    case Phase::kGreeting:
      return ReadGreeting();
    case Phase::kOpen:
      if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) OnReadable();
      if (is_open() && (events & EPOLLOUT) != 0) Pump();
      return;
    case Phase::kClosing:
      return;
  }
}

absl::Status NetConnection::Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                                 uint64_t cookie) {
  if (closing()) return absl::UnavailableError("send: the connection has ended");
  if (head.size() > kHeadBytesMax || payload.size() > payload_bytes_max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("send: head of ", head.size(), " bytes, payload of ", payload.size(),
                     "; at most ", kHeadBytesMax, " and ", payload_bytes_max()));
  }
  const uint64_t bytes = head.size() + payload.size();
  if (queued_bytes_ + bytes > loop_.options.send_queue_bytes_max) {
    TransportCounters::Add(counters_.sends_refused, 1);
    return absl::ResourceExhaustedError(absl::StrCat("send: ", queued_bytes_,
                                                     " bytes are queued for ", peer_, ", at most ",
                                                     loop_.options.send_queue_bytes_max));
  }
  std::unique_ptr<NetSend> send = loop_.NewSend();
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
  if (is_open()) Pump();
  return absl::OkStatus();
}

std::unique_ptr<NetSend> NetConnection::NextSend() {
  if (small_.empty() && bulk_.empty()) return nullptr;
  const bool small = bulk_.empty() || (!small_.empty() && small_in_a_row_ < kSmallInARowMax);
  small_in_a_row_ = small ? small_in_a_row_ + 1 : 0;
  std::deque<std::unique_ptr<NetSend>>& queue = small ? small_ : bulk_;
  std::unique_ptr<NetSend> send = std::move(queue.front());
  queue.pop_front();
  return send;
}

void NetConnection::End(std::unique_ptr<NetSend> send, const absl::Status& status) {
  send->status = status;
  loop_.ended.push_back(std::move(send));
}

void NetConnection::Tell(std::unique_ptr<NetSend> send) {
  queued_bytes_ -= send->bytes();
  if (send->status.ok()) counters_.Sent(send->bytes());
  if (send->cookie != 0) loop_.handler.OnSent(*this, send->cookie, send->status);
  loop_.Recycle(std::move(send));
  if (is_open()) Pump();
}

void NetConnection::WantWritable(bool want) {
  if (want == want_writable_) return;
  want_writable_ = want;
  const uint32_t events = want ? EPOLLIN | EPOLLOUT : EPOLLIN;
  loop_.epoll.Change(socket_.get(), events, &watched_);
}

void NetConnection::WantReadable(uint32_t bytes) {
  if (bytes == want_readable_) return;
  want_readable_ = bytes;
  socket_.SetLowWater(bytes);
}

// ---- ending ----

void NetConnection::Close(const absl::Status& why) {
  if (closing()) return;
  phase_ = Phase::kClosing;
  why_ = why;
  for (auto* queue : {&small_, &bulk_}) {
    for (std::unique_ptr<NetSend>& send : *queue) End(std::move(send), CutOff());
    queue->clear();
  }
  // Level-triggered events of a socket that nobody reads would keep the loop awake.
  if (socket_.get() >= 0) loop_.epoll.Remove(socket_.get());
  loop_.closing.push_back(this);
}

absl::Status NetConnection::CutOff() const {
  return why_.ok() ? absl::CancelledError("closed before it was sent") : why_;
}

bool NetConnection::CloseStep() {
  const bool released = ReleaseStep();
  socket_ = Socket();  // the old one dies with the temporary
  return released && queued_bytes_ == 0;
}

}  // namespace kedge
