#include "store/transfer/transport_memory.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/frame.h"
#include "store/transfer/memory_link.h"
#include "store/transfer/periodic.h"
#include "store/transfer/transport_counters.h"

namespace kedge {

// Who listens under which name.
struct MemoryNetwork::State {
  explicit State(MemoryFaults f) : faults(f) {}

  const MemoryFaults faults;
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<MemoryInbox>> listeners;
  uint64_t links_made = 0;
};

namespace {

constexpr std::string_view kScheme = "memory://";
constexpr int kMessagesPerTurn = 32;     // of one connection, before another one has its turn
constexpr size_t kSpareBuffersMax = 64;  // heads kept for reuse, by connection
constexpr size_t kSpareBufferBytes = 16 << 10;

absl::StatusOr<std::string> NameOf(const std::string& address) {
  if (address.compare(0, kScheme.size(), kScheme) != 0 || address.size() == kScheme.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "': expected memory://NAME"));
  }
  return address.substr(kScheme.size());
}

// Stands in for a listener that is not there. It keeps nothing: what it kept would keep it.
std::shared_ptr<MemoryInbox> NobodysInbox() {
  auto inbox = std::make_shared<MemoryInbox>();
  inbox->CloseForGood();
  return inbox;
}

class MemoryTransport;

class MemoryConnection final : public Connection {
 public:
  MemoryConnection(MemoryTransport& transport, std::shared_ptr<MemoryLink> link, int side,
                   std::string peer)
      : transport_(transport), link_(std::move(link)), side_(side), peer_(std::move(peer)) {}

  uint32_t payload_bytes_max() const override { return kPayloadBytesMax; }
  absl::Status Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                    uint64_t cookie) override;
  uint64_t queued_bytes() const override { return queued_bytes_; }
  void Close(const absl::Status& why) override { link_->Close(side_, why); }
  std::string peer() const override { return peer_; }
  std::string wire() const override { return "memory"; }

  // Tells receipts and shows messages. Returns when to look again (kNever: when scheduled).
  int64_t Turn();
  MemoryLink& link() { return *link_; }
  int side() const { return side_; }

 private:
  void TellReceipts();
  std::vector<uint8_t> SpareBuffer();

  MemoryTransport& transport_;
  const std::shared_ptr<MemoryLink> link_;
  const int side_;
  const std::string peer_;
  uint64_t queued_bytes_ = 0;
  std::vector<std::vector<uint8_t>> spare_;
};

class MemoryTransport final : public Transport {
 public:
  MemoryTransport(std::shared_ptr<MemoryNetwork::State> network, TransportHandler& handler,
                  Executor& executor, const Clock& clock, MemoryTransportOptions options);
  ~MemoryTransport() override { Shutdown(); }

  absl::StatusOr<std::string> Listen(const std::string& address) override;
  absl::StatusOr<Connection*> Connect(const std::string& address) override;
  void Post(Task task) override { inbox_->Put(std::move(task)); }
  void Every(int64_t period_ms, std::function<void()> task) override;
  bool OnLoop() const override;
  void Shutdown() override;
  void VisitMetrics(MetricsVisitor& visitor) const override { counters_.Visit("memory", visitor); }

  TransportHandler& handler() { return handler_; }
  const Clock& clock() const { return clock_; }
  const MemoryTransportOptions& options() const { return options_; }
  TransportCounters& counters() { return counters_; }

 private:
  void Turn();
  void LookAt(const std::shared_ptr<MemoryLink>& link, int side);
  void CloseAll();
  int64_t next_wake_us() const;

  const std::shared_ptr<MemoryNetwork::State> network_;
  TransportHandler& handler_;
  const Clock& clock_;
  const MemoryTransportOptions options_;
  const std::shared_ptr<MemoryInbox> inbox_ = std::make_shared<MemoryInbox>();
  TransportCounters counters_;

  // [loop]
  using End = std::pair<MemoryLink*, int>;
  absl::flat_hash_map<End, std::unique_ptr<MemoryConnection>> connections_;
  absl::flat_hash_map<End, std::pair<std::shared_ptr<MemoryLink>, int64_t>> late_;  // and when due
  Periodic periodic_;
  bool closing_ = false;
  MemoryInbox::Ends ends_;
  MemoryInbox::Tasks tasks_;

  std::mutex shutdown_mutex_;
  std::condition_variable all_closed_changed_;
  bool all_closed_ = false;
  std::once_flag shutdown_once_;
  std::unique_ptr<Loop> loop_;  // last: its body uses the rest
};

