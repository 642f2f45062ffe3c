#include "store/block/variant_table.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace kedge {

size_t VariantTable::PlaceOf(const Variant& variant) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const char c : variant.name) {
    if (c == 0) break;
    hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  }
  return (hash ^ (hash >> 32)) % kPlaces;
}

uint16_t VariantTable::Find(const Variant& variant) const {
  for (size_t place = PlaceOf(variant);; place = (place + 1) % kPlaces) {
    const uint16_t id = places_[place].load(std::memory_order_acquire);
    if (id == 0) return kNoVariantId;
    if (names_[id - 1] == variant) return static_cast<uint16_t>(id - 1);
  }
}

absl::StatusOr<uint16_t> VariantTable::Intern(const Variant& variant) {
  if (const uint16_t id = Find(variant); id != kNoVariantId) return id;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const uint16_t id = Find(variant); id != kNoVariantId) return id;
  if (count_ == kNamesMax) {
    return absl::ResourceExhaustedError(absl::StrCat("variant ", std::string(variant.view()),
                                                     ": the node knows ", kNamesMax,
                                                     " variants already"));
  }
  const uint16_t id = count_++;
  names_[id] = variant;
  size_t place = PlaceOf(variant);
  while (places_[place].load(std::memory_order_relaxed) != 0) place = (place + 1) % kPlaces;
  places_[place].store(static_cast<uint16_t>(id + 1), std::memory_order_release);
  return id;
}

uint16_t VariantTable::count() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return count_;
}

}  // namespace kedge
