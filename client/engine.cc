#include "client/engine.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "store/transfer/transport_net.h"
#include "store/world/executor.h"

namespace kedge {
namespace {

constexpr char kClientVersion[] = "0.1.0";

std::string Text(const absl::Status& status) { return std::string(status.message()); }

bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace

Engine::Engine(EngineOptions options) : options_(std::move(options)), route_(options_.address) {}

absl::StatusOr<std::shared_ptr<Engine>> Engine::Open(const EngineOptions& options) {
  std::shared_ptr<Engine> engine(new Engine(options));
  if (absl::Status status = engine->MakeTransport(); !status.ok()) return status;
  engine->transport_->Every(kTickMs, [e = engine.get()] { e->OnTick(); });
  engine->Post([e = engine.get()] { e->Connect(); });
  return engine;
}

absl::Status Engine::MakeTransport() {
  const std::string& address = options_.address;
  if (options_.make_transport) {
    transport_ = options_.make_transport(*this);
    connect_address_ = address;
    return absl::OkStatus();
  }
  if (StartsWith(address, "embedded:")) {
    auto embedded = ParseEmbeddedAddress(address);
    if (!embedded.ok()) return embedded.status();
    auto node = EmbeddedNode::Start(*embedded);
    if (!node.ok()) return node.status();
    embedded_ = *std::move(node);
    transport_ = embedded_->MakeClientTransport(this);
    connect_address_ = embedded_->address();
    return absl::OkStatus();
  }
  if (!StartsWith(address, "tcp://") && !StartsWith(address, "shm://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("address: '", address,
                     "' starts with none of tcp://, shm:// and embedded:; "
                     "write for example tcp://127.0.0.1:7420"));
  }
  executor_ = MakeThreadExecutor("kedge-client", 1);
  auto transport =
      MakeNetTransport(*this, *executor_, clock_, NetTransportOptions{.name = "kedge-client"});
  if (!transport.ok()) return transport.status();
  transport_ = *std::move(transport);
  connect_address_ = address;
  return absl::OkStatus();
}

Engine::~Engine() { Close(); }

void Engine::Close() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return;
  if (transport_ == nullptr) return;
  std::mutex mutex;
  std::condition_variable idle;
  bool is_idle = false;
  transport_->Post([&] {
    closing_ = true;
    for (const auto& operation : std::vector<std::shared_ptr<Operation>>(active_)) {
      operation->Abandon(*this, ResultCode::kCancelled, "the client was closed");
    }
    if (connection_ != nullptr) {
      if (session_ != 0) {
        Body();
        Send(FrameType::kGoodbye, 0, 0);
      }
      connection_->Close(absl::CancelledError("the client was closed"));
    }
    std::lock_guard lock(mutex);
    is_idle = true;
    idle.notify_all();
  });
  {
    std::unique_lock lock(mutex);
    idle.wait(lock, [&] { return is_idle; });
  }
  transport_->Shutdown();
  transport_.reset();
  embedded_.reset();
  executor_.reset();
}

absl::Status Engine::WaitConnected(uint32_t timeout_ms) {
  std::unique_lock lock(state_mutex_);
  state_changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                          [this] { return state_.connected; });
  if (state_.connected) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("address: no node answered at '", options_.address,
                                             "' within ", timeout_ms, " ms",
                                             why_.empty() ? "" : ": ", why_));
}

EngineInfo Engine::info() const {
  std::lock_guard lock(state_mutex_);
  EngineInfo info = state_;
  info.requests = requests_.load(std::memory_order_relaxed);
  info.corrupt_parts = corrupt_parts_.load(std::memory_order_relaxed);
  info.dropped_chunks = dropped_chunks_.load(std::memory_order_relaxed);
  info.bytes_received = bytes_received_.load(std::memory_order_relaxed);
  info.bytes_sent = bytes_sent_.load(std::memory_order_relaxed);
  return info;
}

void Engine::Post(Task task) {
  if (!closed()) transport_->Post(std::move(task));
}

void Engine::Run(std::shared_ptr<Operation> operation) {
  requests_.fetch_add(1, std::memory_order_relaxed);
  Post([this, operation = std::move(operation)]() mutable {
    Operation& op = *operation;  // the task keeps it alive
    op.active_index = active_.size();
    active_.push_back(operation);
    if (closing_) {
      op.Abandon(*this, ResultCode::kCancelled, "the client was closed");
    } else if (!connected()) {
      op.Abandon(*this, ResultCode::kUnavailable,
                 absl::StrCat("no connection to ", options_.address));
    } else {
      op.Start(*this);
    }
  });
}

