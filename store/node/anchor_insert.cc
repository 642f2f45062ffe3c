// AnchorStore's changes: an anchor into its pool, and both onto the SSD.
//
// Order of what becomes durable: the anchor, then the roster that names it (one batch of the
// mover), then the insert is answered, then older rosters and the anchors that went are taken back.
// A crash in between leaves blocks that no roster names, never a roster that names too much.

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/block/pool_roster.h"
#include "store/node/anchor_store.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

AnchorStore::InsertAnswer Refused(ResultCode code, PoolVerdict verdict, std::string text) {
  return {.code = code, .verdict = verdict, .text = std::move(text)};
}

// Runs when the last of several writes has ended, with the first error.
struct Joined {
  std::mutex mutex;
  int left = 0;
  absl::Status status;
  absl::AnyInvocable<void(absl::Status)> done;

  void End(const absl::Status& one) {
    absl::AnyInvocable<void(absl::Status)> call;
    {
      const std::lock_guard<std::mutex> lock(mutex);
      status.Update(one);
      if (--left == 0) call = std::move(done);
    }
    if (call) call(status);
  }
};

}  // namespace

void AnchorStore::Insert(InsertAsk ask, absl::AnyInvocable<void(InsertAnswer)> done) {
  const PoolPtr pool = FindOrMake(ask.pool, ask.placement, true);
  auto shared = std::make_shared<std::pair<InsertAsk, absl::AnyInvocable<void(InsertAnswer)>>>(
      std::move(ask), std::move(done));
  const bool runs =
      pool != nullptr && Run(pool, [this, pool, shared] {
        auto& [ask, done] = *shared;
        InsertAnswer answer = InsertNow(pool, ask);
        if (answer.code == ResultCode::kExists) {
          existing_.fetch_add(1, std::memory_order_relaxed);
        } else {
          inserts_[static_cast<size_t>(answer.verdict)].fetch_add(1, std::memory_order_relaxed);
        }
        if (!IsSuccess(answer.code)) {
          if (ask.fresh) parts_.map.Remove(ask.key, ask.placement);
          ask.block.Reset();
          return done(std::move(answer));
        }
        const bool changed = answer.code == ResultCode::kOk;
        Persist(pool, std::move(ask), std::move(answer), std::move(done));
        if (changed) RefreshSoon(pool);
      });
  if (runs) return;
  inserts_[static_cast<size_t>(PoolVerdict::kBusy)].fetch_add(1, std::memory_order_relaxed);
  parts_.executor.Post([this, shared] {
    auto& [ask, done] = *shared;
    if (ask.fresh) parts_.map.Remove(ask.key, ask.placement);
    ask.block.Reset();
    done(Refused(ResultCode::kExhausted, PoolVerdict::kBusy,
                 "anchor_insert: too many pools, or inserts that wait"));
  });
}

