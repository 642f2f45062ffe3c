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

int64_t AnchorBytes(const Anchor& anchor) {
  return static_cast<int64_t>(
      sizeof(float) *
      (anchor.sketch.values.size() + 2 * (anchor.filling.keys.size() + anchor.prefix.keys.size())));
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

absl::Status AnchorPool::Check(const Anchor& anchor) const {
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
  return absl::OkStatus();
}

absl::StatusOr<bool> AnchorPool::Insert(Anchor anchor, std::vector<BlockKey>* evicted) {
  if (absl::Status s = Check(anchor); !s.ok()) return s;
  auto added = std::make_shared<const Anchor>(std::move(anchor));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Entry& entry : entries_)
    if (entry.anchor->key == added->key) return false;
  if (static_cast<int64_t>(entries_.size()) == options_.capacity) {
    const BlockKey gone = EvictOne();
    if (evicted != nullptr) evicted->push_back(gone);
  }
  entries_.push_back({std::move(added)});
  Changed();
  return true;
}

void AnchorPool::Changed() {
  AnchorList anchors;
  for (const Entry& entry : entries_) anchors.push_back(entry.anchor);
  scale_ = MeanDistance(anchors);
  shares_.reset();
}

std::vector<AnchorPool::Member> AnchorPool::members() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Member> members;
  for (const Entry& entry : entries_) members.push_back({entry.anchor->key, entry.activations});
  return members;
}

absl::Status AnchorPool::Restore(std::vector<Anchor> anchors,
                                 std::span<const uint64_t> activations) {
  ABSL_RAW_CHECK(anchors.size() == activations.size(), "each anchor has its activations");
  for (const Anchor& anchor : anchors)
    if (absl::Status s = Check(anchor); !s.ok()) return s;
  const std::lock_guard<std::mutex> lock(mutex_);
  ABSL_RAW_CHECK(entries_.empty(), "a pool is restored while it is empty");
  for (size_t i = 0; i < anchors.size(); ++i) {
    if (static_cast<int64_t>(entries_.size()) == options_.capacity) break;
    entries_.push_back({std::make_shared<const Anchor>(std::move(anchors[i])), activations[i]});
  }
  Changed();
  return absl::OkStatus();
}

int64_t AnchorPool::bytes() const {
  int64_t bytes = 0;
  for (const std::shared_ptr<const Anchor>& anchor : Anchors()) bytes += AnchorBytes(*anchor);
  return bytes;
}

BlockKey AnchorPool::EvictOne() {
  const auto end =
      entries_.begin() + std::min<int64_t>(options_.window, static_cast<int64_t>(entries_.size()));
  const auto least = std::min_element(entries_.begin(), end, [](const Entry& a, const Entry& b) {
    return a.activations < b.activations;
  });
  const BlockKey gone = least->anchor->key;
  entries_.erase(least);
  return gone;
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

AnchorPool::AnchorList AnchorPool::Anchors() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::shared_ptr<const Anchor>> anchors;
  for (const Entry& entry : entries_) anchors.push_back(entry.anchor);
  return anchors;
}

Mix AnchorPool::MixFor(const Sketch& filling, const MixOptions& options) const {
  return MixOf(Anchors(), shape_, filling, options, nullptr);
}

// The heaviest anchors that together hold `nucleus` of the weight, heaviest first.
std::vector<BlockKey> AnchorPool::Active(const AnchorList& anchors, const Sketch& filling,
                                         const MixOptions& options) const {
  std::vector<std::pair<double, size_t>> by_distance;
  for (size_t i = 0; i < anchors.size(); ++i) {
    const Sketch& sketch = anchors[i]->sketch;
    if (sketch.tokens >= filling.tokens)
      by_distance.emplace_back(Distance(filling, sketch, filling.tokens) / options.scale, i);
  }
  std::sort(by_distance.begin(), by_distance.end());
  double all = 0;
  for (const auto& [distance, i] : by_distance)
    all += std::exp(-options.sharpness * (distance - by_distance.front().first));
  double sum = 0;
  std::vector<BlockKey> active;
  for (const auto& [distance, i] : by_distance) {
    if (sum >= options_.nucleus * all) break;
    active.push_back(anchors[i]->key);
    sum += std::exp(-options.sharpness * (distance - by_distance.front().first));
  }
  return active;
}

void AnchorPool::Activate(std::span<const BlockKey> active) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (Entry& entry : entries_) {
    if (std::find(active.begin(), active.end(), entry.anchor->key) != active.end())
      ++entry.activations;
  }
}

void AnchorPool::Activate(const Sketch& filling, const MixOptions& options) {
  Activate(Active(Anchors(), filling, options));
}

