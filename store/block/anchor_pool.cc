#include "store/block/anchor_pool.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

using offset::Anchor;
using offset::KvRows;
using offset::Mix;
using offset::MixOptions;
using offset::Sketch;
using AnchorList = std::vector<std::shared_ptr<const Anchor>>;

double MeanDistance(const AnchorList& anchors) {
  double sum = 0;
  int64_t pairs = 0;
  for (size_t i = 0; i < anchors.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const Sketch& a = anchors[i]->sketch;
      const Sketch& b = anchors[j]->sketch;
      sum += Distance(a, b, std::min(a.tokens, b.tokens));
      ++pairs;
    }
  }
  return pairs == 0 || sum <= 0 ? 1.0 : sum / static_cast<double>(pairs);
}

Mix MixOf(const AnchorList& anchors, const AnchorShape& shape, const Sketch& filling,
          const MixOptions& options, const Anchor* left_out) {
  Mix mix(shape.layers, filling.tokens, shape.prefix_tokens, shape.width);
  for (const std::shared_ptr<const Anchor>& anchor : anchors) {
    if (anchor.get() == left_out || anchor->sketch.tokens < filling.tokens) continue;
    mix.Add(options, filling, anchor->sketch, anchor->filling, anchor->prefix);
  }
  return mix;
}

}  // namespace

AnchorShape AnchorShape::Of(const Anchor& anchor) {
  return {anchor.kind, anchor.filling.layers, anchor.filling.width, anchor.prefix.tokens,
          anchor.prefix_digest};
}

AnchorPool::AnchorPool(const AnchorShape& shape, const AnchorPoolOptions& options)
    : shape_(shape), options_(options) {
  ABSL_RAW_CHECK(options.capacity > 0 && options.window > 0, "a pool has room");
}

absl::StatusOr<bool> AnchorPool::Insert(Anchor anchor) {
  const AnchorShape shape = AnchorShape::Of(anchor);
  if (shape.kind != shape_.kind) {
    return absl::InvalidArgumentError(absl::StrCat("anchor.base_kind: ", BaseKindName(shape.kind),
                                                   " in a pool of ", BaseKindName(shape_.kind),
                                                   " ones"));
  }
  if (shape.layers != shape_.layers || shape.width != shape_.width) {
    return absl::InvalidArgumentError(absl::StrCat("anchor.shape: ", shape.layers, " layers of ",
                                                   shape.width, ", the pool's have ", shape_.layers,
                                                   " of ", shape_.width));
  }
  if (!(shape == shape_))
    return absl::InvalidArgumentError("anchor.prefix: the template is not the pool's");
  if (anchor.sketch.tokens < 1 || anchor.sketch.tokens != anchor.filling.tokens)
    return absl::InvalidArgumentError(absl::StrCat("anchor.tokens: ", anchor.filling.tokens));
  auto added = std::make_shared<const Anchor>(std::move(anchor));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.anchor->key == added->key) return false;
  if (static_cast<int64_t>(entries_.size()) == options_.capacity) EvictOne();
  entries_.push_back({std::move(added)});
  AnchorList anchors;
  for (const Entry& entry : entries_) anchors.push_back(entry.anchor);
  scale_ = MeanDistance(anchors);
  error_.reset();
  return true;
}

void AnchorPool::EvictOne() {
  const auto end =
      entries_.begin() + std::min<int64_t>(options_.window, static_cast<int64_t>(entries_.size()));
  entries_.erase(std::min_element(entries_.begin(), end, [](const Entry& a, const Entry& b) {
    return a.activations < b.activations;
  }));
}

int64_t AnchorPool::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<int64_t>(entries_.size());
}

std::vector<BlockKey> AnchorPool::keys() const {
  std::vector<BlockKey> keys;
  for (const std::shared_ptr<const Anchor>& anchor : Anchors()) keys.push_back(anchor->key);
  return keys;
}

int64_t AnchorPool::longest() const {
  int64_t longest = 0;
  for (const std::shared_ptr<const Anchor>& anchor : Anchors())
    longest = std::max(longest, anchor->sketch.tokens);
  return longest;
}

double AnchorPool::scale() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return scale_;
}

std::shared_ptr<const Anchor> AnchorPool::Find(const BlockKey& key) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.anchor->key == key) return entry.anchor;
  return nullptr;
}

AnchorList AnchorPool::Anchors() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<const Anchor>> anchors;
  for (const Entry& entry : entries_) anchors.push_back(entry.anchor);
  return anchors;
}

Mix AnchorPool::MixFor(const Sketch& filling, const MixOptions& options) const {
  return MixOf(Anchors(), shape_, filling, options, nullptr);
}

void AnchorPool::Activate(const Sketch& filling, const MixOptions& options) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::pair<double, size_t>> by_distance;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const Sketch& sketch = entries_[i].anchor->sketch;
    if (sketch.tokens >= filling.tokens)
      by_distance.emplace_back(Distance(filling, sketch, filling.tokens) / options.scale, i);
  }
  std::sort(by_distance.begin(), by_distance.end());
  double all = 0;
  for (const auto& [distance, i] : by_distance)
    all += std::exp(-options.sharpness * (distance - by_distance.front().first));
  double sum = 0;
  for (const auto& [distance, i] : by_distance) {
    if (sum >= options_.nucleus * all) return;
    ++entries_[i].activations;
    sum += std::exp(-options.sharpness * (distance - by_distance.front().first));
  }
}

PoolError AnchorPool::LeaveOneOut(const MixOptions& options) const {
  const auto same = [&](const MixOptions& other) {
    return options.weighting == other.weighting && options.sharpness == other.sharpness &&
           options.scale == other.scale;
  };
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_ && same(error_options_)) return *error_;
  }
  const auto anchors = Anchors();
  PoolError error;
  for (const std::shared_ptr<const Anchor>& anchor : anchors) {
    const Mix mix = MixOf(anchors, shape_, anchor->sketch, options, anchor.get());
    if (mix.anchors() == 0) continue;
    ++error.predicted;
    error.filling.Add(ErrorOf(mix.FillingOffset(), anchor->filling));
    error.prefix.Add(ErrorOf(mix.PrefixOffset(), anchor->prefix));
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  // Unless it changed meanwhile.
  const bool current = anchors.size() == entries_.size() &&
                       std::equal(anchors.begin(), anchors.end(), entries_.begin(),
                                  [](const auto& a, const Entry& b) { return a == b.anchor; });
  if (current) {
    error_ = error;
    error_options_ = options;
  }
  return error;
}

}  // namespace kedge
