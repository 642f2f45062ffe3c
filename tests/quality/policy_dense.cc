// dense: every token computed over all that stands before it. What the others are measured against.
#include <utility>

#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

class DensePolicy : public KvPolicy {
 public:
  std::string name() const override { return "dense"; }
  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    absl::StatusOr<KvCache> cache = DenseKv(model, input.context, input.capacity);
    if (!cache.ok()) return cache.status();
    return PolicyKv{.cache = *std::move(cache)};
  }
};

}  // namespace

absl::StatusOr<KvCache> DenseKv(Model& model, const EvalContext& context, int64_t capacity) {
  absl::StatusOr<KvCache> cache = model.NewCache(capacity);
  if (!cache.ok()) return cache.status();
  if (absl::Status s = model.Prefill(context.tokens, *cache).status(); !s.ok()) return s;
  return cache;
}

std::unique_ptr<KvPolicy> MakeDensePolicy() { return std::make_unique<DensePolicy>(); }

}  // namespace kedge::quality
