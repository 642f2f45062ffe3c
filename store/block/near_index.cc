#include "store/block/near_index.h"

#include <algorithm>
#include <bit>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// A way of a line, from the low end: tag 24 bits, hint 8, record 26, generation 6.
constexpr uint32_t kTagBits = 24;
constexpr uint32_t kHintBits = 8;
constexpr uint32_t kRecordBits = 26;
constexpr uint64_t kTagMask = (uint64_t{1} << kTagBits) - 1;
constexpr uint8_t kGenerationMax = 63;
// Lines are read this many ids ahead.
constexpr size_t kAhead = 24;

uint64_t MakeWay(uint64_t tag, uint8_t hint, uint32_t record, uint8_t generation) {
  return tag | static_cast<uint64_t>(hint) << kTagBits |
         static_cast<uint64_t>(record) << (kTagBits + kHintBits) |
         static_cast<uint64_t>(generation) << (kTagBits + kHintBits + kRecordBits);
}
uint64_t TagOf(uint64_t way) { return way & kTagMask; }
uint8_t HintOf(uint64_t way) { return static_cast<uint8_t>(way >> kTagBits); }
uint32_t RecordOf(uint64_t way) {
  return static_cast<uint32_t>(way >> (kTagBits + kHintBits)) & NearIndex::kDonorsMax;
}
uint8_t GenerationOf(uint64_t way) {
  return static_cast<uint8_t>(way >> (kTagBits + kHintBits + kRecordBits));
}

// Ids of one node agree in the bits that chose the node: all bits are mixed before line and tag are
// taken from them (finalizer of MurmurHash3).
uint64_t Mix(uint64_t value) {
  value = (value ^ value >> 33) * 0xff51afd7ed558ccd;
  value = (value ^ value >> 33) * 0xc4ceb9fe1a85ec53;
  return value ^ value >> 33;
}

absl::Status CheckDonor(const NearDonor& donor) {
  if (donor.key.is_zero()) return absl::InvalidArgumentError("donor.key: is zero");
  if (donor.keyspace != Keyspace::kPrefix && donor.keyspace != Keyspace::kChunk) {
    return absl::InvalidArgumentError(
        absl::StrCat("donor.keyspace: ", static_cast<int>(donor.keyspace)));
  }
  if (donor.tokens == 0 || donor.tokens > NearIndex::kTokenPositionsMax ||
      donor.begin > NearIndex::kTokenPositionsMax - donor.tokens) {
    return absl::InvalidArgumentError(absl::StrCat("donor.tokens: ", donor.tokens, " from ",
                                                   donor.begin, " are not inside 1 to ",
                                                   NearIndex::kTokenPositionsMax));
  }
  return absl::OkStatus();
}

}  // namespace

NearIndex::NearIndex(NearLimits limits) : limits_(limits) {
  ABSL_RAW_CHECK(limits.donors_max > 0 && limits.donors_max <= kDonorsMax &&
                     limits.postings_max > 0 && limits.postings_max < (uint64_t{1} << 34),
                 "limits of a near index");
  lines_.resize(limits.postings_max / 5 + 1);
  heads_.assign(std::bit_ceil(limits.donors_max), kNoIndex);
}

const uint32_t& NearIndex::Head(const BlockKey& key) const {
  return heads_[std::hash<BlockKey>()(key) & (heads_.size() - 1)];
}
uint32_t& NearIndex::Head(const BlockKey& key) {
  return heads_[std::hash<BlockKey>()(key) & (heads_.size() - 1)];
}

uint32_t NearIndex::Find(const BlockKey& key) const {
  uint32_t at = Head(key);
  while (at != kNoIndex && records_[at].key != key) at = records_[at].next;
  return at;
}

size_t NearIndex::LineOf(uint64_t mixed) const {
  // The upper 40 bits; the tag is the lower 24.
  return static_cast<size_t>(static_cast<unsigned __int128>(mixed >> kTagBits) * lines_.size() >>
                             (64 - kTagBits));
}

bool NearIndex::Live(uint64_t way) const {
  return way != 0 && records_[RecordOf(way)].generation == GenerationOf(way);
}

uint32_t NearIndex::AddRecord(const NearDonor& donor) {
  if (donor_count_ == limits_.donors_max) EvictOne();
  const uint32_t at = records_.Add();
  if (at >= generations_.size()) {
    generations_.resize(at + 1);
    reply_index_.resize(at + 1, kNoIndex);
  }
  generations_[at] = generations_[at] % kGenerationMax + 1;
  uint32_t& head = Head(donor.key);
  records_[at] = Record{.key = donor.key,
                        .placement = donor.placement,
                        .begin = donor.begin,
                        .tokens = donor.tokens,
                        .next = head,
                        .keyspace = donor.keyspace,
                        .generation = generations_[at]};
  head = at;
  ++donor_count_;
  return at;
}

