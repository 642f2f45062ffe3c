#include "proto/messages.h"

#include <gtest/gtest.h>

#include "proto/frame.h"
#include "proto/wire.h"

namespace kedge {
namespace {

using Bytes = std::vector<uint8_t>;

BlockKey Key(uint8_t fill) {
  BlockKey key;
  key.bytes.fill(fill);
  return key;
}

std::vector<Member> Members() {
  return {{"node-a", "tcp://10.0.0.1:7000", "10.0.0.1:7001"}, {"node-b", "shm://localhost:1", ""}};
}

// Decodes what `encode` makes of `body`: the second encoding must be the same bytes. Every
// truncation and one byte too many must fail, and decoding into a used struct must leave nothing of
// its past.
template <typename Body>
Body RoundTrip(const Body& body, void (*encode)(const Body&, Bytes&),
               absl::Status (*decode)(std::span<const uint8_t>, Body&), Body used = {}) {
  Bytes bytes = {0xaa};  // encoders append
  encode(body, bytes);
  EXPECT_EQ(bytes[0], 0xaa);
  bytes.erase(bytes.begin());
  for (size_t size = 0; size < bytes.size(); ++size) {
    Body partial;
    const Bytes cut(bytes.begin(),
                    bytes.begin() + size);  // a buffer of its own: overreads are seen
    EXPECT_EQ(decode(cut, partial).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  Bytes longer = bytes;
  longer.push_back(0);
  Body excess;
  EXPECT_FALSE(decode(longer, excess).ok());
  const absl::Status status = decode(bytes, used);
  EXPECT_TRUE(status.ok()) << status;
  Bytes again;
  encode(used, again);
  EXPECT_EQ(again, bytes);
  return used;
}

TEST(Messages, Hello) {
  const auto body =
      RoundTrip<HelloBody>({"client", "1.2"}, EncodeHello, DecodeHello, {"longer name", "old"});
  EXPECT_EQ(body.client_name, "client");
  EXPECT_EQ(body.client_version, "1.2");
}

TEST(Messages, Welcome) {
  WelcomeBody body{
      .session = 7, .epoch = 8, .node_id = "n", .lease_ms_max = 9, .put_idle_ms = 10, .has_ssd = 1};
  body.members = Members();
  WelcomeBody used;
  used.members.resize(5);
  used = RoundTrip(body, EncodeWelcome, DecodeWelcome, used);
  ASSERT_EQ(used.members.size(), 2u);
  EXPECT_EQ(used.members[1].data_address, "shm://localhost:1");
  EXPECT_EQ(used.has_ssd, 1);
}

TEST(Messages, MatchAndReply) {
  MatchBody match{.flags = kMatchFlagRun | kMatchFlagLease, .lease_ms = 500};
  match.variants = {Variant::Raw(), *Variant::Parse("kivi4g32")};
  match.items = {{Key(1), 11}, {Key(2), 22}};
  const MatchBody decoded = RoundTrip(match, EncodeMatch, DecodeMatch);
  EXPECT_EQ(decoded.variants[1].view(), "kivi4g32");
  EXPECT_EQ(decoded.items[1].key, Key(2));
  EXPECT_EQ(decoded.items[1].placement, 22u);

  MatchReplyBody reply{.lease = 3, .lease_ms = 400};
  reply.items = {{ResultCode::kOk, TierId::kHost, 1, 4096}, {}};
  const MatchReplyBody answered = RoundTrip(reply, EncodeMatchReply, DecodeMatchReply);
  EXPECT_EQ(answered.items[0].payload_bytes, 4096u);
  EXPECT_EQ(answered.items[1].code, ResultCode::kAbsent);
}

TEST(Messages, GetAndItem) {
  GetBody get{.part_begin = 2, .part_count = 4};
  get.items = {{Key(1), 5, 1 << 20}};
  EXPECT_EQ(RoundTrip(get, EncodeGet, DecodeGet).items[0].capacity_bytes, 1u << 20);

  const Bytes header = {1, 2, 3};
  GetItemBody item{.item = 6,
                   .code = ResultCode::kOk,
                   .tier = TierId::kSsd,
                   .payload_offset = 99,
                   .header = header};
  EXPECT_EQ(RoundTrip(item, EncodeGetItem, DecodeGetItem).payload_offset, 99u);
  GetItemBody miss{.item = 6, .code = ResultCode::kEvicted, .text = "evicted 3 s ago"};
  EXPECT_EQ(RoundTrip(miss, EncodeGetItem, DecodeGetItem).text, "evicted 3 s ago");
}

TEST(Messages, GetItemHeaderGoesWithOkOnly) {
  const Bytes header = {1};
  Bytes bytes;
  EncodeGetItem({.code = ResultCode::kAbsent, .header = header}, bytes);
  GetItemBody body;
  EXPECT_EQ(DecodeGetItem(bytes, body).message(), "get_item.header: 1 bytes with code absent");
  bytes.clear();
  EncodeGetItem({.code = ResultCode::kOk}, bytes);
  EXPECT_EQ(DecodeGetItem(bytes, body).message(), "get_item.header: 0 bytes with code ok");
}

TEST(Messages, PutSequence) {
  PutBeginBody begin{.variant = Variant::Raw(), .durability = kDurabilitySsd};
  begin.items = {{Key(3), 1, 65536, 8, 8192}, {Key(4), 2, 0, 1}};
  EXPECT_EQ(RoundTrip(begin, EncodePutBegin, DecodePutBegin).items[0].part_bytes, 8192u);
  EXPECT_EQ(RoundTrip(begin, EncodePutBegin, DecodePutBegin).durability, kDurabilitySsd);
  EXPECT_EQ(RoundTrip(begin, EncodePutBegin, DecodePutBegin).items[0].part_count, 8);
  PutReadyBody ready;
  ready.items = {{ResultCode::kOk, 17}, {ResultCode::kExists, 0}};
  EXPECT_EQ(RoundTrip(ready, EncodePutReady, DecodePutReady).items[0].slot, 17u);
  EXPECT_EQ(RoundTrip<ChunkBody>({17, 4096}, EncodeChunk, DecodeChunk).offset, 4096u);
  const Bytes header = {9, 9};
  for (uint8_t durability : {kDurabilityHost, kDurabilitySsd, kDurabilityDefault}) {
    EXPECT_EQ(RoundTrip<PutCommitBody>({17, durability, header}, EncodePutCommit, DecodePutCommit)
                  .durability,
              durability);
  }
  EXPECT_EQ(
      RoundTrip<PutDoneBody>({17, ResultCode::kMismatch, "part 3"}, EncodePutDone, DecodePutDone)
          .text,
      "part 3");
  EXPECT_EQ(RoundTrip<PutAbortBody>({{1, 2, 3}}, EncodePutAbort, DecodePutAbort).slots.size(), 3u);
}

TEST(Messages, RemoveReleaseError) {
  RemoveBody remove;
  remove.items = {{Key(5), 6}};
  EXPECT_EQ(RoundTrip(remove, EncodeRemove, DecodeRemove).items[0].placement, 6u);
  RemoveReplyBody reply;
  reply.codes = {ResultCode::kOk, ResultCode::kAbsent};
  EXPECT_EQ(RoundTrip(reply, EncodeRemoveReply, DecodeRemoveReply).codes, reply.codes);
  EXPECT_EQ(RoundTrip<ReleaseBody>({{4}}, EncodeRelease, DecodeRelease).leases[0], 4u);
  ErrorBody error{.code = ResultCode::kStaleEpoch, .text = "old", .epoch = 5};
  error.members = Members();
  EXPECT_EQ(RoundTrip(error, EncodeError, DecodeError).members[0].node_id, "node-a");
}

TEST(Messages, FullBatchesFitAHead) {
  const std::vector<Variant> variants(kVariantsMax, Variant::Raw());
  GetBody get;
  get.variants = variants;
  get.items.resize(kBatchItemsMax);
  PutBeginBody put{.variant = Variant::Raw()};
  put.items.resize(kBatchItemsMax);
  const Bytes header(kBlockHeaderBytesMax);
  for (const Bytes& bytes : {[&] {
                               Bytes b;
                               EncodeGet(get, b);
                               return b;
                             }(),
                             [&] {
                               Bytes b;
                               EncodePutBegin(put, b);
                               return b;
                             }(),
                             [&] {
                               Bytes b;
                               EncodePutCommit({.header = header}, b);
                               return b;
                             }()}) {
    EXPECT_LE(FrameHeadBytes(kTlvBytesMax, static_cast<uint32_t>(bytes.size())), kHeadBytesMax);
  }
}

TEST(Messages, HostileCountsReserveNothing) {
  const auto error = [](auto decode, auto body, Bytes bytes) {
    return std::string(decode(bytes, body).message());
  };
  const Bytes huge = {0xff, 0xff, 0xff, 0xff};
  EXPECT_EQ(error(DecodeRemove, RemoveBody{}, huge),
            "remove.items: count 4294967295 passes the limit of 1024");
  EXPECT_EQ(error(DecodePutAbort, PutAbortBody{}, huge),
            "put_abort.slots: count 4294967295 passes the limit of 1024");
  EXPECT_EQ(error(DecodeRelease, ReleaseBody{}, {0, 4, 0, 0}),
            "release.leases: count 1024 needs 8192 bytes, 0 are left");
  EXPECT_EQ(error(DecodeRemoveReply, RemoveReplyBody{}, {1, 0, 0, 0, 17}),
            "remove_reply.code: value 17 is unknown, the largest is 16");
}

TEST(Messages, BadValuesAreNamed) {
  Bytes bytes;
  EncodeMatch({.flags = 0}, bytes);
  bytes[0] = 8;
  MatchBody match;
  EXPECT_EQ(DecodeMatch(bytes, match).message(), "match.flags: value 8 has unknown bits");

  bytes.clear();
  EncodePutBegin({.variant = Variant::Raw()}, bytes);
  bytes[1] = ' ';
  PutBeginBody begin;
  EXPECT_NE(DecodePutBegin(bytes, begin).message().find("put_begin.variant: variant: \"r w\""),
            std::string::npos);
  bytes[1] = 'a';
  bytes[40] = 'x';
  EXPECT_EQ(DecodePutBegin(bytes, begin).message(),
            "put_begin.variant: bytes after the name's end are not zero");

  bytes.clear();
  EncodePutCommit({.durability = 0}, bytes);
  bytes[8] = 2;
  PutCommitBody commit;
  EXPECT_EQ(DecodePutCommit(bytes, commit).message(),
            "put_commit.durability: value 2 is none of 0, 1, 255");

  bytes.clear();
  MatchReplyBody reply;
  reply.items.resize(1);
  EncodeMatchReply(reply, bytes);
  bytes[16 + 2] = 8;
  EXPECT_EQ(DecodeMatchReply(bytes, reply).message(),
            "match_reply.variant: value 8 is unknown, the largest is 7");
}

TEST(Messages, DecodingIntoAUsedBodyKeepsItsMemory) {
  GetBody get;
  get.items.resize(100);
  Bytes bytes;
  EncodeGet(get, bytes);
  GetBody used;
  ASSERT_TRUE(DecodeGet(bytes, used).ok());
  const GetRequestItem* before = used.items.data();
  ASSERT_TRUE(DecodeGet(bytes, used).ok());
  EXPECT_EQ(used.items.data(), before);
}

TEST(Messages, LongErrorTextsAreCut) {
  Bytes bytes;
  EncodeError({.text = std::string(5000, 'e')}, bytes);
  ErrorBody body;
  ASSERT_TRUE(DecodeError(bytes, body).ok());
  EXPECT_EQ(body.text, std::string(kTextBytesMax, 'e'));
}

TEST(MessagesDeathTest, EncodingPastALimitAborts) {
  RemoveBody body;
  body.items.resize(kBatchItemsMax + 1);
  Bytes bytes;
  EXPECT_DEATH(EncodeRemove(body, bytes), "more items");
}

}  // namespace
}  // namespace kedge