PoolAnswer AnchorPool::Ask(const Sketch& filling, const PoolQuestion& question) const {
  AnchorList anchors;
  MixOptions options = question.mix;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Entry& entry : entries_) anchors.push_back(entry.anchor);
    options.scale = scale_;
  }
  PoolAnswer answer;
  OffsetEvidence& evidence = answer.evidence;
  evidence.runs = static_cast<int64_t>(anchors.size());
  const auto take = [&](const Anchor& anchor) {
    const int64_t rows = filling.tokens + anchor.prefix.tokens;
    answer.bytes_read += 2 * (shape_.layers - 1) * shape_.width * rows * int64_t{sizeof(float)};
  };
  for (const std::shared_ptr<const Anchor>& anchor : anchors) {
    evidence.longest = std::max(evidence.longest, anchor->sketch.tokens);
    if (anchor->key != question.key || anchor->context_digest != question.context_digest ||
        anchor->sketch.tokens != filling.tokens) {
      continue;
    }
    evidence.same = answer.has_rows = true;
    answer.filling = anchor->filling;
    answer.prefix = anchor->prefix;
    take(*anchor);
    return answer;
  }
  // Where no anchor is as long, nothing of the filling's length is allocated either.
  if (filling.tokens > evidence.longest) {
    evidence.nearest = std::numeric_limits<double>::infinity();
    if (question.with_error) evidence.error = SharesOfAll(anchors, options);
    return answer;
  }
  if (question.with_error) evidence.error = SharesOfAll(anchors, options);
  const bool mixed =
      evidence.error.predicted == 0 || !(evidence.error.filling > question.max_error ||
                                         evidence.error.filling_worst > question.max_token_error);
  Mix mix = mixed ? Mix(shape_.layers, filling.tokens, shape_.prefix_tokens, shape_.width)
                  : Mix(0, filling.tokens, 0, 0);
  for (const std::shared_ptr<const Anchor>& anchor : anchors) {
    if (anchor->sketch.tokens < filling.tokens) continue;
    if (mixed) {
      mix.Add(options, filling, anchor->sketch, anchor->filling, anchor->prefix);
      take(*anchor);
    } else {
      mix.Weigh(options, filling, anchor->sketch);
    }
  }
  evidence.eligible = mix.anchors();
  evidence.entropy = mix.entropy();
  evidence.nearest = mix.nearest();
  answer.has_rows = mixed && mix.anchors() > 0;
  if (!answer.has_rows) return answer;
  answer.filling = mix.FillingOffset();
  answer.prefix = mix.PrefixOffset();
  answer.active = Active(anchors, filling, options);
  return answer;
}

PoolErrorShares PoolError::shares() const {
  return {predicted, filling.share(), filling.TokenShare(0.99), prefix.share(),
          prefix.TokenShare(0.99)};
}

PoolError AnchorPool::LeaveOneOut(const MixOptions& options) const {
  return ErrorOfAll(Anchors(), options);
}

PoolError AnchorPool::ErrorOfAll(const AnchorList& anchors, const MixOptions& options) const {
  PoolError error;
  for (const std::shared_ptr<const Anchor>& anchor : anchors) {
    const Mix mix = MixOf(anchors, shape_, anchor->sketch, options, anchor.get());
    if (mix.anchors() == 0) continue;
    ++error.predicted;
    error.filling.Add(ErrorOf(mix.FillingOffset(), anchor->filling));
    error.prefix.Add(ErrorOf(mix.PrefixOffset(), anchor->prefix));
  }
  return error;
}

bool AnchorPool::Current(const AnchorList& anchors) const {
  return std::equal(anchors.begin(), anchors.end(), entries_.begin(), entries_.end(),
                    [](const auto& a, const Entry& b) { return a == b.anchor; });
}

// Kept until the pool changes: n anchors cost n^2 mixtures of rows.
PoolErrorShares AnchorPool::SharesOfAll(const AnchorList& anchors,
                                        const MixOptions& options) const {
  const std::lock_guard<std::mutex> one_at_a_time(error_mutex_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    asked_ = options;
    const bool same = options.weighting == shares_options_.weighting &&
                      options.sharpness == shares_options_.sharpness &&
                      options.scale == shares_options_.scale;
    if (shares_ && same && Current(anchors)) return *shares_;
  }
  const PoolErrorShares shares = ErrorOfAll(anchors, options).shares();
  const std::lock_guard<std::mutex> lock(mutex_);
  // Unless it changed meanwhile.
  if (Current(anchors)) {
    shares_ = shares;
    shares_options_ = options;
  }
  return shares;
}

void AnchorPool::Refresh() const {
  AnchorList anchors;
  MixOptions options;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!asked_) return;
    options = *asked_;
    options.scale = scale_;
    for (const Entry& entry : entries_) anchors.push_back(entry.anchor);
  }
  SharesOfAll(anchors, options);
}

}  // namespace kedge
