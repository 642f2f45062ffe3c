// fetched: the dense KV's whole blocks put into a node and got back; the tokens behind the last
// whole block are computed over them. The node is embedded: same client, same formats, no daemon.
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/kv_client.h"
#include "tests/quality/policies.h"
#include "tools/worker/kv_blocks.h"

namespace kedge::quality {
namespace {

absl::Status Failed(const char* step, const std::string& text) {
  return absl::InternalError(absl::StrCat("fetched: ", step, ": ", text));
}

class FetchedPolicy : public KvPolicy {
 public:
  explicit FetchedPolicy(sdk::Client client) : client_(std::move(client)) {}

  std::string name() const override { return "fetched"; }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    auto blocks = client_.OpenModel(StoreModel(model, "quality", "quality"));
    if (!blocks) return Failed("model", blocks.text());
    auto sequence = blocks->FromTokens(input.context.tokens);
    if (!sequence) return Failed("sequence", sequence.text());
    const int64_t length = static_cast<int64_t>(input.context.tokens.size());
    absl::StatusOr<KvCache> dense = model.Fork(input.dense, length, length);
    if (!dense.ok()) return dense.status();
    absl::StatusOr<KvCache> cache = model.NewCache(input.capacity);
    if (!cache.ok()) return cache.status();

    const uint32_t count = sequence->blocks();
    if (count > 0) {
      absl::Status stored = Store(model, *sequence, count, *dense);
      if (!stored.ok()) return stored;
      absl::Status fetched = Fetch(model, *sequence, count, *cache);
      if (!fetched.ok()) return fetched;
    }
    cache->set_length(count * model.block_tokens());
    if (cache->length() < length) {
      absl::Status s = model.Prefill(input.context.tokens, *cache).status();
      if (!s.ok()) return s;
    }
    return PolicyKv{.cache = *std::move(cache), .provenance = KvProvenance::kExact};
  }

 private:
  static absl::Status Store(const Model& model, const sdk::Sequence& sequence, uint32_t count,
                            KvCache& dense) {
    auto request =
        sequence.Store({.block_count = count}, BlockSpans(dense, model.block_tokens(), 0, count));
    if (!request) return Failed("store", request.text());
    if (auto s = sdk::Client::Finish(*request); !s) return Failed("store", s.text());
    return absl::OkStatus();
  }
  // The match's lease keeps the blocks until they are here.
  static absl::Status Fetch(const Model& model, const sdk::Sequence& sequence, uint32_t count,
                            KvCache& cache) {
    auto match = sequence.MatchRun({.lease_ms = 10000});
    if (!match) return Failed("match", match.text());
    if (match->blocks() != count)
      return Failed("match", absl::StrCat(match->blocks(), " of ", count, " blocks are held"));
    auto request =
        sequence.Fetch({.block_count = count}, BlockSpans(cache, model.block_tokens(), 0, count));
    if (!request) return Failed("fetch", request.text());
    if (auto s = sdk::Client::Finish(*request); !s) return Failed("fetch", s.text());
    return absl::OkStatus();
  }

  sdk::Client client_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPolicy>> MakeFetchedPolicy() {
  auto client = sdk::Client::Open({.address = "embedded:?host=256MiB", .salt = "tests/quality"});
  if (!client) return Failed("open", client.text());
  return std::make_unique<FetchedPolicy>(std::move(*client));
}

}  // namespace kedge::quality
