// Digests of parts and headers: the one file that knows XXH3.
//
// libxxhash carries AVX2 and AVX-512 builds of XXH3 behind `*_dispatch` names and chooses at run
// time. On this path every byte of every get and put is read once, so the plain SSE2 build would
// cost twice the time.
#include <cstring>

#define XXH_STATIC_LINKING_ONLY  // the state's definition, so that it can live on a stack
#include <xxhash.h>
#if defined(__x86_64__)
#define XXH_DISPATCH_DISABLE_REPLACE
#include <xxh_x86dispatch.h>
#endif

#include "absl/strings/str_cat.h"
#include "proto/block_header.h"
#include "proto/header_digest.h"
#include "proto/wire.h"

namespace kedge {
namespace {

#if defined(__x86_64__)
constexpr auto kDigestWithSeed = &XXH3_128bits_withSeed_dispatch;
constexpr auto kUpdate = &XXH3_128bits_update_dispatch;
#else
constexpr auto kDigestWithSeed = &XXH3_128bits_withSeed;
constexpr auto kUpdate = &XXH3_128bits_update;
#endif

// XXH3_64 (seed 0) over key, variant and part: what binds bytes to their name.
uint64_t SeedOf(const BlockKey& key, const Variant& variant, uint32_t part) {
  std::array<uint8_t, 32 + kVariantBytes + 4> name;
  std::memcpy(name.data(), key.bytes.data(), 32);
  std::memcpy(name.data() + 32, variant.name.data(), kVariantBytes);
  StoreLe(name.data() + 32 + kVariantBytes, part);
  return XXH3_64bits(name.data(), name.size());
}

Digest128 ToDigest(XXH128_hash_t hash) { return Digest128{.low = hash.low64, .high = hash.high64}; }

}  // namespace

struct PartDigester::State {
  XXH3_state_t xxh3;
};

PartDigester::PartDigester() : state_(std::make_unique<State>()) {
  XXH3_INITSTATE(&state_->xxh3);
  Reset({}, {}, 0);
}
PartDigester::~PartDigester() = default;
PartDigester::PartDigester(PartDigester&&) noexcept = default;
PartDigester& PartDigester::operator=(PartDigester&&) noexcept = default;

void PartDigester::Reset(const BlockKey& key, const Variant& variant, uint32_t part) {
  XXH3_128bits_reset_withSeed(&state_->xxh3, SeedOf(key, variant, part));
}

void PartDigester::Update(std::span<const uint8_t> bytes) {
  kUpdate(&state_->xxh3, bytes.data(), bytes.size());
}

Digest128 PartDigester::Finish() const { return ToDigest(XXH3_128bits_digest(&state_->xxh3)); }

Digest128 PartDigest(const BlockKey& key, const Variant& variant, uint32_t part,
                     std::span<const uint8_t> bytes) {
  return ToDigest(kDigestWithSeed(bytes.data(), bytes.size(), SeedOf(key, variant, part)));
}

Digest128 RootDigest(const BlockKey& key, const Variant& variant, std::span<const uint8_t> encoded,
                     size_t root_at) {
  static constexpr uint8_t kZeros[kRootDigestBytes] = {};
  XXH3_state_t state;
  XXH3_INITSTATE(&state);  // reset trusts the state's old seed: where the stack holds the same one,
                           // its secret is not made anew
  XXH3_128bits_reset_withSeed(&state, SeedOf(key, variant, kRootMarker));
  kUpdate(&state, encoded.data(), root_at);
  kUpdate(&state, kZeros, sizeof kZeros);
  const auto rest = encoded.subspan(root_at + kRootDigestBytes);
  kUpdate(&state, rest.data(), rest.size());
  return ToDigest(XXH3_128bits_digest(&state));
}

absl::Status VerifyPart(const BlockHeader& header, uint32_t part, std::span<const uint8_t> bytes) {
  if (part >= header.parts.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("part: ", part, " of a block of ", header.parts.size(), " parts"));
  }
  const PartEntry& entry = header.parts[part];
  const auto name = [&] {
    return absl::StrCat("block ", header.key.ToHex(), " variant ",
                        std::string(header.variant.view()), " part ", part);
  };
  if (bytes.size() != entry.bytes) {
    return absl::DataLossError(
        absl::StrCat(name(), ": ", bytes.size(), " bytes, the header says ", entry.bytes));
  }
  const Digest128 digest = PartDigest(header.key, header.variant, part, bytes);
  if (digest == entry.digest) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(name(), ": digest ", digest.ToHex(), ", the header says ",
                                          entry.digest.ToHex()));
}

absl::Status VerifyPayload(const BlockHeader& header, std::span<const uint8_t> payload) {
  if (payload.size() != header.payload_bytes()) {
    return absl::DataLossError(absl::StrCat("block ", header.key.ToHex(), ": payload of ",
                                            payload.size(), " bytes, the header says ",
                                            header.payload_bytes()));
  }
  for (uint32_t part = 0; part < header.parts.size(); ++part) {
    const uint32_t bytes = header.parts[part].bytes;
    if (absl::Status status = VerifyPart(header, part, payload.first(bytes)); !status.ok())
      return status;
    payload = payload.subspan(bytes);
  }
  return absl::OkStatus();
}

}  // namespace kedge
