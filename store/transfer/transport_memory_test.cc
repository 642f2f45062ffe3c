// The faults of a MemoryNetwork. Its contract is in transport_test.cc.
#include "store/transfer/transport_memory.h"

#include <vector>

#include "store/transfer/transport_test.h"

namespace kedge {
namespace {

struct Trip {
  std::vector<uint64_t> numbers;  // in the order of arrival
  std::string why;                // of the client's OnClosed, when it came
};

// Sends `count` numbers over one connection; returns when all arrived or the connection ended.
Trip SendNumbers(MemoryFaults faults, uint64_t count) {
  RealClock clock;
  std::unique_ptr<Executor> executor = MakeThreadExecutor("test", 1);
  LambdaHandler server_handler, client_handler;
  Trip trip;
  Count done;
  server_handler.on_message = [&](Connection&, auto head, auto) {
    trip.numbers.push_back(NumberIn(head));
    if (trip.numbers.size() == count) done.Add();
  };
  client_handler.on_closed = [&](Connection&, const absl::Status& why) {
    if (done.value() == 0) trip.why = std::string(why.message());
    done.Add();
  };
  MemoryNetwork network(faults);
  auto server = network.MakeTransport(server_handler, *executor, clock, {.name = "server"});
  auto client = network.MakeTransport(client_handler, *executor, clock, {.name = "client"});
  EXPECT_TRUE(server->Listen("memory://node").ok());
  OnLoop(*client, [&] {
    Connection* const connection = *client->Connect("memory://node");
    for (uint64_t i = 0; i < count; ++i) (void)connection->Send(BytesOf(i), {}, 0);
  });
  EXPECT_TRUE(done.WaitFor(1));
  client->Shutdown();
  server->Shutdown();
  return trip;
}

std::vector<uint64_t> UpTo(uint64_t count) {
  std::vector<uint64_t> numbers(count);
  for (uint64_t i = 0; i < count; ++i) numbers[i] = i;
  return numbers;
}

TEST(MemoryFaults, NoneKeepsTheOrder) { EXPECT_EQ(SendNumbers({}, 1000).numbers, UpTo(1000)); }

TEST(MemoryFaults, ReorderedMessagesAllArrive) {
  Trip trip = SendNumbers({.seed = 5, .reorder_share = 0.3}, 1000);
  EXPECT_NE(trip.numbers, UpTo(1000));
  std::sort(trip.numbers.begin(), trip.numbers.end());
  EXPECT_EQ(trip.numbers, UpTo(1000));
}

TEST(MemoryFaults, LateMessagesAllArrive) {
  const Trip trip = SendNumbers({.seed = 5, .delay_share = 0.1, .delay_us_max = 2000}, 200);
  EXPECT_EQ(trip.numbers, UpTo(200));
}

TEST(MemoryFaults, ADropEndsTheConnection) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Trip trip = SendNumbers(
        {.seed = seed, .drop_after_messages_min = 10, .drop_after_messages_max = 40}, 100);
    EXPECT_LT(trip.numbers.size(), 40u);
    EXPECT_NE(trip.why.find("fault"), std::string::npos) << trip.why;
    // What did arrive is a beginning.
    EXPECT_EQ(trip.numbers, UpTo(trip.numbers.size()));
  }
}

}  // namespace
}  // namespace kedge
