// Pools within this process. What they know ends with them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "client/reuse/offset_pools.h"
#include "store/block/linear_pool.h"

namespace kedge {

struct LocalPoolsOptions {
  OffsetMethod method = OffsetMethod::kAnchors;
  AnchorPoolOptions pool;
  // Anchors are rounded to it when they are learnt, answers when they are given, as by a node that
  // is told so: f32, f16 or bf16.
  DType anchor_dtype = DType::kF32;
  DType answer_dtype = DType::kF32;
  offset::LinearOptions linear;
};

class LocalPools final : public OffsetPools {
 public:
  explicit LocalPools(const LocalPoolsOptions& options = {}) : options_(options) {}

  OffsetMethod method() const override { return options_.method; }
  absl::Status Learn(OffsetLesson lesson) override;
  // Answers within the call; deadline_ms is not looked at.
  std::unique_ptr<OffsetCall> Ask(OffsetQuestion question) override;
  void Activate(const offset::PoolName& pool, const OffsetAnswer& answer) override;

  // nullptr when nothing was learnt, or by the other method.
  std::shared_ptr<AnchorPool> FindAnchors(const offset::PoolName& name) const;
  std::shared_ptr<LinearPool> FindLinear(const offset::PoolName& name) const;
  // Of all pools, as kept in memory.
  int64_t bytes() const;

 private:
  struct Pool {
    std::shared_ptr<AnchorPool> anchors;
    std::shared_ptr<LinearPool> linear;
  };
  Pool Find(const offset::PoolName& name) const;
  Pool FindOrMake(const offset::PoolName& name, const AnchorShape& shape);
  OffsetAnswer AnswerTo(const OffsetQuestion& question) const;

  const LocalPoolsOptions options_;
  mutable std::mutex mutex_;
  std::map<offset::PoolName, Pool> pools_;
};

}  // namespace kedge
