#include "store/node/node.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

// How long the last words of a connection that will be closed may take to leave.
constexpr int64_t kLastWordsMs = 200;
constexpr uint64_t kLeasedBlocksMax = 1 << 20;

}  // namespace

const char* KedgeVersion() { return "0.1.0"; }

// --- Wiring -------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<Node>> Node::Create(NodeOptions options, NodeParts parts) {
  if (options.durability == kDurabilitySsd && parts.ssd_index == nullptr) {
    return absl::InvalidArgumentError("durability: ssd, but the node has no SSD tier");
  }
  auto make_transport = std::move(parts.make_transport);
  std::unique_ptr<Node> node(new Node(std::move(options), std::move(parts)));
  if (absl::Status status = node->Open(); !status.ok()) return status;
  absl::StatusOr<std::unique_ptr<Transport>> transport = make_transport(*node);
  if (!transport.ok()) return transport.status();
  node->transport_ = *std::move(transport);
  node->transport_->Every(kLeaseSweepMs, [raw = node.get()] { raw->Sweep(); });
  return node;
}

Node::Node(NodeOptions options, NodeParts parts)
    : options_(std::move(options)),
      clock_(*parts.clock),
      executor_(*parts.executor),
      disk_(parts.disk),
      started_ms_(parts.clock->NowMs()),
      host_(std::move(parts.host)),
      map_(*host_),
      room_(*host_, map_),
      ssd_index_(std::move(parts.ssd_index)),
      profiles_(parts.profiles != nullptr ? std::move(parts.profiles)
                                          : std::make_unique<ProfileSet>()),
      recoder_(options_.recode, *profiles_),
      random_(options_.seed),
      leases_({kLeasesPerSessionMax, kLeasedBlocksMax}, random_.Next()) {}

Node::~Node() { Shutdown(); }

absl::Status Node::Open() {
  std::vector<BlockHeader> anchors;  // rosters, for a part that stands on the SSD tier
  if (ssd_index_ != nullptr) {
    const auto on_recovered = [this, &anchors](const BlockHeader& header, SsdLocation location) {
      const absl::StatusOr<uint16_t> variant = map_.variants().Intern(header.variant);
      if (header.keyspace == Keyspace::kAnchor && header.chain_depth != 0)
        anchors.push_back(header);
      const ImageLayout layout{header.encoded_bytes(), header.payload_bytes()};
      if (!variant.ok() || layout.image_bytes() != uint64_t{location.pages} * kDiskPageBytes)
        return;
      NewBlock block = NewBlock::Of(header, *variant);
      block.ssd = location;
      BlockRef unused;
      map_.Insert(block, &unused);
    };
    const auto on_dropped = [this](const BlockKey& key, const Variant& variant,
                                   SsdLocation location) {
      map_.DropSsd(key, variant, location, ResultCode::kEvicted);
    };
    absl::StatusOr<std::unique_ptr<SsdTier>> ssd = SsdTier::Open(
        *disk_, std::move(ssd_index_), options_.ssd, on_recovered, on_dropped, &recovery_);
    if (!ssd.ok()) return ssd.status();
    ssd_ = *std::move(ssd);
  }
  mover_ = std::make_unique<Mover>(map_, *host_, room_, ssd_.get(), executor_, clock_, &recoder_);
  anchors_ = std::make_unique<AnchorStore>(
      AnchorStore::Parts{map_, *host_, room_, *mover_, ssd_.get(), executor_},
      options_.pool_memory_bytes);
  for (const BlockHeader& header : anchors) anchors_->Recovered(header);
  mixes_ = std::make_unique<MixQueue>(*anchors_, executor_, clock_);
  mover_->OnProgress([this] {
    if (!puts_wait_.load(std::memory_order_relaxed)) return;
    transport_->Post([this] { RetryPutWaits(); });
  });
  return absl::OkStatus();
}

absl::StatusOr<std::string> Node::Listen(const std::string& address) {
  absl::StatusOr<std::string> bound = transport_->Listen(address);
  if (!bound.ok()) return bound;
  transport_->Post([this, address = *bound] {
    if (data_address_.empty()) data_address_ = address;
  });
  return bound;
}

void Node::SetControlAddress(const std::string& address) {
  transport_->Post([this, address] { control_address_ = address; });
}

void Node::Shutdown() {
  if (transport_ == nullptr) return;
  transport_->Shutdown();
  leases_.Expire(INT64_MAX);
}

// --- Connections --------------------------------------------------------------------------------

