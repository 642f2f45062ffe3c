#include "store/transfer/transport_ucx.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/frame.h"
#include "store/transfer/periodic.h"
#include "store/transfer/ucx_address.h"
#include "store/transfer/ucx_connection.h"
#include "store/transfer/ucx_messages.h"

namespace kedge {
namespace {

// What Post leaves for the loop, and the descriptor that wakes it.
class UcxInbox {
 public:
  UcxInbox() : event_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    ABSL_RAW_CHECK(event_fd_ >= 0, "eventfd: no descriptors left");
  }
  ~UcxInbox() { close(event_fd_); }

  void Put(Task task) {
    {
      std::lock_guard lock(mutex_);
      if (closed_) return;
      tasks_.push_back(std::move(task));
    }
    Wake();
  }
  void Wake() {
    ready_.store(true);
    if (!sleeping_.load()) return;
    const uint64_t one = 1;
    // It can fail only when the counter is full: then the loop is about to wake anyway.
    [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof(one));
  }
  // Into an empty vector. False when there was nothing.
  bool Take(std::vector<Task>& tasks) {
    if (!ready_.load(std::memory_order_acquire)) return false;
    ready_.store(false);
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
    return true;
  }
  // False when there is something to take: do not sleep.
  bool BeginSleep() {
    sleeping_.store(true);
    if (!ready_.load()) return true;
    sleeping_.store(false);
    return false;
  }
  void EndSleep() {
    sleeping_.store(false);
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(event_fd_, &count, sizeof(count));
  }
  // Tasks that are left die unrun, and so do later ones.
  void CloseForGood() {
    std::vector<Task> left;
    std::lock_guard lock(mutex_);
    closed_ = true;
    left.swap(tasks_);
  }
  int event_fd() const { return event_fd_; }

 private:
  const int event_fd_;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool closed_ = false;
  std::atomic<bool> ready_{false};
  std::atomic<bool> sleeping_{false};
};

class UcxTransport final : public Transport {
 public:
  UcxTransport(TransportHandler& handler, Executor& executor, const Clock& clock,
               UcxTransportOptions options);
  ~UcxTransport() override { Shutdown(); }

  absl::StatusOr<std::string> Listen(const std::string& address) override;
  absl::StatusOr<Connection*> Connect(const std::string& address) override;
  void Post(Task task) override { inbox_.Put(std::move(task)); }
  void Every(int64_t period_ms, std::function<void()> task) override;
  bool OnLoop() const override;
  void Shutdown() override;
  void VisitMetrics(MetricsVisitor& visitor) const override;

 private:
  // A wire's part in UCX's callbacks.
  struct WireContext {
    UcxTransport* transport;
    std::unique_ptr<UcxWire> wire;
  };

  void Turn();
  bool RunTasks();
  bool TellEnded();
  bool FinishClosing();
  void Sleep(int64_t now_us);
  void CloseAll();
  absl::StatusOr<std::string> ListenOnLoop(const std::string& address);
  absl::StatusOr<WireContext*> WireFor(const std::string& scheme, const std::string& device);
  static void OnRequest(ucp_conn_request_h request, void* wire_context);
  static ucs_status_t OnHeadInHeader(void* wire_context, const void* header, size_t header_bytes,
                                     void* data, size_t bytes, const ucp_am_recv_param_t* param);
  static ucs_status_t OnHeadInData(void* wire_context, const void* header, size_t header_bytes,
                                   void* data, size_t bytes, const ucp_am_recv_param_t* param);
  static UcxConnection* Receiver(WireContext& wire, const ucp_am_recv_param_t& param);
  void Deliver(WireContext& wire, UcxConnection& connection, std::span<const uint8_t> head,
               std::span<const uint8_t> payload);

  TransportHandler& handler_;
  const Clock& clock_;
  TransportCounters tcp_counters_;
  TransportCounters shm_counters_;
  UcxInbox inbox_;

  // [loop]
  UcxLoopState state_;
  std::vector<std::unique_ptr<WireContext>> wires_;
  absl::flat_hash_map<UcxConnection*, std::unique_ptr<UcxConnection>> connections_;
  Periodic periodic_;
  bool shutting_down_ = false;
  int64_t last_busy_us_ = 0;
  std::vector<Task> tasks_;
  std::vector<pollfd> poll_fds_;

