// The real executor: a queue of tasks, workers that empty it, and one thread that moves due timers
// into it.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/internal/raw_logging.h"
#include "store/world/executor.h"

namespace kedge {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

void NameThisThread(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());  // longer names are refused
}

class ThreadLoop final : public Loop {
 public:
  ThreadLoop(std::string name, std::function<void()> body, std::function<void()> wake)
      : body_(std::move(body)), wake_(std::move(wake)) {
    thread_ = std::thread([this, name = std::move(name)] {
      NameThisThread(name);
      while (!stop_.load(std::memory_order_acquire)) body_();
    });
  }

  ~ThreadLoop() override {
    ABSL_RAW_CHECK(thread_.get_id() != std::this_thread::get_id(), "a loop destroys itself");
    stop_.store(true, std::memory_order_release);
    if (wake_) wake_();
    thread_.join();
  }

 private:
  std::function<void()> body_;
  std::function<void()> wake_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class ThreadExecutor final : public Executor {
 public:
  ThreadExecutor(std::string name, int threads) : name_(std::move(name)) {
    ABSL_RAW_CHECK(threads > 0, "an executor needs a thread");
    for (int i = 0; i < threads; ++i) workers_.emplace_back([this, i] { WorkerMain(i); });
    timer_thread_ = std::thread([this] { TimerMain(); });
  }

  ~ThreadExecutor() override { Shutdown(); }

  void Post(Task task) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;  // `task` is destroyed after the lock is released
      ready_.push_back(std::move(task));
    }
    work_.notify_one();
  }

  void PostAfter(int64_t delay_ms, Task task) override {
    const SteadyTime due = std::chrono::steady_clock::now() +
                           std::chrono::milliseconds(std::max<int64_t>(0, delay_ms));
    bool first = false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
      timers_.push_back(Timer{due, next_timer_++, std::move(task)});
      std::push_heap(timers_.begin(), timers_.end(), Later);
      first = timers_.front().due == due;
    }
    if (first) timer_changed_.notify_one();
  }

  size_t pending() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return ready_.size() + running_;
  }

  std::unique_ptr<Loop> StartLoop(std::string name, std::function<void()> body,
                                  std::function<void()> wake) override {
    return std::make_unique<ThreadLoop>(std::move(name), std::move(body), std::move(wake));
  }

  void Shutdown() override {
    std::lock_guard<std::mutex> one_at_a_time(shutdown_mutex_);
    std::vector<Timer> dropped;  // destroyed without the lock: a task may own anything
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
      dropped.swap(timers_);
    }
    work_.notify_all();
    timer_changed_.notify_all();
    if (timer_thread_.joinable()) timer_thread_.join();
    for (std::thread& worker : workers_) {
      ABSL_RAW_CHECK(worker.get_id() != std::this_thread::get_id(),
                     "a task shuts its executor down");
      worker.join();
    }
    workers_.clear();
  }

 private:
  struct Timer {
    SteadyTime due;
    uint64_t order;  // timers due at the same time run in the order of their posting
    Task task;
  };
  static bool Later(const Timer& a, const Timer& b) {
    return a.due != b.due ? a.due > b.due : a.order > b.order;
  }

  void WorkerMain(int index) {
    NameThisThread(name_ + "-" + std::to_string(index));
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      work_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
      if (ready_.empty()) return;  // stopping, and all that was posted is done
      {
        Task task = std::move(ready_.front());
        ready_.pop_front();
        ++running_;
        lock.unlock();
        std::move(task)();
      }  // and whatever it owned is gone before it stops counting as running
      lock.lock();
      --running_;
    }
  }

  void TimerMain() {
    NameThisThread(name_ + "-timer");
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopping_) {
      if (timers_.empty()) {
        timer_changed_.wait(lock);
        continue;
      }
      const SteadyTime due = timers_.front().due;
      if (std::chrono::steady_clock::now() < due) {
        timer_changed_.wait_until(lock, due);
        continue;
      }
      std::pop_heap(timers_.begin(), timers_.end(), Later);
      ready_.push_back(std::move(timers_.back().task));
      timers_.pop_back();
      work_.notify_one();
    }
  }

  const std::string name_;
  std::mutex shutdown_mutex_;

  mutable std::mutex mutex_;  // guards all below but the threads
  std::condition_variable work_;
  std::condition_variable timer_changed_;
  std::deque<Task> ready_;
  std::vector<Timer> timers_;  // a heap, the next one in front
  uint64_t next_timer_ = 0;
  size_t running_ = 0;
  bool stopping_ = false;

  std::vector<std::thread> workers_;
  std::thread timer_thread_;
};

}  // namespace

std::unique_ptr<Executor> MakeThreadExecutor(std::string name, int threads) {
  return std::make_unique<ThreadExecutor>(std::move(name), threads);
}

}  // namespace kedge
