// Hostile frames and bodies: as they are, and with right magic, lengths and CRC so that every
// body's decoder is reached.
#include <cstdlib>
#include <cstring>

#include "proto/crc32c.h"
#include "proto/frame.h"
#include "proto/messages.h"
#include "proto/near_messages.h"
#include "proto/offset_messages.h"
#include "proto/wire.h"

namespace kedge {
namespace {

// What decodes must encode to the same bytes.
template <typename Body>
void CheckBody(std::span<const uint8_t> bytes, void (*encode)(const Body&, std::vector<uint8_t>&),
               absl::Status (*decode)(std::span<const uint8_t>, Body&)) {
  static Body body;  // used again and again, as a node does
  if (!decode(bytes, body).ok()) return;
  std::vector<uint8_t> again;
  encode(body, again);
  if (again.size() != bytes.size()) std::abort();
  if (!again.empty() && std::memcmp(again.data(), bytes.data(), again.size()) != 0) std::abort();
}

void CheckBodyOf(FrameType type, std::span<const uint8_t> bytes) {
  switch (type) {
    case FrameType::kHello:
      return CheckBody(bytes, EncodeHello, DecodeHello);
    case FrameType::kWelcome:
      return CheckBody(bytes, EncodeWelcome, DecodeWelcome);
    case FrameType::kMatch:
      return CheckBody(bytes, EncodeMatch, DecodeMatch);
    case FrameType::kMatchReply:
      return CheckBody(bytes, EncodeMatchReply, DecodeMatchReply);
    case FrameType::kGet:
      return CheckBody(bytes, EncodeGet, DecodeGet);
    case FrameType::kGetItem:
      return CheckBody(bytes, EncodeGetItem, DecodeGetItem);
    case FrameType::kChunk:
      return CheckBody(bytes, EncodeChunk, DecodeChunk);
    case FrameType::kPutBegin:
      return CheckBody(bytes, EncodePutBegin, DecodePutBegin);
    case FrameType::kPutReady:
      return CheckBody(bytes, EncodePutReady, DecodePutReady);
    case FrameType::kPutCommit:
      return CheckBody(bytes, EncodePutCommit, DecodePutCommit);
    case FrameType::kPutDone:
      return CheckBody(bytes, EncodePutDone, DecodePutDone);
    case FrameType::kPutAbort:
      return CheckBody(bytes, EncodePutAbort, DecodePutAbort);
    case FrameType::kRemove:
      return CheckBody(bytes, EncodeRemove, DecodeRemove);
    case FrameType::kRemoveReply:
      return CheckBody(bytes, EncodeRemoveReply, DecodeRemoveReply);
    case FrameType::kRelease:
      return CheckBody(bytes, EncodeRelease, DecodeRelease);
    case FrameType::kError:
      return CheckBody(bytes, EncodeError, DecodeError);
    case FrameType::kAnchorInsert:
      return CheckBody(bytes, EncodeAnchorInsert, DecodeAnchorInsert);
    case FrameType::kAnchorInserted:
      return CheckBody(bytes, EncodeAnchorInserted, DecodeAnchorInserted);
    case FrameType::kMix:
      return CheckBody(bytes, EncodeMix, DecodeMix);
    case FrameType::kMixReply:
      return CheckBody(bytes, EncodeMixReply, DecodeMixReply);
    case FrameType::kMixUsed:
      return CheckBody(bytes, EncodeMixUsed, DecodeMixUsed);
    case FrameType::kNearInsert:
      return CheckBody(bytes, EncodeNearInsert, DecodeNearInsert);
    case FrameType::kNearInserted:
      return CheckBody(bytes, EncodeNearInserted, DecodeNearInserted);
    case FrameType::kNearLookup:
      return CheckBody(bytes, EncodeNearLookup, DecodeNearLookup);
    case FrameType::kNearFound:
      return CheckBody(bytes, EncodeNearFound, DecodeNearFound);
    case FrameType::kNearStrike:
      return CheckBody(bytes, EncodeNearStrike, DecodeNearStrike);
    case FrameType::kCancel:
    case FrameType::kPing:
    case FrameType::kPong:
    case FrameType::kGoodbye:
      return;  // no body
  }
}

void Check(std::span<const uint8_t> head, size_t payload_bytes) {
  const absl::StatusOr<Frame> frame = DecodeFrame(head, payload_bytes);
  if (!frame.ok()) return;
  std::vector<uint8_t> again(head.size());
  EncodeFrame(frame->header, frame->tlvs, frame->body, again);
  if (std::memcmp(again.data(), head.data(), again.size()) != 0) std::abort();
  CheckBodyOf(frame->header.type, frame->body);
}

void Seal(std::vector<uint8_t>& head) {
  std::memcpy(head.data(), "KdgF\x01", 5);
  const auto tlv_bytes = LoadLe<uint16_t>(head.data() + 8);
  const size_t rest = head.size() - kFrameHeaderBytes;
  if (tlv_bytes > rest) StoreLe(head.data() + 8, uint16_t{0});
  StoreLe(head.data() + 12, static_cast<uint32_t>(rest - LoadLe<uint16_t>(head.data() + 8)));
  const auto bytes = std::span<const uint8_t>(head);
  StoreLe(head.data() + 76,
          ExtendCrc32c(Crc32c(bytes.first(76)), bytes.subspan(kFrameHeaderBytes)));
}

}  // namespace
}  // namespace kedge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kedge::Check({data, size}, 0);
  if (size >= kedge::kFrameHeaderBytes) {
    std::vector<uint8_t> sealed(data, data + size);
    kedge::Seal(sealed);
    kedge::Check(sealed, kedge::LoadLe<uint32_t>(sealed.data() + 16));
  }
  return 0;
}
