// Pools in the cluster: anchors are kept, mixed and evicted by the node where a placeholder lives
// (store/node/anchor_store.h), over the client's connection.
//
// What the node says is what LocalPools says of the same anchors learnt in the same order, to the
// bit: one piece of code on both sides, offsets in fp32 on the wire unless options say otherwise.
// The node sees keys that derive from the tenant's salt (PoolKey, AnchorKey), no names and no
// tokens; it reads offsets, which is why anchors are never sealed.
//
// Anchors only. Of `linear` a node would keep sums of features * (features + 2 width) fp64 a layer,
// 67 MB at width 1,024, and points lost are those of anchors wherever the gate accepts its maps
// (client/README.md): it stays in LocalPools.
//
// Threads: any. Asking blocks nobody until Wait. Where there is no node, answers are Unavailable at
// once.
#pragma once

#include <cstdint>
#include <memory>

#include "client/engine.h"
#include "client/reuse/offset_pools.h"
#include "proto/messages.h"

namespace kedge {

struct NodePoolsOptions {
  AnchorPoolOptions pool;  // of pools that are new
  // Of anchors as they are kept, and of mixed rows as they travel: f32, f16 or bf16. Half types
  // halve what is stored and moved; LocalPools with the same types rounds the same.
  DType anchor_dtype = DType::kF32;
  DType answer_dtype = DType::kF32;
  // When Learn answers: kDurabilitySsd once the anchor survives a crash of the node.
  uint8_t durability = kDurabilityDefault;
  int64_t deadline_ms = 2'000;  // of questions that name none: dense prefill ends sooner than more
  int64_t learn_deadline_ms = 10'000;
};

class NodePools final : public OffsetPools {
 public:
  NodePools(std::shared_ptr<Engine> engine, const TenantSalt& salt, const Fingerprint& model,
            const NodePoolsOptions& options = {})
      : engine_(std::move(engine)), salt_(salt), model_(model), options_(options) {}

  OffsetMethod method() const override { return OffsetMethod::kAnchors; }
  // Waits for the node. ResourceExhausted: pool memory or queues are full. PermissionDenied and
  // others as the node says.
  absl::Status Learn(OffsetLesson lesson) override;
  std::unique_ptr<OffsetCall> Ask(OffsetQuestion question) override;
  void Activate(const offset::PoolName& pool, const OffsetAnswer& answer) override;

 private:
  const std::shared_ptr<Engine> engine_;
  const TenantSalt salt_;
  const Fingerprint model_;
  const NodePoolsOptions options_;
};

}  // namespace kedge
