// Attention scores of a sequence as bytes, kept beside its blocks: so that a node without a GPU can
// prune them later, to any size.
//
// A score is the mean weight, 0 to 1, that a token got from its observers:
//
//     window  the last `window` queries of the sequence; the sum of their weights / window
//     sum     every query; the sum / how many queries could see the token (tokens - position)
//
// Only queries inside of the sequence count. What its blocks were computed together with (a
// question behind them, another tenant's prompt) leaves no trace, so that what is pruned by a
// sidecar is a function of the sequence's key.
//
// A score is one byte, a logarithm in steps of an eighth of an octave (9%): 0 for less than
// 2^-31.8, else 255 + round(8 log2(score)), at least 1. Everything that prunes by attention takes
// scores from these bytes, also where it has them at hand in full, so that all choose alike.
//
// Bytes, little endian:
//
//     at  bytes  field
//      0   u32   magic    0x5243534b, "KSCR"
//      4   u16   version  1
//      6   u8    kind     1 window, 2 sum
//      7   u8    0
//      8   u32   tokens
//     12   u16   layers
//     14   u16   heads    query heads
//     16   u16   window   0 for sum
//     18   u16   0
//     20         codes u8 [layers][heads][tokens]
//     end  u32   CRC-32C of everything before
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/token_scores.h"

namespace kedge::codec {

inline constexpr uint32_t kSidecarTokensMax = 1 << 20;
inline constexpr uint32_t kSidecarHeaderBytes = 20;

enum class SidecarKind : uint8_t { kWindow = 1, kSum = 2 };

struct ScoreSidecar {
  SidecarKind kind = SidecarKind::kWindow;
  uint32_t tokens = 0;
  uint16_t layers = 0;
  uint16_t heads = 0;
  uint16_t window = 0;
  std::vector<uint8_t> codes;

  uint64_t encoded_bytes() const { return kSidecarHeaderBytes + codes.size() + 4; }
};

// Of a score in [0, 1]; what is outside is taken for the nearest. Exact comparisons, so every
// machine gives the same code. Never falls as the score rises.
uint8_t ScoreCode(float score);
// Exactly 2^((code - 255) / 8) rounded to f32, 0 for code 0.
float ScoreOfCode(uint8_t code);

TokenScores ScoresOf(const ScoreSidecar& sidecar);

// Aborts when the fields do not belong together.
std::vector<uint8_t> EncodeSidecar(const ScoreSidecar& sidecar);
// Reads hostile bytes. InvalidArgument, Unimplemented (another version) or DataLoss (the CRC) name
// the field and its value.
absl::StatusOr<ScoreSidecar> DecodeSidecar(std::span<const uint8_t> bytes);

}  // namespace kedge::codec
