#include "store/tier/tier_host.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <tuple>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "store/tier/size_class.h"
#include "store/world/memory.h"

namespace kedge {
namespace {

constexpr uint32_t kNone = ~0u;

// Of slots in use `owner` is the caller's; of free ones it is the number of the next free slot.
struct SlotEntry {
  uint64_t owner = 0;
  bool in_use = false;
};

// Instead of a size class:
constexpr int kFree = -1;
constexpr int kRow = -2;  // the first of several extents that are one slot
constexpr int kRestOfRow = -3;

struct Extent {
  int size_class = kFree;
  int last_class = kFree;       // the class it has or had
  uint32_t row = 1;             // extents of a kRow
  uint64_t taken = 0;           // when it got its class: a number that grows
  uint32_t used = 0;            // slots in use
  uint32_t first_free = kNone;  // of the slots that were freed
  uint32_t next = kNone;        // in the list of its class, or in the free list
  uint32_t previous = kNone;
  std::vector<SlotEntry>
      slots;  // those handed out since it got its class; the ones behind them are free too
};

class ArenaHostTier final : public HostTier {
 public:
  ArenaHostTier(std::unique_ptr<MemoryArena> arena, uint64_t extent_bytes)
      : extent_bytes_(extent_bytes),
        extent_pages_(static_cast<uint32_t>(extent_bytes / kDiskPageBytes)),
        classes_(extent_pages_),
        arena_(std::move(arena)),
        extents_(arena_->bytes() / extent_bytes),
        open_(classes_.count(), kNone) {
    for (uint32_t i = extents_.size(); i-- > 0;) Push(free_, i);
    free_extents_ = extents_.size();
  }

  absl::StatusOr<HostSlot> Allocate(uint64_t bytes, uint64_t owner) override {
    if (bytes == 0 || bytes > kHostExtentBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("host slot: bytes=", bytes, " is not in [1, ", kHostExtentBytes, "]"));
    }
    if (bytes > extent_bytes_) return AllocateRow(RowOf(bytes), owner);
    const int size_class = ClassOf(bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    uint32_t number = open_[size_class];
    if (number == kNone) {
      number = free_;
      if (number == kNone) return Refuse();
      TakeExtent(number, size_class);
    }
    Extent& extent = extents_[number];
    const uint32_t slot = TakeSlot(extent);
    extent.slots[slot] = SlotEntry{owner, true};
    if (extent.used == classes_.slots_per_extent(size_class)) Unlink(open_[size_class], number);
    used_pages_ += classes_.pages(size_class);
    return HostSlot{number * extent_pages_ + slot * classes_.pages(size_class) + 1};
  }

  void Free(HostSlot slot) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto [number, index] = Find(slot);
    Extent& extent = extents_[number];
    const int size_class = extent.size_class;
    if (size_class == kRow) return FreeRow(number);
    const bool was_full = extent.used == classes_.slots_per_extent(size_class);
    extent.slots[index] = SlotEntry{extent.first_free, false};
    extent.first_free = index;
    --extent.used;
    used_pages_ -= classes_.pages(size_class);
    if (was_full) Push(open_[size_class], number);
    if (extent.used == 0) ReturnExtent(number);
  }

  void SetOwner(HostSlot slot, uint64_t owner) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto [number, index] = Find(slot);
    extents_[number].slots[index].owner = owner;
  }

  uint8_t* Data(HostSlot slot) const override {
    ABSL_RAW_CHECK(slot && slot.id <= extents_.size() * extent_pages_, "no such host slot");
    return arena_->data() + uint64_t{slot.id - 1} * kDiskPageBytes;
  }

