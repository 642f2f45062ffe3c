// Codec chains: what a variant's name means, and the bytes of its parts.
//
//     auto chain = CodecChain::Parse("kivi4g32");
//     std::vector<uint8_t> part(*chain->MaxPartBytes(shape, Component::kK, false));
//     auto bytes = chain->EncodePart({shape, layer, Component::kK, &rope}, false, raw, part);
//     part.resize(*bytes);
//     ...
//     auto s = chain->DecodePart({shape, layer, Component::kK, &rope}, part, pages);
//
// Names: `raw`, and those of part_codec.cc's list: `fp8`; `kivi{2,4,8}g{32,64,128}`, `had+` before
// a kivi, `s8` behind it. `raw` copies, in the engine's frame. Every other chain keeps keys
// un-rotated: EncodePart
// turns them back by the angles of `PartTask::rope`, DecodePart turns them forward, both in fp32. A
// lossy part is a header (part_header.h), then the method's bytes (part_codec.h), then, where it
// begins a sequence, its first 4 tokens as the engine gave them. Those are not turned: such a part
// is decoded where it was encoded, at a sequence's beginning.
//
// Encoding or decoding a part takes at most kScratchBytesMax beside its arguments, for the geometry
// of Llama-3.1-8B in blocks of 64 tokens; it grows with the part. `tools/bench codec` measures it.
//
// A chain is a value, cheap to copy; all methods may be called by any thread. A part is never half
// trusted: its size, header and body are checked before the first byte is written to a page.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/part_codec.h"
#include "proto/block_header.h"
#include "proto/kv_shape.h"

namespace kedge::codec {

inline constexpr uint64_t kScratchBytesMax = 1 << 20;

// Where a part's tokens go: token t is row t % page_tokens of page t / page_tokens. Rows are
// kv_heads * head_size elements of the shape's dtype and lie one after the other.
struct PartPages {
  std::span<const std::span<uint8_t>> pages;
  int64_t page_tokens = 0;
};

class CodecChain {
 public:
  // InvalidArgument names the text, and the names there are. FailedPrecondition when the chain
  // needs a profile and there is none, or not one that serves it; the profile may go afterwards.
  static absl::StatusOr<CodecChain> Parse(std::string_view name,
                                          const ModelProfile* profile = nullptr);

  std::string name() const { return codec_ == nullptr ? "raw" : codec_->name(); }
  Fidelity fidelity() const { return codec_ == nullptr ? Fidelity::kLossless : codec_->fidelity(); }

  // InvalidArgument when the chain cannot encode such blocks: a group that does not divide (both
  // numbers are named), a dtype or component that it does not know, an opaque shape.
  absl::Status Supports(const KvShape& shape) const;

  // Whether all parts of a shape, component and place have the same size.
  bool fixed_size() const { return codec_ == nullptr || codec_->fixed_size(); }
  // The most bytes of one encoded part; the bytes of every one where fixed_size().
  // `sequence_start`: the block begins its sequence.
  absl::StatusOr<uint64_t> MaxPartBytes(const KvShape& shape, Component component,
                                        bool sequence_start) const;

  // `raw` is [block_tokens][kv_heads][head_size] of the shape's dtype; `out` has MaxPartBytes
  // bytes. Gives how many were written. InvalidArgument names part, field and value; for a NaN, an
  // infinity or a value that f16 cannot hold, layer and token. `out` is of no use then.
  absl::StatusOr<uint64_t> EncodePart(const PartTask& task, bool sequence_start,
                                      std::span<const uint8_t> raw, std::span<uint8_t> out) const;

  // `encoded` may be hostile; pages must hold exactly the block's tokens. InvalidArgument (or
  // Unimplemented, for another version) names part, field and value, and no page was touched.
  absl::Status DecodePart(const PartTask& task, std::span<const uint8_t> encoded,
                          const PartPages& pages) const;

  // DecodePart of a fetched part: first compares its digest with the one that `header` has for it
  // (DataLoss, no page was touched), while its bytes come into the cache, then decodes them from
  // there: one pass over memory. `header` must be of this chain and of the task's shape.
  absl::Status DecodeFetchedPart(const BlockHeader& header, const PartTask& task,
                                 std::span<const uint8_t> encoded, const PartPages& pages) const;

 private:
  explicit CodecChain(PartCodecPtr codec) : codec_(std::move(codec)) {}

  PartCodecPtr codec_;  // null: raw
};

}  // namespace kedge::codec
