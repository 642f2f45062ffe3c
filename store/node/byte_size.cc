#include "store/node/byte_size.h"

#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

struct Unit {
  std::string_view name;
  double bytes;
};
constexpr Unit kUnits[] = {{"", 1},         {"B", 1},        {"KiB", 0x1p10}, {"MiB", 0x1p20},
                           {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"kB", 1e3},     {"KB", 1e3},
                           {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};

absl::Status Wrong(std::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "'", std::string(text),
      "' is not a size: expected a number and B, KiB, MiB, GiB, TiB, kB, MB, GB or TB"));
}

}  // namespace

absl::StatusOr<uint64_t> ParseByteSize(std::string_view text) {
  const size_t digits = text.find_first_not_of("0123456789.");
  const std::string_view number = text.substr(0, digits);
  std::string_view unit = digits == std::string_view::npos ? "" : text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  double value = 0;
  if (number.empty() || number.size() > 32 ||
      !absl::SimpleAtod(absl::string_view(number.data(), number.size()), &value)) {
    return Wrong(text);
  }
  for (const Unit& known : kUnits) {
    if (unit != known.name) continue;
    const double bytes = value * known.bytes;
    if (!(bytes < 0x1p63) || (known.bytes == 1 && bytes != std::floor(bytes))) return Wrong(text);
    return static_cast<uint64_t>(bytes);
  }
  return Wrong(text);
}

std::string FormatByteSize(uint64_t bytes) {
  constexpr std::string_view kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes != 0 && bytes % 1024 == 0 && unit + 1 < std::size(kNames)) {
    bytes /= 1024;
    ++unit;
  }
  return absl::StrCat(bytes, std::string(kNames[unit]));
}

}  // namespace kedge