thread_local const MemoryTransport* current_loop = nullptr;

absl::Status MemoryConnection::Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                                    uint64_t cookie) {
  if (head.size() > kHeadBytesMax || payload.size() > kPayloadBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("send: head of ", head.size(), " bytes, payload of ", payload.size(),
                     "; at most ", kHeadBytesMax, " and ", kPayloadBytesMax));
  }
  const uint64_t bytes = head.size() + payload.size();
  if (queued_bytes_ + bytes > transport_.options().send_queue_bytes_max) {
    TransportCounters::Add(transport_.counters().sends_refused, 1);
    return absl::ResourceExhaustedError(absl::StrCat("send: ", queued_bytes_,
                                                     " bytes are queued for ", peer_, ", at most ",
                                                     transport_.options().send_queue_bytes_max));
  }
  MemoryMessage message;
  message.own = SpareBuffer();
  message.own.assign(head.begin(), head.end());
  message.head_bytes = static_cast<uint32_t>(head.size());
  message.payload = payload;
  message.cookie = cookie;
  if (cookie == 0 && !payload.empty()) {
    message.own.insert(message.own.end(), payload.begin(), payload.end());
    message.payload = std::span<const uint8_t>(message.own).subspan(head.size());
  }
  absl::Status status = link_->Send(side_, std::move(message), transport_.clock().NowUs());
  if (!status.ok()) return status;
  queued_bytes_ += bytes;
  transport_.counters().Sent(bytes);
  return status;
}

