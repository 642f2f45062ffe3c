// Bodies of the frames about near matches: what donors are told to a node, and what a prompt asks.
// Rules as in proto/messages.h; proto/README.md has each byte.
//
// INSERT:  the donor's text is put first, as a value (proto/donor_text.h); then kNearInsert with
//          its postings -> kNearInserted.
// LOOKUP:  kNearLookup with the ids of a prompt -> kNearFound. Answers are hints.
// STRIKE:  a donor's text or blocks were not there: kNearStrike, which is not answered.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "proto/block_key.h"
#include "proto/match_key.h"
#include "proto/result_code.h"

namespace kedge {

inline constexpr uint32_t kNearIdsMax = 12'288;     // of one lookup: 96 KiB of a head's 128
inline constexpr uint32_t kNearItemsMax = 256;      // donors of one insert
inline constexpr uint32_t kNearPostingsMax = 8192;  // of one donor
inline constexpr uint32_t kNearDonorsMax = 1024;    // of one answer: 49 KiB
inline constexpr uint32_t kNearHitsMax = 8192;      // likewise: 40 KiB
inline constexpr uint32_t kNearStrikesMax = 1024;
// What an insert's items may take of a head, by near_item_bytes.
inline constexpr uint32_t kNearInsertBytesMax = 96u << 10;

// A span of whole blocks of one chain, where text was seen.
struct NearDonor {
  BlockKey key;            // of the span's last block
  uint64_t placement = 0;  // of that block: its text and, as a rule, its blocks lie there
  uint32_t begin = 0;      // first token of the span in its chain
  uint32_t tokens = 0;     // of the span
  Keyspace keyspace = Keyspace::kPrefix;  // kPrefix or kChunk

  friend bool operator==(const NearDonor&, const NearDonor&) = default;
};

struct NearPosting {
  MatchId id = 0;
  uint8_t hint = 0;  // of a window: the number of its block in the span; else 0

  friend bool operator==(const NearPosting&, const NearPosting&) = default;
};

struct NearHit {
  uint32_t question = 0;  // index of the id that was asked
  uint32_t donor = 0;     // index into the reply's donors
  uint8_t hint = 0;

  friend bool operator==(const NearHit&, const NearHit&) = default;
};

struct NearReply {
  std::vector<NearDonor> donors;  // each once, in the order of their first hits
  std::vector<NearHit> hits;      // by question
};

struct NearInsertItem {
  NearDonor donor;
  std::vector<NearPosting> postings;
};
inline size_t near_item_bytes(const NearInsertItem& item) { return 53 + 9 * item.postings.size(); }

struct NearInsertBody {
  std::vector<NearInsertItem> items;
};

struct NearInsertedBody {
  std::vector<ResultCode> codes;  // by item: kOk, kInvalid (an extent that cannot be), kDenied
                                  // (the node keeps no near index)
};

struct NearLookupBody {
  std::vector<MatchId> ids;
};

// Hits past kNearHitsMax, and those of donors past kNearDonorsMax, are left out and counted.
struct NearFoundBody {
  uint32_t left_out = 0;
  NearReply reply;
};

struct NearStrikeBody {
  std::vector<BlockKey> keys;
};

#define KEDGE_MESSAGE(Name)                                             \
  void Encode##Name(const Name##Body& body, std::vector<uint8_t>& out); \
  absl::Status Decode##Name(std::span<const uint8_t> bytes, Name##Body& body)

KEDGE_MESSAGE(NearInsert);
KEDGE_MESSAGE(NearInserted);
KEDGE_MESSAGE(NearLookup);
KEDGE_MESSAGE(NearFound);
KEDGE_MESSAGE(NearStrike);

#undef KEDGE_MESSAGE

}  // namespace kedge
