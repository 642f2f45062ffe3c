// Computes chosen tokens of a sequence anew, over a cache whose rows were put together from
// elsewhere.
//
//     auto run = Recomputation::Start(*model, tokens, positions, *cache, wait_for_layer);
//     while (!run->done()) {
//       run->Project();                         // fresh queries, keys, values of the rows
//       ... run->ValueDeviation() ...           // how far the cache is from them
//       run->WriteKv();                         // in place, in the cache
//       run->Keep(fewer);                       // who goes on; or nobody is left out
//       run->Finish();                          // attention and MLP: the next layer's hidden
//       states
//     }
//     auto logits = run->LastLogits();
//
// or run->RunToEnd() for all at once. What CacheBlend (arXiv 2405.16444), KVShare (2503.16525) and
// EPIC (2410.15332) share: a token's keys and values at a layer need its own hidden state and the
// keys and values before it, not the hidden states of the others. Who goes on is the caller's
// choice (client/reuse/recompute_plan.h).
//
// Each row stands at its true position: rotated there, seeing every key up to there, whoever wrote
// it. Rows that are not computed stay as the cache has them, to the bit. Everything is
// row-invariant as in prefill: all tokens from layer 0 on have the bits of a dense prefill.
//
// Loading beside computing. `wait_for_layer` is called once a layer, in order, after the layer's
// projection and before its rows in the cache are first read or written; it may block while another
// thread brings them, and that thread goes on with the next layer. The cache's length stays what it
// was.
//
// The cache then holds what no prefill gave: it must not be published as exact. One Recomputation
// at a time on a model, as for its other calls; it keeps references to model and cache. Calls out
// of order abort.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model.h"

namespace kedge {

using LayerHook = std::function<absl::Status(int64_t layer)>;

class Recomputation {
 public:
  // Hidden states to go on from: what `hidden()` gave for the same positions at `layer`.
  struct From {
    int64_t layer = 0;
    std::span<const float> hidden;  // [positions, hidden_size]
  };

  // `tokens` is the whole sequence, as long as the cache; `positions` ascend in it. Rows that will
  // never be computed must be in the cache when their layer is waited for. InvalidArgument names
  // the position that does not ascend or lies outside, the token outside the vocabulary, the
  // layer or hidden states of another size, and refuses a pruned cache and one of another geometry.
  static absl::StatusOr<Recomputation> Start(Model& model, std::span<const int32_t> tokens,
                                             std::span<const int32_t> positions, KvCache& cache,
                                             LayerHook wait_for_layer = nullptr);
  static absl::StatusOr<Recomputation> StartFrom(Model& model, const From& from,
                                                 std::span<const int32_t> positions, KvCache& cache,
                                                 LayerHook wait_for_layer = nullptr);

  int64_t layer() const { return layer_; }  // the next to be finished
  bool done() const { return layer_ == model_->config().layers; }
  std::span<const int32_t> positions() const { return positions_; }
  // Hidden states of the rows before layer(): [rows, hidden_size].
  std::span<const float> hidden() const { return residual_; }

  // Computes queries, keys and values of all rows at layer(), and writes nothing. The hook's error.
  absl::Status Project();
  // After Project, before WriteKv: for each row the sum over heads and dimensions of
  // |fresh V - cached V|, both as the cache's dtype has them. Zero where nothing changed.
  std::vector<float> ValueDeviation() const;
  // Writes the rows' keys and values.
  void WriteKv();
  // After WriteKv: how much attention the last `queries` rows give to each token of the sequence at
  // this layer, mean over rows and heads; `queries` rows stand at the sequence's very end. Their
  // own attention, not that of a query packed behind another sequence.
  std::vector<float> AttentionOfLast(int64_t queries);
  // After WriteKv: goes on with these of the rows only. InvalidArgument names a position that is
  // not among them or does not ascend.
  absl::Status Keep(std::span<const int32_t> positions);
  void Finish();

  absl::Status RunToEnd();  // from between two layers

  // Of the last row, once done. InvalidArgument when no row is left.
  absl::StatusOr<Logits> LastLogits();

  // Multiplications and additions so far, in matrix products and attention; logits are not counted.
  double operations() const { return operations_; }

 private:
  enum class Step { kBetween, kProjected, kWritten };

  Recomputation(Model& model, std::span<const int32_t> positions, KvCache& cache,
                LayerHook wait_for_layer);
  static absl::Status Check(const Model& model, std::span<const int32_t> positions,
                            const KvCache& cache);
  void Expect(Step step, const char* call) const;
  int64_t rows() const { return static_cast<int64_t>(positions_.size()); }
  void FinishRows(int64_t first, int64_t rows);

  Model* model_;
  KvCache* cache_;
  LayerHook wait_for_layer_;
  Step step_ = Step::kBetween;
  int64_t layer_ = 0;
  double operations_ = 0;
  std::vector<int32_t> positions_;
  kernels::RopeTable rope_;      // a row a position
  std::vector<float> residual_;  // [rows, hidden]
  std::vector<float> qkv_;       // [rows, (heads + 2 kv_heads) * head_size] of layer()
};

// What a prefill of a sequence's first `tokens` tokens takes, counted as above.
double DenseOperations(const ModelConfig& config, int64_t tokens);

}  // namespace kedge
