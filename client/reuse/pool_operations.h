// Requests to the node that keeps a pool: learn an anchor, ask for a mixture.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "client/operation.h"
#include "proto/offset_messages.h"

namespace kedge {

// Puts an encoded anchor and has it taken into its pool. One item. Owns what it sends, so it may
// end while the transport still borrows it.
class AnchorOperation final : public Operation {
 public:
  // `insert`: all but slot and header. `payload`: gpu/offset/anchor.h.
  AnchorOperation(const AnchorInsertBody& insert, std::vector<uint8_t> payload,
                  int64_t deadline_us);

  // Once ended.
  PoolVerdict verdict() const { return verdict_; }
  uint64_t bytes_sent() const { return sent_; }

  void Start(Engine& engine) override;
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  Pumped Pump(Engine& engine) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;

 private:
  void OnReady(Engine& engine, const PutReadyBody& ready);
  void SendInsert(Engine& engine);
  void Finish(Engine& engine, ResultCode code, std::string_view text);

  AnchorInsertBody insert_;
  const std::vector<uint8_t> payload_;
  BlockHeader header_;
  std::vector<uint8_t> encoded_;
  uint64_t wire_ = 0;
  uint64_t slot_ = 0;
  uint64_t sent_ = 0;
  uint32_t attempt_ = 0;
  bool held_retried_ = false;
  PoolVerdict verdict_ = PoolVerdict::kOk;
};

// Asks a pool. One item, OK once the answer is whole: evidence, and mixed bytes whose digests are
// right.
class MixOperation final : public Operation {
 public:
  // `mix` has its whole sketch.
  MixOperation(MixBody mix, int64_t deadline_us);

  // Once ended.
  const MixReplyBody& reply() const { return reply_; }
  std::span<const uint8_t> mixed() const { return mixed_; }
  uint64_t bytes_moved() const { return moved_; }

  void Start(Engine& engine) override;
  void OnFrame(Engine& engine, uint64_t wire, uint32_t tag, const Frame& frame,
               std::span<const uint8_t> payload) override;
  void Abandon(Engine& engine, ResultCode code, std::string_view text) override;

 private:
  bool TakeReply(const Frame& frame, std::span<const uint8_t> payload, std::string& why);
  bool TakeBytes(uint64_t offset, std::span<const uint8_t> bytes, std::string& why);
  bool Verify(std::string& why) const;
  void Finish(Engine& engine, ResultCode code, std::string_view text);

  MixBody mix_;
  uint64_t wire_ = 0;
  uint32_t attempt_ = 0;
  bool has_reply_ = false;
  MixReplyBody reply_;
  std::vector<uint8_t> mixed_;
  // Chunks may come in any order: those before the reply wait, as far as the limits allow.
  std::vector<std::pair<uint64_t, std::vector<uint8_t>>> early_;
  uint64_t early_bytes_ = 0;
  std::map<uint64_t, uint64_t> ranges_;  // begin to end of what came, apart
  uint64_t received_ = 0;
  uint64_t moved_ = 0;
};

}  // namespace kedge
