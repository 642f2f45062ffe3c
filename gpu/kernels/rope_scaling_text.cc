#include "gpu/kernels/rope_scaling_text.h"

#include <cmath>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace kedge::kernels {
namespace {

// "name=number", a finite number above 0.
bool ReadField(absl::string_view word, absl::string_view name, double* value) {
  return absl::ConsumePrefix(&word, name) && absl::ConsumePrefix(&word, "=") &&
         absl::SimpleAtod(word, value) && std::isfinite(*value) && *value > 0;
}

bool Read(const std::vector<absl::string_view>& words, RopeScaling* scaling) {
  double factor = 0, low = 0, high = 0, original = 0;
  if (words.size() < 2 || !ReadField(words[1], "factor", &factor)) return false;
  scaling->factor = static_cast<float>(factor);
  if (words[0] == "linear") {
    scaling->kind = RopeScalingKind::kLinear;
    return words.size() == 2;
  }
  if (words[0] != "llama3" || words.size() != 5) return false;
  if (!ReadField(words[2], "low", &low) || !ReadField(words[3], "high", &high) ||
      !ReadField(words[4], "original", &original) || high <= low || original > 1e12) {
    return false;
  }
  scaling->kind = RopeScalingKind::kLlama3;
  scaling->low_freq_factor = static_cast<float>(low);
  scaling->high_freq_factor = static_cast<float>(high);
  scaling->original_max_positions = static_cast<int64_t>(original);
  return true;
}

}  // namespace

std::string RopeScalingText(const RopeScaling& scaling) {
  switch (scaling.kind) {
    case RopeScalingKind::kNone:
      return "";
    case RopeScalingKind::kLinear:
      return absl::StrCat("linear factor=", scaling.factor);
    case RopeScalingKind::kLlama3:
      return absl::StrCat("llama3 factor=", scaling.factor, " low=", scaling.low_freq_factor,
                          " high=", scaling.high_freq_factor,
                          " original=", scaling.original_max_positions);
  }
  return "unknown";
}

absl::StatusOr<RopeScaling> ParseRopeScaling(std::string_view text) {
  RopeScaling scaling;
  if (text.empty()) return scaling;
  const absl::string_view view(text.data(), text.size());
  const std::vector<absl::string_view> words = absl::StrSplit(view, ' ');
  if (Read(words, &scaling)) return scaling;
  return absl::InvalidArgumentError(
      absl::StrCat("rope_scaling: \"", absl::CHexEscape(view.substr(0, 200)),
                   "\" is none of \"linear factor=F\", \"llama3 factor=F low=L high=H "
                   "original=N\": keys of such a model cannot be turned here"));
}

}  // namespace kedge::kernels
