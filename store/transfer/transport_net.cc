#include "store/transfer/transport_net.h"

#include <algorithm>
#include <condition_variable>
#include <future>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "store/transfer/loop_inbox.h"
#include "store/transfer/net_connection.h"
#include "store/transfer/periodic.h"
#include "store/transfer/shm_connection.h"
#include "store/transfer/tcp_connection.h"
#include "store/world/limits.h"

namespace kedge {
namespace {

// With nothing but shared memory in use, sockets are looked at only this often: they tell of ends.
constexpr uint64_t kTurnsBetweenSockets = 64;
constexpr int64_t kSweepMs = 100;

class NetTransport final : public Transport {
 public:
  NetTransport(TransportHandler& handler, Executor& executor, const Clock& clock,
               NetTransportOptions options);
  ~NetTransport() override { Shutdown(); }

  absl::StatusOr<std::string> Listen(const std::string& address) override;
  absl::StatusOr<Connection*> Connect(const std::string& address) override;
  void Post(Task task) override { inbox_.Put(std::move(task)); }
  void Every(int64_t period_ms, std::function<void()> task) override;
  bool OnLoop() const override;
  void Shutdown() override;
  void VisitMetrics(MetricsVisitor& visitor) const override;

 private:
  struct Listener {
    StreamWire wire;
    ListenSocket socket;
    Watched watched;
    bool paused = false;  // no descriptors left: looked at again by the sweep
  };

  void Turn();
  bool RunTasks();
  bool LookAtSockets(int timeout_ms);
  bool Progress();
  bool TellEnded();
  bool FinishClosing();
  void Sleep(int64_t now_us);
  bool NeedsSweep() const;
  void Sweep(int64_t now_us);
  void CloseAll();
  absl::StatusOr<std::string> ListenOnLoop(const std::string& address);
  absl::Status SetUp(StreamWire wire);  // before the first connection of a wire
  NetConnection* NewConnection(StreamWire wire, std::string peer);
  std::unique_ptr<NetConnection> Forget(NetConnection* connection);
  void Accept(Listener& listener);
  void OnAccepted(NetConnection& connection);

  const Clock& clock_;
  LoopInbox inbox_;

  // [loop]
  NetLoopState state_;
  Watched inbox_watched_;
  std::unique_ptr<UcxContext> shm_context_;  // made by the first use of shm
  std::vector<std::unique_ptr<Listener>> listeners_;
  absl::flat_hash_map<NetConnection*, std::unique_ptr<NetConnection>> connections_;
  absl::flat_hash_map<NetConnection*, int64_t> greeting_;  // and when it has to be over, in us
  std::vector<NetConnection*> shm_connections_;
  Periodic periodic_;
  bool shutting_down_ = false;
  uint64_t turn_ = 0;
  int64_t last_busy_us_ = 0;
  int64_t last_sweep_us_ = 0;
  std::vector<Task> tasks_;

