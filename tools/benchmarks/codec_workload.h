// What tools/bench codec works on: blocks of Llama-3.1-8B's geometry (32 layers, 8 KV heads of 128,
// 64 tokens, f16), what they are encoded to, and pages that take as many. Times are CPU time of the
// calling thread, rates f16 bytes a second. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/kivi.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/kernels/rope.h"
#include "proto/block_header.h"
#include "proto/kv_shape.h"
#include "proto/model_profile.h"
#include "tools/benchmarks/scratch.h"

namespace kedge::bench {

// Parts of any size, each in a place of its own.
struct EncodedParts {
  void Resize(int64_t parts, uint64_t most);
  std::span<uint8_t> Room(int64_t part) { return {bytes.data() + part * stride, stride}; }
  std::span<const uint8_t> Part(int64_t part) const {
    return {bytes.data() + part * stride, sizes[part]};
  }

  uint64_t stride = 0;
  std::vector<uint8_t> bytes;
  std::vector<uint64_t> sizes;  // 0: not encoded
  std::vector<BlockHeader> headers;
};

// Which parts a call takes: every `every`-th, all over the working set. Odd, so that keys and
// values of all layers are among them.
struct Sample {
  int64_t every = 1;
};

class CodecWorkload {
 public:
  explicit CodecWorkload(int64_t blocks);

  const KvShape& shape() const { return shape_; }
  const kernels::RopeTable& rope() const { return rope_; }
  double raw_bytes() const { return static_cast<double>(raw_.size()); }
  double SampleBytes(Sample sample) const;

  absl::StatusOr<double> Encode(const codec::CodecChain& chain, Sample sample,
                                EncodedParts& encoded) const;
  // The blocks' headers, as a put would have made them.
  absl::Status AddHeaders(const codec::CodecChain& chain, EncodedParts& encoded) const;
  // What a fetched part goes through; without digest: all but that.
  absl::StatusOr<double> Decode(const codec::CodecChain& chain, Sample sample,
                                const EncodedParts& encoded, bool with_digest);
  absl::StatusOr<double> Digest(Sample sample, const EncodedParts& encoded) const;

  // The entropy coder alone, over the bodies of `bodies` (parts of a KIVI chain, encoded): rates by
  // the f16 bytes that they stand for. `layouts` and `tables` are those of keys, then of values.
  double RansEncode(const EncodedParts& bodies, std::span<const codec::KiviLayout, 2> layouts,
                    const std::vector<codec::KiviTables>& tables, EncodedParts& coded) const;
  absl::StatusOr<double> RansDecode(const EncodedParts& coded,
                                    std::span<const codec::KiviLayout, 2> layouts,
                                    const std::vector<codec::KiviTables>& tables) const;

  // What the dearest of encoding and decoding one part of keys or values takes.
  ScratchUse Scratch(const codec::CodecChain& chain);

  // memcpy of all blocks to the pages, in pieces of so many bytes; and the size that is fastest.
  double Copy(int64_t piece);
  int64_t BestPiece();

 private:
  int64_t parts() const { return blocks_ * shape_.part_count(); }
  int64_t page_bytes() const;
  std::span<const uint8_t> Raw(int64_t part) const {
    return {raw_.data() + part * part_bytes_, static_cast<size_t>(part_bytes_)};
  }
  codec::PartTask Task(int64_t part) const;

  const KvShape shape_;
  const int64_t blocks_;
  const int64_t part_bytes_;
  const kernels::RopeTable rope_;
  std::vector<uint8_t> raw_;
  std::vector<uint8_t> pages_;
  std::vector<int64_t> page_order_;
};

}  // namespace kedge::bench
