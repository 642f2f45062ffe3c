// An inference engine of one's own behind a Session: what it has to implement, on a toy model of
// two layers with one attention head. The second prompt fetches what the first one stored; the
// third has a part of the first one's text behind another beginning, and computes some of it anew.
//
//   custom_engine [ADDRESS]

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "client/reuse/session.h"

namespace {

using namespace kedge;  // NOLINT

constexpr int64_t kLayers = 2;
constexpr int64_t kWidth = 16;  // of a hidden state, a query, a key and a value
constexpr uint32_t kBlockTokens = 32;
using Row = std::vector<float>;

// Keys are not rotated, so that moved KV is copied as it is. Blocks lie in memory as the store has
// them: layer by layer, keys then values.
class ToyEngine final : public SessionEngine {
 public:
  explicit ToyEngine(int64_t tokens) : blocks_((tokens + kBlockTokens - 1) / kBlockTokens) {
    for (std::vector<float>& block : blocks_)
      block.resize(2 * kLayers * int64_t{kBlockTokens} * kWidth);
  }

  // --- memory ---
  std::vector<sdk::BlockBuffer> Pages(uint32_t first, uint32_t count) override {
    std::vector<sdk::BlockBuffer> pages;
    for (uint32_t i = first; i < first + count; ++i)
      pages.push_back({{blocks_[i].data(), blocks_[i].size() * sizeof(float)}});
    return pages;
  }
  absl::Status Place(const OfferedRun& run) override {
    if (donor == nullptr) return absl::NotFoundError("nobody has it");
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      for (int64_t i = 0; i < run.count; ++i) {
        std::memcpy(Key(layer, run.first + i), donor->Key(layer, donor_first + i), kRowBytes);
        std::memcpy(Value(layer, run.first + i), donor->Value(layer, donor_first + i), kRowBytes);
      }
    }
    return absl::OkStatus();
  }