void Engine::Cancel(const std::shared_ptr<Operation>& operation, ResultCode code) {
  if (operation->ended()) return;
  Post([this, operation, code] {
    if (!operation->ended()) operation->Abandon(*this, code, ResultCodeName(code));
  });
  operation->Wait(UINT32_MAX);
}

void Engine::Forget(Operation& operation) {
  if (operation.active_index == SIZE_MAX) return;
  const size_t index = operation.active_index;
  operation.active_index = SIZE_MAX;
  if (index + 1 != active_.size()) {
    active_[index] = std::move(active_.back());
    active_[index]->active_index = index;
  }
  active_.pop_back();
}

// --- The connection ---

void Engine::Connect() {
  if (closing_ || connection_ != nullptr) return;
  const int64_t now_us = NowUs();
  auto connection = transport_->Connect(connect_address_);
  if (!connection.ok()) {
    SetWhy(Text(connection.status()));
    backoff_ms_ = kBackoffMaxMs;
    connect_at_us_ = now_us + backoff_ms_ * 1000;
    return;
  }
  connection_ = *connection;
  hello_at_us_ = heard_us_ = pinged_us_ = now_us;
  payload_bytes_max_ = connection_->payload_bytes_max();
  HelloBody hello;
  hello.client_name = options_.client_name;
  hello.client_version = kClientVersion;
  EncodeHello(hello, Body());
  Send(FrameType::kHello, 0, 0);
}

void Engine::OnWelcome(Connection& connection, const Frame& frame) {
  WelcomeBody welcome;
  if (absl::Status status = DecodeWelcome(frame.body, welcome); !status.ok()) {
    SetWhy(Text(status));
    connection.Close(status);
    return;
  }
  session_ = welcome.session;
  backoff_ms_ = 0;
  route_.Reset(welcome.epoch, welcome.members);
  payload_bytes_max_ = std::min(connection.payload_bytes_max(), kPayloadBytesMax);
  std::lock_guard lock(state_mutex_);
  if (state_.session != 0) ++state_.reconnects;
  state_.connected = true;
  state_.session = welcome.session;
  state_.epoch = welcome.epoch;
  state_.lease_ms_max = welcome.lease_ms_max;
  state_.put_idle_ms = welcome.put_idle_ms;
  state_.node_id = welcome.node_id;
  state_.wire = connection.wire();
  why_.clear();
  state_changed_.notify_all();
}

void Engine::SetWhy(std::string why) {
  std::lock_guard lock(state_mutex_);
  why_ = std::move(why);
}

void Engine::SetConnected(bool connected, std::string why) {
  std::lock_guard lock(state_mutex_);
  state_.connected = connected;
  why_ = std::move(why);
}

// No session from here on; every operation ends. Memory that the transport still borrows comes back
// by OnSent.
void Engine::Lost(const std::string& why) {
  session_ = 0;
  draining_ = false;
  SetConnected(false, why);
  for (const auto& operation : std::vector<std::shared_ptr<Operation>>(active_)) {
    operation->Abandon(*this, ResultCode::kUnavailable, why);
  }
  backlog_.clear();
}

void Engine::OnAccepted(Connection&) {}

void Engine::OnClosed(Connection& connection, const absl::Status& why) {
  if (&connection != connection_) return;
  connection_ = nullptr;
  const std::string text = Text(why);
  Lost(text.empty() ? "the connection ended" : text);
  wires_.clear();
  backoff_ms_ = std::clamp(backoff_ms_ * 2, kBackoffMinMs, kBackoffMaxMs);
  connect_at_us_ = NowUs() + backoff_ms_ * 1000;
}

void Engine::OnTick() {
  const int64_t now_us = NowUs();
  if (connection_ == nullptr) {
    if (now_us >= connect_at_us_) Connect();
  } else {
    CheckSilence(now_us);
  }
  FlushBacklog();
  PumpAll();
  bool stuck = false;
  // Ending an operation moves the last one into its place, so from the back each is seen once.
  for (size_t i = active_.size(); i-- > 0;) {
    if (i >= active_.size()) continue;
    const std::shared_ptr<Operation> operation = active_[i];
    if (operation->drain_until_us != 0) {
      stuck = stuck || now_us > operation->drain_until_us;
    } else if (now_us > operation->deadline_us()) {
      operation->Abandon(*this, ResultCode::kDeadline, "the deadline passed");
    }
  }
  if (stuck && connection_ != nullptr) {
    session_ = 0;
    hello_at_us_ = now_us;
    connection_->Close(absl::UnavailableError(
        "the node took no bytes; the connection was closed to get a caller's memory back"));
  }
}

