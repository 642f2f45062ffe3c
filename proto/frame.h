// Data-plane frames: the fixed header in front of every message between a client and a node.
//
// A message is a *head* (this header, TLVs, body) and a *payload* (bulk bytes, possibly none). The
// CRC covers the head; bulk bytes are covered by part digests. Fields that a node does not know
// travel as TLVs and are skipped. proto/messages.h has the bodies; proto/README.md has each byte.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

inline constexpr uint8_t kFrameVersion = 1;
inline constexpr uint32_t kFrameHeaderBytes = 80;
inline constexpr uint32_t kHeadBytesMax = 128 << 10;   // header + TLVs + body
inline constexpr uint32_t kPayloadBytesMax = 4 << 20;  // bulk in one message; transports allow less
inline constexpr uint32_t kTlvBytesMax = 4 << 10;

enum class FrameType : uint8_t {
  kHello = 1,    // client: open a session
  kWelcome = 2,  // node: session, epoch, members, limits
  kMatch = 3,    // keys -> which are held, where; with or without a lease
  kMatchReply = 4,
  kGet = 5,       // keys, variants, part range -> kGetItem and kChunk frames
  kGetItem = 6,   // status and block header of one item; payload: the first bytes
  kChunk = 7,     // bulk of an item, both directions
  kCancel = 8,    // stop sending for a request
  kPutBegin = 9,  // names and sizes -> slots
  kPutReady = 10,
  kPutCommit = 11,  // header with digests -> visible, once replicated and durable as asked
  kPutDone = 12,
  kPutAbort = 13,
  kRemove = 14,
  kRemoveReply = 15,
  kRelease = 16,  // give leases back
  kPing = 17,
  kPong = 18,
  kError = 19,    // the request as a whole failed: status code and text
  kGoodbye = 20,  // either side: no more requests (drain)
  // proto/offset_messages.h has their bodies.
  kAnchorInsert = 21,  // a slot's block becomes an anchor of a pool
  kAnchorInserted = 22,
  kMix = 23,       // a filling's sketch -> what the pool knows, and mixed offsets
  kMixReply = 24,  // payload: the first bytes of them; kChunk has the rest
  kMixUsed = 25,   // the anchors that an answer was made of; not answered
  // proto/near_messages.h has their bodies.
  kNearInsert = 26,  // donors and their postings
  kNearInserted = 27,
  kNearLookup = 28,  // match ids -> donors
  kNearFound = 29,
  kNearStrike = 30,  // donors that were not there; not answered
};
inline constexpr uint8_t kFrameTypeMax = 30;
const char* FrameTypeName(FrameType type);

struct FrameHeader {
  FrameType type = FrameType::kPing;
  uint16_t flags = 0;
  uint16_t tlv_bytes = 0;
  uint32_t body_bytes = 0;
  uint32_t payload_bytes = 0;
  uint32_t deadline_ms = 0;  // time left when sent; 0: none. Relative, because clocks differ
  uint64_t request = 0;      // chosen by the client; a reply repeats it
  uint64_t session = 0;      // from kWelcome; 0 before
  uint64_t tenant = 0;       // public id, no secret
  uint64_t epoch = 0;        // version of the member list the sender used; 0: unknown
  std::array<uint8_t, 16> trace_id{};
};

// The head of a message: header, TLVs and body with its CRC. Aborts when a length contradicts a
// span or passes a limit: the caller built it.
void EncodeFrame(const FrameHeader& header, std::span<const uint8_t> tlvs,
                 std::span<const uint8_t> body, std::span<uint8_t> out);
inline constexpr uint32_t FrameHeadBytes(uint32_t tlv_bytes, uint32_t body_bytes) {
  return kFrameHeaderBytes + tlv_bytes + body_bytes;
}

struct Frame {
  FrameHeader header;
  std::span<const uint8_t> tlvs;  // into the caller's bytes
  std::span<const uint8_t> body;
};

// Parses hostile bytes. InvalidArgument (magic, length, type), Unimplemented (version), DataLoss
// (CRC), each naming field and value. `payload_bytes` is what came with the head; it must agree
// with the header.
absl::StatusOr<Frame> DecodeFrame(std::span<const uint8_t> head, size_t payload_bytes);

}  // namespace kedge
