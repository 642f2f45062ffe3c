// The contract of transport.h, the same over every wire.
#include <array>
#include <atomic>
#include <set>
#include <string>
#include <vector>

#include "proto/frame.h"
#include "store/transfer/transport_memory.h"
#include "store/transfer/transport_test.h"
#ifdef KEDGE_TEST_NET
#include "store/transfer/transport_net.h"
#endif

#ifdef KEDGE_TEST_NET
// UCX itself loses a few bytes for each connection that breaks while it is being made.
extern "C" const char* __lsan_default_suppressions() { return "leak:libuct\n"; }
#endif

namespace kedge {
namespace {

Executor& SharedExecutor() {
  static Executor* executor = MakeThreadExecutor("test", 1).release();
  return *executor;
}
const Clock& SharedClock() {
  static const RealClock* clock = new RealClock();
  return *clock;
}

Wire MemoryWire() {
  auto network = std::make_shared<MemoryNetwork>();
  return {"memory", "memory://node", false,
          [network](TransportHandler& handler, TransportLimits limits) {
            return network->MakeTransport(handler, SharedExecutor(), SharedClock(),
                                          {.send_queue_bytes_max = limits.send_queue_bytes_max});
          }};
}

#ifdef KEDGE_TEST_NET
Wire NetWire(const std::string& scheme) {
  return {scheme, scheme + "://127.0.0.1:0", true,
          [](TransportHandler& handler, TransportLimits limits) {
            auto transport =
                MakeNetTransport(handler, SharedExecutor(), SharedClock(),
                                 {.send_queue_bytes_max = limits.send_queue_bytes_max});
            EXPECT_TRUE(transport.ok()) << transport.status().ToString();
            return *std::move(transport);
          }};
}
#endif

class TransportTest : public testing::TestWithParam<std::string> {
 protected:
  // Destroyed in this order's reverse: transports before the handlers that they call.
  LambdaHandler server_handler_;
  LambdaHandler client_handler_;
  Wire wire_ = Make();
  std::unique_ptr<Transport> server_;
  std::unique_ptr<Transport> client_;
  std::string address_;

  static Wire Make() {
#ifdef KEDGE_TEST_NET
    if (GetParam() != "memory") return NetWire(GetParam());
#endif
    return MemoryWire();
  }

  // Declared after what the hooks refer to: no hook runs any more when that dies.
  struct StopAtEnd {
    explicit StopAtEnd(TransportTest& t) : test(t) {}
    ~StopAtEnd() {
      test.client_->Shutdown();
      test.server_->Shutdown();
    }
    TransportTest& test;
  };

  // After the handlers' hooks are set.
  void Start(TransportLimits limits = {}) {
    server_ = wire_.make(server_handler_, limits);
    client_ = wire_.make(client_handler_, limits);
    absl::StatusOr<std::string> address = server_->Listen(wire_.address);
    ASSERT_TRUE(address.ok()) << address.status().ToString();
    address_ = *address;
  }

