// A model of three layers with a profile that passes some pruned chains, its KV and its scores made
// of numbers, and what pruning it here gives: what a store must bring back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/kv_client.h"
#include "gpu/codec/pruned_chain.h"
#include "proto/model_profile.h"

namespace kedge {

class PrunedModel {
 public:
  static constexpr uint32_t kLayers = 3;
  static constexpr uint32_t kBlockTokens = 64;
  static constexpr uint32_t kKvHeads = 2;
  static constexpr uint32_t kHeads = 8;
  static constexpr uint32_t kHeadSize = 32;
  static constexpr uint64_t kRowBytes = 2 * kKvHeads * kHeadSize;  // f16

  // Passes these chains and fails `prefixkv0.25-keydiff+kivi2g32` by 12.5 points. Another `seed`
  // makes another profile of the same model.
  explicit PrunedModel(uint64_t seed = 1);

  const ModelProfile& profile() const { return profile_; }
  // Writes it into the test's folder.
  std::string ProfilePath() const;
  sdk::ModelOptions Options() const;

  // [blocks][layers][k, v][block_tokens][kv_heads][head_size], as an engine's blocks.
  static std::vector<uint8_t> Kv(uint32_t blocks, uint64_t seed);
  static std::vector<sdk::BlockBuffer> Buffers(std::vector<uint8_t>& kv);
  static std::vector<int32_t> Tokens(uint32_t blocks, int32_t seed);
  static codec::ScoreSidecar Scores(uint32_t blocks, uint64_t seed);

  struct Layer {
    std::vector<int32_t> positions;
    std::vector<uint8_t> keys;
    std::vector<uint8_t> values;
    friend bool operator==(const Layer&, const Layer&) = default;
  };
  // All of it pruned at once, without a client.
  std::vector<Layer> PrunedHere(const std::string& chain, const std::vector<uint8_t>& kv,
                                const codec::ScoreSidecar& scores) const;

 private:
  ModelProfile profile_;
};

}  // namespace kedge
