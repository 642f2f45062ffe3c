#include "proto/messages.h"

#include "absl/strings/str_cat.h"
#include "proto/wire.h"

// One Put and one Take for each kind of field group; then one pair of functions for each message,
// in the order of the header. The smallest encoded size of an item bounds every count before memory
// is reserved.

namespace kedge {
namespace {

constexpr uint32_t kMemberBytesMin = 6;
constexpr uint32_t kKeyItemBytes = 40;
constexpr uint32_t kMatchItemBytes = 12;
constexpr uint32_t kGetRequestItemBytes = 48;
constexpr uint32_t kPutBeginItemBytes = 54;
constexpr uint32_t kPutReadyItemBytes = 9;

void PutKey(WireWriter& out, const BlockKey& key) { out.Bytes(key.bytes); }
void TakeKey(WireReader& in, BlockKey& key) { in.Bytes("key", key.bytes); }

void PutVariant(WireWriter& out, const Variant& variant) {
  out.Bytes({reinterpret_cast<const uint8_t*>(variant.name.data()), kVariantBytes});
}

void TakeVariant(WireReader& in, Variant& variant) {
  in.Bytes("variant", {reinterpret_cast<uint8_t*>(variant.name.data()), kVariantBytes});
  if (!in.ok()) return;
  absl::StatusOr<Variant> parsed = Variant::Parse(variant.view());
  if (!parsed.ok()) {
    const absl::string_view why = parsed.status().message();
    in.Fail("variant", std::string_view(why.data(), why.size()));
  } else if (*parsed != variant) {
    in.Fail("variant", "bytes after the name's end are not zero");
  }
}

uint8_t TakeDurability(WireReader& in) {
  const uint8_t durability = in.U8("durability");
  if (durability > kDurabilitySsd && durability != kDurabilityDefault) {
    in.Fail("durability", absl::StrCat("value ", durability, " is none of 0, 1, 255"));
  }
  return durability;
}

void PutCode(WireWriter& out, ResultCode code) { out.U8(static_cast<uint8_t>(code)); }
void TakeCode(WireReader& in, ResultCode& code) {
  code = static_cast<ResultCode>(in.Enum("code", kResultCodeMax));
}

void PutTier(WireWriter& out, TierId tier) { out.U8(static_cast<uint8_t>(tier)); }
void TakeTier(WireReader& in, TierId& tier) {
  tier = static_cast<TierId>(in.Enum("tier", static_cast<uint8_t>(TierId::kSsd)));
}

void PutVariants(WireWriter& out, const std::vector<Variant>& variants) {
  out.Count(variants.size(), kVariantsMax);
  for (const Variant& variant : variants) PutVariant(out, variant);
}

void TakeVariants(WireReader& in, std::vector<Variant>& variants) {
  variants.resize(in.Count("variants", kVariantsMax, kVariantBytes));
  for (Variant& variant : variants) TakeVariant(in, variant);
}

void PutMembers(WireWriter& out, const std::vector<Member>& members) {
  out.Count(members.size(), kMembersMax);
  for (const Member& member : members) {
    out.Text(member.node_id, kTextBytesMax);
    out.Text(member.data_address, kTextBytesMax);
    out.Text(member.control_address, kTextBytesMax);
  }
}

void TakeMembers(WireReader& in, std::vector<Member>& members) {
  members.resize(in.Count("members", kMembersMax, kMemberBytesMin));
  for (Member& member : members) {
    in.Text("node_id", member.node_id, kTextBytesMax);
    in.Text("data_address", member.data_address, kTextBytesMax);
    in.Text("control_address", member.control_address, kTextBytesMax);
  }
}

void PutKeyItems(WireWriter& out, const std::vector<KeyItem>& items) {
  out.Count(items.size(), kBatchItemsMax);
  for (const KeyItem& item : items) {
    PutKey(out, item.key);
    out.U64(item.placement);
  }
}

void TakeKeyItems(WireReader& in, std::vector<KeyItem>& items) {
  items.resize(in.Count("items", kBatchItemsMax, kKeyItemBytes));
  for (KeyItem& item : items) {
    TakeKey(in, item.key);
    item.placement = in.U64("placement");
  }
}

void PutIds(WireWriter& out, const std::vector<uint64_t>& ids) {
  out.Count(ids.size(), kBatchItemsMax);
  for (uint64_t id : ids) out.U64(id);
}

void TakeIds(WireReader& in, const char* field, std::vector<uint64_t>& ids) {
  ids.resize(in.Count(field, kBatchItemsMax, sizeof(uint64_t)));
  for (uint64_t& id : ids) id = in.U64(field);
}

}  // namespace

void EncodeHello(const HelloBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Text(body.client_name, kTextBytesMax);
  to.Text(body.client_version, kTextBytesMax);
}

absl::Status DecodeHello(std::span<const uint8_t> bytes, HelloBody& body) {
  WireReader in("hello", bytes);
  in.Text("client_name", body.client_name, kTextBytesMax);
  in.Text("client_version", body.client_version, kTextBytesMax);
  return in.Finish();
}

void EncodeWelcome(const WelcomeBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.session);
  to.U64(body.epoch);
  to.U32(body.lease_ms_max);
  to.U32(body.put_idle_ms);
  to.U8(body.has_ssd);
  to.Text(body.node_id, kTextBytesMax);
  PutMembers(to, body.members);
}

