// A configuration file may hold anything: it is refused with a reason, or read; what was read
// prints as a file that reads the same.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "store/node/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kedge::Config config;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::Status status = kedge::ApplyYaml(text, &config);
  if (!status.ok()) {
    if (status.message().empty() || config != kedge::Config()) std::abort();
    return 0;
  }
  kedge::Config again;
  if (!kedge::ApplyYaml(kedge::ToYaml(config), &again).ok() || again != config) std::abort();
  (void)kedge::CheckConfig(config);
  return 0;
}
