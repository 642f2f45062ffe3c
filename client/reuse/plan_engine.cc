#include "client/reuse/plan_engine.h"

#include <cmath>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// Values of the rows, of one value a token; empty stays empty.
std::vector<float> OfRows(std::span<const float> tokens, std::span<const int32_t> rows) {
  std::vector<float> values;
  if (tokens.empty()) return values;
  for (const int32_t row : rows) values.push_back(tokens[row]);
  return values;
}

absl::Status CheckRequest(const PlanRequest& request) {
  const auto tokens = static_cast<size_t>(request.tokens);
  if (!request.noise.empty() && request.noise.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("noise: ", request.noise.size(), " values for ", tokens, " tokens"));
  }
  if (!request.oracle.empty() && request.oracle.size() != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("oracle: ", request.oracle.size(), " values for ", tokens, " tokens"));
  }
  if (request.queries < 0 || request.queries > request.tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("queries: ", request.queries, " of ", tokens, " tokens"));
  }
  return absl::OkStatus();
}

absl::Status CheckRows(const char* what, size_t given, size_t rows) {
  if (given == rows) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("engine: ", what, " of ", given, " rows, asked for ", rows));
}

}  // namespace

float L1Distance(std::span<const float> a, std::span<const float> b) {
  ABSL_RAW_CHECK(a.size() == b.size(), "L1Distance: sizes differ");
  float sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum;
}

absl::StatusOr<PlanResult> RunPlan(PlanEngine& engine, const PlanRequest& request) {
  if (absl::Status s = CheckRequest(request); !s.ok()) return s;
  absl::StatusOr<RecomputePlanner> planner =
      RecomputePlanner::Make(request.config, engine.layers(), request.tokens, request.segments);
  if (!planner.ok()) return planner.status();
  std::vector<int32_t> rows = planner->start();
  if (absl::Status s = engine.Begin(rows); !s.ok()) return s;
  for (int64_t layer = 0; layer < engine.layers(); ++layer) {
    const bool chooses = planner->Chooses(layer);
    if (absl::Status s = engine.Project(layer); !s.ok()) return s;
    absl::StatusOr<std::vector<float>> deviation = std::vector<float>();
    if (chooses && planner->needs_deviation()) {
      deviation = engine.ValueDeviation(layer);
      if (!deviation.ok()) return deviation.status();
      if (absl::Status s = CheckRows("deviation", deviation->size(), rows.size()); !s.ok())
        return s;
    }
    if (absl::Status s = engine.WriteKv(layer); !s.ok()) return s;
    if (chooses) {
      absl::StatusOr<std::vector<float>> attention = std::vector<float>();
      if (planner->needs_attention() && request.queries > 0) {
        attention = engine.AttentionOfLast(layer, request.queries);
        if (absl::IsUnimplemented(attention.status())) attention = std::vector<float>();
        if (!attention.ok()) return attention.status();
        if (!attention->empty()) {
          absl::Status s = CheckRows("attention", attention->size(), rows.size());
          if (!s.ok()) return s;
        }
      }
      const std::vector<float> noise = OfRows(request.noise, rows);
      const std::vector<float> oracle = OfRows(request.oracle, rows);
      rows = planner->Choose(
          layer, rows,
          {.deviation = *deviation, .noise = noise, .attention = *attention, .oracle = oracle});
    }
    if (absl::Status s = engine.Attend(layer, rows); !s.ok()) return s;
  }
  return PlanResult{.computed = std::move(rows), .left = planner->left()};
}

}  // namespace kedge
