#include "store/block/block_map.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <set>
#include <thread>

#include "store/world/random.h"

namespace {
// Allocations of this thread, to show that reading makes none.
thread_local uint64_t allocations = 0;
}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace kedge {
namespace {

BlockKey KeyOf(uint64_t number) {
  Random random(number + 1);
  BlockKey key;
  for (size_t i = 0; i < key.bytes.size(); i += 8) {
    const uint64_t word = random.Next();
    std::memcpy(key.bytes.data() + i, &word, 8);
  }
  return key;
}

class BlockMapTest : public testing::Test {
 protected:
  BlockMapTest() : host_(*HostTier::Create({.capacity_bytes = kHostExtentBytes})), map_(*host_) {
    raw_ = *map_.variants().Intern(Variant::Raw());
    kivi_ = *map_.variants().Intern(*Variant::Parse("kivi4g32"));
  }
  NewBlock Block(uint64_t number, bool in_host = true) {
    NewBlock block;
    block.key = KeyOf(number);
    block.placement = number / 32;
    block.root = {number, number};
    block.payload_bytes = 4096;
    block.header_bytes = 212;
    block.variant = raw_;
    if (in_host) block.host = *host_->Allocate(8192, 0);
    return block;
  }
  BlockRef Insert(const NewBlock& block) {
    BlockRef ref;
    EXPECT_TRUE(map_.Insert(block, &ref));
    return ref;
  }
  ResultCode CodeOf(uint64_t number) { return map_.Lookup(KeyOf(number), number / 32, {}).code; }

  std::unique_ptr<HostTier> host_;
  BlockMap map_;
  uint16_t raw_ = 0;
  uint16_t kivi_ = 0;
};

TEST_F(BlockMapTest, FindsWhatWasInserted) {
  Insert(Block(1));
  const BlockMap::Found found = map_.Lookup(KeyOf(1), 0, {});
  ASSERT_EQ(found.code, ResultCode::kOk);
  EXPECT_EQ(found.info.root, (Digest128{1, 1}));
  EXPECT_EQ(found.info.tier(), TierId::kHost);
  EXPECT_EQ(found.info.pins, 1u);
  EXPECT_EQ(CodeOf(2), ResultCode::kAbsent);
}

TEST_F(BlockMapTest, ASecondInsertIsToldOfTheFirst) {
  Insert(Block(1));
  const NewBlock second = Block(1);
  BlockRef ref;
  EXPECT_FALSE(map_.Insert(second, &ref));
  EXPECT_NE(map_.Describe(ref).host, second.host);
  host_->Free(second.host);  // still the caller's
}

TEST_F(BlockMapTest, VariantsAreChosenInTheCallersOrder) {
  Insert(Block(1));
  NewBlock lossy = Block(1);
  lossy.variant = kivi_;
  lossy.fidelity = Fidelity::kQuantized;
  Insert(lossy);
  const uint16_t lossy_first[] = {kivi_, raw_};
  EXPECT_EQ(map_.Lookup(KeyOf(1), 0, lossy_first).info.variant, kivi_);
  const uint16_t unknown_first[] = {kNoVariantId, raw_};
  const BlockMap::Found found = map_.Lookup(KeyOf(1), 0, unknown_first);
  EXPECT_EQ(found.info.variant, raw_);
  EXPECT_EQ(found.rank, 1);
  EXPECT_EQ(map_.Lookup(KeyOf(1), 0, {}).info.variant, raw_) << "any lossless one";
}

TEST_F(BlockMapTest, ALossyCopyIsNoLosslessOne) {
  NewBlock lossy = Block(1);
  lossy.variant = kivi_;
  lossy.fidelity = Fidelity::kQuantized;
  Insert(lossy);
  EXPECT_EQ(CodeOf(1), ResultCode::kNoVariant);
}

TEST_F(BlockMapTest, CountsWhatEachVariantTakes) {
  Insert(Block(1));
  Insert(Block(2));
  NewBlock lossy = Block(1);
  lossy.variant = kivi_;
  lossy.fidelity = Fidelity::kQuantized;
  Insert(lossy);
  auto stats = map_.variant_stats();
  ASSERT_EQ(stats.size(), 2u);
  EXPECT_EQ(stats[raw_].host_blocks, 2u);
  EXPECT_EQ(stats[raw_].host_bytes, 2u * 4096);
  EXPECT_EQ(stats[kivi_].host_blocks, 1u);
  bool pinned = false;
  EXPECT_EQ(map_.RemoveAnywhere(KeyOf(1), true, &pinned, kivi_), 1u);
  EXPECT_EQ(CodeOf(1), ResultCode::kOk) << "the other one stays";
  EXPECT_EQ(map_.variant_stats()[kivi_].host_blocks, 0u);
  EXPECT_EQ(map_.RemoveAnywhere(KeyOf(1), true, &pinned), 1u);
  EXPECT_EQ(map_.variant_stats()[raw_].host_blocks, 1u);
}

TEST_F(BlockMapTest, AVariantBesideABlockTakesItsPlaceUnlessOthersUseIt) {
  Insert(Block(1));
  const uint16_t kivi[] = {kivi_};
  NewBlock lossy = Block(1, /*in_host=*/false);
  lossy.variant = kivi_;
  lossy.fidelity = Fidelity::kQuantized;
  const ImageLayout layout{lossy.header_bytes, lossy.payload_bytes};
  lossy.ssd = {1, 2, static_cast<uint32_t>(layout.image_bytes() / kDiskPageBytes)};

  BlockMap::Found raw = map_.Lookup(KeyOf(1), 0, {});
  ASSERT_EQ(raw.code, ResultCode::kOk);
  EXPECT_FALSE(map_.Replace(raw.ref.Share())) << "there is nothing in its place";
  EXPECT_TRUE(map_.InsertBeside(raw.ref, lossy));
  EXPECT_FALSE(map_.InsertBeside(raw.ref, lossy)) << "held already";
  EXPECT_EQ(map_.Lookup(KeyOf(1), 0, kivi).info.tier(), TierId::kSsd);
  EXPECT_FALSE(map_.Replace(raw.ref.Share())) << "two pins";
  EXPECT_EQ(CodeOf(1), ResultCode::kOk);
  EXPECT_TRUE(map_.Replace(std::move(raw.ref)));
  EXPECT_EQ(CodeOf(1), ResultCode::kNoVariant);
  EXPECT_EQ(map_.stats().replaced_blocks, 1u);
  EXPECT_EQ(map_.stats().pinned_blocks, 0u);

  // What was removed meanwhile gets none.
  Insert(Block(2));
  const BlockMap::Found gone = map_.Lookup(KeyOf(2), 0, {});
  map_.Remove(KeyOf(2), 0);
  NewBlock late = lossy;
  late.key = KeyOf(2);
  EXPECT_FALSE(map_.InsertBeside(gone.ref, late));
}

TEST_F(BlockMapTest, KnowsTheHourOfTheLastUse) {
  map_.SetHour(5);
  Insert(Block(1));
  const BlockMap::Found found = map_.Lookup(KeyOf(1), 0, {});
  EXPECT_EQ(found.info.used_hour, 5);
  map_.SetHour(9);
  EXPECT_EQ(map_.Describe(found.ref).used_hour, 5);
  map_.Touch(found.ref);
  EXPECT_EQ(map_.Describe(found.ref).used_hour, 9);
}

TEST_F(BlockMapTest, PinnedBlocksAreNotEvicted) {
  BlockRef pin = Insert(Block(1));
  EXPECT_FALSE(map_.Coldest());
  EXPECT_FALSE(map_.EvictHost(pin.id()));
  const BlockId id = pin.id();
  pin.Reset();
  EXPECT_TRUE(map_.Coldest());
  EXPECT_TRUE(map_.EvictHost(id));
  EXPECT_EQ(CodeOf(1), ResultCode::kEvicted);
  EXPECT_EQ(host_->used_bytes(), 0u);
}

TEST_F(BlockMapTest, UnsavedBlocksAreKeptWhileTheSsdTakesThem) {
  NewBlock block = Block(1);
  block.unsaved = true;
  const BlockId unsaved = Insert(block).id();
  map_.KeepUnsaved(true);
  EXPECT_FALSE(map_.Coldest());
  EXPECT_FALSE(map_.Evictable(unsaved));
  EXPECT_FALSE(map_.EvictHost(unsaved));
  const BlockId saved = Insert(Block(2)).id();
  ASSERT_TRUE(map_.Coldest());
  EXPECT_EQ(map_.Coldest()->id, saved) << "the warmer one, because it is saved";
  EXPECT_TRUE(map_.AttachSsd(map_.Lookup(KeyOf(1), 0, {}).ref, {1, 2, 2}));
  EXPECT_TRUE(map_.EvictHost(unsaved));
  EXPECT_EQ(CodeOf(1), ResultCode::kOk);

  block = Block(3);
  block.unsaved = true;
  const BlockId lost = Insert(block).id();
  map_.KeepUnsaved(false);  // the SSD refuses
  EXPECT_TRUE(map_.EvictHost(lost));
  EXPECT_EQ(CodeOf(3), ResultCode::kEvicted);
}

TEST_F(BlockMapTest, ABlockThatIsOnTheSsdStaysWhenItLeavesHostMemory) {
  BlockRef ref = Insert(Block(1));
  EXPECT_TRUE(map_.AttachSsd(ref, {1, 2, 2}));
  const BlockId id = ref.id();
  ref.Reset();
  EXPECT_TRUE(map_.EvictHost(id));
  EXPECT_EQ(map_.Lookup(KeyOf(1), 0, {}).info.tier(), TierId::kSsd);
  EXPECT_EQ(map_.stats().demoted_blocks, 1u);
  EXPECT_FALSE(map_.DropSsd(KeyOf(1), Variant::Raw(), {1, 3, 2}, ResultCode::kEvicted));
  EXPECT_TRUE(map_.DropSsd(KeyOf(1), Variant::Raw(), {1, 2, 2}, ResultCode::kCorrupt));
  EXPECT_EQ(CodeOf(1), ResultCode::kCorrupt);
}

TEST_F(BlockMapTest, ARemovedBlockKeepsItsBytesForThoseWhoReadThem) {
  BlockRef reader = Insert(Block(1));
  const HostSlot slot = map_.Describe(reader).host;
  EXPECT_EQ(map_.Remove(KeyOf(1), 0), 1u);
  EXPECT_EQ(CodeOf(1), ResultCode::kRemoved);
  EXPECT_EQ(map_.Describe(reader).host, slot);
  EXPECT_TRUE(map_.Describe(reader).removed);
  EXPECT_FALSE(map_.AttachSsd(reader, {1, 2, 2}));
  Insert(Block(1));  // the key may come back meanwhile
  reader.Reset();
  EXPECT_EQ(map_.stats().blocks, 1u);
  EXPECT_EQ(map_.stats().host_blocks, 1u);
}

TEST_F(BlockMapTest, RemoveAnywhereSparesWhatIsInUse) {
  BlockRef reader = Insert(Block(1));
  bool pinned = false;
  EXPECT_EQ(map_.RemoveAnywhere(KeyOf(1), true, &pinned), 0u);
  EXPECT_TRUE(pinned);
  EXPECT_EQ(map_.RemoveAnywhere(KeyOf(1), false, &pinned), 1u);
  EXPECT_FALSE(pinned);
}

TEST_F(BlockMapTest, ADamagedHostCopyFallsBackToTheSsd) {
  BlockRef reader = Insert(Block(1));
  map_.AttachSsd(reader, {1, 2, 2});
  map_.DropDamaged(reader);
  EXPECT_EQ(map_.Lookup(KeyOf(1), 0, {}).info.tier(), TierId::kSsd);
}

TEST_F(BlockMapTest, WalksOverEveryBlock) {
  std::set<BlockKey> expected;
  for (uint64_t i = 0; i < 200; ++i) {
    Insert(Block(i));
    expected.insert(KeyOf(i));
  }
  uint64_t cursor = 0;
  BlockRef ref;
  std::set<BlockKey> seen;
  while (map_.Next(&cursor, &ref)) seen.insert(map_.Describe(ref).key);
  EXPECT_EQ(seen, expected);
}

TEST_F(BlockMapTest, ReadingDoesNotAllocate) {
  for (uint64_t i = 0; i < 100; ++i) Insert(Block(i));
  const uint64_t before = allocations;
  for (uint64_t i = 0; i < 200; ++i) {
    const uint16_t accepted[] = {map_.variants().Find(Variant::Raw())};
    BlockMap::Found found = map_.Lookup(KeyOf(i), i / 32, accepted);
    if (found.ref) map_.Touch(found.ref);
  }
  EXPECT_EQ(allocations, before);
}

// The bar: 256 bytes of index a block, all tables together, whether blocks share runs or
// stand alone.
TEST_F(BlockMapTest, ABlockCostsAtMost256BytesOfIndex) {
  for (const uint64_t run_blocks : {1, 32}) {
    BlockMap map(*host_);
    const uint16_t raw = *map.variants().Intern(Variant::Raw());
    constexpr uint64_t kBlocks = 100'000;
    for (uint64_t i = 0; i < kBlocks; ++i) {
      NewBlock block = Block(i, /*in_host=*/false);
      block.placement = (i / run_blocks) * 0x9e3779b97f4a7c15ull;
      block.chain_depth = static_cast<uint32_t>(i % run_blocks);
      block.variant = raw;
      block.ssd = {1, static_cast<uint32_t>(i), 2};
      BlockRef ref;
      ASSERT_TRUE(map.Insert(block, &ref));
      // In the eviction order too, as blocks in host memory are.
      map.CountAsInHostForTest(ref);
    }
    const double bytes = static_cast<double>(map.stats().memory_bytes) / kBlocks;
    RecordProperty(run_blocks == 1 ? "bytes_per_block_alone" : "bytes_per_block_in_runs",
                   std::to_string(bytes));
    EXPECT_LE(bytes, 256) << "runs of " << run_blocks;
  }
}

// Threads that read, pin, evict and insert at once; the pins must come out even.
TEST_F(BlockMapTest, ThreadsMayDoEverythingAtOnce) {
  constexpr uint64_t kKeys = 64;
  const auto work = [&](uint64_t seed) {
    Random random(seed);
    for (int step = 0; step < 5000; ++step) {
      const uint64_t number = random.Below(kKeys);
      switch (random.Below(5)) {
        case 0: {
          NewBlock block = Block(number);
          BlockRef ref;
          if (!map_.Insert(block, &ref)) host_->Free(block.host);
          break;
        }
        case 1:
          if (const auto victim = map_.Coldest()) map_.EvictHost(victim->id);
          break;
        case 2:
          map_.Remove(KeyOf(number), number / 32);
          break;
        case 3: {
          BlockMap::Found found = map_.Lookup(KeyOf(number), number / 32, {});
          if (!found.ref) break;
          map_.Touch(found.ref);
          EXPECT_EQ(map_.Describe(found.ref).host, found.info.host);
          break;
        }
        case 4:
          map_.FindAnywhere(KeyOf(number));
          break;
      }
    }
  };
  std::thread other(work, 1);
  work(2);
  other.join();
  EXPECT_EQ(map_.stats().pinned_blocks, 0u);
  for (uint64_t i = 0; i < kKeys; ++i) map_.Remove(KeyOf(i), i / 32);
  EXPECT_EQ(map_.stats().blocks, 0u);
  EXPECT_EQ(host_->used_bytes(), 0u);
}

TEST(VariantTableTest, FullTableNamesTheVariant) {
  VariantTable table;
  for (int i = 0; i < VariantTable::kNamesMax; ++i) {
    ASSERT_TRUE(table.Intern(*Variant::Parse("v" + std::to_string(i))).ok());
  }
  EXPECT_EQ(table.Find(*Variant::Parse("v17")), 17);
  const auto over = table.Intern(*Variant::Parse("onemore"));
  EXPECT_EQ(over.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(over.status().ToString().find("onemore"), std::string::npos);
  EXPECT_EQ(table.Find(*Variant::Parse("onemore")), kNoVariantId);
}

}  // namespace
}  // namespace kedge
