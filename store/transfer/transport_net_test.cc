// What needs a second process: peers that are killed or stopped, and strangers that talk nonsense.
// This program is its own peer: `--peer-send ADDRESS` floods, `--peer-serve ADDRESS` checks what it
// gets.
#include "store/transfer/transport_net.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "proto/stream.h"
#include "store/transfer/transport_test.h"

namespace kedge {
namespace {

constexpr uint32_t kPayloadBytes = 32 << 10;

struct End {
  RealClock clock;
  std::unique_ptr<Executor> executor = MakeThreadExecutor("test", 1);
  LambdaHandler handler;
  std::unique_ptr<Transport> transport;

  void Start(NetTransportOptions options = {}) {
    auto made = MakeNetTransport(handler, *executor, clock, options);
    if (!made.ok()) std::abort();
    transport = *std::move(made);
  }
};

// A child that dies with the test.
class Peer {
 public:
  Peer(const std::string& mode, const std::string& address) {
    int out[2];
    if (pipe(out) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      dup2(out[1], 1);
      close(out[0]);
      close(out[1]);
      execl("/proc/self/exe", "transport_net_test", mode.c_str(), address.c_str(), nullptr);
      _exit(127);
    }
    close(out[1]);
    out_ = fdopen(out[0], "r");
  }
  ~Peer() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
    fclose(out_);
  }
  std::string Line() {
    char line[256] = "";
    if (fgets(line, sizeof(line), out_) == nullptr) return "";
    return std::string(line).substr(0, std::string(line).find('\n'));
  }
  void Signal(int signal) { kill(pid_, signal); }
  // Exit status; -1 after a signal.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = 0;
  FILE* out_ = nullptr;
};

int PeerSend(const std::string& address) {
  End end;
  std::vector<uint8_t> payload(kPayloadBytes);
  FillPattern(payload, 0);
  const auto send = [&](Connection& c) { (void)c.Send(BytesOf(0), payload, 1); };
  end.handler.on_sent = [&](Connection& c, uint64_t, const absl::Status& status) {
    if (status.ok()) send(c);
  };
  Count closed;
  end.handler.on_closed = [&](Connection&, const absl::Status&) { closed.Add(); };
  end.Start();
  OnLoop(*end.transport, [&] {
    Connection* const connection = *end.transport->Connect(address);
    for (int i = 0; i < 32; ++i) send(*connection);
  });
  return closed.WaitFor(1) ? 0 : 1;
}

int PeerServe(const std::string& address) {
  End end;
  Count closed, wrong, received;
  end.handler.on_message = [&](Connection& c, auto head, auto payload) {
    if (!HasPattern(payload, NumberIn(head))) wrong.Add();
    if (received.value() == 0) (void)c.Send(head, {}, 0);
    received.Add();
  };
  end.handler.on_closed = [&](Connection&, const absl::Status&) { closed.Add(); };
  end.Start();
  std::printf("%s\n", end.transport->Listen(address)->c_str());
  std::fflush(stdout);
  if (!closed.WaitFor(1)) return 3;
  return wrong.value() == 0 ? 0 : 4;
}

class NetTest : public testing::TestWithParam<std::string> {
 protected:
  std::string Any() const { return GetParam() + "://127.0.0.1:0"; }
};

TEST_P(NetTest, APeerThatIsKilledIsMissed) {
  Count received, wrong, closed;
  End server;
  server.handler.on_message = [&](Connection&, auto head, auto payload) {
    if (!HasPattern(payload, NumberIn(head))) wrong.Add();
    received.Add();
  };
  server.handler.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kUnavailable) << why.ToString();
    closed.Add();
  };
  server.Start();
  const std::string address = *server.transport->Listen(Any());
  for (int i = 1; i <= 3; ++i) {
    Peer peer("--peer-send", address);
    ASSERT_TRUE(received.WaitFor(received.value() + 200));
    peer.Signal(SIGKILL);
    EXPECT_EQ(peer.Wait(), -1);
    ASSERT_TRUE(closed.WaitFor(i));
  }
  EXPECT_EQ(wrong.value(), 0u);
}

