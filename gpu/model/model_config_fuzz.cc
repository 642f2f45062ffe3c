// Any bytes as config.json: no crash, and what is accepted survives being written and read again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gpu/model/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<kedge::ModelConfig> config = kedge::ParseModelConfig(text, "fuzz");
  if (!config.ok()) {
    if (config.status().message().find("fuzz: ") != 0) std::abort();
    return 0;
  }
  if (config->heads % config->kv_heads != 0 || config->head_size % 2 != 0) std::abort();
  const absl::StatusOr<kedge::ModelConfig> again =
      kedge::ParseModelConfig(kedge::ModelConfigToJson(*config), "again");
  if (!again.ok() || !(*again == *config)) std::abort();
  return 0;
}