  uint64_t SlotBytes(HostSlot slot) const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return uint64_t{SlotPages(extents_[Find(slot).first])} * kDiskPageBytes;
  }

  bool MakesRoom(HostSlot slot, uint64_t bytes) const override {
    if (bytes == 0 || bytes > kHostExtentBytes) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    const Extent& extent = extents_[Find(slot).first];
    if (extent.size_class == kRow || extent.used == 1) return extent.row >= RowOf(bytes);
    return bytes <= extent_bytes_ && extent.size_class == ClassOf(bytes);
  }

  std::vector<uint64_t> ExtentOwners(uint64_t bytes, uint32_t rank) const override {
    std::vector<uint64_t> owners;
    if (bytes == 0 || bytes > kHostExtentBytes) return owners;
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Window> windows = WindowsFor(bytes);
    if (rank >= windows.size()) return owners;
    std::nth_element(windows.begin(), windows.begin() + rank, windows.end());
    const Window& window = windows[rank];
    for (uint32_t number = window.begin; number < window.end; ++number) {
      if (extents_[number].size_class == kFree) continue;  // it remembers its slots
      for (const SlotEntry& slot : extents_[number].slots) {
        if (slot.in_use) owners.push_back(slot.owner);
      }
    }
    return owners;
  }

  uint64_t extent_bytes() const override { return extent_bytes_; }
  uint64_t capacity_bytes() const override { return extents_.size() * extent_bytes_; }
  uint64_t used_bytes() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return used_pages_ * kDiskPageBytes;
  }

  void VisitMetrics(MetricsVisitor& visitor) const override {
    uint64_t used, free, refused, moved;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      used = used_pages_ * kDiskPageBytes;
      free = free_extents_;
      refused = refused_;
      moved = moved_;
    }
    const std::array<std::pair<std::string_view, std::string_view>, 1> tier = {{{"tier", "host"}}};
    visitor.Gauge("kedge_tier_capacity_bytes", "Room of a tier.", tier,
                  static_cast<double>(capacity_bytes()));
    visitor.Gauge("kedge_tier_used_bytes", "Bytes of a tier that hold blocks.", tier,
                  static_cast<double>(used));
    visitor.Gauge("kedge_host_free_extents", "Extents of the host arena without a size class.", {},
                  static_cast<double>(free));
    visitor.Gauge("kedge_host_extent_bytes", "Size of an extent of the host arena.", {},
                  static_cast<double>(extent_bytes_));
    visitor.Counter("kedge_host_refused_total", "Slots that were asked for when none was free.", {},
                    static_cast<double>(refused));
    visitor.Counter("kedge_host_extents_moved_total",
                    "Extents of the host arena that changed their size class.", {},
                    static_cast<double>(moved));
  }

 private:
  // Extents side by side that could be given to one slot or class, and what that would cost.
  struct Window {
    uint64_t cost = 0;   // bytes in use, in sixteenths of an extent
    uint64_t taken = 0;  // when the last of them got its class
    uint32_t begin = 0;
    uint32_t end = 0;
    bool operator<(const Window& other) const {
      return std::tie(cost, taken, begin) < std::tie(other.cost, other.taken, other.begin);
    }
  };

  absl::Status Refuse() {
    ++refused_;
    return absl::ResourceExhaustedError(
        "host tier: no free slot");  // short: often asked, then evicted
  }

  // Extents that one slot of so many bytes takes.
  uint32_t RowOf(uint64_t bytes) const {
    return static_cast<uint32_t>((bytes + extent_bytes_ - 1) / extent_bytes_);
  }

  uint32_t SlotPages(const Extent& extent) const {
    return extent.size_class == kRow ? extent.row * extent_pages_
                                     : classes_.pages(extent.size_class);
  }

  // Every window of other classes that freeing its slots would give to `bytes`.
  std::vector<Window> WindowsFor(uint64_t bytes) const {
    const uint32_t row = RowOf(bytes);
    const int size_class = row == 1 ? ClassOf(bytes) : kRow;
    std::vector<Window> windows;
    for (uint32_t begin = 0; begin + row <= extents_.size(); ++begin) {
      Window window{.begin = begin, .end = begin + row};
      bool whole = extents_[begin].size_class != kRestOfRow;
      uint64_t used_pages = 0;
      for (uint32_t i = begin; i < window.end; ++i) {
        const Extent& extent = extents_[i];
        if (extent.size_class == kFree || extent.size_class == kRestOfRow) continue;
        whole = whole && (row > 1 || extent.size_class != size_class);
        used_pages += uint64_t{extent.used} * SlotPages(extent);
        window.taken = std::max(window.taken, extent.taken);
        window.end = std::max(window.end, i + extent.row);  // a row goes whole
      }
      if (!whole || used_pages == 0) continue;
      window.cost = used_pages * 16 / extent_pages_;
      windows.push_back(window);
    }
    return windows;
  }

  absl::StatusOr<HostSlot> AllocateRow(uint32_t row, uint64_t owner) {
    std::lock_guard<std::mutex> lock(mutex_);
    uint32_t free = 0;  // extents side by side
    for (uint32_t number = 0; number < extents_.size(); ++number) {
      free = extents_[number].size_class == kFree ? free + 1 : 0;
      if (free == row) return TakeRow(number + 1 - row, row, owner);
    }
    return Refuse();
  }

  HostSlot TakeRow(uint32_t begin, uint32_t row, uint64_t owner) {
    for (uint32_t number = begin; number < begin + row; ++number) {
      Unlink(free_, number);
      --free_extents_;
      Extent& extent = extents_[number];
      if (extent.last_class != kRow && extent.last_class != kFree) ++moved_;
      extent.last_class = kRow;
      extent.size_class = kRestOfRow;
      extent.slots = {};
    }
    Extent& first = extents_[begin];
    first.size_class = kRow;
    first.row = row;
    first.used = 1;
    first.taken = ++taken_;
    first.slots = {SlotEntry{owner, true}};
    used_pages_ += row * extent_pages_;
    return HostSlot{begin * extent_pages_ + 1};
  }

  void FreeRow(uint32_t begin) {
    const uint32_t row = std::exchange(extents_[begin].row, 1);
    extents_[begin].used = 0;
    extents_[begin].slots = {};
    for (uint32_t number = begin; number < begin + row; ++number) {
      extents_[number].size_class = kFree;
      Push(free_, number);
      ++free_extents_;
    }
    used_pages_ -= row * extent_pages_;
  }

  int ClassOf(uint64_t bytes) const {
    return classes_.ClassOf(static_cast<uint32_t>(PageRound(bytes) / kDiskPageBytes));
  }

  // Extent and slot; aborts unless it is in use.
  std::pair<uint32_t, uint32_t> Find(HostSlot slot) const {
    ABSL_RAW_CHECK(slot && slot.id <= extents_.size() * extent_pages_, "no such host slot");
    const uint32_t number = (slot.id - 1) / extent_pages_;
    const uint32_t page = (slot.id - 1) % extent_pages_;
    const Extent& extent = extents_[number];
    ABSL_RAW_CHECK(extent.size_class >= 0 || extent.size_class == kRow,
                   "host slot is not in use: its extent is free");
    const uint32_t slot_pages = SlotPages(extent);
    const uint32_t index = page / slot_pages;
    ABSL_RAW_CHECK(
        page % slot_pages == 0 && index < extent.slots.size() && extent.slots[index].in_use,
        "host slot is not in use");
    return {number, index};
  }

  uint32_t TakeSlot(Extent& extent) {
    ++extent.used;
    if (extent.first_free != kNone) {
      const uint32_t slot = extent.first_free;
      extent.first_free = static_cast<uint32_t>(extent.slots[slot].owner);
      return slot;
    }
    extent.slots.emplace_back();
    return static_cast<uint32_t>(extent.slots.size() - 1);
  }

  void TakeExtent(uint32_t number, int size_class) {
    Unlink(free_, number);
    --free_extents_;
    Extent& extent = extents_[number];
    if (extent.last_class != size_class) {
      if (extent.last_class != kFree) ++moved_;
      extent.slots = {};  // gives the memory of a longer table back
      extent.slots.reserve(classes_.slots_per_extent(size_class));
    }
    extent.slots.clear();
    extent.size_class = extent.last_class = size_class;
    extent.taken = ++taken_;
    extent.first_free = kNone;
    Push(open_[size_class], number);
  }

  void ReturnExtent(uint32_t number) {
    Extent& extent = extents_[number];
    Unlink(open_[extent.size_class], number);
    extent.size_class = kFree;
    Push(free_, number);
    ++free_extents_;
  }

  void Push(uint32_t& head, uint32_t number) {
    Extent& extent = extents_[number];
    extent.previous = kNone;
    extent.next = head;
    if (head != kNone) extents_[head].previous = number;
    head = number;
  }

  void Unlink(uint32_t& head, uint32_t number) {
    Extent& extent = extents_[number];
    if (extent.previous != kNone) {
      extents_[extent.previous].next = extent.next;
    } else {
      head = extent.next;
    }
    if (extent.next != kNone) extents_[extent.next].previous = extent.previous;
    extent.next = extent.previous = kNone;
  }

  const uint64_t extent_bytes_;
  const uint32_t extent_pages_;
  const SizeClasses classes_;
  const std::unique_ptr<MemoryArena> arena_;

  mutable std::mutex mutex_;     // guards all below
  std::vector<Extent> extents_;  // its size never changes
  std::vector<uint32_t> open_;   // by class: first extent with a free slot
  uint32_t free_ = kNone;        // first extent without a class
  uint64_t free_extents_ = 0;
  uint64_t used_pages_ = 0;
  uint64_t refused_ = 0;
  uint64_t moved_ = 0;
  uint64_t taken_ = 0;
};

}  // namespace