  Connection* Connect() {
    return OnLoop(*client_, [this] {
      absl::StatusOr<Connection*> connection = client_->Connect(address_);
      EXPECT_TRUE(connection.ok()) << connection.status().ToString();
      return *connection;
    });
  }
};

TEST_P(TransportTest, AnswersComeBackWhole) {
  server_handler_.on_message = [](Connection& c, auto head, auto payload) {
    std::vector<uint8_t> copy(payload.begin(), payload.end());
    EXPECT_TRUE(c.Send(head, copy, 0).ok());  // no cookie: copied
  };
  Count answers;
  client_handler_.on_message = [&](Connection&, auto head, auto payload) {
    EXPECT_TRUE(HasPattern(payload, NumberIn(head)));
    EXPECT_EQ(payload.size(), NumberIn(head));
    answers.Add();
  };
  Count sent;
  client_handler_.on_sent = [&](Connection&, uint64_t cookie, const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_GE(cookie, 100u);
    sent.Add();
  };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  Connection* const connection = Connect();
  const uint32_t max = OnLoop(*client_, [&] { return connection->payload_bytes_max(); });
  EXPECT_GE(max, 32u << 10);
  const std::vector<uint64_t> sizes = {0, 8, 4096, 32 << 10, max / 2 / 8 * 8, max / 8 * 8};
  std::vector<std::vector<uint8_t>> payloads;
  for (const uint64_t size : sizes) FillPattern(payloads.emplace_back(size), size);
  for (size_t i = 0; i < sizes.size(); ++i) {
    OnLoop(*client_, [&] {
      const absl::Status status = connection->Send(BytesOf(sizes[i]), payloads[i], 100 + i);
      EXPECT_TRUE(status.ok()) << status.ToString();
    });
    ASSERT_TRUE(answers.WaitFor(i + 1));
  }
  ASSERT_TRUE(sent.WaitFor(sizes.size()));
  const std::string wire = OnLoop(*client_, [&] { return connection->wire(); });
  RecordProperty("wire", wire);
  // Shared memory means that the bytes go through it; the two meet over tcp.
  EXPECT_EQ(wire, GetParam() == "tcp" ? "tcp" : GetParam() == "shm" ? "sysv" : "memory");
  EXPECT_EQ(OnLoop(*client_, [&] { return connection->peer(); }), address_);
}

TEST_P(TransportTest, HeadsOfEverySizeGoThrough) {
  std::mutex mutex;
  std::vector<std::vector<uint8_t>> heads, payloads;
  Count received;
  server_handler_.on_message = [&](Connection&, auto head, auto payload) {
    std::lock_guard lock(mutex);
    heads.emplace_back(head.begin(), head.end());
    payloads.emplace_back(payload.begin(), payload.end());
    received.Add();
  };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  Connection* const connection = Connect();
  uint64_t number = 0;
  for (const uint32_t head_bytes : {1u, 79u, 1000u, 5000u, 9000u, 40000u, kHeadBytesMax}) {
    for (const uint32_t payload_bytes : {0u, 8u, 32u << 10}) {
      std::vector<uint8_t> head(head_bytes, static_cast<uint8_t>(head_bytes));
      std::vector<uint8_t> payload(payload_bytes);
      FillPattern(payload, ++number);
      OnLoop(*client_, [&] {
        const absl::Status status = connection->Send(head, payload, 0);
        EXPECT_TRUE(status.ok()) << status.ToString();
      });
      ASSERT_TRUE(received.WaitFor(number));
      std::lock_guard lock(mutex);
      EXPECT_EQ(heads.back(), head) << head_bytes;
      EXPECT_EQ(payloads.back(), payload) << head_bytes << " " << payload_bytes;
    }
  }
  OnLoop(*client_, [&] {
    const std::vector<uint8_t> head(kHeadBytesMax + 1);
    EXPECT_EQ(connection->Send(head, {}, 0).code(), absl::StatusCode::kInvalidArgument);
    const std::vector<uint8_t> payload(connection->payload_bytes_max() + 1);
    EXPECT_EQ(connection->Send({}, payload, 1).code(), absl::StatusCode::kInvalidArgument);
  });
}

// The sender fills a buffer with another pattern as soon as it has it back.
TEST_P(TransportTest, ManyMessagesArriveOnceAndUnmixed) {
  constexpr uint64_t kTotalBytes = 1 << 30;
  Count received, wrong;
  std::vector<bool> seen;
  uint32_t payload_bytes = 0;
  server_handler_.on_message = [&](Connection&, auto head, auto payload) {
    const uint64_t number = NumberIn(head);
    if (number >= seen.size() || seen[number] || payload.size() != payload_bytes ||
        !HasPattern(payload, number)) {
      wrong.Add();
    } else {
      seen[number] = true;
    }
    received.Add();
  };
  std::vector<std::vector<uint8_t>> buffers;
  uint64_t next = 0, total = 0;
  const auto send_next = [&](Connection& connection, uint64_t buffer) {
    if (next == total) return;
    FillPattern(buffers[buffer], next);
    const absl::Status status = connection.Send(BytesOf(next), buffers[buffer], buffer + 1);
    ASSERT_TRUE(status.ok()) << status.ToString();
    ++next;
  };
  client_handler_.on_sent = [&](Connection& connection, uint64_t cookie,
                                const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status.ToString();
    send_next(connection, cookie - 1);
  };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  Connection* const connection = Connect();
  payload_bytes = OnLoop(*client_, [&] { return connection->payload_bytes_max(); }) / 8 * 8;
  total = kTotalBytes / payload_bytes;
  seen.resize(total);
  buffers.resize(12, std::vector<uint8_t>(payload_bytes));
  OnLoop(*client_, [&] {
    for (size_t i = 0; i < buffers.size(); ++i) send_next(*connection, i);
  });
  ASSERT_TRUE(received.WaitFor(total));
  EXPECT_EQ(wrong.value(), 0u);
}

// Holds the server's loop in its handler until told.
class Gate {
 public:
  void Pass() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void WaitUntilReached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return reached_; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  bool open_ = false;
};

// What the wire waits for while bulk flows must not keep a small message waiting afterwards.
TEST_P(TransportTest, SmallMessagesArriveAfterAnyBulk) {
  Count received;
  server_handler_.on_message = [&](Connection& c, auto head, auto payload) {
    EXPECT_TRUE(HasPattern(payload, 0));
    if (!payload.empty()) return;
    EXPECT_TRUE(c.Send(head, {}, 0).ok());
  };
  client_handler_.on_message = [&](Connection&, auto, auto) { received.Add(); };
  Count sent;
  client_handler_.on_sent = [&](Connection&, uint64_t, const absl::Status&) { sent.Add(); };
  std::vector<uint8_t> payload;  // outlives the transports
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  Connection* const connection = Connect();
  const uint32_t max = OnLoop(*client_, [&] { return connection->payload_bytes_max(); });
  payload.resize(std::min(max, 512u << 10) / 8 * 8);  // 100 of them fit the queue
  FillPattern(payload, 0);
  uint64_t rounds = 0, bulk = 0;
  for (const uint32_t bytes : {4096u, 32u << 10, 64u << 10, 120u << 10, 512u << 10}) {
    const std::span<const uint8_t> piece =
        std::span<const uint8_t>(payload).first(std::min<size_t>(bytes, payload.size()));
    for (const uint32_t count : {1u, 7u, 40u, 100u}) {
      OnLoop(*client_, [&] {
        for (uint32_t i = 0; i < count; ++i) {
          EXPECT_TRUE(connection->Send(BytesOf(rounds), piece, 1).ok());
        }
      });
      bulk += count;
      if (count % 2 == 0) {  // else it overtakes some
        ASSERT_TRUE(sent.WaitFor(bulk)) << bytes;
      }
      OnLoop(*client_, [&] { EXPECT_TRUE(connection->Send(BytesOf(rounds), {}, 0).ok()); });
      ASSERT_TRUE(received.WaitFor(++rounds)) << count << " times " << bytes;
    }
  }
}

TEST_P(TransportTest, FullQueueRefusesAndLosesNothing) {
  Gate gate;
  Count received, wrong, sent;
  server_handler_.on_message = [&](Connection&, auto head, auto payload) {
    gate.Pass();
    if (!HasPattern(payload, NumberIn(head))) wrong.Add();
    received.Add();
  };
  client_handler_.on_sent = [&](Connection&, uint64_t, const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status.ToString();
    sent.Add();
  };
  constexpr uint64_t kQueueBytes = 4 << 20;
  ASSERT_NO_FATAL_FAILURE(Start({.send_queue_bytes_max = kQueueBytes}));
  const StopAtEnd stop(*this);
  Connection* const connection = Connect();
  const uint32_t payload_bytes =
      OnLoop(*client_, [&] { return std::min(connection->payload_bytes_max(), 256u << 10); });
  std::vector<std::vector<uint8_t>> payloads;
  uint64_t accepted = 0;
  // The wire's own buffers swallow some: keep on until the queue is full with the peer held.
  for (bool full = false; !full;) {
    FillPattern(payloads.emplace_back(payload_bytes), accepted);
    full = OnLoop(*client_, [&] {
      const absl::Status status = connection->Send(BytesOf(accepted), payloads.back(), 7);
      EXPECT_LE(connection->queued_bytes(), kQueueBytes);
      if (status.ok()) return ++accepted, false;
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status.ToString();
      EXPECT_GT(connection->queued_bytes() + payload_bytes + 8, kQueueBytes);
      return true;
    });
    if (accepted == 1) gate.WaitUntilReached();
    ASSERT_LT(accepted, 4096u);
  }
  gate.Open();
  ASSERT_TRUE(received.WaitFor(accepted));
  ASSERT_TRUE(sent.WaitFor(accepted));
  EXPECT_EQ(wrong.value(), 0u);
  EXPECT_EQ(received.value(), accepted);
  EXPECT_EQ(OnLoop(*client_, [&] { return connection->queued_bytes(); }), 0u);
}

TEST_P(TransportTest, ClosingAStalledTransferGivesTheMemoryBack) {
  Gate gate;
  Count wrong, server_closed, failed, sent, client_closed;
  server_handler_.on_message = [&](Connection&, auto head, auto payload) {
    gate.Pass();
    if (!HasPattern(payload, NumberIn(head))) wrong.Add();
  };
  server_handler_.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_FALSE(why.ok());
    server_closed.Add();
  };
  std::vector<std::vector<uint8_t>> payloads(128);
  client_handler_.on_sent = [&](Connection& c, uint64_t cookie, const absl::Status& status) {
    EXPECT_EQ(client_closed.value(), 0u);
    // Ours again: any late look at it would show.
    std::fill(payloads[cookie - 1].begin(), payloads[cookie - 1].end(), 0xEE);
    if (!status.ok()) {
      failed.Add();
      EXPECT_EQ(c.Send(BytesOf(cookie), {}, 0).code(), absl::StatusCode::kUnavailable);
    }
    sent.Add();
  };
  client_handler_.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded);
    client_closed.Add();
  };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  Connection* const connection = Connect();
  OnLoop(*client_, [&] {
    const uint32_t payload_bytes = std::min(connection->payload_bytes_max(), 256u << 10);
    for (uint64_t i = 0; i < payloads.size(); ++i) {
      FillPattern(payloads[i] = std::vector<uint8_t>(payload_bytes), i);
      const absl::Status status = connection->Send(BytesOf(i), payloads[i], i + 1);
      EXPECT_TRUE(status.ok()) << status.ToString();
    }
  });
  gate.WaitUntilReached();
  OnLoop(*client_, [&] {
    connection->Close(absl::DeadlineExceededError("given up"));
    EXPECT_EQ(client_closed.value(), 0u);  // never inside the call
  });
  // In one process the peer is looking at our memory, and lets go when it is done.
  if (!wire_.between_processes) gate.Open();
  ASSERT_TRUE(client_closed.WaitFor(1));
  EXPECT_EQ(sent.value(), payloads.size());
  EXPECT_GT(failed.value(), 0u);
  gate.Open();
  ASSERT_TRUE(server_closed.WaitFor(1));
  EXPECT_EQ(wrong.value(), 0u);
}

