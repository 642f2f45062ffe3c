// Hostile sidecars and profile sections: the first byte says which. What is read is written as the
// same bytes, and serves without a crash.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "gpu/codec/expected_attention.h"
#include "gpu/codec/prefixkv.h"
#include "gpu/codec/score_sidecar.h"

namespace kedge::codec {
namespace {

void Same(const std::vector<uint8_t>& written, std::span<const uint8_t> read) {
  if (!std::equal(written.begin(), written.end(), read.begin(), read.end())) std::abort();
}

void Sidecar(std::span<const uint8_t> bytes) {
  const absl::StatusOr<ScoreSidecar> sidecar = DecodeSidecar(bytes);
  if (!sidecar.ok()) return;
  Same(EncodeSidecar(*sidecar), bytes);
  const TokenScores scores = ScoresOf(*sidecar);
  LayerImportance(scores, scores.layers - 1);
}

void Budgets(std::span<const uint8_t> bytes) {
  const absl::StatusOr<PrefixKvProfile> profile = DecodePrefixKv(bytes);
  if (!profile.ok()) return;
  Same(EncodePrefixKv(*profile), bytes);
  const std::vector<double> shares = EqualMassShares(profile->curves, 0.3);
  for (const double share : shares)
    if (!(share >= 0.0 && share <= 1.0 + 1e-9)) std::abort();
  const absl::StatusOr<std::vector<int64_t>> rows = BudgetRows(shares, 0.3, 640, 32);
  if (!rows.ok()) std::abort();
}

}  // namespace
}  // namespace kedge::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge::codec;
  if (size == 0) return 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  switch (data[0] % 3) {
    case 0:
      Sidecar(bytes);
      break;
    case 1:
      Budgets(bytes);
      break;
    default:
      const auto stats = DecodeQueryStats(bytes);
      if (stats.ok()) Same(EncodeQueryStats(*stats), bytes);
  }
  return 0;
}
