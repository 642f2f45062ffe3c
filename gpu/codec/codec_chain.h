// Codec chains: what a variant's name means, and the bytes of its parts.
//
//     auto chain = CodecChain::Parse("kivi4g32");
//     std::vector<uint8_t> part(*chain->PartBytes(shape, Component::kK, false));
//     auto s = chain->EncodePart({shape, layer, Component::kK, &rope}, false, raw, part);
//     ...
//     auto s = chain->DecodePart({shape, layer, Component::kK, &rope}, part, pages);
//
// Names: `raw`; `fp8`; `kivi{2,4,8}g{32,64,128}`; `had+` before a kivi. `raw` copies, in the
// engine's frame. Every other chain keeps keys un-rotated: EncodePart turns them back by the angles
// of `PartTask::rope`, DecodePart turns them forward, both in fp32. A lossy part is a header
// (part_header.h), then the codec's bytes (kivi.h, fp8.h), then, where it begins a sequence, its
// first 4 tokens as the engine gave them. Those are not turned: such a part is decoded where it was
// encoded, at a sequence's beginning.
//
// A chain is a value; all methods may be called by any thread. A part is never half trusted: its
// size, header, scales and codes are checked before the first byte is written to a page.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/kernels/rope.h"
#include "proto/block_header.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

struct PartTask {
  KvShape shape;
  uint32_t layer = 0;  // inside the model, as KvShape::PartIndex counts
  Component component = Component::kK;
  // The block's tokens' angles, [block_tokens, head_size / 2]. Null: keys stay as they are (a model
  // without RoPE, or a caller that wants them un-rotated). Looked at for lossy keys only.
  const kernels::RopeTable* rope = nullptr;
};

// Where a part's tokens go: token t is row t % page_tokens of page t / page_tokens. Rows are
// kv_heads * head_size elements of the shape's dtype and lie one after the other.
struct PartPages {
  std::span<const std::span<uint8_t>> pages;
  int64_t page_tokens = 0;
};

class CodecChain {
 public:
  // InvalidArgument names the text, and the names there are.
  static absl::StatusOr<CodecChain> Parse(std::string_view name);

  std::string name() const;
  Fidelity fidelity() const {
    return method_ == Kind::kRaw ? Fidelity::kLossless : Fidelity::kQuantized;
  }

  // InvalidArgument when the chain cannot encode such blocks: a group that does not divide (both
  // numbers are named), a dtype or component that it does not know, an opaque shape.
  absl::Status Supports(const KvShape& shape) const;

  // The exact bytes of one encoded part. `sequence_start`: the block begins its sequence.
  absl::StatusOr<uint64_t> PartBytes(const KvShape& shape, Component component,
                                     bool sequence_start) const;

  // `raw` is [block_tokens][kv_heads][head_size] of the shape's dtype; `out` has PartBytes bytes.
  // InvalidArgument names part, field and value; for a NaN, an infinity or a value that f16 cannot
  // hold, layer and token. `out` is of no use then.
  absl::Status EncodePart(const PartTask& task, bool sequence_start, std::span<const uint8_t> raw,
                          std::span<uint8_t> out) const;

  // `encoded` may be hostile; pages must hold exactly the block's tokens. InvalidArgument (or
  // Unimplemented, for another version) names part, field and value, and no page was touched.
  absl::Status DecodePart(const PartTask& task, std::span<const uint8_t> encoded,
                          const PartPages& pages) const;

 private:
  enum class Kind { kRaw, kFp8, kKivi };

  CodecChain() = default;

  Kind method_ = Kind::kRaw;
  int bits_ = 0;
  int64_t group_ = 0;
  bool hadamard_ = false;
};

}  // namespace kedge::codec
