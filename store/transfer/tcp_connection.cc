#include "store/transfer/tcp_connection.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/frame.h"

namespace kedge {
namespace {

constexpr uint64_t kLargeBufferBytes = kMessagePrefixBytes + kHeadBytesMax + kTcpPayloadBytes;
constexpr size_t kSpareBuffersMax = 16;
// What one connection reads or writes before others have their turn.
constexpr uint64_t kTurnBytes = 2 << 20;
// Waiting for pieces of this size halves the processor time of a stream: a reader that takes what
// is there, again and again, fights the sender for the socket's lock.
constexpr uint32_t kLowWaterBytes = 256 << 10;
// With less than this to come, waiting for it is not worth two calls.
constexpr uint64_t kNoLowWaterBytes = 96 << 10;

}  // namespace

// ---- in ----

void TcpConnection::OnReadable() {
  read_budget_ = kTurnBytes;
  while (is_open() && read_budget_ > 0) {
    if (!(large_ != nullptr ? ReadLarge() : ReadSmall())) return;
  }
  // Others' turn. The low water of the last large message must not stay behind: what comes next may
  // be less, and would never be told of.
  if (is_open()) WantReadable(large_ == nullptr ? 1 : LowWater());
}

uint32_t TcpConnection::LowWater() const {
  return static_cast<uint32_t>(
      std::min<uint64_t>(large_prefix_.message_bytes() - large_bytes_, kLowWaterBytes));
}

bool TcpConnection::ReadSmall() {
  const absl::StatusOr<size_t> got = socket_.Receive(std::span(small_in_).subspan(small_bytes_));
  if (!got.ok()) {
    Close(absl::UnavailableError(got.status().message()));
    return false;
  }
  if (*got == 0) {
    WantReadable(1);
    return false;
  }
  read_budget_ -= std::min<uint64_t>(read_budget_, *got);
  small_bytes_ += *got;
  TakeSmall();
  if (large_ == nullptr) return true;
  if (large_prefix_.message_bytes() - large_bytes_ <= kNoLowWaterBytes) return true;
  WantReadable(LowWater());
  return false;
}

void TcpConnection::TakeSmall() {
  size_t at = 0;
  while (is_open() && small_bytes_ - at >= kMessagePrefixBytes) {
    const std::span<const uint8_t> rest(small_in_.data() + at, small_bytes_ - at);
    const absl::StatusOr<MessagePrefix> prefix = DecodeMessagePrefix(rest, payload_bytes_max());
    if (!prefix.ok()) return Close(prefix.status());
    if (rest.size() < prefix->message_bytes()) {
      if (BeginLarge(*prefix, rest)) at = small_bytes_;
      break;
    }
    Deliver(*prefix, rest.first(prefix->message_bytes()));
    at += prefix->message_bytes();
  }
  if (at > 0) std::memmove(small_in_.data(), small_in_.data() + at, small_bytes_ - at);
  small_bytes_ -= at;
}

// False when the message fits small_in_ after all.
bool TcpConnection::BeginLarge(const MessagePrefix& prefix, std::span<const uint8_t> begin) {
  if (prefix.message_bytes() <= small_in_.size()) return false;
  if (loop_.spare_buffers.empty()) {
    large_ = std::make_unique_for_overwrite<uint8_t[]>(kLargeBufferBytes);
  } else {
    large_ = std::move(loop_.spare_buffers.back());
    loop_.spare_buffers.pop_back();
  }
  large_prefix_ = prefix;
  std::memcpy(large_.get(), begin.data(), begin.size());
  large_bytes_ = begin.size();
  return true;
}

bool TcpConnection::ReadLarge() {
  const uint64_t message_bytes = large_prefix_.message_bytes();
  const absl::StatusOr<size_t> got =
      socket_.Receive({large_.get() + large_bytes_, message_bytes - large_bytes_});
  if (!got.ok()) {
    Close(absl::UnavailableError(got.status().message()));
    return false;
  }
  read_budget_ -= std::min<uint64_t>(read_budget_, *got);
  large_bytes_ += *got;
  if (large_bytes_ < message_bytes) {
    WantReadable(LowWater());
    return false;
  }
  Deliver(large_prefix_, {large_.get(), message_bytes});
  if (loop_.spare_buffers.size() < kSpareBuffersMax)
    loop_.spare_buffers.push_back(std::move(large_));
  large_.reset();
  return true;
}

void TcpConnection::Deliver(const MessagePrefix& prefix, std::span<const uint8_t> message) {
  counters().Received(prefix.head_bytes + prefix.payload_bytes);
  loop_.handler.OnMessage(*this, message.subspan(kMessagePrefixBytes, prefix.head_bytes),
                          message.subspan(kMessagePrefixBytes + prefix.head_bytes));
}

// ---- out ----

void TcpConnection::Pump() {
  for (uint64_t bytes = 0; is_open();) {
    if (sending_ == nullptr) {
      sending_ = NextSend();
      if (sending_ == nullptr) return WantWritable(false);
      prefix_ = EncodeMessagePrefix(
          {sending_->head_bytes, static_cast<uint32_t>(sending_->payload.size())});
      sent_bytes_ = 0;
    }
    if (bytes >= kTurnBytes) return WantWritable(true);
    const absl::StatusOr<size_t> sent = SendMore();
    if (!sent.ok()) return Close(sent.status());
    if (*sent == 0) return WantWritable(true);
    bytes += *sent;
    sent_bytes_ += *sent;
    if (sent_bytes_ == prefix_.size() + sending_->bytes()) {
      End(std::move(sending_), absl::OkStatus());
    }
  }
}

absl::StatusOr<size_t> TcpConnection::SendMore() {
  std::span<const uint8_t> pieces[] = {prefix_, sending_->head(), sending_->payload};
  uint64_t skip = sent_bytes_;
  for (std::span<const uint8_t>& piece : pieces) {
    const uint64_t cut = std::min<uint64_t>(skip, piece.size());
    piece = piece.subspan(cut);
    skip -= cut;
  }
  return socket_.Send(pieces);
}

bool TcpConnection::ReleaseStep() {
  if (sending_ != nullptr) End(std::move(sending_), CutOff());
  return true;
}

}  // namespace kedge
