// The header of one stored block: what its bytes are, and how to know that they are right.
//
// The header travels with every block, on the wire and on disk, in one encoding (proto/README.md
// has each byte). Digests are XXH3-128. A part's digest is seeded with (key, variant, part index),
// so the right bytes under a wrong name fail; the root digest covers the whole encoded header, and
// with it every part's digest. XXH3 is no signature: it guards against faults, not against a forger
// inside the trust domain; a forger outside cannot name the key.
//
// The bytes of (key, variant) never change once stored.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/block_key.h"
#include "proto/kv_shape.h"

namespace kedge {

// Version 2 names the model and the tenant; a block without a model (an opaque value) is written as
// version 1 still, and version 1 is read for good.
inline constexpr uint16_t kBlockHeaderVersion = 2;
inline constexpr uint32_t kBlockHeaderBytesMax = 64 << 10;  // fits one frame's body
inline constexpr uint32_t kBlockHeaderPrefixBytes = 16;     // magic, version, length
inline constexpr uint32_t kBlockHeaderFixedBytes = 192;     // version 1: before the part directory
inline constexpr uint32_t kBlockHeaderModelBytes = 24;      // version 2: what comes between the two
inline constexpr uint32_t kPartEntryBytes = 20;
inline constexpr uint32_t kVariantBytes = 48;

// The codec chain's name, e.g. "raw", "kivi2g32", "prefixkv0.5+kivi2g32". Zero padded.
struct Variant {
  std::array<char, kVariantBytes> name{};

  static Variant Raw();
  // InvalidArgument naming the text: empty, longer than kVariantBytes - 1, or with a character
  // outside [a-z0-9.+_-].
  static absl::StatusOr<Variant> Parse(std::string_view text);
  std::string_view view() const;
  friend bool operator==(const Variant&, const Variant&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Variant& v) {
    return H::combine(std::move(h), v.name);
  }
};

enum class Fidelity : uint8_t { kLossless = 1, kQuantized = 2, kPruned = 3 };
const char* FidelityName(Fidelity fidelity);

// Are the keys inside rotated (RoPE), and from which position on?
enum class RopeState : uint8_t { kNone = 0, kRotated = 1, kUnrotated = 2 };

struct Digest128 {
  uint64_t low = 0;
  uint64_t high = 0;
  friend bool operator==(const Digest128&, const Digest128&) = default;
  std::string ToHex() const;
};

struct PartEntry {
  uint32_t bytes = 0;
  Digest128 digest;
  friend bool operator==(const PartEntry&, const PartEntry&) = default;
};

struct BlockHeader {
  BlockKey key;
  BlockKey parent;  // zero for none
  uint64_t placement = 0;
  uint32_t chain_depth = 0;
  Keyspace keyspace = Keyspace::kOpaque;
  Fidelity fidelity = Fidelity::kLossless;
  RopeState rope = RopeState::kNone;
  uint32_t rope_base_position = 0;  // position of the block's first token when rotated
  Variant variant;
  ModelId model;        // zero: not known (an opaque value, or a block of version 1)
  uint64_t tenant = 0;  // public id of who stored it; 0 where model is zero
  KvShape shape;
  std::vector<PartEntry> parts;  // in part order; sizes after the codec
  Digest128 root;                // set by Encode, checked by Decode

  uint64_t payload_bytes() const;
  // Byte offset of a part in the payload: parts lie one after the other without gaps.
  uint64_t part_offset(uint32_t part) const;
  uint32_t encoded_bytes() const;
};

// Where the part directory begins in an encoded header that was decoded before.
uint32_t PartDirectoryOffset(std::span<const uint8_t> encoded);

// Encoded form; sets the root digest inside (and in header.root). InvalidArgument naming field and
// value when header's fields contradict each other or pass a limit.
absl::StatusOr<std::vector<uint8_t>> EncodeBlockHeader(BlockHeader& header);

// Bytes of the header that starts at `bytes`, from its first kBlockHeaderPrefixBytes alone.
// DataLoss when magic or length are wrong, Unimplemented for another version.
absl::StatusOr<uint32_t> PeekBlockHeaderBytes(std::span<const uint8_t> bytes);
// Parses hostile bytes: lengths before use, version before content, root digest before any field is
// believed. DataLoss (damaged) or Unimplemented (other version) or InvalidArgument (contradiction);
// the text names the field and the value. `bytes` may be longer than the header; the rest is
// ignored.
absl::StatusOr<BlockHeader> DecodeBlockHeader(std::span<const uint8_t> bytes);

// Digest of one part as a stream, for bytes that arrive in pieces. Reusable; not thread-safe.
// Allocates once.
class PartDigester {
 public:
  PartDigester();
  ~PartDigester();
  PartDigester(PartDigester&&) noexcept;
  PartDigester& operator=(PartDigester&&) noexcept;
  void Reset(const BlockKey& key, const Variant& variant, uint32_t part);
  void Update(std::span<const uint8_t> bytes);
  Digest128 Finish() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest128 PartDigest(const BlockKey& key, const Variant& variant, uint32_t part,
                     std::span<const uint8_t> bytes);

// OK, or DataLoss naming key, variant, part and both digests.
absl::Status VerifyPart(const BlockHeader& header, uint32_t part, std::span<const uint8_t> bytes);
// All parts of a whole payload.
absl::Status VerifyPayload(const BlockHeader& header, std::span<const uint8_t> payload);

}  // namespace kedge
