// Hostile parts of pruned sequences: the first byte chooses chain and component, the rest is the
// part. Values are read with the positions that a part of keys would have named.
#include <cstdlib>
#include <vector>

#include "gpu/codec/pruned_chain.h"
#include "gpu/codec/sequence_part.h"

namespace kedge::codec {
namespace {

constexpr const char* kNames[] = {"prefixkv0.5+raw", "prefixkv0.5+kivi2g32",
                                  "prefixkv0.5+kvcrush0.1+kivi4g32", "prefixkv0.5-keydiff+fp8"};
constexpr int64_t kTokens = 128;

PruneProfile Profile() {
  PruneProfile profile;
  profile.budgets.samples = 1;
  profile.budgets.curves.push_back({0.0, 0.7, 1.0});
  return profile;
}

}  // namespace
}  // namespace kedge::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge;
  using namespace kedge::codec;
  if (size == 0) return 0;
  static const auto rope =
      kernels::MakeRopeTable(kernels::RopeFrequencies(32, 1e4f, {}), 0, kTokens);
  const auto chain = PrunedChain::Make(kNames[data[0] & 3], Profile());
  if (!chain.ok()) std::abort();
  const SequenceTask task{
      .shape = KvShape::KeysAndValues(1, 1, 32, 64, DType::kF16), .tokens = kTokens, .rope = &rope};
  const std::span<const uint8_t> part(data + 1, size - 1);
  std::vector<int32_t> kept;
  const auto component = (data[0] & 4) != 0 ? Component::kV : Component::kK;
  if (component == Component::kK) {
    absl::StatusOr<std::vector<int32_t>> read = chain->ReadKept(task, 0, part);
    if (!read.ok()) return 0;
    kept = *std::move(read);
    int32_t last = -1;
    for (const int32_t position : kept) {
      if (position <= last || position >= kTokens) std::abort();
      last = position;
    }
  } else {
    for (int32_t t = 0; t < 64; ++t) kept.push_back(2 * t);
  }
  std::vector<uint8_t> rows(kept.size() * 64);
  chain->DecodePart(task, 0, component, kept, part, rows).IgnoreError();
  return 0;
}