  std::mutex shutdown_mutex_;
  std::condition_variable all_closed_changed_;
  bool all_closed_ = false;
  std::once_flag shutdown_once_;
  std::unique_ptr<Loop> loop_;  // last: its body uses the rest
};

thread_local const NetTransport* current_loop = nullptr;

NetTransport::NetTransport(TransportHandler& handler, Executor& executor, const Clock& clock,
                           NetTransportOptions options)
    : clock_(clock), state_{handler, std::move(options)} {
  state_.on_accepted = [this](NetConnection& connection) { OnAccepted(connection); };
  state_.epoll.Add(inbox_.event_fd(), EPOLLIN, &inbox_watched_);
  loop_ = executor.StartLoop(
      state_.options.name.substr(0, 15), [this] { Turn(); }, [this] { inbox_.Wake(); });
}

// ---- the loop ----

void NetTransport::Turn() {
  current_loop = this;
  bool busy = RunTasks();
  const bool sockets = shm_connections_.size() < connections_.size() || shm_connections_.empty();
  if (sockets || ++turn_ % kTurnsBetweenSockets == 0) busy |= LookAtSockets(0);
  busy |= Progress();
  busy |= TellEnded();
  busy |= FinishClosing();
  const int64_t now_us = clock_.NowUs();
  if (periodic_.next_due_us() <= now_us) periodic_.RunDue(now_us);
  if (NeedsSweep() && now_us - last_sweep_us_ >= kSweepMs * 1000) Sweep(now_us);
  if (shutting_down_ && connections_.empty()) {
    std::lock_guard lock(shutdown_mutex_);
    all_closed_ = true;
    all_closed_changed_.notify_all();
  }
  if (busy) {
    last_busy_us_ = now_us;
  } else if (now_us - last_busy_us_ >= state_.options.spin_us) {
    Sleep(now_us);
  }
}

bool NetTransport::RunTasks() {
  if (!inbox_.Take(tasks_)) return false;
  for (Task& task : tasks_) task();
  tasks_.clear();
  return true;
}

bool NetTransport::LookAtSockets(int timeout_ms) {
  epoll_event events[64];
  const size_t count = state_.epoll.Wait(events, timeout_ms);
  bool busy = false;
  for (const epoll_event& event : std::span(events).first(count)) {
    const Watched& watched = *static_cast<const Watched*>(event.data.ptr);
    if (watched.kind == Watched::Kind::kWake) continue;
    busy = true;
    if (watched.kind == Watched::Kind::kListener) {
      Accept(*static_cast<Listener*>(watched.owner));
    } else {
      static_cast<NetConnection*>(watched.owner)->OnSocketEvents(event.events);
    }
  }
  return busy;
}

bool NetTransport::Progress() {
  bool busy = false;
  for (NetConnection* connection : shm_connections_) {
    if (connection->is_open()) busy |= connection->Progress();
  }
  return busy;
}

bool NetTransport::TellEnded() {
  if (state_.ended.empty()) return false;
  std::vector<std::unique_ptr<NetSend>> ended = std::exchange(state_.ended, {});
  for (std::unique_ptr<NetSend>& send : ended) {
    NetConnection* const connection = send->connection;
    connection->Tell(std::move(send));
  }
  return true;
}

bool NetTransport::FinishClosing() {
  if (state_.closing.empty()) return false;
  std::vector<NetConnection*> closing = std::exchange(state_.closing, {});
  for (NetConnection* connection : closing) {
    if (!connection->CloseStep()) {
      state_.closing.push_back(connection);
      continue;
    }
    const std::unique_ptr<NetConnection> owner = Forget(connection);
    if (!connection->known()) continue;
    if (connection->was_open()) {
      TransportCounters::Add(connection->counters().connections_closed, 1);
    }
    state_.handler.OnClosed(*connection, connection->why());
  }
  return state_.closing.empty();
}

std::unique_ptr<NetConnection> NetTransport::Forget(NetConnection* connection) {
  greeting_.erase(connection);
  std::erase(shm_connections_, connection);
  return std::move(connections_.extract(connection).mapped());
}

void NetTransport::Sleep(int64_t now_us) {
  for (NetConnection* connection : shm_connections_) {
    if (!connection->Arm()) return;  // something came
  }
  int64_t timeout_ms = 60'000;
  const int64_t due_us = periodic_.next_due_us();
  if (due_us != Periodic::kNever) {
    timeout_ms = std::clamp<int64_t>((due_us - now_us + 999) / 1000, 0, timeout_ms);
  }
  if (NeedsSweep()) timeout_ms = std::min(timeout_ms, kSweepMs);
  if (!state_.closing.empty()) timeout_ms = 1;
  if (!inbox_.BeginSleep()) return;
  LookAtSockets(static_cast<int>(timeout_ms));
  inbox_.EndSleep();
}

bool NetTransport::NeedsSweep() const {
  return !greeting_.empty() || std::any_of(listeners_.begin(), listeners_.end(),
                                           [](const auto& listener) { return listener->paused; });
}

void NetTransport::Sweep(int64_t now_us) {
  last_sweep_us_ = now_us;
  for (const auto& [connection, due_us] : greeting_) {
    if (connection->is_open() || due_us > now_us) continue;
    connection->Close(absl::DeadlineExceededError(absl::StrCat(
        "no greeting from ", connection->peer(), " within ", state_.options.greeting_ms, " ms")));
  }
  absl::erase_if(greeting_, [](const auto& entry) { return entry.first->is_open(); });
  for (const auto& listener : listeners_) {
    if (!listener->paused) continue;
    listener->paused = false;
    state_.epoll.Add(listener->socket.get(), EPOLLIN, &listener->watched);
  }
}

// ---- opening ----

absl::Status NetTransport::SetUp(StreamWire wire) {
  if (wire == StreamWire::kTcp || shm_context_ != nullptr) return absl::OkStatus();
  absl::StatusOr<UcxContext> context = UcxContext::Make();
  if (!context.ok()) return context.status();
  shm_context_ = std::make_unique<UcxContext>(*std::move(context));
  return absl::OkStatus();
}

NetConnection* NetTransport::NewConnection(StreamWire wire, std::string peer) {
  std::unique_ptr<NetConnection> connection;
  if (wire == StreamWire::kTcp) {
    connection = std::make_unique<TcpConnection>(state_, std::move(peer));
  } else {
    connection = std::make_unique<ShmConnection>(state_, *shm_context_, std::move(peer));
  }
  NetConnection* const result = connection.get();
  connections_[result] = std::move(connection);
  greeting_[result] = clock_.NowUs() + state_.options.greeting_ms * 1000;
  if (wire == StreamWire::kShm) shm_connections_.push_back(result);
  return result;
}

absl::StatusOr<std::string> NetTransport::Listen(const std::string& address) {
  std::promise<absl::StatusOr<std::string>> promise;
  auto result = promise.get_future();
  Post([this, &address, promise = std::move(promise)]() mutable {
    promise.set_value(ListenOnLoop(address));
  });
  try {
    return result.get();
  } catch (const std::future_error&) {  // the task died unrun
    return absl::UnavailableError("listen: the transport was shut down");
  }
}

absl::StatusOr<std::string> NetTransport::ListenOnLoop(const std::string& address) {
  absl::StatusOr<NetAddress> parsed = ParseNetAddress(address);
  if (!parsed.ok()) return parsed.status();
  if (shutting_down_) return absl::UnavailableError("listen: the transport was shut down");
  if (absl::Status status = SetUp(parsed->wire); !status.ok()) return status;
  absl::StatusOr<ListenSocket> socket = ListenSocket::Make(parsed->socket, address);
  if (!socket.ok()) return socket.status();
  parsed->socket.sin_port = htons(socket->port());
  auto listener = std::make_unique<Listener>(Listener{parsed->wire, *std::move(socket), {}});
  listener->watched = {Watched::Kind::kListener, listener.get()};
  state_.epoll.Add(listener->socket.get(), EPOLLIN, &listener->watched);
  listeners_.push_back(std::move(listener));
  return parsed->text();
}

absl::StatusOr<Connection*> NetTransport::Connect(const std::string& address) {
  absl::StatusOr<NetAddress> parsed = ParseNetAddress(address);
  if (!parsed.ok()) return parsed.status();
  if (parsed->socket.sin_port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "': port 0 cannot be connected to"));
  }
  if (shutting_down_) return absl::UnavailableError("connect: the transport is shutting down");
  if (absl::Status status = SetUp(parsed->wire); !status.ok()) return status;
  NetConnection* const connection = NewConnection(parsed->wire, address);
  if (absl::Status status = connection->BeginConnect(*parsed); !status.ok()) {
    Forget(connection);
    return status;
  }
  return connection;
}