void Engine::CheckSilence(int64_t now_us) {
  if (session_ == 0) {
    if (now_us - hello_at_us_ > kHelloMaxMs * 1000) {
      hello_at_us_ = now_us;
      connection_->Close(absl::UnavailableError("the node did not answer the hello"));
    }
    return;
  }
  if (wires_.empty()) {
    heard_us_ = now_us;  // nothing is awaited
    return;
  }
  if (now_us - heard_us_ > kSilenceMaxMs * 1000) {
    session_ = 0;
    hello_at_us_ = now_us;
    connection_->Close(
        absl::UnavailableError(absl::StrCat("the node was silent for ", kSilenceMaxMs, " ms")));
  } else if (now_us - std::max(heard_us_, pinged_us_) > kPingAfterMs * 1000) {
    pinged_us_ = now_us;
    Body();
    Send(FrameType::kPing, 0, 0);
  }
}

// --- Frames in ---

void Engine::OnMessage(Connection& connection, std::span<const uint8_t> head,
                       std::span<const uint8_t> payload) {
  if (&connection != connection_) return;
  heard_us_ = NowUs();
  absl::StatusOr<Frame> frame = DecodeFrame(head, payload.size());
  if (!frame.ok()) {
    session_ = 0;
    connection.Close(frame.status());
    return;
  }
  if (!payload.empty()) CountReceived(payload.size());
  switch (frame->header.type) {
    case FrameType::kWelcome:
      if (session_ == 0) OnWelcome(connection, *frame);
      return;
    case FrameType::kPong:
      return;
    case FrameType::kGoodbye:  // what runs may end, nothing new is begun
      draining_ = true;
      SetConnected(false, "the node is draining");
      return;
    default:
      break;
  }
  const auto wire = wires_.find(frame->header.request);
  if (wire == wires_.end()) {
    OnUnknownWire(*frame);
    return;
  }
  const uint32_t tag = wire->second.tag;
  // Keeps it alive: once it has ended, its caller may free it on another thread.
  const std::shared_ptr<Operation> operation = wire->second.operation->shared_from_this();
  operation->OnFrame(*this, frame->header.request, tag, *frame, payload);
}

// An answer to a request that has ended. Slots that it opened are given back.
void Engine::OnUnknownWire(const Frame& frame) {
  if (frame.header.type == FrameType::kError && frame.header.request == 0) {
    ErrorBody error;
    if (DecodeError(frame.body, error).ok()) SetWhy(error.text);
    return;
  }
  dropped_chunks_.fetch_add(1, std::memory_order_relaxed);
  if (frame.header.type == FrameType::kPutReady && session_ != 0) {
    PutReadyBody ready;
    PutAbortBody abort;
    if (!DecodePutReady(frame.body, ready).ok()) return;
    for (const PutReadyItem& item : ready.items) {
      if (item.code == ResultCode::kOk) abort.slots.push_back(item.slot);
    }
    if (abort.slots.empty()) return;
    EncodePutAbort(abort, Body());
    Send(FrameType::kPutAbort, frame.header.request, 0);
  }
}

// --- Frames out ---

uint64_t Engine::OpenWire(Operation& operation, uint32_t tag) {
  const uint64_t wire = next_wire_++;
  wires_.emplace(wire, WireEntry{&operation, tag});
  return wire;
}

std::span<const uint8_t> Engine::EncodeHead(FrameType type, uint64_t wire, int64_t deadline_us,
                                            uint64_t payload_bytes) {
  FrameHeader header;
  header.type = type;
  header.body_bytes = static_cast<uint32_t>(body_.size());
  header.payload_bytes = static_cast<uint32_t>(payload_bytes);
  header.request = wire;
  header.session = session_;
  header.tenant = options_.tenant;
  header.epoch = route_.epoch();
  if (deadline_us != 0) {
    header.deadline_ms =
        static_cast<uint32_t>(std::clamp<int64_t>((deadline_us - NowUs()) / 1000, 1, UINT32_MAX));
  }
  head_.resize(FrameHeadBytes(0, header.body_bytes));
  EncodeFrame(header, {}, body_, head_);
  return head_;
}

