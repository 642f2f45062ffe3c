#include "proto/near_messages.h"

#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kDonorBytes = 49;
constexpr uint32_t kPostingBytes = 9;
constexpr uint32_t kHitBytes = 5;

void PutDonor(WireWriter& out, const NearDonor& donor) {
  out.Bytes(donor.key.bytes);
  out.U64(donor.placement);
  out.U32(donor.begin);
  out.U32(donor.tokens);
  out.U8(static_cast<uint8_t>(donor.keyspace));
}

void TakeKey(WireReader& in, const char* field, BlockKey& key) {
  in.Bytes(field, key.bytes);
  if (in.ok() && key.is_zero()) in.Fail(field, "is zero");
}

void TakeDonor(WireReader& in, NearDonor& donor) {
  TakeKey(in, "donor", donor.key);
  donor.placement = in.U64("placement");
  donor.begin = in.U32("begin");
  donor.tokens = in.U32("tokens");
  if (in.ok() && donor.tokens == 0) in.Fail("tokens", "is zero");
  const uint8_t keyspace = in.U8("keyspace");
  if (in.ok() && keyspace != static_cast<uint8_t>(Keyspace::kPrefix) &&
      keyspace != static_cast<uint8_t>(Keyspace::kChunk))
    in.Fail("keyspace", absl::StrCat(keyspace, " is neither prefix 1 nor chunk 2"));
  donor.keyspace = static_cast<Keyspace>(keyspace);
}

}  // namespace

void EncodeNearInsert(const NearInsertBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Count(body.items.size(), kNearItemsMax);
  for (const NearInsertItem& item : body.items) {
    PutDonor(to, item.donor);
    to.Count(item.postings.size(), kNearPostingsMax);
    for (const NearPosting& posting : item.postings) {
      to.U64(posting.id);
      to.U8(posting.hint);
    }
  }
}

absl::Status DecodeNearInsert(std::span<const uint8_t> bytes, NearInsertBody& body) {
  WireReader in("near_insert", bytes);
  body.items.resize(in.Count("items", kNearItemsMax, kDonorBytes + 4));
  for (NearInsertItem& item : body.items) {
    TakeDonor(in, item.donor);
    item.postings.resize(in.Count("postings", kNearPostingsMax, kPostingBytes));
    for (NearPosting& posting : item.postings) {
      posting.id = in.U64("posting_id");
      posting.hint = in.U8("posting_hint");
    }
  }
  return in.Finish();
}

void EncodeNearInserted(const NearInsertedBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Count(body.codes.size(), kNearItemsMax);
  for (const ResultCode code : body.codes) to.U8(static_cast<uint8_t>(code));
}

absl::Status DecodeNearInserted(std::span<const uint8_t> bytes, NearInsertedBody& body) {
  WireReader in("near_inserted", bytes);
  body.codes.resize(in.Count("codes", kNearItemsMax, 1));
  for (ResultCode& code : body.codes) {
    code = static_cast<ResultCode>(in.Enum("code", kResultCodeMax));
  }
  return in.Finish();
}

void EncodeNearLookup(const NearLookupBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Count(body.ids.size(), kNearIdsMax);
  for (const MatchId id : body.ids) to.U64(id);
}

absl::Status DecodeNearLookup(std::span<const uint8_t> bytes, NearLookupBody& body) {
  WireReader in("near_lookup", bytes);
  body.ids.resize(in.Count("ids", kNearIdsMax, sizeof(MatchId)));
  for (MatchId& id : body.ids) id = in.U64("id");
  return in.Finish();
}

void EncodeNearFound(const NearFoundBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U32(body.left_out);
  to.Count(body.reply.donors.size(), kNearDonorsMax);
  for (const NearDonor& donor : body.reply.donors) PutDonor(to, donor);
  to.Count(body.reply.hits.size(), kNearHitsMax);
  for (const NearHit& hit : body.reply.hits) {
    to.U16(static_cast<uint16_t>(hit.question));
    to.U16(static_cast<uint16_t>(hit.donor));
    to.U8(hit.hint);
  }
}

absl::Status DecodeNearFound(std::span<const uint8_t> bytes, NearFoundBody& body) {
  WireReader in("near_found", bytes);
  body.left_out = in.U32("left_out");
  body.reply.donors.resize(in.Count("donors", kNearDonorsMax, kDonorBytes));
  for (NearDonor& donor : body.reply.donors) TakeDonor(in, donor);
  body.reply.hits.resize(in.Count("hits", kNearHitsMax, kHitBytes));
  for (NearHit& hit : body.reply.hits) {
    hit.question = in.U16("question");
    if (in.ok() && hit.question >= kNearIdsMax)
      in.Fail("question", absl::StrCat(hit.question, ": a lookup has ", kNearIdsMax, " at most"));
    hit.donor = in.U16("hit_donor");
    if (in.ok() && hit.donor >= body.reply.donors.size())
      in.Fail("hit_donor", absl::StrCat(hit.donor, " of ", body.reply.donors.size()));
    hit.hint = in.U8("hint");
  }
  return in.Finish();
}

void EncodeNearStrike(const NearStrikeBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Count(body.keys.size(), kNearStrikesMax);
  for (const BlockKey& key : body.keys) to.Bytes(key.bytes);
}

absl::Status DecodeNearStrike(std::span<const uint8_t> bytes, NearStrikeBody& body) {
  WireReader in("near_strike", bytes);
  body.keys.resize(in.Count("keys", kNearStrikesMax, sizeof(BlockKey)));
  for (BlockKey& key : body.keys) TakeKey(in, "key", key);
  return in.Finish();
}

}  // namespace kedge
