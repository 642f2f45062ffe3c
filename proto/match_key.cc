#include "proto/match_key.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <bit>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/base/internal/raw_logging.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr std::string_view kMatchDomain = "kedge/match/1";
constexpr std::string_view kTextDomain = "kedge/text/1";

// Which secret is derived.
constexpr uint8_t kIdSecret = 0;
constexpr uint8_t kTextSecret = 1;
constexpr uint8_t kProjectionSecret = 2;

constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
constexpr uint64_t kBaseMin = uint64_t{1} << 32;

std::array<uint8_t, 32> Hmac(const TenantSalt& salt, std::string_view domain,
                             std::span<const uint8_t> body, std::span<const uint8_t> tail) {
  std::vector<uint8_t> input(domain.begin(), domain.end());
  input.insert(input.end(), body.begin(), body.end());
  input.insert(input.end(), tail.begin(), tail.end());
  std::array<uint8_t, 32> out;
  unsigned int bytes = 0;
  ABSL_RAW_CHECK(HMAC(EVP_sha256(), salt.bytes.data(), static_cast<int>(salt.bytes.size()),
                      input.data(), input.size(), out.data(), &bytes) != nullptr &&
                     bytes == out.size(),
                 "OpenSSL cannot compute HMAC-SHA-256");
  return out;
}

struct SipState {
  uint64_t v0, v1, v2, v3;

  void Rounds(int count) {
    for (int i = 0; i < count; ++i) {
      v0 += v1;
      v1 = std::rotl(v1, 13) ^ v0;
      v0 = std::rotl(v0, 32);
      v2 += v3;
      v3 = std::rotl(v3, 16) ^ v2;
      v0 += v3;
      v3 = std::rotl(v3, 21) ^ v0;
      v2 += v1;
      v1 = std::rotl(v1, 17) ^ v2;
      v2 = std::rotl(v2, 32);
    }
  }
  void Absorb(uint64_t word) {
    v3 ^= word;
    Rounds(2);
    v0 ^= word;
  }
};

}  // namespace

uint64_t SipHash24(uint64_t key_low, uint64_t key_high, std::span<const uint64_t> words) {
  SipState state{key_low ^ 0x736f6d6570736575, key_high ^ 0x646f72616e646f6d,
                 key_low ^ 0x6c7967656e657261, key_high ^ 0x7465646279746573};
  for (uint64_t word : words) state.Absorb(word);
  state.Absorb(static_cast<uint64_t>(words.size() * 8) << 56);
  state.v2 ^= 0xff;
  state.Rounds(4);
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

MatchKeys::MatchKeys(const TenantSalt& salt, const Fingerprint& model) : salt_(salt) {
  const auto derive = [&](uint8_t secret) {
    return Hmac(salt, kMatchDomain, model.bytes, {&secret, 1});
  };
  const std::array<uint8_t, 32> ids = derive(kIdSecret);
  sip_low_ = LoadLe<uint64_t>(ids.data());
  sip_high_ = LoadLe<uint64_t>(ids.data() + 8);
  hash_base_ = kBaseMin + LoadLe<uint64_t>(ids.data() + 16) % (kPrime - kBaseMin);
  order_seed_ = LoadLe<uint64_t>(ids.data() + 24);
  text_key_ = derive(kTextSecret);
  projection_seed_ = LoadLe<uint64_t>(derive(kProjectionSecret).data());
}

MatchId MatchKeys::Id(MatchDomain domain, uint8_t index, uint64_t value, uint64_t second) const {
  const uint64_t words[] = {static_cast<uint64_t>(domain) | static_cast<uint64_t>(index) << 8,
                            value, second};
  return SipHash24(sip_low_, sip_high_, words);
}

BlockKey MatchKeys::TextName(const BlockKey& donor) const {
  return BlockKey{Hmac(salt_, kTextDomain, donor.bytes, {})};
}

void MatchKeys::CipherText(const BlockKey& donor, std::span<uint8_t> text) const {
  struct Free {
    void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
  };
  const std::unique_ptr<EVP_CIPHER_CTX, Free> context(EVP_CIPHER_CTX_new());
  int written = 0;
  ABSL_RAW_CHECK(context != nullptr && text.size() < (1u << 30) &&
                     EVP_EncryptInit_ex(context.get(), EVP_aes_256_ctr(), nullptr, text_key_.data(),
                                        donor.bytes.data()) == 1 &&
                     EVP_EncryptUpdate(context.get(), text.data(), &written, text.data(),
                                       static_cast<int>(text.size())) == 1 &&
                     static_cast<size_t>(written) == text.size(),
                 "OpenSSL cannot compute AES-256-CTR");
}

}  // namespace kedge
