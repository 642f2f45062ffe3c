// The reference runner: Llama and Qwen2 decoders on the CPU, exact by construction.
//
//     CpuDevice device;
//     auto model = Model::Load("checkpoint/", device);
//     auto cache = (*model)->NewCache(4096);
//     auto logits = (*model)->Prefill(prompt, *cache);       // computes what the cache lacks
//     auto next = (*model)->Decode(ArgMax(logits->row(0)), *cache);
//
// Exactness. Prefill runs in chunks of `block_tokens` that end at block borders, also when it
// resumes, and all kernels are row-invariant (matmul.h, attention.h): a token's KV and logits have
// the same bits whether the tokens before it were computed by this call, by an earlier one, by
// Decode, or came as bytes from a store.
//
// A pruned cache (kv_cache.h) is gone on behind like any other: new tokens stand at their true
// positions and see the rows that each layer kept. What is computed then depends on what was kept,
// and is as row-invariant as before.
//
// Threads. One call of one Model at a time, from any thread; work is spread over the device's
// threads. Hooks run on the calling thread. Several caches may belong to one model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/device/device_cpu.h"
#include "gpu/kernels/attention.h"
#include "gpu/kernels/rope.h"
#include "gpu/model/kv_cache.h"
#include "gpu/model/model_config.h"
#include "gpu/model/weights.h"
#include "proto/kv_shape.h"

namespace kedge {

struct ModelOptions {
  int64_t block_tokens = 64;      // a multiple of 32, at most 4096
  std::optional<DType> kv_dtype;  // f32, f16 or bf16; the config's torch_dtype when empty
  // Keys as large models have them: some channels this many times larger, the answers unchanged
  // (twin.h). A power of two; 1 changes nothing.
  float twin_scale = 1.0f;
};

// Logits of one or more rows, row-major.
struct Logits {
  std::vector<float> values;
  int64_t vocabulary = 0;

  int64_t rows() const { return static_cast<int64_t>(values.size()) / vocabulary; }
  std::span<const float> row(int64_t index) const {
    return {values.data() + index * vocabulary, static_cast<size_t>(vocabulary)};
  }
};

struct PrefillOptions {
  // Logits of every token computed by the call, instead of the last one only.
  bool all_logits = false;

  // KV that arrives while the prefill runs: called once for each layer, in order, before the
  // layer's KV of tokens [0, cache.length()) is first read. May block. An error ends the prefill
  // with that error, and the cache's length stays what it was at the start. Not called when
  // length() is 0.
  std::function<absl::Status(int64_t layer)> wait_for_layer;

  // KV that leaves while the prefill runs: the layer's keys and values of these tokens are final.
  // Called for each chunk in order, and in it for each layer in order. A chunk lies in one block.
  std::function<void(int64_t layer, int64_t first_token, int64_t tokens)> on_layer_done;

  // Hides keys from a token beyond those after it: false hides. A token always sees itself. What is
  // hidden adds exactly zero. Asked for each pair; for experiments, not for speed. InvalidArgument
  // behind a pruned cache.
  std::function<bool(int64_t token, int64_t key)> visible;

  // The keys of a chunk as they are before rotation, in fp32: `keys` has `tokens` rows, `stride`
  // floats apart, of kv_heads * head_size. Called as on_layer_done is, and before it.
  std::function<void(int64_t layer, int64_t first_token, int64_t tokens, const float* keys,
                     int64_t stride)>
      on_keys;

  // The queries of a chunk before rotation, as on_keys gives keys: rows of heads * head_size.
  std::function<void(int64_t layer, int64_t first_token, int64_t tokens, const float* queries,
                     int64_t stride)>
      on_queries;

  // What a layer's attention is about to compute for a chunk: queries, keys, mask (attention.h).
  // Called as on_layer_done is, and before it.
  std::function<void(int64_t layer, const kernels::AttentionArgs& attention)> on_attention;

  // The same once it is computed, with log_sum_exp: how to know weights without keeping them
  // (column_mass.h). Called as on_layer_done is, and before it.
  std::function<void(int64_t layer, const kernels::AttentionArgs& attention)> on_attention_done;
};

class Model {
 public:
  // Reads config.json and the safetensors of a Hugging Face directory. InvalidArgument or NotFound
  // name the file, field and value; Unimplemented for a device that is not a CpuDevice. The device
  // must outlive the model.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& directory, Device& device,
                                                     const ModelOptions& options = {});