void NearIndex::Drop(uint32_t record) {
  uint32_t* link = &Head(records_[record].key);
  while (*link != record) link = &records_[*link].next;
  *link = records_[record].next;
  records_[record] = Record{};
  records_.Free(record);
  --donor_count_;
}

void NearIndex::EvictOne() {
  // Ends: after one round of the hand no record is marked as hit.
  for (;; ++hand_) {
    if (hand_ >= records_.end()) hand_ = 0;
    Record& record = records_[hand_];
    if (record.generation == 0) continue;
    if (!record.hit) break;
    record.hit = false;
  }
  Drop(hand_++);
  ++donors_evicted_;
}

absl::Status NearIndex::Insert(const NearDonor& donor, std::span<const NearPosting> postings) {
  if (absl::Status status = CheckDonor(donor); !status.ok()) return status;
  uint32_t at = Find(donor.key);
  if (at == kNoIndex) {
    at = AddRecord(donor);
  } else if (const Record& held = records_[at];
             held.begin != donor.begin || held.tokens != donor.tokens ||
             held.keyspace != donor.keyspace || held.placement != donor.placement) {
    return absl::InvalidArgumentError(absl::StrCat(
        "donor.tokens: ", donor.tokens, " from ", donor.begin, " differ from the ", held.tokens,
        " from ", held.begin, " that are held under ", donor.key.ToHex()));
  }
  for (size_t i = 0; i < postings.size(); ++i) {
    if (i + kAhead < postings.size()) {
      __builtin_prefetch(&lines_[LineOf(Mix(postings[i + kAhead].id))], 1);
    }
    Post(at, postings[i]);
  }
  return absl::OkStatus();
}

void NearIndex::Post(uint32_t record, const NearPosting& posting) {
  const uint64_t mixed = Mix(posting.id);
  uint64_t* ways = lines_[LineOf(mixed)].ways;
  const uint64_t made =
      MakeWay(mixed & kTagMask, posting.hint, record, records_[record].generation);
  uint32_t same = 0;
  uint32_t last_same = kWays;
  for (uint32_t i = 0; i < kWays; ++i) {
    if (ways[i] == 0 || TagOf(ways[i]) != TagOf(made)) continue;
    // A donor that repeats a text is found through its first place.
    if (RecordOf(ways[i]) == record && Live(ways[i])) return;
    ++same;
    last_same = i;
  }
  uint32_t victim = kWays;
  if (same >= kPostingsOfIdMax) {
    victim = last_same;
  } else {
    for (uint32_t i = 0; i < kWays && victim == kWays; ++i) {
      if (ways[i] == 0) victim = i;
    }
    for (uint32_t i = kWays; i-- > 0 && victim == kWays;) {
      if (!Live(ways[i])) victim = i;
    }
    if (victim == kWays) victim = kWays - 1;
  }
  postings_dropped_ += Live(ways[victim]);
  std::copy_backward(ways, ways + victim, ways + victim + 1);
  ways[0] = made;
}

void NearIndex::Erase(const BlockKey& key) {
  if (const uint32_t at = Find(key); at != kNoIndex) Drop(at);
}

void NearIndex::Strike(const BlockKey& key) {
  const uint32_t at = Find(key);
  if (at != kNoIndex && ++records_[at].strikes >= kStrikesMax) Drop(at);
}

NearReply NearIndex::Lookup(std::span<const MatchId> ids) {
  NearReply reply;
  std::vector<uint32_t> touched;
  const auto prefetch = [&](size_t i) { __builtin_prefetch(&lines_[LineOf(Mix(ids[i]))]); };
  for (size_t i = 0; i < std::min(kAhead, ids.size()); ++i) prefetch(i);
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i + kAhead < ids.size()) prefetch(i + kAhead);
    const uint64_t mixed = Mix(ids[i]);
    for (const uint64_t way : lines_[LineOf(mixed)].ways) {
      if (TagOf(way) != (mixed & kTagMask) || !Live(way)) continue;
      const uint32_t at = RecordOf(way);
      if (reply_index_[at] == kNoIndex) {
        Record& record = records_[at];
        record.hit = true;
        reply_index_[at] = static_cast<uint32_t>(reply.donors.size());
        touched.push_back(at);
        reply.donors.push_back(
            {record.key, record.placement, record.begin, record.tokens, record.keyspace});
      }
      reply.hits.push_back({static_cast<uint32_t>(i), reply_index_[at], HintOf(way)});
    }
  }
  for (uint32_t at : touched) reply_index_[at] = kNoIndex;
  return reply;
}

size_t NearIndex::memory_bytes() const {
  return lines_.capacity() * sizeof(Line) + records_.memory_bytes() + generations_.capacity() +
         (heads_.capacity() + reply_index_.capacity()) * sizeof(uint32_t);
}

}  // namespace kedge
