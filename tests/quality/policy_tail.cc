// CHAIN+tailN: a chain with KIVI's full-precision tail (arXiv 2402.02750, section 3.3), to measure
// what stores of whole blocks go without. The context's last N tokens, and what lies behind its
// last whole block, stay as they are in dense KV; the rest is the chain's.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

class TailPolicy : public KvPolicy {
 public:
  TailPolicy(std::unique_ptr<KvPolicy> chain, int64_t tail)
      : chain_(std::move(chain)), tail_(tail) {}

  std::string name() const override { return absl::StrCat(chain_->name(), "+tail", tail_); }

  // Of the whole blocks' tokens that lie in the tail, the dtype's bits instead.
  double BitsPerValue(const Model& model, int64_t tokens) const override {
    const int64_t whole = tokens - tokens % model.block_tokens();
    const int64_t behind = tokens - whole;
    const auto kept = static_cast<double>(std::clamp<int64_t>(tail_ - behind, 0, whole));
    const double share = kept / static_cast<double>(whole);
    return chain_->BitsPerValue(model, tokens) * (1.0 - share) +
           8.0 * DTypeBytes(model.kv_dtype()) * share;
  }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    absl::StatusOr<PolicyKv> kv = chain_->Obtain(model, input);
    if (!kv.ok()) return kv;
    const int64_t length = input.dense.length();
    const int64_t whole = length - length % model.block_tokens();
    const int64_t first = std::max<int64_t>(std::min(whole, length - tail_), 0);
    for (int64_t layer = 0; layer < model.config().layers; ++layer) {
      for (const Component component : {Component::kK, Component::kV}) {
        const auto dense = input.dense.PartSpan(layer, component, first, length - first);
        std::memcpy(kv->cache.PartSpan(layer, component, first, length - first).data(),
                    dense.data(), dense.size());
      }
    }
    return kv;
  }

 private:
  const std::unique_ptr<KvPolicy> chain_;
  const int64_t tail_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPolicy>> MakeTailPolicy(const std::string& name,
                                                         const ModelProfile* profile) {
  const size_t at = name.rfind("+tail");
  int64_t tail = 0;
  if (at == std::string::npos || !absl::SimpleAtoi(name.substr(at + 5), &tail) || tail <= 0)
    return absl::InvalidArgumentError(absl::StrCat("'", name, "' is not CHAIN+tailN"));
  absl::StatusOr<std::unique_ptr<KvPolicy>> chain = MakeCodecPolicy(name.substr(0, at), profile);
  if (!chain.ok()) return chain.status();
  return std::make_unique<TailPolicy>(*std::move(chain), tail);
}

}  // namespace kedge::quality
