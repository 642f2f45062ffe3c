#include "store/node/control_service.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/control.grpc.pb.h"

namespace kedge {
namespace {

namespace pb = control::v1;

// Calls that run when the server is told to end get this long.
constexpr std::chrono::milliseconds kLastCalls(500);

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

absl::StatusOr<BlockKey> KeyOf(const std::string& bytes) {
  BlockKey key;
  if (bytes.size() != key.bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("key: ", bytes.size(), " bytes, a key has ", key.bytes.size()));
  }
  std::copy(bytes.begin(), bytes.end(), key.bytes.begin());
  return key;
}

std::string BytesOf(const BlockKey& key) {
  return std::string(reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size());
}

std::string RopeText(const BlockHeader& header) {
  if (header.rope == RopeState::kNone) return "none";
  if (header.rope == RopeState::kUnrotated) return "un-rotated";
  return absl::StrCat("rotated from ", header.rope_base_position);
}

void Fill(const Node::Inspected& seen, pb::VariantInfo* out) {
  const BlockHeader& header = seen.header;
  out->set_variant(std::string(header.variant.view()));
  out->set_fidelity(FidelityName(header.fidelity));
  out->set_keyspace(KeyspaceName(header.keyspace));
  if (seen.info.host) out->add_tiers("host");
  if (seen.info.ssd) out->add_tiers("ssd");
  out->set_payload_bytes(header.payload_bytes());
  out->set_parts(static_cast<uint32_t>(header.parts.size()));
  out->set_root_digest(header.root.ToHex());
  if (!header.parent.is_zero()) out->set_parent(BytesOf(header.parent));
  out->set_chain_depth(header.chain_depth);
  out->set_placement(header.placement);
  out->set_shape(header.shape.opaque() ? "opaque" : header.shape.ToString());
  out->set_pins(seen.info.pins);
  out->set_lease_ms_left(static_cast<uint64_t>(seen.lease_ms_left));
  if (!header.model.is_zero()) out->set_model(header.model.ToHex());
  out->set_tenant(header.tenant);
  out->set_rope(RopeText(header));
  if (seen.info.ssd) {
    out->set_ssd_location(
        absl::StrCat("segment ", seen.info.ssd.segment, " page ", seen.info.ssd.page));
  }
}

class Service final : public pb::Control::Service {
 public:
  Service(Node& node, const ControlOptions& options) : node_(node), options_(options) {}

  grpc::Status Status(grpc::ServerContext*, const pb::StatusRequest*,
                      pb::StatusReply* reply) override {
    const NodeStatus status = node_.Status();
    reply->set_node_id(status.node_id);
    reply->set_version(KedgeVersion());
    reply->set_health(status.draining          ? pb::HEALTH_DRAINING
                      : status.reasons.empty() ? pb::HEALTH_OK
                                               : pb::HEALTH_WARN);
    for (const std::string& reason : status.reasons) reply->add_reasons(reason);
    reply->set_uptime_ms(static_cast<uint64_t>(status.uptime_ms));
    reply->set_epoch(status.epoch);
    pb::TierStatus* host = reply->add_tiers();
    host->set_tier("host");
    host->set_capacity_bytes(status.host_capacity_bytes);
    host->set_used_bytes(status.host_used_bytes);
    host->set_blocks(status.blocks.host_blocks);
    if (status.has_ssd) {
      pb::TierStatus* ssd = reply->add_tiers();
      ssd->set_tier("ssd");
      ssd->set_capacity_bytes(status.ssd_capacity_bytes);
      ssd->set_used_bytes(status.ssd_used_bytes);
      ssd->set_blocks(status.blocks.ssd_blocks);
    }
    for (const VariantStatus& held : status.variants) {
      pb::VariantStatus* variant = reply->add_variants();
      variant->set_variant(held.variant);
      variant->set_host_blocks(held.stats.host_blocks);
      variant->set_host_bytes(held.stats.host_bytes);
      variant->set_ssd_blocks(held.stats.ssd_blocks);
      variant->set_ssd_bytes(held.stats.ssd_bytes);
    }
    reply->set_sessions(status.sessions);
    reply->set_leases(status.leases);
    reply->set_puts_open(status.puts_open);
    reply->set_index_bytes(status.blocks.memory_bytes);
    reply->set_data_address(options_.data_address);
    reply->set_metrics_address(options_.metrics_address);
    reply->set_blocks(status.blocks.blocks);
    reply->set_write_backlog(status.write_backlog);
    return grpc::Status::OK;
  }

  grpc::Status Inspect(grpc::ServerContext*, const pb::InspectRequest* request,
                       pb::InspectReply* reply) override {
    const absl::StatusOr<BlockKey> key = KeyOf(request->key());
    if (!key.ok()) return ToGrpc(key.status());
    const auto seen = node_.Inspect(*key);
    if (!seen.ok()) return ToGrpc(seen.status());
    if (seen->empty()) {
      return grpc::Status(grpc::StatusCode::NOT_FOUND,
                          absl::StrCat("key ", key->ToHex(), ": not held"));
    }
    for (const Node::Inspected& variant : *seen) Fill(variant, reply->add_variants());
    return grpc::Status::OK;
  }

