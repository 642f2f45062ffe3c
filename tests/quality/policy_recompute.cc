// Reuse with some tokens computed anew (client/reuse/recompute_plan.h). Fillings come as in `none`,
// computed alone and moved; templates are computed over them, together with the chosen tokens.
//
//     deviation0.15@2       15% of the fillings' tokens by the deviation of V at check layer 2
//     cacheblend0.15@2      the same, then fewer at every layer; 15% on average
//     dhd0.15@2             attention of the context's last 4 tokens times deviation: the queries
//                           that KVShare takes, who do not know what will be asked
//     dhd0.15@2+asked       attention of the question's own tokens, computed with the context; the
//                           question is known then, so each has a context of its own
//                           (--per-question)
//     deviation0.15@2+repair3   what prefill left is repaired while decoding, 3 tokens a step (dhd
//                           and cacheblend too); the highest scores that have 90% of their sum
//     random0.15@2          as many tokens by chance
//     oracle0.15@2          those whose K and V of all later layers are farthest from dense
//     epic0.15@2            the first tokens of every filling, as many as cost the same
//     epic4                 the first 4 tokens of every filling
//
// The layers before the check layer are computed in full by all but epic, and count.
#include <atomic>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/reuse/blend.h"
#include "gpu/kernels/cast.h"
#include "gpu/model/kv_span.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

constexpr int64_t kTailQueries = 4;

struct RecomputeName {
  RecomputeConfig config;
  bool same_cost = false;  // epic, with as many tokens as cost what deviation costs
  bool asked = false;
  int64_t repair = 0;  // tokens a decode step
};

template <typename Number>
bool TakeNumber(std::string_view& text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return false;
  text.remove_prefix(end - text.data());
  return true;
}