TEST_P(TransportTest, BothSidesLearnOfAClose) {
  Count client_closed, server_closed;
  server_handler_.on_message = [](Connection& c, auto, auto) {
    c.Close(absl::AbortedError("protocol error"));
  };
  server_handler_.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kAborted);
    server_closed.Add();
  };
  client_handler_.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kUnavailable) << why.ToString();
    client_closed.Add();
  };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  for (uint64_t i = 1; i <= 3; ++i) {
    Connection* const connection = Connect();
    OnLoop(*client_, [&] { EXPECT_TRUE(connection->Send(BytesOf(i), {}, 0).ok()); });
    ASSERT_TRUE(client_closed.WaitFor(i));
    ASSERT_TRUE(server_closed.WaitFor(i));
  }
}

TEST_P(TransportTest, ManyConnectionsKeepApart) {
  constexpr uint64_t kConnections = 24;
  Count answers, closed;
  server_handler_.on_accepted = [](Connection& c) { c.set_context(&c); };
  server_handler_.on_message = [](Connection& c, auto head, auto) {
    EXPECT_EQ(c.context(), &c);
    EXPECT_TRUE(c.Send(head, {}, 0).ok());
  };
  client_handler_.on_message = [&](Connection& c, auto head, auto) {
    EXPECT_EQ(c.context(), reinterpret_cast<void*>(NumberIn(head)));
    answers.Add();
  };
  server_handler_.on_closed = [&](Connection&, const absl::Status&) { closed.Add(); };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  std::vector<Connection*> connections;
  for (uint64_t i = 0; i < kConnections; ++i) connections.push_back(Connect());
  OnLoop(*client_, [&] {
    for (uint64_t i = 0; i < kConnections; ++i) {
      connections[i]->set_context(reinterpret_cast<void*>(i + 1));
      EXPECT_TRUE(connections[i]->Send(BytesOf(i + 1), {}, 0).ok());
    }
  });
  ASSERT_TRUE(answers.WaitFor(kConnections));
  OnLoop(*client_, [&] {
    for (Connection* connection : connections) connection->Close(absl::OkStatus());
  });
  ASSERT_TRUE(closed.WaitFor(kConnections));
}

