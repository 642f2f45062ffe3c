// What strangers write to the data port: greetings and message prefixes, as they are and with a
// right CRC so that what stands behind it is reached.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "proto/crc32c.h"
#include "proto/stream.h"
#include "proto/wire.h"

namespace kedge {
namespace {

// What decodes must encode to the same bytes.
void CheckGreeting(std::span<const uint8_t> bytes) {
  const absl::StatusOr<Greeting> greeting = DecodeGreeting(bytes);
  if (!greeting.ok()) return;
  std::vector<uint8_t> again(kGreetingHeaderBytes + greeting->address.size());
  EncodeGreeting(*greeting, again);
  if (again.size() != bytes.size()) std::abort();
  if (std::memcmp(again.data(), bytes.data(), again.size()) != 0) std::abort();
}

void CheckPrefix(std::span<const uint8_t> bytes) {
  const absl::StatusOr<MessagePrefix> prefix = DecodeMessagePrefix(bytes, 512 << 10);
  if (!prefix.ok()) return;
  const auto again = EncodeMessagePrefix(*prefix);
  if (std::memcmp(again.data(), bytes.data(), again.size()) != 0) std::abort();
}

}  // namespace
}  // namespace kedge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kedge;
  std::vector<uint8_t> bytes(data, data + size);
  CheckGreeting(bytes);
  CheckPrefix(bytes);
  if (bytes.size() >= kGreetingHeaderBytes) {
    const std::span<const uint8_t> all = bytes;
    StoreLe<uint32_t>(bytes.data() + 20,
                      ExtendCrc32c(Crc32c(all.first(20)), all.subspan(kGreetingHeaderBytes)));
    CheckGreeting(bytes);
  }
  if (bytes.size() >= kMessagePrefixBytes) {
    StoreLe<uint32_t>(bytes.data() + 8, Crc32c(std::span<const uint8_t>(bytes).first(8)));
    CheckPrefix(bytes);
  }
  return 0;
}