bool TakePrefix(std::string_view& text, std::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::optional<RecomputeName> ParseName(std::string_view text) {
  RecomputeName name;
  bool known = false;
  for (const RecomputePolicy policy :
       {RecomputePolicy::kEpic, RecomputePolicy::kDeviation, RecomputePolicy::kDhd,
        RecomputePolicy::kCacheBlend, RecomputePolicy::kRandom, RecomputePolicy::kOracle}) {
    if (known || !TakePrefix(text, RecomputePolicyName(policy))) continue;
    name.config.policy = policy;
    known = true;
  }
  if (!known) return std::nullopt;
  const bool epic = name.config.policy == RecomputePolicy::kEpic;
  if (epic && text.find('@') == std::string_view::npos) {
    if (!TakeNumber(text, name.config.epic_tokens) || !text.empty()) return std::nullopt;
    return name;
  }
  if (!TakeNumber(text, name.config.ratio) || !TakePrefix(text, "@") ||
      !TakeNumber(text, name.config.check_layer))
    return std::nullopt;
  name.same_cost = epic;
  name.asked = name.config.policy == RecomputePolicy::kDhd && TakePrefix(text, "+asked");
  if (TakePrefix(text, "+repair") && (!TakeNumber(text, name.repair) || name.repair < 1))
    return std::nullopt;
  if (!text.empty()) return std::nullopt;
  return name;
}

// Of a layer's products.
double ProjectionShare(const ModelConfig& config) {
  const auto project = static_cast<double>((config.heads + 2 * config.kv_heads) * config.head_size);
  const auto finish =
      static_cast<double>(config.heads * config.head_size + 3 * config.intermediate_size);
  return project / (project + finish);
}

// The context with its fillings moved into place; rows of templates are not there yet.
absl::StatusOr<KvCache> Assemble(Model& model, const EvalContext& context, int64_t capacity,
                                 std::vector<ReusedSegment>& segments) {
  absl::StatusOr<KvCache> cache = model.NewCache(capacity);
  if (!cache.ok()) return cache;
  const std::span<const int32_t> tokens(context.tokens);
  for (const EvalPiece& piece : context.pieces) {
    if (piece.count == 0 || !piece.filling) continue;
    absl::StatusOr<KvSpan> span =
        ComputeAlone(model, tokens.first(context.lead), tokens.subspan(piece.first, piece.count));
    if (!span.ok()) return span.status();
    if (absl::Status s = PlaceSpan(model, *span, piece.first, *cache); !s.ok()) return s;
    segments.push_back({static_cast<int32_t>(piece.first), static_cast<int32_t>(piece.count)});
  }
  return cache;
}

// For each token the L1 distance of its K and V from dense in the layers from `first_layer` on.
std::vector<float> DistanceFromDense(const KvCache& cache, const KvCache& dense, int64_t tokens,
                                     int64_t first_layer) {
  const KvCache::Geometry& geometry = cache.geometry();
  const int64_t width = geometry.kv_heads * geometry.head_size;
  std::vector<float> a(width);
  std::vector<float> b(width);
  std::vector<float> distance(tokens);
  for (int64_t layer = first_layer; layer < geometry.layers; ++layer) {
    for (const Component component : {Component::kK, Component::kV}) {
      for (int64_t token = 0; token < tokens; ++token) {
        kernels::CastToFloat(geometry.dtype, cache.PartSpan(layer, component, token, 1).data(),
                             width, a.data());
        kernels::CastToFloat(geometry.dtype, dense.PartSpan(layer, component, token, 1).data(),
                             width, b.data());
        for (int64_t i = 0; i < width; ++i) distance[token] += std::abs(a[i] - b[i]);
      }
    }
  }
  return distance;
}

// The most first tokens of every segment that cost no more than `config` does.
absl::StatusOr<RecomputeConfig> EpicOfSameCost(const RecomputeConfig& config,
                                               const ModelConfig& model, int64_t tokens,
                                               std::span<const ReusedSegment> segments) {
  RecomputeConfig other = config;
  other.policy = RecomputePolicy::kDeviation;
  const double share = ProjectionShare(model);
  const auto planner = RecomputePlanner::Make(other, model.layers, tokens, segments);
  if (!planner.ok()) return planner.status();
  const double most = planner->RowLayers(share);
  RecomputeConfig epic = config;
  for (epic.epic_tokens = 0; epic.epic_tokens < tokens; ++epic.epic_tokens) {
    RecomputeConfig next = epic;
    ++next.epic_tokens;
    const auto longer = RecomputePlanner::Make(next, model.layers, tokens, segments);
    if (!longer.ok()) return longer.status();
    if (longer->RowLayers(share) > most) break;
  }
  return epic;
}

class RecomputedPolicy : public KvPolicy {
 public:
  RecomputedPolicy(std::string name, const RecomputeName& parsed)
      : name_(std::move(name)), parsed_(parsed) {}

  std::string name() const override { return name_; }

  double OperationsShare() const override {
    const double dense = dense_operations_;
    return dense > 0 ? operations_ / dense : 0.0;
  }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    const auto length = static_cast<int64_t>(input.context.tokens.size());
    std::vector<int32_t> tokens = input.context.tokens;
    std::vector<ReusedSegment> segments;
    int64_t questions = 0;
    if (parsed_.asked) {
      if (input.context.questions.size() != 1) {
        return absl::InvalidArgumentError(
            absl::StrCat(name_, ": a context with ", input.context.questions.size(),
                         " questions; --per-question gives every question its own"));
      }
      const std::vector<int32_t>& asked = input.context.questions.front().tokens;
      questions = static_cast<int64_t>(asked.size());
      tokens.insert(tokens.end(), asked.begin(), asked.end());
    }
    absl::StatusOr<KvCache> cache = Assemble(model, input.context, input.capacity, segments);
    if (!cache.ok()) return cache.status();
    cache->set_length(length + questions);

    BlendRequest request{.tokens = tokens, .segments = segments, .config = parsed_.config};
    std::vector<float> oracle;
    if (parsed_.config.policy == RecomputePolicy::kOracle) {
      oracle = DistanceFromDense(*cache, input.dense, length, parsed_.config.check_layer);
      request.oracle = oracle;
    }
    if (parsed_.config.policy == RecomputePolicy::kDhd)
      request.queries = parsed_.asked ? questions : std::min(kTailQueries, length);
    if (parsed_.same_cost) {
      absl::StatusOr<RecomputeConfig> epic = EpicOfSameCost(
          parsed_.config, model.config(), static_cast<int64_t>(tokens.size()), segments);
      if (!epic.ok()) return epic.status();
      request.config = *epic;
    }
    absl::StatusOr<BlendResult> blended = Blend(model, request, *cache);
    if (!blended.ok()) return blended.status();
    cache->set_length(length);
    Add(operations_, blended->operations);
    Add(dense_operations_, DenseOperations(model.config(), static_cast<int64_t>(tokens.size())));
    PolicyKv kv{
        .cache = *std::move(cache), .provenance = KvProvenance::kRecomputed, .lossless = false};
    if (parsed_.repair > 0)
      kv.repair = DecodeRepair(blended->left, {.tokens_per_step = parsed_.repair});
    return kv;
  }

 private:
  static void Add(std::atomic<double>& sum, double value) {
    for (double old = sum; !sum.compare_exchange_weak(old, old + value);) {
    }
  }

  const std::string name_;
  const RecomputeName parsed_;
  // Of what Obtain has computed so far, fillings alone not counted.
  mutable std::atomic<double> operations_ = 0;
  mutable std::atomic<double> dense_operations_ = 0;
};

}  // namespace

bool IsRecomputePolicy(const std::string& name) { return ParseName(name).has_value(); }

absl::StatusOr<RecomputeConfig> RecomputeConfigOf(const std::string& name) {
  const std::optional<RecomputeName> parsed = ParseName(name);
  if (!parsed.has_value())
    return absl::InvalidArgumentError(absl::StrCat("policy: '", name, "' recomputes nothing"));
  const RecomputeConfig& config = parsed->config;
  if (!(config.ratio >= 0.0 && config.ratio <= 1.0) || config.check_layer < 0 ||
      config.epic_tokens < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "policy: '", name, "': a ratio is in [0, 1], a layer and a count are not negative"));
  }
  return config;
}

absl::StatusOr<std::unique_ptr<KvPolicy>> MakeRecomputePolicy(const std::string& name) {
  if (absl::Status s = RecomputeConfigOf(name).status(); !s.ok()) return s;
  return std::make_unique<RecomputedPolicy>(name, *ParseName(name));
}

}  // namespace kedge::quality