std::vector<uint8_t> MemoryConnection::SpareBuffer() {
  if (spare_.empty()) return {};
  std::vector<uint8_t> buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

void MemoryConnection::TellReceipts() {
  for (MemoryReceipt& receipt : link_->TakeReceipts(side_)) {
    queued_bytes_ -= receipt.bytes;
    if (spare_.size() < kSpareBuffersMax && receipt.own.capacity() <= kSpareBufferBytes) {
      spare_.push_back(std::move(receipt.own));
    }
    if (receipt.cookie != 0) transport_.handler().OnSent(*this, receipt.cookie, receipt.status);
  }
}

int64_t MemoryConnection::Turn() {
  link_->Begin(side_);
  for (int i = 0; i < kMessagesPerTurn; ++i) {
    TellReceipts();
    int64_t due_us = Periodic::kNever;
    std::optional<MemoryMessage> message =
        link_->TakeMessage(side_, transport_.clock().NowUs(), due_us);
    if (!message) return due_us;
    transport_.counters().Received(message->bytes());
    transport_.handler().OnMessage(*this, message->head(), message->payload);
    link_->Return(side_, *std::move(message));
  }
  if (link_->HasMessages(side_)) link_->Schedule(side_);
  return Periodic::kNever;
}

MemoryTransport::MemoryTransport(std::shared_ptr<MemoryNetwork::State> network,
                                 TransportHandler& handler, Executor& executor, const Clock& clock,
                                 MemoryTransportOptions options)
    : network_(std::move(network)), handler_(handler), clock_(clock), options_(std::move(options)) {
  loop_ = executor.StartLoop(
      options_.name.substr(0, 15), [this] { Turn(); }, [this] { inbox_->Wake(); });
}

absl::StatusOr<std::string> MemoryTransport::Listen(const std::string& address) {
  absl::StatusOr<std::string> name = NameOf(address);
  if (!name.ok()) return name.status();
  std::lock_guard lock(network_->mutex);
  if (!network_->listeners.emplace(*name, inbox_).second) {
    return absl::AlreadyExistsError(absl::StrCat("address '", address, "' is taken"));
  }
  return address;
}

absl::StatusOr<Connection*> MemoryTransport::Connect(const std::string& address) {
  absl::StatusOr<std::string> name = NameOf(address);
  if (!name.ok()) return name.status();
  if (closing_) return absl::UnavailableError("connect: the transport is shutting down");
  std::shared_ptr<MemoryLink> link;
  bool found = false;
  {
    std::lock_guard lock(network_->mutex);
    const auto it = network_->listeners.find(*name);
    found = it != network_->listeners.end();
    std::shared_ptr<MemoryInbox> acceptor = found ? it->second : NobodysInbox();
    link = std::make_shared<MemoryLink>(network_->faults, ++network_->links_made, inbox_,
                                        std::move(acceptor));
  }
  auto connection = std::make_unique<MemoryConnection>(*this, link, 0, address);
  Connection* const result = connection.get();
  connections_[End(link.get(), 0)] = std::move(connection);
  TransportCounters::Add(counters_.connections_opened, 1);
  if (found) {
    link->Schedule(1);
  } else {
    link->Close(0, absl::UnavailableError(absl::StrCat("connect: nobody listens on ", address)));
  }
  return result;
}

void MemoryTransport::Every(int64_t period_ms, std::function<void()> task) {
  Post([this, period_ms, task = std::move(task)]() mutable {
    if (!closing_) periodic_.Add(clock_.NowUs(), period_ms, std::move(task));
  });
}

bool MemoryTransport::OnLoop() const { return current_loop == this; }

int64_t MemoryTransport::next_wake_us() const {
  int64_t wake_us = periodic_.next_due_us();
  for (const auto& [end, late] : late_) wake_us = std::min(wake_us, late.second);
  return wake_us;
}

void MemoryTransport::Turn() {
  current_loop = this;
  inbox_->Take(clock_, next_wake_us(), options_.spin_us, ends_, tasks_);
  for (Task& task : tasks_) task();
  tasks_.clear();
  for (const auto& [link, side] : ends_) LookAt(link, side);
  ends_.clear();
  if (!late_.empty()) {
    const int64_t now_us = clock_.NowUs();
    std::vector<std::pair<std::shared_ptr<MemoryLink>, int>> due;
    for (const auto& [end, late] : late_) {
      if (late.second <= now_us) due.emplace_back(late.first, end.second);
    }
    for (const auto& [link, side] : due) LookAt(link, side);
  }
  periodic_.RunDue(clock_.NowUs());
  if (closing_ && connections_.empty()) {
    std::lock_guard lock(shutdown_mutex_);
    all_closed_ = true;
    all_closed_changed_.notify_all();
  }
}

void MemoryTransport::LookAt(const std::shared_ptr<MemoryLink>& link, int side) {
  const End end(link.get(), side);
  late_.erase(end);
  auto it = connections_.find(end);
  if (it == connections_.end()) {
    // Ended before, or a peer that connected and is new here.
    if (side == 0 || link->closed()) return;
    if (closing_) return link->Close(side, absl::UnavailableError("the peer is shutting down"));
    auto accepted = std::make_unique<MemoryConnection>(*this, link, side, "memory://");
    it = connections_.emplace(end, std::move(accepted)).first;
    TransportCounters::Add(counters_.connections_opened, 1);
    handler_.OnAccepted(*it->second);
  }
  // The handler may connect, which moves the table; the connection itself stays.
  MemoryConnection* const connection = connections_.find(end)->second.get();
  const int64_t due_us = connection->Turn();
  if (due_us != Periodic::kNever) late_[end] = {link, due_us};
  const std::optional<absl::Status> why = link->Ended(side);
  if (!why) return;
  late_.erase(end);
  auto node = connections_.extract(end);
  TransportCounters::Add(counters_.connections_closed, 1);
  handler_.OnClosed(*node.mapped(), *why);
}

void MemoryTransport::CloseAll() {
  closing_ = true;
  periodic_.Clear();
  for (const auto& [end, connection] : connections_) {
    end.first->Close(end.second, absl::CancelledError("the transport was shut down"));
  }
}

void MemoryTransport::Shutdown() {
  std::call_once(shutdown_once_, [this] {
    {
      std::lock_guard lock(network_->mutex);
      std::erase_if(network_->listeners, [this](const auto& it) { return it.second == inbox_; });
    }
    Post([this] { CloseAll(); });
    {
      std::unique_lock lock(shutdown_mutex_);
      all_closed_changed_.wait(lock, [this] { return all_closed_; });
    }
    loop_.reset();
    // Peers that connected in the last moment are told; tasks die unrun.
    MemoryInbox::Ends left = inbox_->CloseForGood().first;
    for (const auto& [link, side] : left) {
      link->Close(side, absl::UnavailableError("the peer has shut down"));
    }
  });
}

}  // namespace

MemoryNetwork::MemoryNetwork(MemoryFaults faults) : state_(std::make_shared<State>(faults)) {}
MemoryNetwork::~MemoryNetwork() = default;

std::unique_ptr<Transport> MemoryNetwork::MakeTransport(TransportHandler& handler,
                                                        Executor& executor, const Clock& clock,
                                                        MemoryTransportOptions options) {
  return std::make_unique<MemoryTransport>(state_, handler, executor, clock, std::move(options));
}

}  // namespace kedge
