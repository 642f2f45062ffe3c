// Work that a loop repeats: what `Transport::Every` keeps. No thread of its own; the loop asks when
// to wake and runs what is due.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace kedge {

// Used on the loop only, except that Add may come before the loop sees traffic (the owner orders
// the two).
class Periodic {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  void Add(int64_t now_us, int64_t period_ms, std::function<void()> task) {
    const int64_t period_us = std::max<int64_t>(period_ms, 1) * 1000;
    items_.push_back({period_us, now_us + period_us, std::move(task)});
  }

  // When the loop has to be awake again, on the clock of `RunDue`; kNever without tasks.
  int64_t next_due_us() const {
    int64_t due_us = kNever;
    for (const Item& item : items_) due_us = std::min(due_us, item.due_us);
    return due_us;
  }

  // A loop that was late runs a task once, not once for each period that it missed.
  void RunDue(int64_t now_us) {
    for (size_t i = 0; i < items_.size(); ++i) {
      if (items_[i].due_us > now_us) continue;
      items_[i].due_us = now_us + items_[i].period_us;
      items_[i].task();
    }
  }

  void Clear() { items_.clear(); }

 private:
  struct Item {
    int64_t period_us;
    int64_t due_us;
    std::function<void()> task;
  };
  std::vector<Item> items_;
};

}  // namespace kedge