  std::mutex shutdown_mutex_;
  std::condition_variable all_closed_changed_;
  bool all_closed_ = false;
  std::once_flag shutdown_once_;
  std::unique_ptr<Loop> loop_;  // last: its body uses the rest
};

thread_local const UcxTransport* current_loop = nullptr;

UcxTransport::UcxTransport(TransportHandler& handler, Executor& executor, const Clock& clock,
                           UcxTransportOptions options)
    : handler_(handler), clock_(clock), state_{handler, std::move(options), {}, {}, {}} {
  loop_ = executor.StartLoop(
      state_.options.name.substr(0, 15), [this] { Turn(); }, [this] { inbox_.Wake(); });
}

// ---- the loop ----

void UcxTransport::Turn() {
  current_loop = this;
  bool busy = RunTasks();
  for (size_t i = 0; i < wires_.size(); ++i) {
    busy |= ucp_worker_progress(wires_[i]->wire->worker.get()) != 0;
  }
  busy |= TellEnded();
  busy |= FinishClosing();
  const int64_t now_us = clock_.NowUs();
  if (periodic_.next_due_us() <= now_us) periodic_.RunDue(now_us);
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

bool UcxTransport::RunTasks() {
  if (!inbox_.Take(tasks_)) return false;
  for (Task& task : tasks_) task();
  tasks_.clear();
  return true;
}

bool UcxTransport::TellEnded() {
  if (state_.ended.empty()) return false;
  std::vector<std::unique_ptr<UcxSend>> ended = std::exchange(state_.ended, {});
  for (std::unique_ptr<UcxSend>& send : ended) {
    UcxConnection* const connection = send->connection;
    connection->Tell(std::move(send));
  }
  return true;
}

bool UcxTransport::FinishClosing() {
  if (state_.closing.empty()) return false;
  std::vector<UcxConnection*> closing = std::exchange(state_.closing, {});
  for (UcxConnection* connection : closing) {
    if (!connection->CloseStep()) {
      state_.closing.push_back(connection);
      continue;
    }
    auto node = connections_.extract(connection);
    TransportCounters::Add(connection->ucx_wire().counters->connections_closed, 1);
    handler_.OnClosed(*connection, connection->why());
  }
  return state_.closing.empty();
}

void UcxTransport::Sleep(int64_t now_us) {
  for (const auto& wire : wires_) {
    if (ucp_worker_arm(wire->wire->worker.get()) != UCS_OK) return;  // something came
  }
  int64_t timeout_ms = -1;
  const int64_t due_us = periodic_.next_due_us();
  if (due_us != Periodic::kNever) timeout_ms = std::max<int64_t>((due_us - now_us + 999) / 1000, 0);
  if (!state_.closing.empty()) timeout_ms = 1;
  if (!inbox_.BeginSleep()) return;
  // poll, not epoll: a worker's descriptor is itself a nest of epolls, and one more that watched it
  // all the time would be walked by the kernel for every segment that arrives.
  poll_fds_.clear();
  poll_fds_.push_back({inbox_.event_fd(), POLLIN, 0});
  for (const auto& wire : wires_) {
    poll_fds_.push_back({wire->wire->worker.event_fd(), POLLIN, 0});
  }
  poll(poll_fds_.data(), poll_fds_.size(), static_cast<int>(std::min<int64_t>(timeout_ms, 60'000)));
  inbox_.EndSleep();
}

// ---- opening ----

absl::StatusOr<UcxTransport::WireContext*> UcxTransport::WireFor(const std::string& scheme,
                                                                 const std::string& device) {
  for (const auto& wire : wires_) {
    if (wire->wire->scheme == scheme && wire->wire->device == device) return wire.get();
  }
  absl::StatusOr<UcxContext> context = UcxContext::Make(scheme, device);
  if (!context.ok()) return context.status();
  absl::StatusOr<UcxWorker> worker = UcxWorker::Make(*context);
  if (!worker.ok()) return worker.status();
  auto result = std::make_unique<WireContext>();
  result->transport = this;
  result->wire = std::make_unique<UcxWire>(scheme, device, *std::move(context), *std::move(worker));
  result->wire->counters = scheme == "tcp" ? &tcp_counters_ : &shm_counters_;
  for (const unsigned id : {kAmHeadInHeader, kAmHeadInData}) {
    ucp_am_handler_param_t params{};
    params.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                        UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    params.id = id;
    params.flags = UCP_AM_FLAG_WHOLE_MSG;
    params.cb = id == kAmHeadInHeader ? &UcxTransport::OnHeadInHeader : &UcxTransport::OnHeadInData;
    params.arg = result.get();
    const ucs_status_t status = ucp_worker_set_am_recv_handler(result->wire->worker.get(), &params);
    if (status != UCS_OK) return UcxError("ucp_worker_set_am_recv_handler", status);
  }
  wires_.push_back(std::move(result));
  return wires_.back().get();
}

absl::StatusOr<std::string> UcxTransport::Listen(const std::string& address) {
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

absl::StatusOr<std::string> UcxTransport::ListenOnLoop(const std::string& address) {
  absl::StatusOr<UcxAddress> parsed = ParseUcxAddress(address);
  if (!parsed.ok()) return parsed.status();
  if (shutting_down_) return absl::UnavailableError("listen: the transport was shut down");
  absl::StatusOr<std::string> device = DeviceOfLocal(*parsed);
  if (!device.ok()) return device.status();
  absl::StatusOr<WireContext*> wire = WireFor(parsed->scheme, *device);
  if (!wire.ok()) return wire.status();
  const ucs_sock_addr_t where = {reinterpret_cast<const sockaddr*>(&parsed->socket),
                                 sizeof(parsed->socket)};
  absl::StatusOr<UcxListener> listener =
      UcxListener::Make((*wire)->wire->worker, where, address, {&UcxTransport::OnRequest, *wire});
  if (!listener.ok()) return listener.status();
  parsed->socket.sin_port = htons(listener->port());
  (*wire)->wire->listeners.push_back(*std::move(listener));
  return parsed->text();
}

absl::StatusOr<Connection*> UcxTransport::Connect(const std::string& address) {
  absl::StatusOr<UcxAddress> parsed = ParseUcxAddress(address);
  if (!parsed.ok()) return parsed.status();
  if (parsed->socket.sin_port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "': port 0 cannot be connected to"));
  }
  if (shutting_down_) return absl::UnavailableError("connect: the transport is shutting down");
  absl::StatusOr<std::string> device = DeviceTowards(*parsed);
  if (!device.ok()) return device.status();
  absl::StatusOr<WireContext*> wire = WireFor(parsed->scheme, *device);
  if (!wire.ok()) return wire.status();
  const ucs_sock_addr_t where = {reinterpret_cast<const sockaddr*>(&parsed->socket),
                                 sizeof(parsed->socket)};
  absl::StatusOr<std::unique_ptr<UcxConnection>> connection =
      UcxConnection::Connect(state_, *(*wire)->wire, where, address);
  if (!connection.ok()) return connection.status();
  UcxConnection* const result = connection->get();
  connections_[result] = *std::move(connection);
  return result;
}

void UcxTransport::OnRequest(ucp_conn_request_h request, void* wire_context) {
  WireContext& context = *static_cast<WireContext*>(wire_context);
  UcxTransport& transport = *context.transport;
  UcxAddress client{context.wire->scheme, {}};
  ucp_conn_request_attr_t attributes{};
  attributes.field_mask = UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ADDR;
  if (ucp_conn_request_query(request, &attributes) == UCS_OK) {
    std::memcpy(&client.socket, &attributes.client_address, sizeof(client.socket));
  }
  // When this fails, the client is told by UCX and there is nobody here to tell.
  absl::StatusOr<std::unique_ptr<UcxConnection>> connection =
      UcxConnection::Accept(transport.state_, *context.wire, request, client.text());
  if (!connection.ok()) return;
  UcxConnection* const accepted = connection->get();
  transport.connections_[accepted] = *std::move(connection);
  transport.handler_.OnAccepted(*accepted);
  if (transport.shutting_down_) accepted->Close(absl::CancelledError("shutting down"));
}

// ---- receiving ----

UcxConnection* UcxTransport::Receiver(WireContext& context, const ucp_am_recv_param_t& param) {
  if ((param.recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) == 0) return nullptr;
  const auto it = context.wire->by_endpoint.find(param.reply_ep);
  if (it == context.wire->by_endpoint.end() || it->second->closing()) return nullptr;
  if ((param.recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    it->second->Close(absl::InvalidArgumentError("the peer asked for a rendezvous"));
    return nullptr;
  }
  return it->second;
}

ucs_status_t UcxTransport::OnHeadInHeader(void* wire_context, const void* header,
                                          size_t header_bytes, void* data, size_t bytes,
                                          const ucp_am_recv_param_t* param) {
  WireContext& context = *static_cast<WireContext*>(wire_context);
  UcxConnection* const connection = Receiver(context, *param);
  if (connection == nullptr) return UCS_OK;
  context.transport->Deliver(context, *connection,
                             {static_cast<const uint8_t*>(header), header_bytes},
                             {static_cast<const uint8_t*>(data), bytes});
  return UCS_OK;
}

ucs_status_t UcxTransport::OnHeadInData(void* wire_context, const void* header, size_t header_bytes,
                                        void* data, size_t bytes,
                                        const ucp_am_recv_param_t* param) {
  WireContext& context = *static_cast<WireContext*>(wire_context);
  UcxConnection* const connection = Receiver(context, *param);
  if (connection == nullptr) return UCS_OK;
  uint32_t head_bytes = 0;
  if (header_bytes == sizeof(head_bytes)) std::memcpy(&head_bytes, header, sizeof(head_bytes));
  if (header_bytes != sizeof(head_bytes) || head_bytes > bytes) {
    connection->Close(absl::InvalidArgumentError(
        absl::StrCat("message of ", bytes, " bytes with a head of ", head_bytes)));
    return UCS_OK;
  }
  const std::span<const uint8_t> all(static_cast<const uint8_t*>(data), bytes);
  context.transport->Deliver(context, *connection, all.first(head_bytes), all.subspan(head_bytes));
  return UCS_OK;
}

void UcxTransport::Deliver(WireContext& context, UcxConnection& connection,
                           std::span<const uint8_t> head, std::span<const uint8_t> payload) {
  if (head.size() > kHeadBytesMax || payload.size() > kPayloadBytesMax) {
    connection.Close(absl::InvalidArgumentError(absl::StrCat(
        "message with a head of ", head.size(), " bytes and a payload of ", payload.size())));
    return;
  }
  context.wire->counters->Received(head.size() + payload.size());
  handler_.OnMessage(connection, head, payload);
}

// ---- the rest ----

void UcxTransport::Every(int64_t period_ms, std::function<void()> task) {
  Post([this, period_ms, task = std::move(task)]() mutable {
    if (!shutting_down_) periodic_.Add(clock_.NowUs(), period_ms, std::move(task));
  });
}

bool UcxTransport::OnLoop() const { return current_loop == this; }

void UcxTransport::VisitMetrics(MetricsVisitor& visitor) const {
  tcp_counters_.Visit("tcp", visitor);
  shm_counters_.Visit("shm", visitor);
}

void UcxTransport::CloseAll() {
  shutting_down_ = true;
  periodic_.Clear();
  for (const auto& wire : wires_) wire->wire->listeners.clear();
  for (const auto& [connection, owner] : connections_) {
    connection->Close(absl::CancelledError("the transport was shut down"));
  }
}

void UcxTransport::Shutdown() {
  std::call_once(shutdown_once_, [this] {
    Post([this] { CloseAll(); });
    {
      std::unique_lock lock(shutdown_mutex_);
      all_closed_changed_.wait(lock, [this] { return all_closed_; });
    }
    loop_.reset();
    inbox_.CloseForGood();
    wires_.clear();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transport>> MakeUcxTransport(TransportHandler& handler,
                                                            Executor& executor, const Clock& clock,
                                                            UcxTransportOptions options) {
  return std::make_unique<UcxTransport>(handler, executor, clock, std::move(options));
}

}  // namespace kedge