uint64_t HostExtentBytes(uint64_t capacity_bytes) {
  uint64_t extent_bytes = kHostExtentBytes;
  while (extent_bytes > kHostExtentBytesMin && capacity_bytes / extent_bytes < kHostExtentsWanted) {
    extent_bytes /= 2;
  }
  return extent_bytes;
}

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(const Options& options) {
  if (options.capacity_bytes < kHostExtentBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: capacity_bytes=", options.capacity_bytes, " is less than the ",
                     kHostExtentBytes, " that the largest block needs"));
  }
  const uint64_t extent_bytes = HostExtentBytes(options.capacity_bytes);
  const uint64_t capacity_bytes = options.capacity_bytes / extent_bytes * extent_bytes;
  const MemoryLimit memory = MemoryLimitOfProcess();
  if (capacity_bytes > memory.bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: capacity_bytes=", options.capacity_bytes, " is more than the ",
                     memory.bytes, " bytes of memory (", memory.source, ")"));
  }
  // Slots are numbered by their page in 32 bits.
  if (capacity_bytes / kDiskPageBytes >= ~0u) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: capacity_bytes=", options.capacity_bytes, " is 16 TiB or more"));
  }
  auto arena = MemoryArena::Create("kedge-host-tier", capacity_bytes);
  if (!arena.ok()) return arena.status();
  return std::unique_ptr<HostTier>(new ArenaHostTier(*std::move(arena), extent_bytes));
}

}  // namespace kedge
