// Names of variants as 16-bit numbers, so that an entry of the block map does not carry 48 bytes of
// name.
//
// Grows only: an installation uses a handful of codec chains. Find takes no lock and does not
// allocate; any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "absl/status/statusor.h"
#include "proto/block_header.h"

namespace kedge {

inline constexpr uint16_t kNoVariantId = UINT16_MAX;

class VariantTable {
 public:
  static constexpr uint16_t kNamesMax = 1024;

  // RESOURCE_EXHAUSTED naming the variant when the table is full.
  absl::StatusOr<uint16_t> Intern(const Variant& variant);
  // kNoVariantId when no block ever had it.
  uint16_t Find(const Variant& variant) const;
  // `id` came from Intern or Find.
  const Variant& Name(uint16_t id) const { return names_[id]; }
  uint16_t count() const;

 private:
  static constexpr size_t kPlaces = 2 * kNamesMax;  // open addressing, at most half full
  static size_t PlaceOf(const Variant& variant);

  std::array<Variant, kNamesMax> names_{};
  std::array<std::atomic<uint16_t>, kPlaces>
      places_{};              // id + 1; 0: free. Set after the name is written
  mutable std::mutex mutex_;  // of Intern
  uint16_t count_ = 0;
};

}  // namespace kedge
