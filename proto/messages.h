// Bodies of the data-plane frames (proto/frame.h), one struct each. proto/README.md has each byte.
//
// Every `Decode*` takes hostile bytes: counts are checked against the limits below and against the
// bytes that are left before anything is reserved; the error names message, field and value.
// Decoding into a struct that was used before reuses its memory, so a steady stream of requests
// does not allocate. `Encode*` appends to `out`; encoding what the limits forbid aborts, but a
// `text` for people is cut to kTextBytesMax.
//
// A PUT:  kPutBegin -> kPutReady (a slot for each block that the node wants) -> kChunk... ->
// kPutCommit -> kPutDone.
//         A layer-by-layer store is the same, with time between the chunks. A slot with no traffic
//         for `put_idle_ms` is dropped.
// A GET:  kGet -> for each item one kGetItem (its payload may hold the first bytes) and kChunk...
// until all parts in
//         range are there. Offsets are absolute in the block's payload; chunks may come in any
//         order, each byte once. After kCancel, or when the connection ends, nothing more is sent
//         for the request; what still arrives is dropped by the receiver.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/block_header.h"
#include "proto/block_key.h"
#include "proto/result_code.h"

namespace kedge {

inline constexpr uint32_t kBatchItemsMax = 1024;  // items in one request
inline constexpr uint32_t kVariantsMax = 8;       // accepted variants in one request
inline constexpr uint32_t kMembersMax = 1024;
inline constexpr uint32_t kTextBytesMax = 512;  // names, addresses, error texts

struct Member {
  std::string node_id;
  std::string data_address;  // "tcp://host:port" or "shm://host:port"
  std::string control_address;
};

struct HelloBody {
  std::string client_name;
  std::string client_version;
};

struct WelcomeBody {
  uint64_t session = 0;
  uint64_t epoch = 0;
  std::string node_id;
  uint32_t lease_ms_max = 0;
  uint32_t put_idle_ms = 0;
  uint8_t has_ssd = 0;
  std::vector<Member> members;
};

struct KeyItem {
  BlockKey key;
  uint64_t placement = 0;
};

inline constexpr uint16_t kMatchFlagRun =
    1;  // keys are a chain: stop at the first one that is not held
inline constexpr uint16_t kMatchFlagLease = 2;  // lease what is found

struct MatchBody {
  uint16_t flags = 0;
  uint32_t lease_ms = 0;
  std::vector<Variant> variants;  // accepted, best first; empty: any lossless
  std::vector<KeyItem> items;
};

struct MatchItem {
  ResultCode code = ResultCode::kAbsent;
  TierId tier = TierId::kNone;
  uint8_t variant = 0;  // index into MatchBody::variants (0 when that was empty)
  uint64_t payload_bytes = 0;
};

struct MatchReplyBody {
  uint64_t lease = 0;  // 0: none granted
  uint32_t lease_ms = 0;
  std::vector<MatchItem> items;  // one for each asked key, in order
};

struct GetRequestItem {
  BlockKey key;
  uint64_t placement = 0;
  uint64_t capacity_bytes =
      0;  // room the caller has for the parts in range; a larger block answers kTooSmall
};

struct GetBody {
  uint16_t part_begin = 0;
  uint16_t part_count = 0;  // 0: to the end
  std::vector<Variant> variants;
  std::vector<GetRequestItem> items;
};

struct GetItemBody {
  uint32_t item = 0;
  ResultCode code = ResultCode::kInternal;
  TierId tier = TierId::kNone;
  uint64_t payload_offset = 0;      // where this message's payload belongs
  std::span<const uint8_t> header;  // encoded block header; empty unless kOk. Points into the frame
  std::string text;                 // why not, for people; empty on success
};

struct ChunkBody {
  uint64_t target = 0;  // put: the slot; get: the item's index
  uint64_t offset = 0;  // in the block's payload
};

inline constexpr uint8_t kDurabilityHost = 0;
inline constexpr uint8_t kDurabilitySsd = 1;
inline constexpr uint8_t kDurabilityDefault = 255;  // the node's setting

struct PutBeginItem {
  BlockKey key;
  uint64_t placement = 0;
  uint64_t payload_bytes = 0;
  uint16_t part_count = 0;
  // Size of every part when they are all equal (raw blocks; an opaque value's one part): lets the
  // node digest parts while they arrive. 0: unknown, digested at the commit.
  uint32_t part_bytes = 0;
};

struct PutBeginBody {
  Variant variant;
  // What the caller will ask for at the commit: kExists is answered once the held block is that
  // durable.
  uint8_t durability = kDurabilityDefault;
  std::vector<PutBeginItem> items;
};

struct PutReadyItem {
  ResultCode code = ResultCode::kInternal;  // kOk: send to `slot`. kExists: nothing to do
  uint64_t slot = 0;
};

struct PutReadyBody {
  std::vector<PutReadyItem> items;
};

struct PutCommitBody {
  uint64_t slot = 0;
  uint8_t durability = kDurabilityDefault;
  std::span<const uint8_t> header;  // encoded block header; points into the frame
};

struct PutDoneBody {
  uint64_t slot = 0;
  ResultCode code = ResultCode::kInternal;
  std::string text;
};

struct PutAbortBody {
  std::vector<uint64_t> slots;
};

struct RemoveBody {
  std::vector<KeyItem> items;  // all variants of each key
};

struct RemoveReplyBody {
  std::vector<ResultCode> codes;
};

struct ReleaseBody {
  std::vector<uint64_t> leases;
};

struct ErrorBody {
  ResultCode code = ResultCode::kInternal;
  std::string text;
  uint64_t epoch = 0;           // with kStaleEpoch
  std::vector<Member> members;  // with kStaleEpoch
};

#define KEDGE_MESSAGE(Name)                                             \
  void Encode##Name(const Name##Body& body, std::vector<uint8_t>& out); \
  absl::Status Decode##Name(std::span<const uint8_t> bytes, Name##Body& body)

KEDGE_MESSAGE(Hello);
KEDGE_MESSAGE(Welcome);
KEDGE_MESSAGE(Match);
KEDGE_MESSAGE(MatchReply);
KEDGE_MESSAGE(Get);
KEDGE_MESSAGE(GetItem);
KEDGE_MESSAGE(Chunk);
KEDGE_MESSAGE(PutBegin);
KEDGE_MESSAGE(PutReady);
KEDGE_MESSAGE(PutCommit);
KEDGE_MESSAGE(PutDone);
KEDGE_MESSAGE(PutAbort);
KEDGE_MESSAGE(Remove);
KEDGE_MESSAGE(RemoveReply);
KEDGE_MESSAGE(Release);
KEDGE_MESSAGE(Error);

#undef KEDGE_MESSAGE

}  // namespace kedge
