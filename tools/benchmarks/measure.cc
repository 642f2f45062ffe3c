#include "tools/benchmarks/measure.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace kedge::bench {

double Median(std::vector<double> values) { return Percentile(std::move(values), 50); }

double Percentile(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double rank = std::ceil(percent / 100 * static_cast<double>(values.size()));
  const auto index = static_cast<size_t>(std::max(1.0, rank)) - 1;
  return values[std::min(index, values.size() - 1)];
}

double Spread(const std::vector<double>& values) {
  const double median = Median(values);
  if (median == 0) return 0;
  return (Percentile(values, 75) - Percentile(values, 25)) / median;
}

absl::StatusOr<Figure> Compare(const std::string& bench, const std::string& name,
                               const std::string& unit, const std::string& baseline,
                               Direction direction, int rounds, const Measurement& ours,
                               const Measurement& yardstick) {
  std::vector<double> our_values;
  std::vector<double> yardstick_values;
  const auto take = [](const Measurement& measure, std::vector<double>& values) -> absl::Status {
    absl::StatusOr<double> value = measure();
    if (value.ok()) values.push_back(*value);
    return value.status();
  };
  // Once each untimed: caches, page tables and congestion windows are not what is compared.
  for (const Measurement* measure : {&ours, &yardstick}) {
    if (absl::Status status = (*measure)().status(); !status.ok()) return status;
  }
  for (int round = 0; round < rounds; ++round) {
    for (bool our_turn : {true, false, false, true}) {
      const absl::Status status =
          our_turn ? take(ours, our_values) : take(yardstick, yardstick_values);
      if (!status.ok()) return status;
    }
  }
  Figure figure{.bench = bench,
                .name = name,
                .value = Median(our_values),
                .unit = unit,
                .baseline = baseline};
  figure.baseline_value = Median(yardstick_values);
  figure.spread = Spread(our_values);
  figure.baseline_spread = Spread(yardstick_values);
  figure.is_void = figure.baseline_spread > kVoidSpread;
  const double quotient = figure.value / *figure.baseline_value;
  figure.ratio = direction == Direction::kLargerIsBetter ? quotient : 1 / quotient;
  return figure;
}

void Reporter::Print(const Figure& figure) {
  if (json_) {
    nlohmann::ordered_json line = {{"bench", figure.bench},
                                   {"case", figure.name},
                                   {"value", figure.value},
                                   {"unit", figure.unit}};
    if (figure.low && figure.high) {
      line["low"] = *figure.low;
      line["high"] = *figure.high;
    }
    if (figure.ratio) {
      line["baseline"] = figure.baseline;
      line["baseline_value"] = *figure.baseline_value;
      line["ratio"] = *figure.ratio;
      line["spread"] = figure.spread;
      line["baseline_spread"] = figure.baseline_spread;
      if (figure.is_void) line["void"] = true;
    }
    if (!figure.note.empty()) line["note"] = figure.note;
    std::printf("%s\n", line.dump().c_str());
  } else {
    if (!header_printed_) {
      std::printf("%-34s %12s %-9s %8s %8s  %s\n", "CASE", "VALUE", "UNIT", "RATIO", "SPREAD",
                  "AGAINST");
      header_printed_ = true;
    }
    const std::string against =
        figure.ratio ? figure.baseline + (figure.is_void ? " (void: the yardstick varied)" : "")
                     : "";
    std::printf("%-34s %12.3f %-9s ", figure.name.c_str(), figure.value, figure.unit.c_str());
    if (figure.ratio) {
      std::printf("%8.2f %7.0f%%  %s", *figure.ratio, figure.spread * 100, against.c_str());
    } else if (figure.low && figure.high) {
      std::printf("[%.3f, %.3f]", *figure.low, *figure.high);
    } else {
      std::printf("%8s %8s ", "", "");
    }
    std::printf("%s%s\n", figure.note.empty() ? "" : "  ", figure.note.c_str());
  }
  std::fflush(stdout);
}

void Reporter::PrintValue(const std::string& bench, const std::string& name, double value,
                          const std::string& unit, const std::string& note) {
  Figure figure{.bench = bench, .name = name, .value = value, .unit = unit};
  figure.note = note;
  Print(figure);
}

void Reporter::Skip(const std::string& name, const std::string& why) {
  std::fprintf(stderr, "%s: not measured: %s\n", name.c_str(), why.c_str());
}

void PinTo(int core) {
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  if (cores < 2) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core % cores, &set);
  sched_setaffinity(0, sizeof set, &set);
}

}  // namespace kedge::bench
