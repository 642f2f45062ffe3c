// A node's index from match ids (proto/match_key.h) to donors: which spans of which chains hold
// text that looks like this.
//
// A *donor* is a span of whole blocks, named by the key of its last block: of a chunk chain
// (position-free, may be shared) or of a prefix chain (a tenant's own prompts). A *posting* is one
// match id that leads to a donor: a window, a minimizer or a band. The node knows neither tokens
// nor salts: it can tell that two ids are equal and nothing else, so tenants are apart by
// construction.
//
// What a lookup returns is a hint; the client verifies it by the strong key. So postings may be
// lossy in both directions: a full bucket drops its oldest one, and 24 bits of an id are compared
// (with a million donors, 4,096 looked-up windows meet a wrong one once in 500 prompts).
//
// Memory is fixed by the limits. A posting has 8 bytes; eight of them share a cache line, which is
// all that a lookup of one id reads. Erasing a donor frees its record only: the generation in its
// postings is then an old one, and they are the first to be overwritten. Where donors are at their
// limit, the one that goes was not hit for long (CLOCK). LMCache's blend lookup is the model of the
// two strikes.
//
// Not thread-safe: one for each loop (or shard) of a node. Lookup does not allocate beyond its
// reply.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "proto/block_key.h"
#include "proto/match_key.h"
#include "proto/near_messages.h"
#include "store/block/slab.h"

namespace kedge {

struct NearLimits {
  uint32_t donors_max = 1u << 20;
  // Lines are made so that this many postings fill them to five eighths: then about 2% find their
  // line full.
  uint64_t postings_max = 32u << 20;
};

class NearIndex {
 public:
  static constexpr uint32_t kDonorsMax = (1u << 26) - 1;
  // Postings of one id: a text that stands in more donors than this is found through some of them.
  static constexpr uint32_t kPostingsOfIdMax = 4;
  static constexpr uint32_t kStrikesMax = 2;
  static constexpr uint32_t kTokenPositionsMax = 1u << 30;

  // Aborts on limits of zero or donors past kDonorsMax.
  explicit NearIndex(NearLimits limits);

  // InvalidArgument: a zero key, another keyspace, an empty or overflowing extent, or a key that is
  // held with another extent (nothing changes). A donor that is held gets the postings that it
  // lacks.
  absl::Status Insert(const NearDonor& donor, std::span<const NearPosting> postings);
  // The donor's last block was evicted or removed. No effect where it is not held.
  void Erase(const BlockKey& key);
  // Somebody did not find the donor's blocks or text: the second time it is erased.
  void Strike(const BlockKey& key);
  bool Contains(const BlockKey& key) const { return Find(key) != kNoIndex; }

  // Appends nothing but what was found; at most kPostingsOfIdMax hits for each id.
  NearReply Lookup(std::span<const MatchId> ids);

  uint32_t donors() const { return donor_count_; }
  uint64_t donors_evicted() const { return donors_evicted_; }      // for want of room
  uint64_t postings_dropped() const { return postings_dropped_; }  // live ones, of full lines
  // Everything, also what is reserved.
  size_t memory_bytes() const;

 private:
  static constexpr uint32_t kWays = 8;
  struct alignas(64) Line {
    uint64_t ways[kWays] = {};  // newest first; zero: free
  };
  struct Record {
    BlockKey key;
    uint64_t placement = 0;
    uint32_t begin = 0;
    uint32_t tokens = 0;
    uint32_t next = kNoIndex;  // of the same bucket of keys
    Keyspace keyspace = Keyspace::kPrefix;
    uint8_t generation = 0;  // 1 to 63; 0: free
    uint8_t strikes = 0;
    bool hit = false;  // since the hand passed
  };

  uint32_t Find(const BlockKey& key) const;
  uint32_t& Head(const BlockKey& key);
  const uint32_t& Head(const BlockKey& key) const;
  uint32_t AddRecord(const NearDonor& donor);
  void Drop(uint32_t record);
  void EvictOne();
  size_t LineOf(uint64_t mixed) const;
  void Post(uint32_t record, const NearPosting& posting);
  bool Live(uint64_t way) const;

  NearLimits limits_;
  std::vector<Line> lines_;
  Slab<Record> records_;
  std::vector<uint8_t> generations_;   // the last one of every record, also of free ones
  std::vector<uint32_t> heads_;        // records by key
  std::vector<uint32_t> reply_index_;  // scratch of Lookup: record to index in the reply
  uint32_t donor_count_ = 0;
  uint32_t hand_ = 0;
  uint64_t donors_evicted_ = 0;
  uint64_t postings_dropped_ = 0;
};

}  // namespace kedge