AnchorStore::InsertAnswer AnchorStore::InsertNow(const PoolPtr& pool, InsertAsk& ask) {
  std::shared_ptr<AnchorPool> anchors = Loaded(pool);
  const auto success = [&](ResultCode code) {
    return InsertAnswer{.code = code, .anchors = static_cast<uint32_t>(anchors->size())};
  };
  if (anchors != nullptr && anchors->Find(ask.key) != nullptr) return success(ResultCode::kExists);
  if (ask.placement != pool->placement) {
    return Refused(ResultCode::kInvalid, PoolVerdict::kShape,
                   absl::StrCat("anchor_insert.placement: ", ask.placement, ", the pool has ",
                                pool->placement));
  }
  const absl::StatusOr<Image> image = Read(ask.block.Share());
  if (!image.ok()) {
    return Refused(ResultCode::kCorrupt, PoolVerdict::kDamaged,
                   std::string(image.status().message()));
  }
  absl::StatusOr<offset::Anchor> anchor = offset::ParseAnchor(ask.key, image->payload);
  if (!anchor.ok()) {
    return Refused(ResultCode::kInvalid, PoolVerdict::kDamaged,
                   std::string(anchor.status().message()));
  }
  const AnchorShape shape = AnchorShape::Of(*anchor);
  if (shape.layers > kMixLayersMax || shape.width > kMixWidthMax ||
      anchor->filling.tokens > kMixTokensMax || shape.prefix_tokens > kMixTokensMax) {
    return Refused(ResultCode::kInvalid, PoolVerdict::kTooLarge,
                   "anchor: more layers, width or tokens than a mix may have");
  }
  if (anchors == nullptr) anchors = std::make_shared<AnchorPool>(shape, ask.options);
  // What is wrong is named by a pool that does not change: it is asked before room is made.
  if (const PoolVerdict verdict = CompareShapes(anchors->shape(), shape);
      verdict != PoolVerdict::kOk) {
    AnchorPool probe(anchors->shape(), anchors->options());
    return Refused(ResultCode::kInvalid, verdict,
                   std::string(probe.Insert(*std::move(anchor)).status().message()));
  }
  const uint64_t before = static_cast<uint64_t>(anchors->bytes());
  const uint64_t bytes =
      sizeof(float) * (anchor->sketch.values.size() +
                       2 * (anchor->filling.keys.size() + anchor->prefix.keys.size()));
  if (!MakeRoom(bytes, pool.get())) {
    return Refused(ResultCode::kExhausted, PoolVerdict::kTooLarge,
                   absl::StrCat("anchor: ", bytes, " bytes, the pool has ", before,
                                ", all pools together may have ", memory_bytes_));
  }
  std::vector<BlockKey> evicted;
  const absl::StatusOr<bool> added = anchors->Insert(*std::move(anchor), &evicted);
  if (!added.ok()) {
    return Refused(ResultCode::kInvalid, PoolVerdict::kEmpty,
                   std::string(added.status().message()));
  }
  for (const BlockKey& key : evicted) parts_.map.Remove(key, pool->placement);
  evicted_.fetch_add(evicted.size(), std::memory_order_relaxed);
  const std::lock_guard<std::mutex> lock(mutex_);
  pool->anchors = anchors;
  bytes_ -= pool->bytes;
  pool->bytes = static_cast<uint64_t>(anchors->bytes());
  bytes_ += pool->bytes;
  pool->dirty = true;
  if (parts_.ssd != nullptr) pool->gone.insert(pool->gone.end(), evicted.begin(), evicted.end());
  return success(ResultCode::kOk);
}

void AnchorStore::Persist(const PoolPtr& pool, InsertAsk ask, InsertAnswer answer,
                          absl::AnyInvocable<void(InsertAnswer)> done) {
  const bool on_ssd = parts_.map.Describe(ask.block).ssd.pages != 0;
  std::shared_ptr<AnchorPool> anchors;
  bool settled = false;  // nothing new since it became durable
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    anchors = pool->anchors;
    settled = on_ssd && !pool->dirty && pool->durable == pool->sequence;
  }
  if (parts_.ssd == nullptr || !ask.durable || settled) {
    parts_.mover.Offer(std::move(ask.block));
    return done(std::move(answer));
  }
  WriteDurably(pool, anchors, std::move(ask.block),
               [answer = std::move(answer), done = std::move(done)](absl::Status status) mutable {
                 if (!status.ok()) {
                   // It is in the pool; what it is not is durable.
                   answer.code = FromStatus(status);
                   answer.text = std::string(status.message());
                 }
                 done(std::move(answer));
               });
}

// The roster as it is now, and with it an anchor if there is one.
void AnchorStore::WriteDurably(const PoolPtr& pool, const std::shared_ptr<AnchorPool>& anchors,
                               BlockRef anchor, absl::AnyInvocable<void(absl::Status)> done) {
  std::vector<BlockKey> gone;
  absl::StatusOr<Written> roster = absl::UnavailableError("");
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    roster = WriteRosterLocked(*pool, *anchors);
    if (roster.ok()) {
      pool->dirty = false;
      gone = std::exchange(pool->gone, {});
    } else {
      pool->dirty = true;
    }
  }
  if (!roster.ok()) {
    if (anchor) parts_.mover.Offer(std::move(anchor));
    return done(roster.status());
  }
  auto joined = std::make_shared<Joined>();
  joined->left = anchor ? 2 : 1;
  joined->done = [this, pool, sequence = roster->sequence, gone = std::move(gone),
                  done = std::move(done)](const absl::Status& status) mutable {
    if (status.ok()) {
      Retire(pool, sequence, std::move(gone));
    } else {
      const std::lock_guard<std::mutex> lock(mutex_);
      pool->dirty = true;
      pool->gone.insert(pool->gone.end(), gone.begin(), gone.end());
    }
    done(status);
  };
  const auto end = [joined](const absl::Status& status) { joined->End(status); };
  if (anchor) parts_.mover.Write(std::move(anchor), end);
  parts_.mover.Write(std::move(roster->block), end);
}