  const ModelConfig& config() const { return config_; }
  int64_t block_tokens() const { return options_.block_tokens; }
  DType kv_dtype() const { return *options_.kv_dtype; }
  // The shape of this model's blocks in a store: all layers, all KV heads, keys and values.
  KvShape kv_shape() const;
  // Weights that a token is multiplied with; a forward pass does two operations for each.
  int64_t parameters() const { return weights_.parameters; }

  // InvalidArgument when max_tokens is not in [1, config().max_positions].
  absl::StatusOr<KvCache> NewCache(int64_t max_tokens) const;

  // A cache with the first `tokens` tokens of another, to go on differently from there.
  // InvalidArgument when they are not in `cache`, are fewer than were pruned or `max_tokens` is
  // smaller, or as NewCache's.
  absl::StatusOr<KvCache> Fork(const KvCache& cache, int64_t tokens, int64_t max_tokens) const;

  // The angles of `rows` positions from `first` on, for keys that move (kv_span.h).
  kernels::RopeTable RopeTableAt(int64_t first, int64_t rows) const {
    return kernels::MakeRopeTable(rope_frequencies_, first, rows);
  }
  CpuDevice& device() const { return device_; }

  // `tokens` is the whole sequence so far. Computes tokens [cache.length(), tokens.size()), extends
  // the cache by them and returns the logits of the last one (or of all computed). The tokens below
  // cache.length() are trusted to be the ones whose KV the cache holds.
  // When everything is cached already there is nothing to compute logits from: InvalidArgument;
  // give up a token (set_length(size - 1)) or a block first. OutOfRange when the cache is too
  // small, InvalidArgument for a token outside the vocabulary or a cache of another geometry.
  absl::StatusOr<Logits> Prefill(std::span<const int32_t> tokens, KvCache& cache,
                                 const PrefillOptions& options = {});

  // Appends one token and returns its logits. Errors as Prefill's.
  absl::StatusOr<Logits> Decode(int32_t token, KvCache& cache);

 private:
  friend class Recomputation;  // recompute.h: the same layers for rows that stand apart

  // Memory for one chunk's activations.
  struct Workspace {
    std::vector<float> residual;     // [rows, hidden]
    std::vector<float> normed;       // [rows, hidden]
    std::vector<float> qkv;          // [rows, (heads + 2 kv_heads) * head_size]
    std::vector<float> attention;    // [rows, heads * head_size]
    std::vector<float> gate_up;      // [rows, 2 intermediate]
    std::vector<float> activation;   // [rows, intermediate]
    std::vector<float> matmul;       // scratch
    std::vector<float> attend;       // scratch
    std::vector<float> log_sum_exp;  // [rows, heads]; empty until somebody asks
    std::vector<uint8_t> visible;    // [rows, keys]; empty when nothing is hidden
  };

  Model(ModelConfig config, ModelOptions options, CpuDevice& device, ModelWeights weights);

  absl::Status CheckCache(const KvCache& cache, int64_t tokens_after) const;
  absl::Status CheckTokens(std::span<const int32_t> tokens) const;
  // Runs tokens at [first, first + size) through all layers, writes their KV, extends the cache and
  // leaves their hidden states in work_.residual.
  absl::Status RunChunk(std::span<const int32_t> tokens, int64_t first, KvCache& cache,
                        const PrefillOptions& options, bool wait);
  void AttentionBlock(int64_t layer, int64_t first, int64_t rows, const kernels::RopeTable& rope,
                      KvCache& cache, const PrefillOptions& options);
  void StoreKv(int64_t layer, int64_t first, int64_t rows, KvCache& cache);
  void MlpBlock(int64_t layer, int64_t rows);
  void Multiply(const Linear& linear, const float* x, const float* residual, int64_t rows,
                float* y);
  // Appends the logits of the last `rows` of a chunk of `chunk_rows`.
  void AppendLogits(int64_t chunk_rows, int64_t rows, Logits& logits);

  const ModelConfig config_;
  const ModelOptions options_;
  CpuDevice& device_;
  const ModelWeights weights_;
  const std::vector<float> rope_frequencies_;
  Workspace work_;
};

}  // namespace kedge