void Node::OnAccepted(Connection& connection) {
  auto session = std::make_unique<Session>();
  session->connection = &connection;
  session->last_heard_ms = clock_.NowMs();
  connection.set_context(session.get());
  sessions_.push_back(std::move(session));
  metrics_.sessions.store(sessions_.size(), std::memory_order_relaxed);
}

void Node::OnClosed(Connection& connection, const absl::Status&) {
  auto* session = static_cast<Session*>(connection.context());
  if (session == nullptr) return;
  connection.set_context(nullptr);
  EndSession(*session);
}

void Node::EndSession(Session& session) {
  session.connection = nullptr;
  const std::vector<uint32_t> streams = session.streams;
  for (const uint32_t stream : streams) StopStream(stream, ResultCode::kCancelled);
  // Streams that wait for the SSD outlive their session; they must not find it.
  for (const uint32_t stream : session.streams) streams_[stream]->session = nullptr;
  const std::vector<uint64_t> puts = session.puts;
  for (const uint64_t id : puts) AbandonSlot(*FindSlot(id), nullptr);
  leases_.ReleaseSession(session.id);
  EndMixes(session);
  std::erase(stalled_, &session);
  session_by_id_.erase(session.id);
  std::erase_if(sessions_, [&](const auto& held) { return held.get() == &session; });
  UpdateGauges();
}

Session* Node::FindSession(uint64_t id) {
  const auto found = session_by_id_.find(id);
  return found == session_by_id_.end() ? nullptr : found->second;
}

void Node::CloseSoon(Session& session, std::string why) {
  if (session.close_at_ms != 0) return;
  session.close_at_ms = clock_.NowMs() + kLastWordsMs;
  session.close_why = std::move(why);
}

// --- Frames -------------------------------------------------------------------------------------

void Node::OnMessage(Connection& connection, std::span<const uint8_t> head,
                     std::span<const uint8_t> payload) {
  auto* session = static_cast<Session*>(connection.context());
  if (session == nullptr || session->close_at_ms != 0) return;
  session->last_heard_ms = clock_.NowMs();
  const absl::StatusOr<Frame> frame = DecodeFrame(head, payload.size());
  if (!frame.ok()) {
    OnBadFrame(*session, frame.status());
  } else if (CheckSession(*session, frame->header)) {
    Dispatch(*session, *frame, payload);
  }
}

void Node::OnBadFrame(Session& session, const absl::Status& why) {
  metrics_.Error(absl::IsUnimplemented(why) ? FrameError::kVersion
                 : absl::IsDataLoss(why)    ? FrameError::kCrc
                                            : FrameError::kMalformed);
  const std::string text(why.message());
  // Nothing in the frame can be believed, its request number neither.
  ReplyError(session, FrameHeader{}, ResultCode::kInvalid, text);
  CloseSoon(session, text);
}

bool Node::CheckSession(Session& session, const FrameHeader& header) {
  if (header.type == FrameType::kHello || header.type == FrameType::kPing ||
      header.type == FrameType::kGoodbye) {
    return true;
  }
  if (session.id == 0) {
    metrics_.Error(FrameError::kSession);
    ReplyError(session, header, ResultCode::kDenied,
               absl::StrCat("frame.type: ", FrameTypeName(header.type), " before hello"));
    return false;
  }
  if (header.session != session.id || header.tenant != session.tenant) {
    metrics_.Error(FrameError::kSession);
    ReplyError(session, header, ResultCode::kDenied,
               "frame.session: this connection has another session or tenant");
    return false;
  }
  if (header.epoch != 0 && header.epoch != options_.epoch) {
    ReplyError(session, header, ResultCode::kStaleEpoch,
               absl::StrCat("frame.epoch: ", header.epoch, ", the node has ", options_.epoch));
    return false;
  }
  return true;
}

