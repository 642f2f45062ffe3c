// Names under which text is found again when its position or its words have changed.
//
// Three kinds of text are named, each by a *match id* of 8 bytes: a fixed window of tokens, a
// minimizer (a short run that stands out in its neighbourhood) and a band of a MinHash sketch. An
// id is SipHash-2-4 under a secret that is derived from the tenant's salt and the model, so that a
// node that stores ids learns only which of them are equal, and ids of two tenants (or two models)
// have nothing to do with each other. Also what an id is computed from, the rolling hash and the
// order of the minimizers, uses bases of that secret: nobody can prepare texts that collide.
//
// An id is its own placement id: ids lie on the nodes like any key, there is no central index. An
// id is a hint. What it leads to is verified by a strong key (proto/block_key.h).
//
// Encodings: proto/README.md, "Match ids".
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "proto/block_key.h"

namespace kedge {

using MatchId = uint64_t;

enum class MatchDomain : uint8_t { kWindow = 1, kMinimizer = 2, kBand = 3 };

// SipHash-2-4 (Aumasson and Bernstein, 2012) of a message of whole words, little endian.
uint64_t SipHash24(uint64_t key_low, uint64_t key_high, std::span<const uint64_t> words);

// Everything of matching that is derived from one salt and one model. Const methods; any thread.
class MatchKeys {
 public:
  MatchKeys(const TenantSalt& salt, const Fingerprint& model);

  // Base of the rolling hash, modulo 2^61 - 1; at least 2^32.
  uint64_t hash_base() const { return hash_base_; }
  // Orders the minimizers and the values of MinHash.
  uint64_t order_seed() const { return order_seed_; }
  // Of the random projection that KVCOMM's sketches are made with.
  uint64_t projection_seed() const { return projection_seed_; }

  // `index` is the band's number (0 for windows and minimizers); `second` the other value of a band
  // of two rows.
  MatchId Id(MatchDomain domain, uint8_t index, uint64_t value, uint64_t second = 0) const;

  // The name of the text of a donor (proto/donor_text.h), whose tail block has the key `donor`.
  BlockKey TextName(const BlockKey& donor) const;
  // Enciphers or deciphers that text in place: AES-256 in counter mode that begins with the first
  // 16 bytes of `donor`. A donor's text never changes, so no two texts meet the same stream.
  void CipherText(const BlockKey& donor, std::span<uint8_t> text) const;

 private:
  TenantSalt salt_;
  uint64_t sip_low_ = 0;
  uint64_t sip_high_ = 0;
  uint64_t hash_base_ = 0;
  uint64_t order_seed_ = 0;
  uint64_t projection_seed_ = 0;
  std::array<uint8_t, 32> text_key_{};
};

}  // namespace kedge
