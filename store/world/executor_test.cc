#include "store/world/executor.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "store/world/clock.h"
#include "store/world/executor_stepped.h"

namespace kedge {
namespace {

// Lets a test wait for a count without sleeping.
class Counter {
 public:
  void Add() {
    std::lock_guard<std::mutex> lock(mutex_);
    ++count_;
    changed_.notify_all();
  }
  void WaitFor(int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return count_ >= count; });
  }
  int count() {
    std::lock_guard<std::mutex> lock(mutex_);
    return count_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

TEST(ThreadExecutor, RunsEveryTaskOnceAndNotInsideThePost) {
  std::atomic<int> ran{0};
  std::atomic<bool> inside{false};
  const auto executor = MakeThreadExecutor("test", 4);
  std::vector<std::thread> posters;
  for (int t = 0; t < 4; ++t) {
    posters.emplace_back([&] {
      const auto self = std::this_thread::get_id();
      for (int i = 0; i < 1000; ++i) {
        executor->Post([&, self] {
          if (std::this_thread::get_id() == self) inside = true;
          ran.fetch_add(1);
        });
      }
    });
  }
  for (std::thread& poster : posters) poster.join();
  executor->Shutdown();
  EXPECT_EQ(ran.load(), 4000);
  EXPECT_FALSE(inside.load());
  EXPECT_EQ(executor->pending(), 0u);
}

TEST(ThreadExecutor, TasksMayPostTasks) {
  Counter done;
  const auto executor = MakeThreadExecutor("test", 2);
  for (int i = 0; i < 10; ++i) {
    executor->Post([&] { executor->Post([&] { done.Add(); }); });
  }
  done.WaitFor(10);
}

TEST(ThreadExecutor, TimersRunInOrderOfTheirDueTime) {
  Counter done;
  std::mutex mutex;
  std::vector<int> order;
  const auto executor = MakeThreadExecutor("test", 1);
  const auto note = [&](int value) {
    return [&, value] {
      {
        std::lock_guard<std::mutex> lock(mutex);
        order.push_back(value);
      }
      done.Add();
    };
  };
  executor->PostAfter(60, note(3));
  executor->PostAfter(30, note(2));
  executor->PostAfter(-5, note(1));
  done.WaitFor(3);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST(ThreadExecutor, ShutdownDropsTimersAndLaterPosts) {
  std::atomic<int> ran{0};
  const auto owned = std::make_shared<int>(7);
  const auto executor = MakeThreadExecutor("test", 2);
  executor->PostAfter(3'600'000, [&ran, owned] { ran.fetch_add(1); });
  EXPECT_EQ(owned.use_count(), 2);
  EXPECT_EQ(executor->pending(), 0u);
  executor->Shutdown();
  EXPECT_EQ(owned.use_count(), 1);
  executor->Post([&] { ran.fetch_add(1); });
  executor->PostAfter(0, [&] { ran.fetch_add(1); });
  executor->Shutdown();
  EXPECT_EQ(ran.load(), 0);
}

TEST(ThreadExecutor, LoopRunsUntilDestroyedAndIsWoken) {
  std::mutex mutex;
  std::condition_variable changed;
  bool woken = false;
  std::atomic<int> calls{0};
  const auto executor = MakeThreadExecutor("test", 1);
  auto loop = executor->StartLoop(
      "loop-with-a-long-name",
      [&] {
        if (calls.fetch_add(1) < 5) return;
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [&] { return woken; });
      },
      [&] {
        std::lock_guard<std::mutex> lock(mutex);
        woken = true;
        changed.notify_all();
      });
  Counter posted;  // the pool goes on beside a loop that sleeps
  executor->Post([&] { posted.Add(); });
  posted.WaitFor(1);
  while (calls.load() < 6) std::this_thread::yield();
  loop.reset();
  const int calls_at_end = calls.load();
  EXPECT_GE(calls_at_end, 6);
  EXPECT_TRUE(woken);
}

TEST(SteppedExecutor, RunsInOrderAndOnlyWhenTold) {
  SimulatedClock clock;
  SteppedExecutor executor(clock);
  std::vector<int> order;
  executor.Post([&] {
    order.push_back(1);
    executor.Post([&] { order.push_back(3); });
  });
  executor.Post([&] { order.push_back(2); });
  EXPECT_TRUE(order.empty());
  EXPECT_EQ(executor.pending(), 2u);
  EXPECT_TRUE(executor.RunOne());
  EXPECT_EQ(order, (std::vector<int>{1}));
  EXPECT_EQ(executor.RunAll(), 2u);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(executor.RunOne());
}

TEST(SteppedExecutor, TimersWaitForTheClock) {
  SimulatedClock clock;
  SteppedExecutor executor(clock);
  std::vector<int> order;
  executor.PostAfter(20, [&] { order.push_back(2); });
  executor.PostAfter(10, [&] { order.push_back(1); });
  EXPECT_EQ(executor.RunAll(), 0u);
  EXPECT_EQ(executor.next_timer_us(), clock.NowUs() + 10'000);
  clock.AdvanceUs(9'999);
  EXPECT_EQ(executor.RunAll(), 0u);
  clock.AdvanceUs(1);
  EXPECT_EQ(executor.RunAll(), 1u);
  clock.AdvanceUs(10'000);
  EXPECT_EQ(executor.RunAll(), 1u);
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_EQ(executor.next_timer_us(), -1);
}

TEST(SteppedExecutor, LoopsAreStepped) {
  SimulatedClock clock;
  SteppedExecutor executor(clock);
  int steps = 0;
  bool woken = false;
  auto loop = executor.StartLoop(
      "poll",
      [&] {
        if (++steps == 1) executor.Post([] {});
      },
      [&] { woken = true; });
  EXPECT_EQ(executor.RunAll(), 1u);
  EXPECT_EQ(steps, 3);
  loop.reset();
  EXPECT_TRUE(woken);
  executor.RunAll();
  EXPECT_EQ(steps, 3);
}

TEST(SteppedExecutor, RunAllStopsAtTheLimit) {
  SimulatedClock clock;
  SteppedExecutor executor(clock);
  std::function<void()> again = [&] { executor.Post(again); };
  again();
  EXPECT_EQ(executor.RunAll(100), 100u);
}

}  // namespace
}  // namespace kedge
