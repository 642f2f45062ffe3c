// Hostile parts: the first byte chooses chain, component and dtype, the rest is the part, as it is
// and cut or filled to the size that its chain expects.
#include <cmath>
#include <cstdlib>
#include <vector>

#include "gpu/codec/codec_chain.h"

namespace kedge::codec {
namespace {

constexpr const char* kNames[] = {"raw",        "fp8",          "kivi2g32",       "kivi4g32",
                                  "kivi8g32",   "kivi2g64",     "had+kivi2g32",   "had+kivi4g64",
                                  "kivi2g32s8", "kivi4g32s8",   "kivi8g32s8",     "kivi2g64s8",
                                  "kivi4g64",   "had+kivi8g32", "had+kivi2g32s8", "had+kivi4g64s8"};

// What decodes is finite, but for what was kept raw.
void Check(const CodecChain& chain, const PartTask& task, std::span<const uint8_t> part) {
  std::vector<uint8_t> out(task.shape.raw_part_bytes(), 0xcd);
  const std::span<uint8_t> page(out);
  const bool ok = chain.DecodePart(task, part, {{&page, 1}, task.shape.block_tokens}).ok();
  if (!ok) {
    for (uint8_t byte : out)
      if (byte != 0xcd) std::abort();
    return;
  }
  if (chain.name() == "raw") return;
  const size_t row = out.size() / task.shape.block_tokens;
  for (size_t i = 4 * row; i + 2 <= out.size(); i += 2) {
    const unsigned exponent = task.shape.dtype == DType::kF16 ? 0x7c00 : 0x7f80;
    const unsigned bits = out[i] | out[i + 1] << 8;
    if ((bits & exponent) == exponent) std::abort();
  }
}

}  // namespace
}  // namespace kedge::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge;
  using namespace kedge::codec;
  if (size == 0) return 0;
  const auto chain = CodecChain::Parse(kNames[(data[0] & 7) | (data[0] >> 5 & 1) << 3]);
  if (!chain.ok()) std::abort();
  const DType dtype = (data[0] & 8) != 0 ? DType::kBf16 : DType::kF16;
  const auto component = (data[0] & 16) != 0 ? Component::kV : Component::kK;
  const KvShape shape = KvShape::KeysAndValues(1, 1, 64, 64, dtype);
  const auto rope =
      kernels::MakeRopeTable(kernels::RopeFrequencies(shape.head_size, 1e4f, {}), 0, 64);
  const PartTask task{shape, 0, component, &rope};
  Check(*chain, task, {data + 1, size - 1});
  for (bool start : {false, true}) {
    std::vector<uint8_t> sized(data + 1, data + size);
    const auto bytes = chain->MaxPartBytes(shape, component, start);
    if (!bytes.ok()) return 0;
    for (size_t i = 0; sized.size() < *bytes; ++i)
      sized.push_back(i < size ? data[i] & 0x3f : static_cast<uint8_t>(i * 7 & 0x3b));
    sized.resize(*bytes);
    Check(*chain, task, sized);
  }
  return 0;
}
