// Hostile model profiles: as they are, and with right magic, lengths, CRCs and id, so that the
// fields behind them are reached.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "proto/model_profile.h"

namespace kedge {
namespace {

// What is read is what Make would write.
void Check(std::vector<uint8_t> bytes) {
  const absl::StatusOr<ModelProfile> profile = ModelProfile::Parse(bytes);
  if (!profile.ok()) return;
  ModelProfile::Sections sections;
  for (const std::string& name : profile->section_names()) {
    const std::span<const uint8_t> section = *profile->Section(name);
    if (name != kGateSection) sections[name].assign(section.begin(), section.end());
  }
  const auto again = ModelProfile::Make(profile->model(), sections, profile->gate());
  if (!again.ok() ||
      !std::equal(bytes.begin(), bytes.end(), again->bytes().begin(), again->bytes().end())) {
    std::abort();
  }
  for (const GateRecord& record : profile->gate()) (void)profile->Admits(record.chain);
}

// A profile whose fields come from the input.
void Sealed(std::span<const uint8_t> data) {
  const auto take = [&](size_t most) {
    const size_t count = data.empty() ? 0 : std::min<size_t>({data[0], most, data.size() - 1});
    const std::span<const uint8_t> taken = data.subspan(data.empty() ? 0 : 1, count);
    data = data.subspan(data.empty() ? 0 : 1 + count);
    return std::string(taken.begin(), taken.end());
  };
  const auto number = [&] {
    double value = 0;
    const std::string bytes = take(sizeof value);
    std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  };
  ProfiledModel model{.weights_id = take(64),
                      .adapter_id = take(64),
                      .rope_scaling = take(64),
                      .rope_theta = number(),
                      .layers = 4,
                      .kv_heads = 2,
                      .head_size = 64};
  model.dtype = static_cast<DType>(take(1).size() + 1);
  ModelProfile::Sections sections;
  for (int i = 0; i < 3; ++i) {
    const std::string name = take(70);
    const std::string content = take(255);
    sections[name].assign(content.begin(), content.end());
  }
  std::vector<GateRecord> gate(2);
  for (GateRecord& r : gate) {
    r.chain = take(130);
    r.task = take(130);
    r.points_lost = number();
    r.bar = number();
    r.passed = number() > 0;
  }
  const auto profile = ModelProfile::Make(model, sections, gate);
  if (!profile.ok()) return;
  std::vector<uint8_t> bytes(profile->bytes().begin(), profile->bytes().end());
  Check(bytes);
  if (data.empty()) return;
  bytes[data[0] * size_t{257} % bytes.size()] ^= static_cast<uint8_t>(data.size() | 1);
  if (ModelProfile::Parse(bytes).ok()) std::abort();
}

}  // namespace
}  // namespace kedge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kedge::Check({data, data + size});
  kedge::Sealed({data, size});
  return 0;
}
