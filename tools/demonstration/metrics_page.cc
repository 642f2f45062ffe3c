#include "tools/demonstration/metrics_page.h"

#include <httplib.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

constexpr time_t kTimeoutSeconds = 5;

// `name{labels} value`, or `name value`. False when it is something else.
bool ParseSample(std::string_view line, MetricSample* sample) {
  if (line.empty() || line.front() == '#') return false;
  const size_t space = line.rfind(' ');
  if (space == std::string_view::npos) return false;
  const std::string value(line.substr(space + 1));
  char* end = nullptr;
  sample->value = std::strtod(value.c_str(), &end);
  if (value.empty() || *end != '\0') return false;
  const std::string_view series = line.substr(0, space);
  const size_t open = series.find('{');
  sample->name = std::string(series.substr(0, open));
  sample->labels.clear();
  if (open == std::string_view::npos) return true;
  if (series.back() != '}') return false;
  sample->labels = std::string(series.substr(open + 1, series.size() - open - 2));
  return true;
}

}  // namespace

std::vector<MetricSample> ParseMetrics(std::string_view page) {
  std::vector<MetricSample> samples;
  for (size_t begin = 0; begin < page.size();) {
    const size_t end = std::min(page.find('\n', begin), page.size());
    MetricSample sample;
    if (ParseSample(page.substr(begin, end - begin), &sample)) samples.push_back(std::move(sample));
    begin = end + 1;
  }
  return samples;
}

absl::StatusOr<std::vector<MetricSample>> ReadMetrics(const std::string& address) {
  const std::string base = address.find("://") == std::string::npos ? "http://" + address : address;
  httplib::Client http(base.substr(0, base.find('/', base.find("://") + 3)));
  http.set_connection_timeout(kTimeoutSeconds);
  http.set_read_timeout(kTimeoutSeconds);
  httplib::Result page = http.Get("/metrics");
  if (!page) return absl::UnavailableError(absl::StrCat(base, ": no answer"));
  if (page->status != 200)
    return absl::UnavailableError(absl::StrCat(base, "/metrics: HTTP status ", page->status));
  return ParseMetrics(page->body);
}

double SumOf(const std::vector<MetricSample>& samples, std::string_view name,
             const std::vector<std::string>& labels) {
  double sum = 0;
  for (const MetricSample& sample : samples) {
    const bool has_all = std::all_of(labels.begin(), labels.end(), [&](const std::string& label) {
      return sample.labels.find(label) != std::string::npos;
    });
    if (sample.name == name && has_all) sum += sample.value;
  }
  return sum;
}

}  // namespace kedge