void Engine::Send(FrameType type, uint64_t wire, int64_t deadline_us) {
  if (connection_ == nullptr) return;
  const std::span<const uint8_t> head = EncodeHead(type, wire, deadline_us, 0);
  if (backlog_.empty()) {
    const absl::Status status = connection_->Send(head, {}, 0);
    if (status.code() != absl::StatusCode::kResourceExhausted) return;
  }
  backlog_.emplace_back(head.begin(), head.end());
}

void Engine::FlushBacklog() {
  while (connection_ != nullptr && !backlog_.empty()) {
    const absl::Status status = connection_->Send(backlog_.front(), {}, 0);
    if (status.code() == absl::StatusCode::kResourceExhausted) return;
    backlog_.pop_front();
  }
}

void Engine::CancelWire(uint64_t wire) {
  CloseWire(wire);
  if (session_ == 0) return;
  Body();
  Send(FrameType::kCancel, wire, 0);
}

bool Engine::SendBulk(FrameType type, uint64_t wire, int64_t deadline_us,
                      std::span<const uint8_t> payload, Operation& operation, uint32_t item,
                      std::unique_ptr<std::vector<uint8_t>> staging) {
  if (connection_ == nullptr || !backlog_.empty()) return false;
  if (sending_free_.empty()) {
    sending_free_.push_back(static_cast<uint32_t>(sending_.size()));
    sending_.emplace_back();
  }
  const uint32_t index = sending_free_.back();
  sending_free_.pop_back();
  // Filled in first: OnSent may come inside Send.
  sending_[index] = {operation.shared_from_this(), item, payload.size(), std::move(staging)};
  sending_bytes_ += payload.size();
  const absl::Status status = connection_->Send(EncodeHead(type, wire, deadline_us, payload.size()),
                                                payload, uint64_t{index} + 1);
  if (!status.ok()) {
    Release(index);
    return false;
  }
  bytes_sent_.fetch_add(payload.size(), std::memory_order_relaxed);
  return true;
}

// Takes a record of borrowed memory back.
Engine::Sending Engine::Release(uint32_t index) {
  Sending sending = std::exchange(sending_[index], Sending{});
  sending_bytes_ -= sending.bytes;
  if (sending.staging != nullptr) staging_free_.push_back(std::move(sending.staging));
  sending_free_.push_back(index);
  return sending;
}

std::unique_ptr<std::vector<uint8_t>> Engine::TakeStaging() {
  if (staging_free_.empty()) {
    auto staging = std::make_unique<std::vector<uint8_t>>();
    staging->reserve(kStagingBytes);
    return staging;
  }
  auto staging = std::move(staging_free_.back());
  staging_free_.pop_back();
  staging->clear();
  return staging;
}

void Engine::OnSent(Connection&, uint64_t cookie, const absl::Status&) {
  const uint32_t index = static_cast<uint32_t>(cookie - 1);
  ABSL_RAW_CHECK(index < sending_.size() && sending_[index].operation != nullptr,
                 "OnSent for a message that was not sent");
  const Sending sending = Release(index);
  sending.operation->OnSent(*this, sending.item, sending.bytes);
  FlushBacklog();
  PumpAll();
}

void Engine::QueueToSend(Operation& operation) {
  if (!operation.queued_to_send) {
    operation.queued_to_send = true;
    send_queue_.push_back(operation.shared_from_this());
  }
  PumpAll();
}

// One message of each queued operation in turn, while the window has room.
void Engine::PumpAll() {
  if (pumping_) return;  // OnSent may come inside Send
  pumping_ = true;
  bool blocked = false;
  while (!blocked && sending_bytes_ < kSendWindowBytes && !send_queue_.empty()) {
    std::shared_ptr<Operation> operation = std::move(send_queue_.front());
    send_queue_.pop_front();
    const Operation::Pumped pumped = operation->Pump(*this);
    blocked = pumped == Operation::Pumped::kBlocked;
    if (pumped == Operation::Pumped::kIdle) {
      operation->queued_to_send = false;
    } else {
      send_queue_.push_back(std::move(operation));
    }
  }
  pumping_ = false;
}

}  // namespace kedge