void Node::Dispatch(Session& session, const Frame& frame, std::span<const uint8_t> payload) {
  switch (frame.header.type) {
    case FrameType::kHello:
      return OnHello(session, frame);
    case FrameType::kMatch:
      return OnMatch(session, frame);
    case FrameType::kRelease:
      return OnRelease(session, frame);
    case FrameType::kGet:
      return OnGet(session, frame);
    case FrameType::kCancel:
      return OnCancel(session, frame);
    case FrameType::kPutBegin:
      return OnPutBegin(session, frame);
    case FrameType::kChunk:
      return OnPutChunk(session, frame, payload);
    case FrameType::kPutCommit:
      return OnPutCommit(session, frame);
    case FrameType::kPutAbort:
      return OnPutAbort(session, frame);
    case FrameType::kRemove:
      return OnRemove(session, frame);
    case FrameType::kAnchorInsert:
      return OnAnchorInsert(session, frame);
    case FrameType::kMix:
      return OnMix(session, frame);
    case FrameType::kMixUsed:
      return OnMixUsed(session, frame);
    case FrameType::kNearInsert:
      return OnNearInsert(session, frame);
    case FrameType::kNearLookup:
      return OnNearLookup(session, frame);
    case FrameType::kNearStrike:
      return OnNearStrike(frame);
    case FrameType::kPing:
      body_.clear();
      return Reply(session, frame.header, FrameType::kPong);
    case FrameType::kPong:
      return;
    case FrameType::kGoodbye:
      return CloseSoon(session, "the client said goodbye");
    case FrameType::kWelcome:
    case FrameType::kMatchReply:
    case FrameType::kGetItem:
    case FrameType::kPutReady:
    case FrameType::kPutDone:
    case FrameType::kRemoveReply:
    case FrameType::kAnchorInserted:
    case FrameType::kMixReply:
    case FrameType::kNearInserted:
    case FrameType::kNearFound:
    case FrameType::kError:
      break;
  }
  metrics_.Error(FrameError::kUnexpected);
  ReplyError(
      session, frame.header, ResultCode::kInvalid,
      absl::StrCat("frame.type: ", FrameTypeName(frame.header.type), " is sent by nodes only"));
}

bool Node::BodyOk(Session& session, const FrameHeader& header, const absl::Status& status) {
  if (status.ok()) return true;
  metrics_.Error(FrameError::kBody);
  ReplyError(session, header, ResultCode::kInvalid, std::string(status.message()));
  return false;
}

std::span<const uint8_t> Node::MakeHead(const Session& session, const FrameHeader& request,
                                        FrameType type, uint32_t payload_bytes) {
  FrameHeader header;
  header.type = type;
  header.body_bytes = static_cast<uint32_t>(body_.size());
  header.payload_bytes = payload_bytes;
  header.request = request.request;
  header.session = session.id;
  header.tenant = session.tenant;
  header.epoch = options_.epoch;
  header.trace_id = request.trace_id;
  head_.resize(FrameHeadBytes(0, header.body_bytes));
  EncodeFrame(header, {}, body_, head_);
  return head_;
}

void Node::Reply(Session& session, const FrameHeader& request, FrameType type) {
  if (session.connection == nullptr) return;
  const absl::Status status = session.connection->Send(MakeHead(session, request, type, 0), {}, 0);
  // Windows keep bulk far below the transport's queue: a client whose queue is full does not read.
  if (absl::IsResourceExhausted(status)) CloseSoon(session, "the client does not read its answers");
}

void Node::ReplyError(Session& session, const FrameHeader& request, ResultCode code,
                      std::string text) {
  ErrorBody error;
  error.code = code;
  error.text = std::move(text);
  if (code == ResultCode::kStaleEpoch) {
    error.epoch = options_.epoch;
    error.members = {{options_.node_id, data_address_, control_address_}};
  }
  body_.clear();
  EncodeError(error, body_);
  Reply(session, request, FrameType::kError);
}

void Node::OnSent(Connection& connection, uint64_t cookie, const absl::Status& status) {
  auto* session = static_cast<Session*>(connection.context());
  const auto index = static_cast<uint32_t>(cookie - 1);
  const MessageUnderWay message = messages_[index];
  messages_.Free(index);
  GetStream& stream = *streams_[message.stream];
  GetItemState& item = stream.items[message.item];
  --stream.under_way;
  --item.under_way;
  bytes_under_way_ -= message.bytes;
  if (session != nullptr) {
    session->sender.bytes_under_way -= message.bytes;
    if (status.ok()) session->last_heard_ms = clock_.NowMs();
  }
  if (item.stage == GetItemState::Stage::kDone && item.under_way == 0) {
    LetGo(stream, item);
    StartPromotions(message.stream);
  }
  FinishStreamIfOver(message.stream);
  if (session != nullptr && status.ok()) Pump(*session);
  PumpStalled();
}

void Node::MapVariants(const std::vector<Variant>& variants) {
  variant_ids_.clear();
  for (const Variant& variant : variants) variant_ids_.push_back(map_.variants().Find(variant));
}

}  // namespace kedge
