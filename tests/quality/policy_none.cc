// none: reuse without any repair. Every filling is computed alone behind the context's leading
// tokens (BOS), whose rows are dropped, and moved to its true position; templates, and later the
// questions, are computed over what was so put together. What a policy of reuse has to win back.
#include <span>
#include <utility>

#include "gpu/model/kv_span.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

class NonePolicy : public KvPolicy {
 public:
  std::string name() const override { return "none"; }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    const std::span<const int32_t> tokens(input.context.tokens);
    absl::StatusOr<KvCache> cache = model.NewCache(input.capacity);
    if (!cache.ok()) return cache.status();
    PolicyKv kv{.cache = *std::move(cache)};
    for (const EvalPiece& piece : input.context.pieces) {
      if (piece.count == 0) continue;
      const int64_t end = piece.first + piece.count;
      if (piece.filling) {
        absl::StatusOr<KvSpan> span = ComputeAlone(model, tokens.first(input.context.lead),
                                                   tokens.subspan(piece.first, piece.count));
        if (!span.ok()) return span.status();
        absl::Status placed = PlaceSpan(model, *span, piece.first, kv.cache);
        if (!placed.ok()) return placed;
        kv.cache.set_length(end);
        kv.provenance = KvProvenance::kMoved;
      } else {
        absl::Status s = model.Prefill(tokens.first(end), kv.cache).status();
        if (!s.ok()) return s;
      }
    }
    return kv;
  }
};

}  // namespace

std::unique_ptr<KvPolicy> MakeNonePolicy() { return std::make_unique<NonePolicy>(); }

}  // namespace kedge::quality