  // --- the forward pass, for rows that stand apart ---
  int64_t layers() const override { return kLayers; }
  absl::Status Start(std::span<const int32_t> tokens) override {
    tokens_.assign(tokens.begin(), tokens.end());
    return absl::OkStatus();
  }
  absl::Status Begin(std::span<const int32_t> positions) override {
    positions_.assign(positions.begin(), positions.end());
    hidden_.clear();
    for (const int32_t position : positions) {
      Row& row = hidden_.emplace_back(kWidth);
      for (int64_t i = 0; i < kWidth; ++i)
        row[i] = std::sin(static_cast<float>((tokens_[position] + 1) * (i + 3)));
    }
    return absl::OkStatus();
  }
  absl::Status Project(int64_t layer) override {
    queries_.clear();
    keys_.clear();
    values_.clear();
    for (const Row& row : hidden_) {
      queries_.push_back(Multiply(row, layer * 3));
      keys_.push_back(Multiply(row, layer * 3 + 1));
      values_.push_back(Multiply(row, layer * 3 + 2));
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<float>> ValueDeviation(int64_t layer) override {
    std::vector<float> deviation;
    for (size_t i = 0; i < positions_.size(); ++i)
      deviation.push_back(L1Distance(values_[i], {Value(layer, positions_[i]), kWidth}));
    return deviation;
  }
  absl::Status WriteKv(int64_t layer) override {
    for (size_t i = 0; i < positions_.size(); ++i) {
      std::memcpy(Key(layer, positions_[i]), keys_[i].data(), kRowBytes);
      std::memcpy(Value(layer, positions_[i]), values_[i].data(), kRowBytes);
    }
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<float>> AttentionOfLast(int64_t, int64_t) override {
    return absl::UnimplementedError("not in this toy");
  }
  absl::Status Attend(int64_t layer, std::span<const int32_t> positions) override {
    std::vector<Row> next;
    for (size_t i = 0, row = 0; i < positions.size(); ++i, ++row) {
      while (positions_[row] != positions[i]) ++row;
      next.push_back(AttentionOf(layer, queries_[row], hidden_[row], positions[i]));
    }
    positions_.assign(positions.begin(), positions.end());
    hidden_ = std::move(next);
    return absl::OkStatus();
  }

  // What logits would be made of.
  const Row& last() const { return hidden_.back(); }

  // Where Place takes rows from.
  ToyEngine* donor = nullptr;
  int64_t donor_first = 0;

 private:
  static constexpr size_t kRowBytes = kWidth * sizeof(float);

  float* Key(int64_t layer, int64_t token) {
    return blocks_[token / kBlockTokens].data() +
           (2 * layer * kBlockTokens + token % kBlockTokens) * kWidth;
  }
  float* Value(int64_t layer, int64_t token) {
    return Key(layer, token) + int64_t{kBlockTokens} * kWidth;
  }
  // By a matrix that is made up.
  static Row Multiply(const Row& row, int64_t matrix) {
    Row product(kWidth);
    for (int64_t i = 0; i < kWidth; ++i) {
      for (int64_t j = 0; j < kWidth; ++j)
        product[i] += row[j] * std::cos(static_cast<float>(matrix * 31 + i * 7 + j * 3)) / 4;
    }
    return product;
  }
  Row AttentionOf(int64_t layer, const Row& query, const Row& hidden, int64_t position) {
    Row sum(kWidth);
    float weights = 0;
    for (int64_t token = 0; token <= position; ++token) {
      const float* key = Key(layer, token);
      const float logit = std::inner_product(query.begin(), query.end(), key, 0.0f) / 4;
      const float weight = std::exp(std::min(logit, 30.0f));
      weights += weight;
      for (int64_t i = 0; i < kWidth; ++i) sum[i] += weight * Value(layer, token)[i];
    }
    for (int64_t i = 0; i < kWidth; ++i) sum[i] = std::tanh(hidden[i] + sum[i] / weights);
    return sum;
  }

  std::vector<std::vector<float>> blocks_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> positions_;
  std::vector<Row> hidden_, queries_, keys_, values_;
};

int Fail(const std::string& why) {
  std::fprintf(stderr, "custom_engine: %s\n", why.c_str());
  return 1;
}

int Run(const char* address) {
  auto client = sdk::Client::Open({.address = address, .salt = "the tenant's secret"});
  if (!client) return Fail(client.text());
  auto model = client->OpenModel({.weights_id = "example/toy@1",
                                  .tokenizer_id = "example/tokenizer",
                                  .dtype = sdk::DType::kF32,
                                  .layer_count = kLayers,
                                  .kv_heads = 1,
                                  .head_size = kWidth,
                                  .block_tokens = kBlockTokens});
  if (!model) return Fail(model.text());

  // A real engine measures its rates, and asks its model's profile what may be used.
  SessionOptions options;
  options.rates = {.layers = kLayers, .token = 1e-5, .token_key = 1e-8, .place = 1e-8};
  options.rules = ReuseRules::Of(
      nullptr, "", {.policy = RecomputePolicy::kDeviation, .check_layer = 1, .ratio = 0.2},
      /*allow_unprofiled=*/true);
  Session session(*model, kBlockTokens, options);

  std::vector<int32_t> prompt(200);
  std::iota(prompt.begin(), prompt.end(), 1);
  // 80 tokens of it, from 60 on, behind 100 others.
  std::vector<int32_t> other(110, 777);
  other.insert(other.begin() + 100, prompt.begin() + 60, prompt.begin() + 140);

  ToyEngine first(200), second(200), third(190);
  third.donor = &first;
  third.donor_first = 60;
  struct Turn {
    const char* what;
    ToyEngine* engine;
    std::vector<int32_t>* tokens;
    std::vector<OfferedRun> runs;
  };
  for (const Turn& turn :
       {Turn{"computed", &first, &prompt, {}}, Turn{"again", &second, &prompt, {}},
        Turn{"moved", &third, &other, {{.first = 100, .count = 80}}}}) {
    auto done = session.Prefill(*turn.tokens, turn.runs, *turn.engine);
    if (!done.ok()) return Fail(std::string(done.status().message()));
    auto stored = session.Publish(*done, *turn.engine);
    if (!stored.ok()) return Fail(std::string(stored.status().message()));
    std::printf("%-9s %3zu tokens, %u blocks fetched, %3lld rows computed, %s, %u blocks stored\n",
                turn.what, turn.tokens->size(), done->fetched_blocks,
                static_cast<long long>(done->computed_rows),
                ProvenanceName(done->provenance.worst()), *stored);
  }
  if (first.last() != second.last()) return Fail("the same prompt has another answer");
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return Run(argc > 1 ? argv[1] : "embedded:"); }