absl::Status DecodeWelcome(std::span<const uint8_t> bytes, WelcomeBody& body) {
  WireReader in("welcome", bytes);
  body.session = in.U64("session");
  body.epoch = in.U64("epoch");
  body.lease_ms_max = in.U32("lease_ms_max");
  body.put_idle_ms = in.U32("put_idle_ms");
  body.has_ssd = in.Enum("has_ssd", 1);
  in.Text("node_id", body.node_id, kTextBytesMax);
  TakeMembers(in, body.members);
  return in.Finish();
}

void EncodeMatch(const MatchBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U16(body.flags);
  to.U32(body.lease_ms);
  PutVariants(to, body.variants);
  PutKeyItems(to, body.items);
}

absl::Status DecodeMatch(std::span<const uint8_t> bytes, MatchBody& body) {
  WireReader in("match", bytes);
  body.flags = in.U16("flags");
  if ((body.flags & ~(kMatchFlagRun | kMatchFlagLease)) != 0) {
    in.Fail("flags", absl::StrCat("value ", body.flags, " has unknown bits"));
  }
  body.lease_ms = in.U32("lease_ms");
  TakeVariants(in, body.variants);
  TakeKeyItems(in, body.items);
  return in.Finish();
}

void EncodeMatchReply(const MatchReplyBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.lease);
  to.U32(body.lease_ms);
  to.Count(body.items.size(), kBatchItemsMax);
  for (const MatchItem& item : body.items) {
    PutCode(to, item.code);
    PutTier(to, item.tier);
    to.U8(item.variant);
    to.U8(0);
    to.U64(item.payload_bytes);
  }
}

absl::Status DecodeMatchReply(std::span<const uint8_t> bytes, MatchReplyBody& body) {
  WireReader in("match_reply", bytes);
  body.lease = in.U64("lease");
  body.lease_ms = in.U32("lease_ms");
  body.items.resize(in.Count("items", kBatchItemsMax, kMatchItemBytes));
  for (MatchItem& item : body.items) {
    TakeCode(in, item.code);
    TakeTier(in, item.tier);
    item.variant = in.Enum("variant", kVariantsMax - 1);
    in.Zero("reserved");
    item.payload_bytes = in.U64("payload_bytes");
  }
  return in.Finish();
}

void EncodeGet(const GetBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U16(body.part_begin);
  to.U16(body.part_count);
  PutVariants(to, body.variants);
  to.Count(body.items.size(), kBatchItemsMax);
  for (const GetRequestItem& item : body.items) {
    PutKey(to, item.key);
    to.U64(item.placement);
    to.U64(item.capacity_bytes);
  }
}

absl::Status DecodeGet(std::span<const uint8_t> bytes, GetBody& body) {
  WireReader in("get", bytes);
  body.part_begin = in.U16("part_begin");
  body.part_count = in.U16("part_count");
  TakeVariants(in, body.variants);
  body.items.resize(in.Count("items", kBatchItemsMax, kGetRequestItemBytes));
  for (GetRequestItem& item : body.items) {
    TakeKey(in, item.key);
    item.placement = in.U64("placement");
    item.capacity_bytes = in.U64("capacity_bytes");
  }
  return in.Finish();
}

void EncodeGetItem(const GetItemBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U32(body.item);
  PutCode(to, body.code);
  PutTier(to, body.tier);
  to.U64(body.payload_offset);
  to.Blob(body.header, kBlockHeaderBytesMax);
  to.TextCut(body.text, kTextBytesMax);
}

absl::Status DecodeGetItem(std::span<const uint8_t> bytes, GetItemBody& body) {
  WireReader in("get_item", bytes);
  body.item = in.U32("item");
  TakeCode(in, body.code);
  TakeTier(in, body.tier);
  body.payload_offset = in.U64("payload_offset");
  body.header = in.Blob("header", kBlockHeaderBytesMax);
  if (in.ok() && (body.code == ResultCode::kOk) == body.header.empty()) {
    in.Fail("header",
            absl::StrCat(body.header.size(), " bytes with code ", ResultCodeName(body.code)));
  }
  in.Text("text", body.text, kTextBytesMax);
  return in.Finish();
}

void EncodeChunk(const ChunkBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.target);
  to.U64(body.offset);
}

