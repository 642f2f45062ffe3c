// The reference runner behind a Session (client/reuse/session.h): its first user, and the shortest
// example of one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "client/reuse/blend.h"
#include "client/reuse/session.h"
#include "gpu/model/kv_span.h"
#include "gpu/model/model.h"

namespace kedge {

class RunnerSession final : public SessionEngine {
 public:
  // KV of an offered run that belongs to no position; an error: it is gone.
  using Donor = std::function<absl::StatusOr<KvSpan>(const OfferedRun& run)>;

  // Model and cache must outlive it; the cache has room for the prompt.
  RunnerSession(Model& model, KvCache& cache, Donor donor)
      : model_(model), cache_(cache), donor_(std::move(donor)) {}

  int64_t layers() const override { return model_.config().layers; }
  std::vector<sdk::BlockBuffer> Pages(uint32_t first, uint32_t count) override;
  absl::Status Place(const OfferedRun& run) override;
  absl::Status Start(std::span<const int32_t> tokens) override;
  absl::Status Begin(std::span<const int32_t> positions) override {
    return engine_->Begin(positions);
  }
  absl::Status Project(int64_t layer) override { return engine_->Project(layer); }
  absl::StatusOr<std::vector<float>> ValueDeviation(int64_t layer) override {
    return engine_->ValueDeviation(layer);
  }
  absl::Status WriteKv(int64_t layer) override { return engine_->WriteKv(layer); }
  absl::StatusOr<std::vector<float>> AttentionOfLast(int64_t layer, int64_t queries) override {
    return engine_->AttentionOfLast(layer, queries);
  }
  absl::Status Attend(int64_t layer, std::span<const int32_t> positions) override {
    return engine_->Attend(layer, positions);
  }

  // After Session::Prefill.
  absl::StatusOr<Logits> LastLogits() { return engine_->run().LastLogits(); }

 private:
  Model& model_;
  KvCache& cache_;
  const Donor donor_;
  std::vector<int32_t> tokens_;
  std::optional<RunnerEngine> engine_;
};

}  // namespace kedge
