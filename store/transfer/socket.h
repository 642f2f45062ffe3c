// Owners of the kernel's descriptors that a loop uses: non-blocking TCP sockets and one epoll.
// Internal to transport_net.
#pragma once

#include <netinet/in.h>
#include <sys/epoll.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

// "what: why", for a failed call; Unavailable.
absl::Status SocketError(const std::string& what, int error);

class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

// A TCP socket that never blocks and does not wait to fill segments.
class Socket {
 public:
  Socket() = default;
  // Starts to connect: writable when it is decided (then `TakeError` tells how).
  static absl::StatusOr<Socket> Connect(const sockaddr_in& to);
  static Socket FromAccepted(int fd);

  int get() const { return fd_.get(); }
  int TakeError() const;  // SO_ERROR
  // Bytes sent or received; 0 when the socket takes or has nothing now. Receive: OutOfRange when
  // the peer has ended.
  absl::StatusOr<size_t> Send(std::span<const std::span<const uint8_t>> pieces) const;
  absl::StatusOr<size_t> Receive(std::span<uint8_t> into) const;
  // Lets the peer send this far ahead of us, from the start. The kernel's own growth of the window
  // depends on how soon data is taken, and who waits for large pieces takes it late. When
  // connected.
  void WidenWindow(uint32_t bytes) const;
  // The kernel tells of data only when there is so much (or the end). Less than half the window:
  // the peer has to be able to send while we wait.
  void SetLowWater(uint32_t bytes) const;

 private:
  Descriptor fd_;
};

// A listening socket.
class ListenSocket {
 public:
  // AlreadyExists naming `text` when the port is taken.
  static absl::StatusOr<ListenSocket> Make(const sockaddr_in& at, const std::string& text);
  int get() const { return fd_.get(); }
  uint16_t port() const { return port_; }
  // -1 when nobody waits; `exhausted` when the process has no descriptor left.
  int Accept(sockaddr_in& from, bool& exhausted) const;

 private:
  Descriptor fd_;
  uint16_t port_ = 0;
};

class Epoll {
 public:
  Epoll();
  void Add(int fd, uint32_t events, void* data) const;
  void Change(int fd, uint32_t events, void* data) const;
  void Remove(int fd) const;
  // Level-triggered events, at most events.size() of them.
  size_t Wait(std::span<epoll_event> events, int timeout_ms) const;

 private:
  Descriptor fd_;
};

}  // namespace kedge