// The peer is stopped, we give up and use our memory for something else, the peer goes on: it must
// not see that.
TEST_P(NetTest, AStoppedPeerHoldsNothing) {
  Peer peer("--peer-serve", Any());
  const std::string address = peer.Line();
  Count answered, sent, closed;
  std::vector<std::vector<uint8_t>> payloads;
  End client;
  client.handler.on_message = [&](Connection&, auto, auto) { answered.Add(); };
  client.handler.on_sent = [&](Connection&, uint64_t cookie, const absl::Status&) {
    std::fill(payloads[cookie - 1].begin(), payloads[cookie - 1].end(), 0xEE);
    sent.Add();
  };
  client.handler.on_closed = [&](Connection&, const absl::Status&) { closed.Add(); };
  client.Start({.send_queue_bytes_max = 2 << 20});
  Connection* const connection =
      OnLoop(*client.transport, [&] { return *client.transport->Connect(address); });
  OnLoop(*client.transport, [&] { (void)connection->Send(BytesOf(0), {}, 0); });
  ASSERT_TRUE(answered.WaitFor(1));
  peer.Signal(SIGSTOP);
  payloads.reserve(4096);  // the hook looks at it from the loop
  uint64_t accepted = 0;
  for (bool full = false; !full;) {
    full = OnLoop(*client.transport, [&] {
      FillPattern(payloads.emplace_back(kPayloadBytes), accepted);
      const bool ok = connection->Send(BytesOf(accepted), payloads.back(), payloads.size()).ok();
      accepted += ok ? 1 : 0;
      return !ok;
    });
    ASSERT_LT(payloads.size(), 4000u);
  }
  EXPECT_LT(sent.value(), accepted);
  OnLoop(*client.transport,
         [&] { connection->Close(absl::DeadlineExceededError("the peer does not answer")); });
  ASSERT_TRUE(closed.WaitFor(1));
  EXPECT_EQ(sent.value(), accepted);
  peer.Signal(SIGCONT);
  EXPECT_EQ(peer.Wait(), 0);
}

// Ports on which this process listens: the one that it was given, and none that UCX would add.
std::vector<uint16_t> ListeningPorts() {
  std::vector<uint16_t> ports;
  for (int fd = 3; fd < 256; ++fd) {
    int listens = 0;
    socklen_t bytes = sizeof(listens);
    sockaddr_in address{};
    socklen_t address_bytes = sizeof(address);
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) != 0 || listens == 0) continue;
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &address_bytes) != 0) continue;
    if (address.sin_family != AF_INET) continue;
    EXPECT_EQ(ntohl(address.sin_addr.s_addr), INADDR_LOOPBACK) << "open to other machines";
    ports.push_back(ntohs(address.sin_port));
  }
  return ports;
}

int ConnectTo(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
  return fd;
}

uint16_t PortOf(const std::string& address) {
  return static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

void TalkNonsense(uint16_t port, const std::vector<uint8_t>& nonsense) {
  const int fd = ConnectTo(port);
  (void)send(fd, nonsense.data(), nonsense.size(), MSG_NOSIGNAL);
  const timeval limit = {.tv_sec = 0, .tv_usec = 50'000};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  char answer[64];
  (void)!recv(fd, answer, sizeof(answer), 0);
  close(fd);
}

TEST_P(NetTest, NonsenseOnThePortsDisturbsNobody) {
  Count received;
  End server, client;
  server.handler.on_message = [](Connection& c, auto head, auto payload) {
    EXPECT_TRUE(c.Send(head, payload, 0).ok());
  };
  client.handler.on_message = [&](Connection&, auto head, auto payload) {
    EXPECT_TRUE(HasPattern(payload, NumberIn(head)));
    received.Add();
  };
  client.handler.on_closed = [](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kCancelled) << why.ToString();  // our own shutdown
  };
  server.Start();
  client.Start();
  const std::string address = *server.transport->Listen(Any());
  Connection* const connection =
      OnLoop(*client.transport, [&] { return *client.transport->Connect(address); });
  std::vector<uint8_t> payload(kPayloadBytes);
  uint64_t number = 0;
  const auto echo = [&] {
    FillPattern(payload, ++number);
    OnLoop(*client.transport,
           [&] { EXPECT_TRUE(connection->Send(BytesOf(number), payload, 0).ok()); });
    ASSERT_TRUE(received.WaitFor(number));
  };
  ASSERT_NO_FATAL_FAILURE(echo());
  std::mt19937_64 random(7);
  const std::vector<uint16_t> ports = ListeningPorts();
  EXPECT_EQ(ports.size(), 1u);
  for (const uint16_t port : ports) {
    for (const size_t bytes : {0, 1, 7, 8, 9, 64, 4096, 100000}) {
      std::vector<uint8_t> nonsense(bytes);
      for (uint8_t& byte : nonsense) byte = static_cast<uint8_t>(random());
      TalkNonsense(port, nonsense);
      std::fill(nonsense.begin(), nonsense.end(), bytes % 2 == 0 ? 0xFF : 0);
      TalkNonsense(port, nonsense);
      ASSERT_NO_FATAL_FAILURE(echo());
    }
  }
  ASSERT_NO_FATAL_FAILURE(echo());
  client.transport->Shutdown();
  server.transport->Shutdown();
}

// Until the end: what the other side wrote.
std::vector<uint8_t> ReadAll(int fd) {
  std::vector<uint8_t> all(4096);
  size_t have = 0;
  for (ssize_t got; (got = recv(fd, &all[have], all.size() - have, 0)) > 0;) have += got;
  all.resize(have);
  return all;
}

TEST_P(NetTest, APeerOfAnotherReleaseIsToldWhy) {
  End server;
  server.handler.on_accepted = [](Connection&) { ADD_FAILURE() << "accepted"; };
  server.Start();
  const int fd = ConnectTo(PortOf(*server.transport->Listen(Any())));
  std::vector<uint8_t> greeting(kGreetingHeaderBytes);
  EncodeGreeting({.payload_bytes_max = 1 << 20}, greeting);
  greeting[4] = 77;  // its version
  ASSERT_EQ(send(fd, greeting.data(), greeting.size(), 0), ssize_t{kGreetingHeaderBytes});
  const std::vector<uint8_t> bytes = ReadAll(fd);
  const absl::StatusOr<Greeting> answer = DecodeGreeting(bytes);
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->status, GreetingStatus::kOtherVersion);
  close(fd);
}