TEST_P(TransportTest, NobodyListens) {
  Count closed;
  client_handler_.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kUnavailable) << why.ToString();
    closed.Add();
  };
  Count sent;
  client_handler_.on_sent = [&](Connection&, uint64_t, const absl::Status& status) {
    EXPECT_FALSE(status.ok());
    sent.Add();
  };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  server_->Shutdown();  // its address is free again
  const std::vector<uint8_t> payload(1000);
  OnLoop(*client_, [&] {  // in one task: the connection may die right after it
    absl::StatusOr<Connection*> connection = client_->Connect(address_);
    EXPECT_TRUE(connection.ok()) << connection.status().ToString();
    const bool taken = (*connection)->Send(BytesOf(1), payload, 1).ok();
    EXPECT_EQ(sent.value(), 0u);
    if (!taken) sent.Add();
  });
  ASSERT_TRUE(closed.WaitFor(1));
  EXPECT_EQ(sent.value(), 1u);
}

TEST_P(TransportTest, AddressesAreChecked) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  const absl::Status taken = client_->Listen(address_).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kAlreadyExists) << taken.ToString();
  EXPECT_NE(taken.ToString().find(address_), std::string::npos) << taken.ToString();
  for (const std::string& bad :
       {std::string("127.0.0.1:1"), std::string(""), GetParam() + "://", std::string("udp://a:1"),
        GetParam() + (GetParam() == "memory" ? ":x" : "://127.0.0.1"),
        GetParam() + (GetParam() == "memory" ? ":/x" : "://127.0.0.1:70000"),
        GetParam() + (GetParam() == "memory" ? "" : "://no such host:1")}) {
    const absl::Status status = client_->Listen(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad << " " << status.ToString();
    EXPECT_NE(status.ToString().find("'" + bad + "'"), std::string::npos) << status.ToString();
    const absl::Status connect = OnLoop(*client_, [&] { return client_->Connect(bad).status(); });
    EXPECT_EQ(connect.code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST_P(TransportTest, ShutdownTellsEverybody) {
  Count accepted, server_closed, client_closed, sent;
  server_handler_.on_accepted = [&](Connection&) { accepted.Add(); };
  server_handler_.on_closed = [&](Connection&, const absl::Status&) { server_closed.Add(); };
  client_handler_.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_FALSE(why.ok());
    client_closed.Add();
    // No way back in.
    EXPECT_FALSE(client_->Connect(address_).ok());
  };
  client_handler_.on_sent = [&](Connection&, uint64_t, const absl::Status&) { sent.Add(); };
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  const std::vector<uint8_t> payload(32 << 10);
  for (int i = 0; i < 4; ++i) {
    Connection* const connection = Connect();
    OnLoop(*client_, [&] {
      for (int j = 0; j < 100; ++j) EXPECT_TRUE(connection->Send(BytesOf(j), payload, 1).ok());
    });
  }
  ASSERT_TRUE(accepted.WaitFor(4));
  client_->Shutdown();
  EXPECT_EQ(client_closed.value(), 4u);
  EXPECT_EQ(sent.value(), 400u);
  ASSERT_TRUE(server_closed.WaitFor(4));
  client_->Shutdown();
}

TEST_P(TransportTest, TasksRunOnTheLoop) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const StopAtEnd stop(*this);
  EXPECT_FALSE(client_->OnLoop());
  EXPECT_TRUE(OnLoop(*client_, [&] { return client_->OnLoop(); }));
  EXPECT_FALSE(OnLoop(*server_, [&] { return client_->OnLoop(); }));
  Count ticks;
  client_->Every(1, [&] {
    EXPECT_TRUE(client_->OnLoop());
    ticks.Add();
  });
  ASSERT_TRUE(ticks.WaitFor(20));
  client_->Shutdown();
  auto alive = std::make_shared<int>(0);
  std::weak_ptr<int> watch = alive;
  client_->Post([alive = std::move(alive)] { FAIL() << "ran after Shutdown"; });
  EXPECT_TRUE(watch.expired());
}

#ifdef KEDGE_TEST_NET
#ifdef KEDGE_TEST_SHM
#define KEDGE_WIRES testing::Values("tcp", "shm")
#else
#define KEDGE_WIRES testing::Values("tcp")
#endif
#else
#define KEDGE_WIRES testing::Values("memory")
#endif
INSTANTIATE_TEST_SUITE_P(Wires, TransportTest, KEDGE_WIRES,
                         [](const auto& wire) { return wire.param; });

}  // namespace
}  // namespace kedge
