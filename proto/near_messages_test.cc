#include "proto/near_messages.h"

#include <gtest/gtest.h>

#include <string>

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
NearDonor Donor(uint8_t fill) { return {Key(fill), 11, 256, 128, Keyspace::kChunk}; }

// The second encoding is the same bytes; every truncation and one byte too many fail.
template <typename Body>
Body RoundTrip(const Body& body, void (*encode)(const Body&, Bytes&),
               absl::Status (*decode)(std::span<const uint8_t>, Body&)) {
  Bytes bytes;
  encode(body, bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    Body partial;
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_EQ(decode(cut, partial).code(), absl::StatusCode::kInvalidArgument) << size;
  }
  Body used;
  const absl::Status status = decode(bytes, used);
  EXPECT_TRUE(status.ok()) << status;
  Bytes again;
  encode(used, again);
  EXPECT_EQ(again, bytes);
  bytes.push_back(0);
  EXPECT_FALSE(decode(bytes, used).ok());
  return used;
}

// What is said when the byte at `offset` is another one.
template <typename Body>
std::string ErrorOf(const Body& body, size_t offset, uint8_t value,
                    void (*encode)(const Body&, Bytes&),
                    absl::Status (*decode)(std::span<const uint8_t>, Body&)) {
  Bytes bytes;
  encode(body, bytes);
  bytes.at(offset) = value;
  Body decoded;
  return std::string(decode(bytes, decoded).message());
}

TEST(NearMessages, RoundTrips) {
  const NearInsertBody insert{{{Donor(1), {{5, 3}, {6, 0}}}, {Donor(2), {}}}};
  EXPECT_EQ(RoundTrip(insert, EncodeNearInsert, DecodeNearInsert).items[0].postings,
            insert.items[0].postings);
  Bytes bytes;
  EncodeNearInsert(insert, bytes);
  EXPECT_EQ(bytes.size(), 4 + near_item_bytes(insert.items[0]) + near_item_bytes(insert.items[1]));
  RoundTrip(NearInsertedBody{{ResultCode::kOk, ResultCode::kDenied}}, EncodeNearInserted,
            DecodeNearInserted);
  EXPECT_EQ(RoundTrip(NearLookupBody{{5, 9, 6}}, EncodeNearLookup, DecodeNearLookup).ids.size(),
            3u);
  const NearFoundBody found{4, {{Donor(1)}, {{0, 0, 3}, {2, 0, 0}}}};
  EXPECT_EQ(RoundTrip(found, EncodeNearFound, DecodeNearFound).reply.donors[0], Donor(1));
  RoundTrip(NearStrikeBody{{Key(1), Key(2)}}, EncodeNearStrike, DecodeNearStrike);
}

TEST(NearMessages, TheLongestFitAHead) {
  NearLookupBody lookup;
  lookup.ids.resize(kNearIdsMax);
  NearFoundBody found;
  found.reply.donors.assign(kNearDonorsMax, Donor(1));
  found.reply.hits.resize(kNearHitsMax);
  NearStrikeBody strike;
  strike.keys.assign(kNearStrikesMax, Key(1));
  Bytes bytes;
  EncodeNearLookup(lookup, bytes);
  EXPECT_LE(bytes.size() + 1024, kHeadBytesMax);
  bytes.clear();
  EncodeNearFound(found, bytes);
  EXPECT_LE(bytes.size() + 1024, kHeadBytesMax);
  bytes.clear();
  EncodeNearStrike(strike, bytes);
  EXPECT_LE(bytes.size() + 1024, kHeadBytesMax);
  EXPECT_LE(kNearInsertBytesMax + 1024, kHeadBytesMax);
  EXPECT_LE(near_item_bytes({Donor(1), std::vector<NearPosting>(kNearPostingsMax)}),
            kNearInsertBytesMax);
}

TEST(NearMessages, LiesAreNamed) {
  const NearInsertBody insert{{{Donor(1), {{5, 3}}}}};
  const auto in_insert = [&](size_t offset, uint8_t value) {
    return ErrorOf(insert, offset, value, EncodeNearInsert, DecodeNearInsert);
  };
  EXPECT_EQ(in_insert(4 + 48, 3), "near_insert.keyspace: 3 is neither prefix 1 nor chunk 2");
  EXPECT_EQ(in_insert(4 + 44, 0), "near_insert.tokens: is zero");
  EXPECT_NE(in_insert(3, 200).find("near_insert.items"), std::string::npos);
  EXPECT_NE(in_insert(4 + 49 + 3, 200).find("near_insert.postings"), std::string::npos);
  const NearFoundBody found{0, {{Donor(1)}, {{2, 0, 3}}}};
  const auto in_found = [&](size_t offset, uint8_t value) {
    return ErrorOf(found, offset, value, EncodeNearFound, DecodeNearFound);
  };
  const size_t hits = 4 + 4 + 49 + 4;
  EXPECT_EQ(in_found(hits + 2, 1), "near_found.hit_donor: 1 of 1");
  EXPECT_EQ(in_found(hits + 1, 0xff), "near_found.question: 65282: a lookup has 12288 at most");
  NearStrikeBody strike{{BlockKey{}}};
  EXPECT_EQ(ErrorOf(strike, 0, 1, EncodeNearStrike, DecodeNearStrike), "near_strike.key: is zero");
}

}  // namespace
}  // namespace kedge
