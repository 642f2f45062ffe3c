// Pruned sequences: how the KV of a sequence's first blocks is made into one stored object without
// the tokens that matter least, and how it is read (gpu/codec/pruned_chain.h).
//
//     auto pruned = PrunedSequence::Make(variants, *Variant::Parse("prefixkv0.5+kivi4g32"),
//     blocks); codec::EncodedBlock block{.header = pruned->Header(salt, tail, tenant)}; for
//     (uint32_t layer ...) s = pruned->EncodeLayer(layer, keys, values, sidecar, block);
//
// The object lies under SequenceKey (proto/block_key.h), beside the blocks that it was made of: its
// parent is the tail's key, its chain depth how many blocks there are, its shape the model's. What
// it holds follows from that key and from nothing else: whole blocks go in, scores of queries
// inside of them, and the model's profile; there is no way to hand in positions, a question or
// tokens behind the tail.
//
// Scores lie beside raw blocks as an opaque value (ScoresKey), so that another process, without a
// GPU, can prune them later.
//
// Values, cheap to copy; const methods on any thread, but for PrunedReader: one thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/get.h"
#include "client/scatter.h"
#include "client/variants.h"
#include "gpu/codec/block_codec.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/codec/score_sidecar.h"
#include "proto/block_header.h"
#include "proto/block_key.h"

namespace kedge {

class PrunedSequence {
 public:
  // Of the first `blocks` blocks of a sequence. Errors as ModelVariants::Pruned's; InvalidArgument
  // names tokens where so short a sequence cannot be pruned by this chain.
  static absl::StatusOr<PrunedSequence> Make(const ModelVariants& model, const Variant& variant,
                                             uint32_t blocks);

  const codec::PrunedChain& chain() const { return chain_; }
  const KvShape& shape() const { return shape_; }
  int64_t tokens() const { return tokens_; }
  // That a layer (of the model) keeps; it must be in the shape.
  int64_t rows(uint32_t layer) const { return rows_[layer - shape_.layer_begin]; }
  uint64_t row_bytes() const { return shape_.raw_part_bytes() / shape_.block_tokens; }
  // Of any layer, encoded.
  uint64_t part_bytes_max() const { return part_bytes_max_; }

  // `tail`: the link of the last of the blocks.
  BlockKey Key(const TenantSalt& salt, const ChainLink& tail) const;
  // Without parts.
  BlockHeader Header(const TenantSalt& salt, const ChainLink& tail, uint64_t tenant) const;

  // Chooses from one layer's [tokens][kv_heads][head_size], and appends its two parts: layers in
  // order, each once. InvalidArgument names part, token and field; bytes past kBlockBytesMax; a
  // sidecar of another extent, kind or geometry, or none where the chain needs one.
  absl::Status EncodeLayer(uint32_t layer, std::span<const uint8_t> keys,
                           std::span<const uint8_t> values, const codec::ScoreSidecar* sidecar,
                           codec::EncodedBlock& block) const;

  // The shape narrowed to one layer, with the angles that the chain looks at.
  codec::SequenceTask TaskOf(uint32_t layer) const;

 private:
  PrunedSequence(codec::PrunedChain chain, Variant variant)
      : chain_(std::move(chain)), variant_(variant) {}

  codec::PrunedChain chain_;
  Variant variant_;
  KvShape shape_;
  ModelId model_;
  ProfileId profile_;
  bool rotated_ = false;
  int64_t tokens_ = 0;
  uint64_t part_bytes_max_ = 0;
  std::vector<int64_t> rows_;
  std::shared_ptr<const kernels::RopeTable> rope_;
  std::shared_ptr<const kernels::RopeTable> ahead_;
};

// Reads a fetched pruned sequence into the caller's memory, layer by layer.
class PrunedReader final : public PartReader {
 public:
  struct Layer {
    ScatterList keys;  // at least rows(layer) * row_bytes() each
    ScatterList values;
    std::span<int32_t> positions;  // rows(layer) of them
  };
  // Of layers [layer_begin, layer_begin + layers.size()).
  PrunedReader(PrunedSequence sequence, uint32_t layer_begin, std::vector<Layer> layers);

  // Whole layers. DataLoss for a digest, InvalidArgument naming part and field for what lies
  // inside; the memory of these layers then holds nothing of use.
  absl::StatusOr<uint64_t> Read(const BlockHeader& header, uint32_t part_begin, uint32_t part_end,
                                std::span<const uint8_t> bytes) override;

 private:
  absl::Status ReadPart(const BlockHeader& header, uint32_t part, std::span<const uint8_t> bytes);

  const PrunedSequence sequence_;
  const uint32_t layer_begin_;
  const std::vector<Layer> layers_;
  std::vector<int32_t> kept_;  // of the layer that is read
  std::vector<uint8_t> rows_;
};

// Where the scores of a sequence lie, by what they count (SidecarKind). Of no profile.
BlockKey ScoresKey(const TenantSalt& salt, const ChainLink& tail, uint32_t tokens,
                   codec::SidecarKind kind);

// Scores that a pruned chain of this shape can use: InvalidArgument names the field. Their extent
// must be whole blocks.
absl::Status CheckScores(const codec::ScoreSidecar& scores, const KvShape& shape);

}  // namespace kedge
