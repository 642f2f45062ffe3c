// Which record of a key and variant counts: the last one that was put, unless a tombstone came
// after it.
//
// 38 to 75 bytes a block (a flat_hash_map is between 7/16 and 7/8 full): names are kept as seeded
// 128-bit hashes, so that who chooses keys cannot choose collisions. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <xxhash.h>
#include "absl/container/flat_hash_map.h"
#include "proto/block_header.h"
#include "proto/block_key.h"
#include "store/tier/tier_ssd.h"

namespace kedge {

class SsdLiveMap {
 public:
  explicit SsdLiveMap(uint64_t seed) : seed_(seed) {}

  void Put(const BlockKey& key, const Variant& variant, SsdLocation location) {
    const Place place{location.segment, location.page, Tag(variant)};
    const auto [first, inserted] = first_.try_emplace(NameOf(key), place);
    if (inserted || first->second.tag == place.tag) {
      blocks_ += inserted;
      first->second = place;
      return;
    }
    std::vector<Place>& more = more_[first->first];
    const auto same = std::find_if(more.begin(), more.end(),
                                   [&](const Place& other) { return other.tag == place.tag; });
    if (same != more.end()) {
      *same = place;
    } else {
      more.push_back(place);
      ++blocks_;
    }
  }

  void RemoveKey(const BlockKey& key) {
    const Name name = NameOf(key);
    blocks_ -= first_.erase(name);
    const auto more = more_.find(name);
    if (more == more_.end()) return;
    blocks_ -= more->second.size();
    more_.erase(more);
  }

  void RemoveVariant(const BlockKey& key, const Variant& variant) {
    const Name name = NameOf(key);
    const uint32_t tag = Tag(variant);
    const auto first = first_.find(name);
    if (first == first_.end()) return;
    const Place* place = first->second.tag == tag ? &first->second : nullptr;
    if (const auto more = more_.find(name); place == nullptr && more != more_.end()) {
      for (const Place& other : more->second) {
        if (other.tag == tag) place = &other;
      }
    }
    if (place != nullptr) (void)RemoveAt(key, variant, {place->segment, place->page, 0});
  }

  bool IsLive(const BlockKey& key, const Variant& variant, SsdLocation location) const {
    const Place place{location.segment, location.page, Tag(variant)};
    const Name name = NameOf(key);
    const auto first = first_.find(name);
    if (first == first_.end()) return false;
    if (first->second == place) return true;
    const auto more = more_.find(name);
    return more != more_.end() &&
           std::find(more->second.begin(), more->second.end(), place) != more->second.end();
  }

  // Forgets the block if this is its place. True if it was.
  bool RemoveAt(const BlockKey& key, const Variant& variant, SsdLocation location) {
    if (!IsLive(key, variant, location)) return false;
    const Place place{location.segment, location.page, Tag(variant)};
    const auto first = first_.find(NameOf(key));
    const auto more = more_.find(first->first);
    --blocks_;
    if (more == more_.end()) {
      first_.erase(first);
      return true;
    }
    // The other variants stay: one of them moves up.
    std::vector<Place>& others = more->second;
    if (first->second == place) {
      first->second = others.back();
    } else {
      *std::find(others.begin(), others.end(), place) = others.back();
    }
    others.pop_back();
    if (others.empty()) more_.erase(more);
    return true;
  }

  // Forgets all in a segment, by looking at everything: for when the blocks cannot be named.
  void RemoveSegment(uint32_t segment) {
    std::vector<Place> kept;
    for (auto it = first_.begin(); it != first_.end();) {
      const auto more = more_.find(it->first);
      kept.clear();
      if (it->second.segment != segment) kept.push_back(it->second);
      if (more != more_.end()) {
        blocks_ -= more->second.size();
        for (const Place& place : more->second) {
          if (place.segment != segment) kept.push_back(place);
        }
        more_.erase(more);
      }
      --blocks_;
      blocks_ += kept.size();
      const auto at = it++;
      if (kept.empty()) {
        first_.erase(at);
        continue;
      }
      at->second = kept.front();
      if (kept.size() > 1) more_[at->first].assign(kept.begin() + 1, kept.end());
    }
  }

  void Clear() {
    first_.clear();
    more_.clear();
    blocks_ = 0;
  }
  uint64_t blocks() const { return blocks_; }

 private:
  using Name = std::pair<uint64_t, uint64_t>;
  struct Place {
    uint32_t segment = 0;
    uint32_t page = 0;
    uint32_t tag = 0;  // of the variant
    friend bool operator==(const Place&, const Place&) = default;
  };

  Name NameOf(const BlockKey& key) const {
    const XXH128_hash_t hash = XXH3_128bits_withSeed(key.bytes.data(), key.bytes.size(), seed_);
    return {hash.low64, hash.high64};
  }
  uint32_t Tag(const Variant& variant) const {
    return static_cast<uint32_t>(
        XXH3_64bits_withSeed(variant.name.data(), variant.name.size(), seed_));
  }

  const uint64_t seed_;
  absl::flat_hash_map<Name, Place> first_;
  absl::flat_hash_map<Name, std::vector<Place>> more_;  // of the few keys with several variants
  uint64_t blocks_ = 0;
};

}  // namespace kedge
