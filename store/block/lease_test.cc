#include "store/block/lease.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

class LeaseTest : public testing::Test {
 protected:
  LeaseTest() : host_(*HostTier::Create({.capacity_bytes = kHostExtentBytes})), map_(*host_) {
    raw_ = *map_.variants().Intern(Variant::Raw());
  }
  // A lease on one fresh block.
  uint64_t Grant(LeaseTable& table, uint64_t session, int64_t until_ms) {
    NewBlock block;
    block.key.bytes[0] = ++next_;
    block.variant = raw_;
    block.payload_bytes = 100;
    block.header_bytes = 212;
    block.host = *host_->Allocate(8192, 0);
    std::vector<BlockRef> pins(1);
    map_.Insert(block, &pins[0]);
    return table.Grant(session, std::move(pins), until_ms);
  }
  uint64_t pinned() { return map_.stats().pinned_blocks; }

  std::unique_ptr<HostTier> host_;
  BlockMap map_;
  uint16_t raw_ = 0;
  uint8_t next_ = 0;
};

TEST_F(LeaseTest, PinsUntilReleased) {
  LeaseTable table({}, 1);
  const uint64_t lease = Grant(table, 7, 1000);
  EXPECT_NE(lease, 0u);
  EXPECT_EQ(pinned(), 1u);
  EXPECT_EQ(table.Release(8, lease), ResultCode::kDenied) << "another session";
  EXPECT_EQ(pinned(), 1u);
  EXPECT_EQ(table.Release(7, lease), ResultCode::kOk);
  EXPECT_EQ(pinned(), 0u);
  EXPECT_EQ(table.Release(7, lease), ResultCode::kAbsent);
}

TEST_F(LeaseTest, EndsWithItsTime) {
  LeaseTable table({}, 1);
  Grant(table, 7, 1000);
  Grant(table, 7, 1000);
  Grant(table, 7, 2000);
  EXPECT_EQ(table.Expire(999), 0u);
  EXPECT_EQ(table.Expire(1000), 2u);
  EXPECT_EQ(pinned(), 1u);
  EXPECT_EQ(table.blocks(), 1u);
}

TEST_F(LeaseTest, EndsWithItsSession) {
  LeaseTable table({}, 1);
  Grant(table, 7, 1000);
  Grant(table, 8, 1000);
  EXPECT_EQ(table.ReleaseSession(7), 1u);
  EXPECT_EQ(table.ReleaseSession(7), 0u);
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(table.Expire(5000), 1u);
  EXPECT_EQ(pinned(), 0u);
}

TEST_F(LeaseTest, LimitsRefuseAndGiveThePinsBack) {
  LeaseTable table({.per_session = 2, .blocks = 3}, 1);
  EXPECT_NE(Grant(table, 7, 1000), 0u);
  EXPECT_NE(Grant(table, 7, 1000), 0u);
  EXPECT_EQ(Grant(table, 7, 1000), 0u) << "leases of the session";
  EXPECT_NE(Grant(table, 8, 1000), 0u);
  EXPECT_EQ(Grant(table, 9, 1000), 0u) << "pins of all leases";
  EXPECT_EQ(pinned(), 3u);
  table.Expire(1000);
}

}  // namespace
}  // namespace kedge
