#include "gpu/device/device_cpu.h"

#include <atomic>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace kedge {
namespace {

TEST(CpuDevice, ParallelForRunsEveryItemOnceForAnyThreads) {
  for (int threads : {1, 2, 3, 7}) {
    CpuDevice device(threads);
    EXPECT_EQ(device.threads(), threads);
    for (int64_t items : {0, 1, 2, 5, 64, 1000}) {
      std::vector<std::atomic<int>> runs(items);
      device.ParallelFor(items, [&](int64_t i) { runs[i].fetch_add(1); });
      for (int64_t i = 0; i < items; ++i) EXPECT_EQ(runs[i].load(), 1) << "item " << i;
    }
  }
}

TEST(CpuDevice, ResultsOfOneLoopAreVisibleToTheNext) {
  CpuDevice device(2);
  std::vector<int64_t> values(257, 0);
  for (int round = 0; round < 2000; ++round) {
    device.ParallelFor(257, [&](int64_t i) { values[i] += 1; });
    device.ParallelFor(257, [&](int64_t i) { values[i] -= 1; });
  }
  for (int64_t v : values) EXPECT_EQ(v, 0);
}

TEST(CpuDevice, AllocatesAlignedMemoryAndRefusesTheImpossible) {
  CpuDevice device(1);
  absl::StatusOr<DeviceBuffer> buffer = DeviceBuffer::Create(device, 1000);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  const std::vector<uint8_t> in(1000, 7);
  std::vector<uint8_t> out(1000, 0);
  ASSERT_TRUE(device.CopyIn(buffer->data(), in.data(), in.size()).ok());
  ASSERT_TRUE(device.CopyOut(out.data(), buffer->data(), out.size()).ok());
  EXPECT_EQ(in, out);

  absl::StatusOr<void*> empty = device.Allocate(0);
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ(*empty, nullptr);
  absl::StatusOr<void*> huge = device.Allocate(SIZE_MAX - 3);
  EXPECT_EQ(huge.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(DeviceBuffer, MovesOwnership) {
  CpuDevice device(1);
  absl::StatusOr<DeviceBuffer> a = DeviceBuffer::Create(device, 64);
  ASSERT_TRUE(a.ok());
  void* memory = a->data();
  DeviceBuffer b = std::move(*a);
  EXPECT_EQ(b.data(), memory);
  EXPECT_EQ(a->data(), nullptr);
  b = DeviceBuffer();
  EXPECT_EQ(b.data(), nullptr);
}

}  // namespace
}  // namespace kedge