// In the map and in host memory; that it is written is the caller's.
absl::StatusOr<AnchorStore::Written> AnchorStore::WriteRosterLocked(Pool& pool,
                                                                    const AnchorPool& anchors) {
  const std::vector<uint8_t> payload = EncodeRoster(PoolRoster::Of(anchors));
  const uint32_t sequence = pool.sequence + 1;
  BlockHeader header;
  header.key = RosterKey(pool.key, sequence);
  header.parent = pool.key;
  header.placement = pool.placement;
  header.variant = Variant::Raw();
  header.keyspace = Keyspace::kAnchor;
  header.chain_depth = sequence;
  header.parts = {
      {static_cast<uint32_t>(payload.size()), PartDigest(header.key, header.variant, 0, payload)}};
  const absl::StatusOr<std::vector<uint8_t>> encoded = EncodeBlockHeader(header);
  if (!encoded.ok()) return encoded.status();
  const ImageLayout layout{static_cast<uint32_t>(encoded->size()), payload.size()};
  const absl::StatusOr<uint16_t> variant = parts_.map.variants().Intern(header.variant);
  if (!variant.ok()) return variant.status();
  const absl::StatusOr<HostSlot> slot = parts_.room.Allocate(layout.image_bytes());
  if (!slot.ok()) return slot.status();
  uint8_t* image = parts_.host.Data(*slot);
  std::memset(image, 0, layout.image_bytes());
  std::memcpy(image, encoded->data(), encoded->size());
  std::memcpy(image + layout.payload_offset(), payload.data(), payload.size());
  NewBlock block = NewBlock::Of(header, *variant);
  block.host = *slot;
  block.unsaved = parts_.ssd != nullptr;
  Written written{.sequence = sequence};
  pool.sequence = sequence;  // also where it fails: the number is taken
  if (!parts_.map.Insert(block, &written.block)) {
    parts_.host.Free(*slot);
    return absl::InternalError(absl::StrCat("roster: number ", sequence, " is held already"));
  }
  pool.rosters.insert(sequence);
  rosters_.fetch_add(1, std::memory_order_relaxed);
  return written;
}

void AnchorStore::Checkpoint(std::function<void()> done) {
  auto joined = std::make_shared<Joined>();
  joined->left = 1;
  joined->done = [done = std::move(done)](const absl::Status&) { done(); };
  std::vector<PoolPtr> changing;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [key, pool] : pools_) {
      if (parts_.ssd != nullptr && (pool->dirty || pool->running)) changing.push_back(pool);
    }
    joined->left += static_cast<int>(changing.size());
  }
  for (const PoolPtr& pool : changing) {
    Run(
        pool,
        [this, pool, joined] {
          std::shared_ptr<AnchorPool> anchors;
          {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (pool->dirty) anchors = pool->anchors;
          }
          if (anchors == nullptr) return joined->End(absl::OkStatus());
          WriteDurably(pool, anchors, BlockRef(),
                       [joined](const absl::Status& status) { joined->End(status); });
        },
        true);
  }
  joined->End(absl::OkStatus());
}

// The pool's own error, before somebody waits for it. One at a time on the whole node: it costs as
// many mixtures as there are anchors, and what is not computed here the next question computes.
void AnchorStore::RefreshSoon(const PoolPtr& pool) {
  std::shared_ptr<AnchorPool> anchors;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!pool->tasks.empty()) return;  // it is about to change again
    anchors = pool->anchors;
  }
  if (anchors == nullptr || refreshing_.exchange(true)) return;
  parts_.executor.Post([this, anchors] {
    anchors->Refresh();
    refreshing_ = false;
  });
}

// A roster is durable: what came before it, and the anchors that it does not name any more, are
// taken back. On the pool's own tasks, so that an anchor that has come back meanwhile is seen.
void AnchorStore::Retire(const PoolPtr& pool, uint32_t durable, std::vector<BlockKey> gone) {
  Run(
      pool,
      [this, pool, durable, gone = std::move(gone)] {
        std::vector<BlockKey> keys;
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          pool->durable = std::max(pool->durable, durable);
          const auto end = pool->rosters.lower_bound(durable);
          for (auto old = pool->rosters.begin(); old != end; ++old)
            keys.push_back(RosterKey(pool->key, *old));
          pool->rosters.erase(pool->rosters.begin(), end);
        }
        for (const BlockKey& key : keys) parts_.map.Remove(key, pool->placement);
        for (const BlockKey& key : gone) {
          const bool back = parts_.map.Lookup(key, pool->placement, {}).code == ResultCode::kOk;
          if (!back) keys.push_back(key);
        }
        if (!keys.empty()) parts_.mover.WriteTombstones(std::move(keys), [](const auto&) {});
      },
      true);
}

}  // namespace kedge
