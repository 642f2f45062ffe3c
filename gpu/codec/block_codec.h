// Whole blocks in another encoding: what a client does when it stores a lossy variant, and a node
// when it recodes one.
//
//     BlockEncoder encoder(chain, raw_header, rope);
//     for (uint32_t part = 0; part < parts; ++part) encoder.Add(part, raw_part);
//     EncodedBlock block = encoder.Finish();
//
// A variant's header is the raw one's with another name, fidelity and frame of keys. Keys come
// rotated from `rope_base_position` on and are kept un-rotated.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/kernels/rope.h"
#include "proto/block_header.h"

namespace kedge::codec {

// How a model rotates its keys. A value; const methods on any thread.
class KeyRotation {
 public:
  KeyRotation() = default;  // a model without RoPE
  // `theta` 0: none. InvalidArgument names rope_scaling, or an odd head size.
  static absl::StatusOr<KeyRotation> Of(double theta, std::string_view scaling, int64_t head_size);
  // The angles of `tokens` positions; nothing for a model without RoPE.
  std::optional<kernels::RopeTable> Table(int64_t first_position, int64_t tokens) const;
  bool none() const { return frequencies_.empty(); }

 private:
  std::vector<float> frequencies_;
};

// Layer (of the model) and component of a part of a shape that is not opaque.
struct PartPlace {
  uint32_t layer = 0;
  Component component = Component::kK;
};
PartPlace PlaceOfPart(const KvShape& shape, uint32_t part);

struct EncodedBlock {
  BlockHeader header;  // with every part's size and digest; not yet encoded
  std::vector<uint8_t> payload;
};

// One block. One thread at a time.
class BlockEncoder {
 public:
  // `raw` is the header that the block has as `raw`. `rope`: the angles of its tokens, or null
  // where its keys are not rotated; must outlive the encoder. The chain must support the shape.
  BlockEncoder(CodecChain chain, const BlockHeader& raw, const kernels::RopeTable* rope);

  // Each part once, in any order. Errors are those of CodecChain::EncodePart.
  absl::Status Add(uint32_t part, std::span<const uint8_t> raw);
  // Once all parts were added.
  EncodedBlock Finish();

 private:
  CodecChain chain_;
  BlockHeader header_;
  const kernels::RopeTable* rope_;
  std::vector<std::vector<uint8_t>> parts_;
};

// A stored block as another variant. `from` is the chain of `header`: of a lossy one the keys are
// un-rotated already and stay so. FailedPrecondition, naming the field, for what cannot be recoded:
// opaque values, and rotated keys of a model that `rotation` does not turn.
absl::StatusOr<EncodedBlock> RecodeBlock(const CodecChain& from, const BlockHeader& header,
                                         std::span<const uint8_t> payload, const CodecChain& to,
                                         const KeyRotation& rotation);

}  // namespace kedge::codec
