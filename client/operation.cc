#include "client/operation.h"

#include <algorithm>
#include <chrono>

#include "client/client_limits.h"
#include "client/engine.h"

namespace kedge {

template <typename Done>
bool Operation::WaitUntil(uint32_t timeout_ms, Done done) {
  for (int spin = 0; spin < kSpinsBeforeSleep; ++spin) {
    if (done()) return true;
    __builtin_ia32_pause();
  }
  std::unique_lock lock(mutex_);
  if (timeout_ms == UINT32_MAX) {
    changed_.wait(lock, done);
    return true;
  }
  return changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), done);
}

bool Operation::Wait(uint32_t timeout_ms) {
  return WaitUntil(timeout_ms, [this] { return ended(); });
}

bool Operation::WaitLayers(uint32_t layers, uint32_t timeout_ms) {
  return WaitUntil(timeout_ms, [this, layers] {
    return ended() || layers_.load(std::memory_order_acquire) >= layers;
  });
}

void Operation::CopyItems(std::span<ItemResult> out) const {
  std::lock_guard lock(mutex_);
  std::copy_n(items_.begin(), std::min(out.size(), items_.size()), out.begin());
}

uint32_t Operation::Prefix(bool running) const {
  std::lock_guard lock(mutex_);
  const auto failed = std::find_if(items_.begin(), items_.end(), [running](const ItemResult& item) {
    return item.ended ? !IsSuccess(item.code) : !running;
  });
  return static_cast<uint32_t>(failed - items_.begin());
}

std::string Operation::text() const {
  std::lock_guard lock(mutex_);
  return text_;
}

bool Operation::EndItem(uint32_t item, const ItemResult& result, std::string_view text) {
  if (items_[item].ended) return false;
  std::lock_guard lock(mutex_);
  items_[item] = result;
  items_[item].ended = true;
  --running_;
  if (!IsSuccess(result.code) && text_.empty()) {
    text_ = text.empty() ? ResultCodeName(result.code) : std::string(text);
  }
  return true;
}

bool Operation::EndItem(uint32_t item, ResultCode code, std::string_view text) {
  ItemResult result;
  result.code = code;
  return EndItem(item, result, text);
}

void Operation::SetLayers(uint32_t layers) {
  std::lock_guard lock(mutex_);
  layers_.store(layers, std::memory_order_release);
  changed_.notify_all();
}

void Operation::End(Engine& engine) {
  if (ended()) return;
  const std::shared_ptr<Operation> self =
      shared_from_this();  // the engine may hold the last other one
  engine.Forget(*this);
  std::lock_guard lock(mutex_);
  ended_.store(true, std::memory_order_release);
  changed_.notify_all();
}

}  // namespace kedge