absl::Status DecodeChunk(std::span<const uint8_t> bytes, ChunkBody& body) {
  WireReader in("chunk", bytes);
  body.target = in.U64("target");
  body.offset = in.U64("offset");
  return in.Finish();
}

void EncodePutBegin(const PutBeginBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  PutVariant(to, body.variant);
  to.U8(body.durability);
  to.Count(body.items.size(), kBatchItemsMax);
  for (const PutBeginItem& item : body.items) {
    PutKey(to, item.key);
    to.U64(item.placement);
    to.U64(item.payload_bytes);
    to.U16(item.part_count);
    to.U32(item.part_bytes);
  }
}

absl::Status DecodePutBegin(std::span<const uint8_t> bytes, PutBeginBody& body) {
  WireReader in("put_begin", bytes);
  TakeVariant(in, body.variant);
  body.durability = TakeDurability(in);
  body.items.resize(in.Count("items", kBatchItemsMax, kPutBeginItemBytes));
  for (PutBeginItem& item : body.items) {
    TakeKey(in, item.key);
    item.placement = in.U64("placement");
    item.payload_bytes = in.U64("payload_bytes");
    item.part_count = in.U16("part_count");
    item.part_bytes = in.U32("part_bytes");
  }
  return in.Finish();
}

void EncodePutReady(const PutReadyBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Count(body.items.size(), kBatchItemsMax);
  for (const PutReadyItem& item : body.items) {
    PutCode(to, item.code);
    to.U64(item.slot);
  }
}

absl::Status DecodePutReady(std::span<const uint8_t> bytes, PutReadyBody& body) {
  WireReader in("put_ready", bytes);
  body.items.resize(in.Count("items", kBatchItemsMax, kPutReadyItemBytes));
  for (PutReadyItem& item : body.items) {
    TakeCode(in, item.code);
    item.slot = in.U64("slot");
  }
  return in.Finish();
}

void EncodePutCommit(const PutCommitBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.slot);
  to.U8(body.durability);
  to.Blob(body.header, kBlockHeaderBytesMax);
}

absl::Status DecodePutCommit(std::span<const uint8_t> bytes, PutCommitBody& body) {
  WireReader in("put_commit", bytes);
  body.slot = in.U64("slot");
  body.durability = TakeDurability(in);
  body.header = in.Blob("header", kBlockHeaderBytesMax);
  return in.Finish();
}

void EncodePutDone(const PutDoneBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.U64(body.slot);
  PutCode(to, body.code);
  to.TextCut(body.text, kTextBytesMax);
}

absl::Status DecodePutDone(std::span<const uint8_t> bytes, PutDoneBody& body) {
  WireReader in("put_done", bytes);
  body.slot = in.U64("slot");
  TakeCode(in, body.code);
  in.Text("text", body.text, kTextBytesMax);
  return in.Finish();
}

void EncodePutAbort(const PutAbortBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  PutIds(to, body.slots);
}

absl::Status DecodePutAbort(std::span<const uint8_t> bytes, PutAbortBody& body) {
  WireReader in("put_abort", bytes);
  TakeIds(in, "slots", body.slots);
  return in.Finish();
}

void EncodeRemove(const RemoveBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  PutKeyItems(to, body.items);
}

absl::Status DecodeRemove(std::span<const uint8_t> bytes, RemoveBody& body) {
  WireReader in("remove", bytes);
  TakeKeyItems(in, body.items);
  return in.Finish();
}

void EncodeRemoveReply(const RemoveReplyBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  to.Count(body.codes.size(), kBatchItemsMax);
  for (ResultCode code : body.codes) PutCode(to, code);
}

absl::Status DecodeRemoveReply(std::span<const uint8_t> bytes, RemoveReplyBody& body) {
  WireReader in("remove_reply", bytes);
  body.codes.resize(in.Count("codes", kBatchItemsMax, 1));
  for (ResultCode& code : body.codes) TakeCode(in, code);
  return in.Finish();
}

void EncodeRelease(const ReleaseBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  PutIds(to, body.leases);
}

absl::Status DecodeRelease(std::span<const uint8_t> bytes, ReleaseBody& body) {
  WireReader in("release", bytes);
  TakeIds(in, "leases", body.leases);
  return in.Finish();
}

void EncodeError(const ErrorBody& body, std::vector<uint8_t>& out) {
  WireWriter to(out);
  PutCode(to, body.code);
  to.U64(body.epoch);
  to.TextCut(body.text, kTextBytesMax);
  PutMembers(to, body.members);
}

absl::Status DecodeError(std::span<const uint8_t> bytes, ErrorBody& body) {
  WireReader in("error", bytes);
  TakeCode(in, body.code);
  body.epoch = in.U64("epoch");
  in.Text("text", body.text, kTextBytesMax);
  TakeMembers(in, body.members);
  return in.Finish();
}

}  // namespace kedge
