// Messages over the socket itself: a prefix with two lengths, the head, the payload (proto/stream).
// Internal to transport_net.
//
// A payload is sent from the caller's pages by the kernel. What arrives is collected in a buffer
// that stays in the cache, and the handler is shown it there; while a large message arrives the
// kernel is told to wake us only for large pieces of it (README.md has what that is worth).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "store/transfer/net_connection.h"

namespace kedge {

// Chosen by measuring: README.md.
inline constexpr uint32_t kTcpPayloadBytes = 512 << 10;

class TcpConnection final : public NetConnection {
 public:
  TcpConnection(NetLoopState& loop, std::string peer)
      : NetConnection(loop, StreamWire::kTcp, std::move(peer)) {}

  uint32_t payload_bytes_max() const override { return kTcpPayloadBytes; }
  std::string wire() const override { return "tcp"; }

 private:
  absl::StatusOr<std::vector<uint8_t>> GreetingAddress() override { return std::vector<uint8_t>(); }
  absl::Status OnGreeting(const Greeting&) override { return absl::OkStatus(); }
  void OnReadable() override;
  void Pump() override;
  bool ReleaseStep() override;

  // Each reads once; false when there is nothing more to read now.
  bool ReadSmall();
  bool ReadLarge();
  // Delivers the whole messages in small_in_; begins a large one with what there is of it.
  void TakeSmall();
  bool BeginLarge(const MessagePrefix& prefix, std::span<const uint8_t> begin);
  void Deliver(const MessagePrefix& prefix, std::span<const uint8_t> message);
  absl::StatusOr<size_t> SendMore();
  // For the rest of the large message.
  uint32_t LowWater() const;

  // In: either small_in_ holds the beginning of a message, or large_ does.
  std::array<uint8_t, 4096> small_in_;
  size_t small_bytes_ = 0;
  std::unique_ptr<uint8_t[]> large_;
  MessagePrefix large_prefix_;
  uint64_t large_bytes_ = 0;
  uint64_t read_budget_ = 0;

  // Out: the message that the kernel has a part of.
  std::unique_ptr<NetSend> sending_;
  std::array<uint8_t, kMessagePrefixBytes> prefix_;
  uint64_t sent_bytes_ = 0;
};

}  // namespace kedge
