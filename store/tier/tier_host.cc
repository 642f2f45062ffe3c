#include "store/tier/tier_host.h"

#include <algorithm>
#include <array>
#include <mutex>
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

struct Extent {
  int size_class = -1;          // -1: free
  int last_class = -1;          // the class it has or had
  uint32_t used = 0;            // slots in use
  uint32_t first_free = kNone;  // of the slots that were freed
  uint32_t next = kNone;        // in the list of its class, or in the free list
  uint32_t previous = kNone;
  std::vector<SlotEntry>
      slots;  // those handed out since it got its class; the ones behind them are free too
};

class ArenaHostTier final : public HostTier {
 public:
  explicit ArenaHostTier(std::unique_ptr<MemoryArena> arena)
      : arena_(std::move(arena)),
        extents_(arena_->bytes() / kHostExtentBytes),
        open_(classes_.count(), kNone) {
    for (uint32_t i = extents_.size(); i-- > 0;) Push(free_, i);
    free_extents_ = extents_.size();
  }

  absl::StatusOr<HostSlot> Allocate(uint64_t bytes, uint64_t owner) override {
    if (bytes == 0 || bytes > kHostExtentBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("host slot: bytes=", bytes, " is not in [1, ", kHostExtentBytes, "]"));
    }
    const int size_class = ClassOf(bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    uint32_t number = open_[size_class];
    if (number == kNone) {
      number = free_;
      if (number == kNone) {
        ++refused_;
        return absl::ResourceExhaustedError(
            "host tier: no free slot");  // short: often asked, then evicted
      }
      TakeExtent(number, size_class);
    }
    Extent& extent = extents_[number];
    const uint32_t slot = TakeSlot(extent);
    extent.slots[slot] = SlotEntry{owner, true};
    if (extent.used == classes_.slots_per_extent(size_class)) Unlink(open_[size_class], number);
    used_pages_ += classes_.pages(size_class);
    return HostSlot{number * kHostExtentPages + slot * classes_.pages(size_class) + 1};
  }

  void Free(HostSlot slot) override {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto [number, index] = Find(slot);
    Extent& extent = extents_[number];
    const int size_class = extent.size_class;
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
    ABSL_RAW_CHECK(slot && slot.id <= extents_.size() * kHostExtentPages, "no such host slot");
    return arena_->data() + uint64_t{slot.id - 1} * kDiskPageBytes;
  }

  uint64_t SlotBytes(HostSlot slot) const override {
    std::lock_guard<std::mutex> lock(mutex_);
    const Extent& extent = extents_[Find(slot).first];
    return uint64_t{classes_.pages(extent.size_class)} * kDiskPageBytes;
  }

  bool SameClass(HostSlot slot, uint64_t bytes) const override {
    if (bytes == 0 || bytes > kHostExtentBytes) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    return extents_[Find(slot).first].size_class == ClassOf(bytes);
  }

  std::vector<uint64_t> ExtentOwners(uint64_t bytes, uint32_t rank) const override {
    std::vector<uint64_t> owners;
    if (bytes == 0 || bytes > kHostExtentBytes) return owners;
    const int size_class = ClassOf(bytes);
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<const Extent*> others;
    for (const Extent& extent : extents_) {
      if (extent.size_class >= 0 && extent.size_class != size_class) others.push_back(&extent);
    }
    if (rank >= others.size()) return owners;
    std::nth_element(others.begin(), others.begin() + rank, others.end(),
                     [](const Extent* a, const Extent* b) {
                       return a->used != b->used ? a->used < b->used : a < b;
                     });
    for (const SlotEntry& slot : others[rank]->slots) {
      if (slot.in_use) owners.push_back(slot.owner);
    }
    return owners;
  }

  uint64_t capacity_bytes() const override { return extents_.size() * kHostExtentBytes; }
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
    visitor.Counter("kedge_host_refused_total", "Slots that were asked for when none was free.", {},
                    static_cast<double>(refused));
    visitor.Counter("kedge_host_extents_moved_total",
                    "Extents of the host arena that changed their size class.", {},
                    static_cast<double>(moved));
  }

 private:
  int ClassOf(uint64_t bytes) const {
    return classes_.ClassOf(static_cast<uint32_t>(PageRound(bytes) / kDiskPageBytes));
  }

  // Extent and slot; aborts unless it is in use.
  std::pair<uint32_t, uint32_t> Find(HostSlot slot) const {
    ABSL_RAW_CHECK(slot && slot.id <= extents_.size() * kHostExtentPages, "no such host slot");
    const uint32_t number = (slot.id - 1) / kHostExtentPages;
    const uint32_t page = (slot.id - 1) % kHostExtentPages;
    const Extent& extent = extents_[number];
    ABSL_RAW_CHECK(extent.size_class >= 0, "host slot in a free extent");
    const uint32_t slot_pages = classes_.pages(extent.size_class);
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
      if (extent.last_class >= 0) ++moved_;
      extent.slots = {};  // gives the memory of a longer table back
      extent.slots.reserve(classes_.slots_per_extent(size_class));
    }
    extent.slots.clear();
    extent.size_class = extent.last_class = size_class;
    extent.first_free = kNone;
    Push(open_[size_class], number);
  }

  void ReturnExtent(uint32_t number) {
    Extent& extent = extents_[number];
    Unlink(open_[extent.size_class], number);
    extent.size_class = -1;
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
};

}  // namespace

absl::StatusOr<std::unique_ptr<HostTier>> HostTier::Create(const Options& options) {
  const uint64_t capacity_bytes = options.capacity_bytes / kHostExtentBytes * kHostExtentBytes;
  if (capacity_bytes == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("host tier: capacity_bytes=", options.capacity_bytes,
                     " is less than one extent of ", kHostExtentBytes));
  }
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
  return std::unique_ptr<HostTier>(new ArenaHostTier(*std::move(arena)));
}

}  // namespace kedge
