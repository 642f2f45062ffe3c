// How every benchmark measures (method: the project's design, "How it is measured").
//
// Absolute times mean little on a shared machine. A case runs *ours* and a *yardstick* in the same
// run, interleaved ours-yardstick-yardstick-ours, so that a slow minute hits both; medians are
// compared; the case is void when the yardstick itself varied by more than 15%. A `ratio` is ours
// against the yardstick, larger is better, for rates and for times alike.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge::bench {

// One measurement; larger is better for rates, smaller for times: `Direction` says which.
using Measurement = std::function<absl::StatusOr<double>()>;
enum class Direction { kLargerIsBetter, kSmallerIsBetter };

inline constexpr double kVoidSpread = 0.15;

double Median(std::vector<double> values);
// The value below which `percent` of the values lie (nearest rank).
double Percentile(std::vector<double> values, double percent);
// (third quartile - first quartile) / median: what a typical repetition varies by.
double Spread(const std::vector<double>& values);

struct Figure {
  std::string bench = {};
  std::string name = {};  // a path of plain words: "get/1MiB/tcp/batch32"
  double value = 0;       // ours, median
  std::string unit = {};
  std::string baseline = {};  // what the yardstick is; empty for a plain value
  std::optional<double> baseline_value = {};
  std::optional<double> ratio = {};
  // A confidence interval of the value, where it is an estimate; both or none.
  std::optional<double> low = {};
  std::optional<double> high = {};
  double spread = 0;
  double baseline_spread = 0;
  bool is_void = false;
  std::string note = {};  // for people: p50 and p99, which way of the yardstick won
};

// Runs ours and the yardstick once untimed, then `rounds` rounds of ours, yardstick, yardstick,
// ours. The first error ends it.
absl::StatusOr<Figure> Compare(const std::string& bench, const std::string& name,
                               const std::string& unit, const std::string& baseline,
                               Direction direction, int rounds, const Measurement& ours,
                               const Measurement& yardstick);

// Prints figures as they come: a table line for people, or one JSON object a line.
class Reporter {
 public:
  explicit Reporter(bool json) : json_(json) {}
  void Print(const Figure& figure);
  // A figure without a yardstick.
  void PrintValue(const std::string& bench, const std::string& name, double value,
                  const std::string& unit, const std::string& note = "");
  // What the machine lets us not measure; to standard error.
  void Skip(const std::string& name, const std::string& why);

 private:
  bool json_;
  bool header_printed_ = false;
};

// Pins the calling process (all its threads that start later too) to one core; ignored where there
// is one core only.
void PinTo(int core);

}  // namespace kedge::bench