void NetTransport::Accept(Listener& listener) {
  for (;;) {
    sockaddr_in from{};
    bool exhausted = false;
    const int fd = listener.socket.Accept(from, exhausted);
    if (fd < 0) {
      if (exhausted) state_.epoll.Remove(listener.socket.get());
      listener.paused = exhausted;
      return;
    }
    Socket socket = Socket::FromAccepted(fd);
    // A crowd that connects and says nothing does not take all descriptors.
    if (greeting_.size() >= kGreetingsMax) continue;
    NewConnection(listener.wire, NetAddress{listener.wire, from}.text())
        ->BeginAccepted(std::move(socket));
  }
}

void NetTransport::OnAccepted(NetConnection& connection) {
  greeting_.erase(&connection);
  state_.handler.OnAccepted(connection);
  if (shutting_down_) connection.Close(absl::CancelledError("shutting down"));
}

// ---- the rest ----

void NetTransport::Every(int64_t period_ms, std::function<void()> task) {
  Post([this, period_ms, task = std::move(task)]() mutable {
    if (!shutting_down_) periodic_.Add(clock_.NowUs(), period_ms, std::move(task));
  });
}

bool NetTransport::OnLoop() const { return current_loop == this; }

void NetTransport::VisitMetrics(MetricsVisitor& visitor) const {
  state_.tcp_counters.Visit("tcp", visitor);
  state_.shm_counters.Visit("shm", visitor);
}

void NetTransport::CloseAll() {
  shutting_down_ = true;
  periodic_.Clear();
  for (const auto& listener : listeners_) state_.epoll.Remove(listener->socket.get());
  listeners_.clear();
  for (const auto& [connection, owner] : connections_) {
    connection->Close(absl::CancelledError("the transport was shut down"));
  }
}

void NetTransport::Shutdown() {
  std::call_once(shutdown_once_, [this] {
    Post([this] { CloseAll(); });
    {
      std::unique_lock lock(shutdown_mutex_);
      all_closed_changed_.wait(lock, [this] { return all_closed_; });
    }
    loop_.reset();
    inbox_.CloseForGood();
    shm_context_.reset();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeNetTransport(TransportHandler& handler,
                                                            Executor& executor, const Clock& clock,
                                                            NetTransportOptions options) {
  return std::make_unique<NetTransport>(handler, executor, clock, std::move(options));
}

}  // namespace kedge