TEST_P(NetTest, WhoSaysNothingIsDropped) {
  End server;
  server.Start({.greeting_ms = 50});
  const int silent = ConnectTo(PortOf(*server.transport->Listen(Any())));
  EXPECT_TRUE(ReadAll(silent).empty());
  close(silent);
}

// A port on which somebody listens who never answers.
TEST_P(NetTest, AServerThatDoesNotGreetIsGivenUp) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&at), sizeof(at)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  socklen_t bytes = sizeof(at);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &bytes), 0);
  End client;
  Count closed;
  client.handler.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded) << why.ToString();
    closed.Add();
  };
  client.Start({.greeting_ms = 50});
  const std::string address = GetParam() + "://127.0.0.1:" + std::to_string(ntohs(at.sin_port));
  OnLoop(*client.transport, [&] { EXPECT_TRUE(client.transport->Connect(address).ok()); });
  EXPECT_TRUE(closed.WaitFor(1));
  close(fd);
}

TEST_P(NetTest, TheOtherWireIsRefused) {
  End server, client;
  Count closed;
  client.handler.on_closed = [&](Connection&, const absl::Status& why) {
    EXPECT_NE(why.message().find("the peer speaks " + GetParam() + " here"),
              absl::string_view::npos)
        << why.ToString();
    closed.Add();
  };
  server.Start();
  client.Start();
  std::string address = *server.transport->Listen(Any());
  address.replace(0, 3, GetParam() == "tcp" ? "shm" : "tcp");
  OnLoop(*client.transport, [&] { EXPECT_TRUE(client.transport->Connect(address).ok()); });
  EXPECT_TRUE(closed.WaitFor(1));
}

// A node that comes back finds its port with connections of its former life.
TEST_P(NetTest, APortCanBeUsedAgain) {
  std::string address = Any();
  for (int life = 0; life < 3; ++life) {
    Count answered;
    End server, client;
    server.handler.on_message = [](Connection& c, auto head, auto) { (void)c.Send(head, {}, 0); };
    client.handler.on_message = [&](Connection&, auto, auto) { answered.Add(); };
    server.Start();
    client.Start();
    const absl::StatusOr<std::string> bound = server.transport->Listen(address);
    ASSERT_TRUE(bound.ok()) << bound.status().ToString();
    address = *bound;
    OnLoop(*client.transport,
           [&] { (void)(*client.transport->Connect(address))->Send(BytesOf(1), {}, 0); });
    ASSERT_TRUE(answered.WaitFor(1));
    server.transport->Shutdown();  // first: its side of the connection stays in TIME_WAIT
    client.transport->Shutdown();
  }
}

// Variables that are meant for another user of UCX in the process (MPI, PyTorch).
TEST_P(NetTest, ForeignVariablesDoNoHarm) {
  setenv("UCX_TLS", "ib", 1);
  setenv("UCX_NO_SUCH_SETTING", "1", 1);
  End server;
  server.Start();
  const absl::StatusOr<std::string> bound = server.transport->Listen(Any());
  EXPECT_TRUE(bound.ok()) << bound.status().ToString();
  unsetenv("UCX_TLS");
  unsetenv("UCX_NO_SUCH_SETTING");
}

INSTANTIATE_TEST_SUITE_P(Wires, NetTest, testing::Values("tcp", "shm"),
                         [](const auto& wire) { return wire.param; });

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--peer-send") return kedge::PeerSend(argv[2]);
  if (argc == 3 && std::string(argv[1]) == "--peer-serve") return kedge::PeerServe(argv[2]);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