  grpc::Status Verify(grpc::ServerContext*, const pb::VerifyRequest* request,
                      pb::VerifyReply* reply) override {
    std::vector<BlockKey> keys;
    for (const std::string& bytes : request->keys()) {
      const absl::StatusOr<BlockKey> key = KeyOf(bytes);
      if (!key.ok()) return ToGrpc(key.status());
      keys.push_back(*key);
    }
    const VerifyResult result = node_.Verify(keys);
    reply->set_blocks(result.blocks);
    reply->set_bytes(result.bytes);
    for (const std::string& line : result.damaged) reply->add_damaged(line);
    return grpc::Status::OK;
  }

  grpc::Status Remove(grpc::ServerContext*, const pb::RemoveRequest* request,
                      pb::RemoveReply* reply) override {
    const absl::StatusOr<BlockKey> key = KeyOf(request->key());
    if (!key.ok()) return ToGrpc(key.status());
    auto removed = std::make_shared<std::promise<absl::StatusOr<uint32_t>>>();
    auto result = removed->get_future();
    node_.Remove(*key, request->force(), [removed](absl::StatusOr<uint32_t> count) {
      removed->set_value(std::move(count));
    });
    const absl::StatusOr<uint32_t> count = result.get();
    if (!count.ok()) return ToGrpc(count.status());
    reply->set_variants(*count);
    return grpc::Status::OK;
  }

  grpc::Status RemoveVariant(grpc::ServerContext*, const pb::RemoveVariantRequest* request,
                             pb::RemoveReply* reply) override {
    const absl::StatusOr<BlockKey> key = KeyOf(request->key());
    if (!key.ok()) return ToGrpc(key.status());
    const absl::StatusOr<Variant> variant = Variant::Parse(request->variant());
    if (!variant.ok()) return ToGrpc(variant.status());
    auto removed = std::make_shared<std::promise<absl::StatusOr<uint32_t>>>();
    auto result = removed->get_future();
    node_.RemoveVariant(
        *key, *variant, request->force(),
        [removed](absl::StatusOr<uint32_t> count) { removed->set_value(std::move(count)); });
    const absl::StatusOr<uint32_t> count = result.get();
    if (!count.ok()) return ToGrpc(count.status());
    reply->set_variants(*count);
    return grpc::Status::OK;
  }

  grpc::Status Drain(grpc::ServerContext* context, const pb::DrainRequest* request,
                     pb::DrainReply* reply) override {
    (void)context;
    set_ready_(false);
    auto drained = std::make_shared<std::promise<DrainReport>>();
    auto result = drained->get_future();
    node_.Drain(options_.drain_ms, [drained](DrainReport report) { drained->set_value(report); });
    reply->set_flushed_blocks(result.get().flushed_blocks);
    if (request->exit() && options_.on_exit) options_.on_exit();
    return grpc::Status::OK;
  }

  void set_ready_by(std::function<void(bool)> set_ready) { set_ready_ = std::move(set_ready); }

 private:
  Node& node_;
  const ControlOptions& options_;
  std::function<void(bool)> set_ready_ = [](bool) {};
};

class ControlServerImpl final : public ControlServer {
 public:
  ControlServerImpl(Node& node, ControlOptions options)
      : options_(std::move(options)), service_(node, options_) {
    service_.set_ready_by([this](bool ready) { SetReady(ready); });
  }
  ~ControlServerImpl() override {
    // tidy: clock, gRPC takes an absolute time
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now() + kLastCalls);
  }

  absl::Status Open() {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(options_.address, grpc::InsecureServerCredentials(), &port);
    // gRPC would share a port with another process that has it.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(1 << 20);
    // Verify may run for long; status must be answered meanwhile.
    builder.SetSyncServerOption(grpc::ServerBuilder::SyncServerOption::MAX_POLLERS, 2);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::AlreadyExistsError(
          absl::StrCat("control: ", options_.address, " cannot be bound; is it in use?"));
    }
    address_ = absl::StrCat(options_.address.substr(0, options_.address.rfind(':')), ":", port);
    Serving("liveness", true);
    SetReady(true);
    return absl::OkStatus();
  }

  const std::string& address() const override { return address_; }
  void SetReady(bool ready) override { Serving("readiness", ready); }

 private:
  void Serving(const std::string& service, bool serving) {
    if (server_ == nullptr) return;
    grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
    if (health != nullptr) health->SetServingStatus(service, serving);
  }

  const ControlOptions options_;
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Start(Node& node,
                                                                    ControlOptions options) {
  auto server = std::make_unique<ControlServerImpl>(node, std::move(options));
  if (absl::Status status = server->Open(); !status.ok()) return status;
  return server;
}

}  // namespace kedge
