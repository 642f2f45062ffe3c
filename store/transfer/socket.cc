#include "store/transfer/socket.h"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

constexpr int kBacklog = 1024;
constexpr size_t kPiecesMax = 4;

void SetOption(int fd, int level, int name, int value) {
  setsockopt(fd, level, name, &value, sizeof(value));
}

// A host that vanished without a word is noticed even when nobody asks it anything.
void SetUp(int fd) {
  SetOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, 30);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
  SetOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

}  // namespace

absl::Status SocketError(const std::string& what, int error) {
  return absl::UnavailableError(absl::StrCat(what, ": ", strerror(error)));
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<Socket> Socket::Connect(const sockaddr_in& to) {
  Socket result;
  result.fd_ = Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!result.fd_.valid()) return SocketError("socket", errno);
  SetUp(result.get());
  if (connect(result.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)) != 0 &&
      errno != EINPROGRESS) {
    return SocketError("connect", errno);
  }
  return result;
}

Socket Socket::FromAccepted(int fd) {
  Socket result;
  result.fd_ = Descriptor(fd);
  SetUp(fd);
  return result;
}

int Socket::TakeError() const {
  int error = 0;
  socklen_t bytes = sizeof(error);
  if (getsockopt(get(), SOL_SOCKET, SO_ERROR, &error, &bytes) != 0) return errno;
  return error;
}

absl::StatusOr<size_t> Socket::Send(std::span<const std::span<const uint8_t>> pieces) const {
  iovec iov[kPiecesMax];
  size_t count = 0;
  for (const std::span<const uint8_t>& piece : pieces) {
    if (piece.empty()) continue;
    ABSL_RAW_CHECK(count < kPiecesMax, "too many pieces for one send");
    iov[count++] = {const_cast<uint8_t*>(piece.data()), piece.size()};
  }
  msghdr message{};
  message.msg_iov = iov;
  message.msg_iovlen = count;
  for (;;) {
    const ssize_t sent = sendmsg(get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    if (errno != EINTR) return SocketError("send", errno);
  }
}

absl::StatusOr<size_t> Socket::Receive(std::span<uint8_t> into) const {
  for (;;) {
    const ssize_t got = recv(get(), into.data(), into.size(), MSG_DONTWAIT);
    if (got > 0) return static_cast<size_t>(got);
    if (got == 0) return absl::OutOfRangeError("the peer has closed the connection");
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    if (errno != EINTR) return SocketError("receive", errno);
  }
}

// SO_RCVBUF would be cut to net.core.rmem_max, which is small by default. A low water that does not
// fit makes the kernel widen buffer and window to tcp_rmem's limit, and they stay wide.
void Socket::WidenWindow(uint32_t bytes) const {
  SetLowWater(bytes);
  SetLowWater(1);
}

void Socket::SetLowWater(uint32_t bytes) const {
  SetOption(get(), SOL_SOCKET, SO_RCVLOWAT, static_cast<int>(bytes));
}

absl::StatusOr<ListenSocket> ListenSocket::Make(const sockaddr_in& at, const std::string& text) {
  ListenSocket result;
  result.fd_ = Descriptor(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!result.fd_.valid()) return SocketError("socket", errno);
  // A node that comes back finds connections of its former life in TIME_WAIT on its port.
  SetOption(result.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  const auto failed = [&text] {
    if (errno == EADDRINUSE) {
      return absl::AlreadyExistsError(absl::StrCat("address '", text, "' is taken"));
    }
    if (errno == EADDRNOTAVAIL) {
      return absl::InvalidArgumentError(
          absl::StrCat("address '", text, "': no network device has this address"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("address '", text, "': cannot listen: ", strerror(errno)));
  };
  if (bind(result.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(at)) != 0) return failed();
  if (listen(result.get(), kBacklog) != 0) return failed();
  sockaddr_in bound{};
  socklen_t bytes = sizeof(bound);
  if (getsockname(result.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) != 0) return failed();
  result.port_ = ntohs(bound.sin_port);
  return result;
}

int ListenSocket::Accept(sockaddr_in& from, bool& exhausted) const {
  for (;;) {
    socklen_t bytes = sizeof(from);
    const int fd =
        accept4(get(), reinterpret_cast<sockaddr*>(&from), &bytes, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) return fd;
    exhausted = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    // Anything else is about a peer that is gone already.
    if (exhausted || errno == EAGAIN || errno == EWOULDBLOCK) return -1;
  }
}

Epoll::Epoll() : fd_(epoll_create1(EPOLL_CLOEXEC)) {
  ABSL_RAW_CHECK(fd_.valid(), "epoll_create1: no descriptors left");
}

void Epoll::Add(int fd, uint32_t events, void* data) const {
  epoll_event event{events, {.ptr = data}};
  ABSL_RAW_CHECK(epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl add");
}

void Epoll::Change(int fd, uint32_t events, void* data) const {
  epoll_event event{events, {.ptr = data}};
  ABSL_RAW_CHECK(epoll_ctl(fd_.get(), EPOLL_CTL_MOD, fd, &event) == 0, "epoll_ctl mod");
}

void Epoll::Remove(int fd) const { epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }

size_t Epoll::Wait(std::span<epoll_event> events, int timeout_ms) const {
  const int count =
      epoll_wait(fd_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  return count < 0 ? 0 : static_cast<size_t>(count);  // a signal came
}

}  // namespace kedge
