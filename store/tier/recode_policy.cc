#include "store/tier/recode_policy.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gpu/codec/codec_chain.h"

namespace kedge {
namespace {

constexpr uint32_t kHoursMax = 24 * 365;  // what a block map's hours can tell apart

// "36h", "7d".
bool ReadHours(absl::string_view text, uint32_t* hours) {
  const uint32_t unit = absl::ConsumeSuffix(&text, "d") ? 24 : 1;
  if (unit == 1 && !absl::ConsumeSuffix(&text, "h")) return false;
  uint32_t count = 0;
  if (!absl::SimpleAtoi(text, &count) || count == 0 || count > kHoursMax / unit) return false;
  *hours = count * unit;
  return true;
}

const Variant& RawVariant() {
  static const Variant raw = Variant::Raw();
  return raw;
}

}  // namespace

absl::StatusOr<RecodePolicy> RecodePolicy::Parse(std::span<const std::string> lines) {
  RecodePolicy policy;
  for (const std::string& line : lines) {
    const auto wrong = [&](absl::string_view why) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", line, "': ", why,
                       "; a line is [tenant N:] ssd: CHAIN, or [tenant N:] ssd after 7d: CHAIN"));
    };
    absl::string_view rest = absl::StripAsciiWhitespace(line);
    Rules* rules = &policy.others_;
    if (absl::ConsumePrefix(&rest, "tenant ")) {
      const size_t colon = rest.find(':');
      uint64_t tenant = 0;
      if (colon == rest.npos || !absl::SimpleAtoi(rest.substr(0, colon), &tenant)) {
        return wrong("the tenant is not a number");
      }
      rules = &policy.rules_[tenant];
      rest = absl::StripAsciiWhitespace(rest.substr(colon + 1));
    }
    const size_t colon = rest.find(':');
    if (colon == rest.npos) return wrong("there is no ':' behind the tier");
    const absl::string_view tier = absl::StripAsciiWhitespace(rest.substr(0, colon));
    const absl::string_view name = absl::StripAsciiWhitespace(rest.substr(colon + 1));
    Rule rule;
    const absl::StatusOr<Variant> variant = Variant::Parse({name.data(), name.size()});
    if (!variant.ok()) return wrong(variant.status().message());
    rule.variant = *variant;
    // A chain that needs a profile is told so when there is a block to recode.
    const absl::Status known = codec::CodecChain::Parse(rule.variant.view()).status();
    if (absl::IsInvalidArgument(known)) return wrong(known.message());
    absl::string_view after = tier;
    if (tier == "host") {
      if (rule.variant != Variant::Raw()) return wrong("host memory holds what was put (raw)");
      continue;
    }
    if (tier != "ssd") {
      if (!absl::ConsumePrefix(&after, "ssd after ")) return wrong("the tier is not host or ssd");
      if (!ReadHours(after, &rule.after_hours)) return wrong("the time is not like 36h or 7d");
    }
    for (const Rule& other : *rules) {
      if (other.after_hours == rule.after_hours) return wrong("there is such a line already");
    }
    rules->push_back(rule);
  }
  const auto sort = [](Rules& rules) {
    std::sort(rules.begin(), rules.end(),
              [](const Rule& a, const Rule& b) { return a.after_hours < b.after_hours; });
  };
  for (auto& [tenant, rules] : policy.rules_) sort(rules);
  sort(policy.others_);
  return policy;
}

const RecodePolicy::Rules& RecodePolicy::Of(uint64_t tenant) const {
  const auto own = rules_.find(tenant);
  return own == rules_.end() ? others_ : own->second;
}

const Variant& RecodePolicy::OnSsd(uint64_t tenant) const {
  const Rules& rules = Of(tenant);
  return rules.empty() || rules[0].after_hours != 0 ? RawVariant() : rules[0].variant;
}

const Variant& RecodePolicy::AfterIdle(uint64_t tenant, uint32_t idle_hours,
                                       const Variant& held) const {
  const Variant* last = &RawVariant();
  for (const Rule& rule : Of(tenant)) {
    if (rule.after_hours == 0) continue;
    if (rule.after_hours <= idle_hours) {
      last = &rule.variant;
    } else if (rule.variant == held) {
      return RawVariant();
    }
  }
  return *last;
}

uint32_t RecodePolicy::shortest_idle_hours() const {
  uint32_t shortest = UINT32_MAX;
  const auto look = [&](const Rules& rules) {
    for (const Rule& rule : rules) {
      if (rule.after_hours != 0) shortest = std::min(shortest, rule.after_hours);
    }
  };
  for (const auto& [tenant, rules] : rules_) look(rules);
  look(others_);
  return shortest;
}

std::vector<Variant> RecodePolicy::variants() const {
  std::vector<Variant> variants;
  const auto look = [&](const Rules& rules) {
    for (const Rule& rule : rules) {
      if (rule.variant == Variant::Raw()) continue;
      if (std::find(variants.begin(), variants.end(), rule.variant) == variants.end()) {
        variants.push_back(rule.variant);
      }
    }
  };
  for (const auto& [tenant, rules] : rules_) look(rules);
  look(others_);
  return variants;
}

}  // namespace kedge
