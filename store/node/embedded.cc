#include "store/node/embedded.h"

#include <future>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "store/node/byte_size.h"
#include "store/node/node.h"
#include "store/transfer/transport_memory.h"

namespace kedge {
namespace {

constexpr std::string_view kScheme = "embedded:";
constexpr char kAddress[] = "memory://kedged";
// Reads of the SSD beside its one writer.
constexpr int kThreads = 3;
constexpr int64_t kFlushMs = 10'000;

class EmbeddedNodeImpl final : public EmbeddedNode {
 public:
  absl::Status Open(const EmbeddedOptions& options) {
    HostTier::Options host_options;
    host_options.capacity_bytes = options.host_bytes;
    absl::StatusOr<std::unique_ptr<HostTier>> host = HostTier::Create(host_options);
    if (!host.ok()) return host.status();
    NodeOptions node_options;
    node_options.node_id = "embedded";
    node_options.seed = EntropySeed();
    absl::StatusOr<RecodePolicy> recode = RecodePolicy::Parse(options.recode);
    if (!recode.ok()) return recode.status();
    node_options.recode = *std::move(recode);
    NodeParts parts;
    parts.profiles = std::make_unique<ProfileSet>();
    if (options.allow_unprofiled) parts.profiles->AllowUnprofiled();
    for (const std::string& path : options.profiles) {
      if (absl::Status status = parts.profiles->Load(path); !status.ok()) return status;
    }
    parts.clock = &clock_;
    parts.executor = executor_.get();
    parts.disk = disk_.get();
    parts.host = *std::move(host);
    if (!options.ssd_directory.empty()) {
      node_options.ssd.directory = options.ssd_directory;
      node_options.ssd.capacity_bytes = options.ssd_bytes;
      node_options.ssd.ballast_bytes = SsdBallastBytes(options.ssd_bytes);
      parts.ssd_index = MakeRocksdbIndex(options.ssd_directory + "/index");
    }
    parts.make_transport = [this](TransportHandler& handler) {
      MemoryTransportOptions transport_options;
      transport_options.name = "kedged";
      return network_.MakeTransport(handler, *executor_, clock_, transport_options);
    };
    absl::StatusOr<std::unique_ptr<Node>> node =
        Node::Create(std::move(node_options), std::move(parts));
    if (!node.ok()) return node.status();
    node_ = *std::move(node);
    return node_->Listen(kAddress).status();
  }

  ~EmbeddedNodeImpl() override {
    if (node_ != nullptr) {
      auto drained = std::make_shared<std::promise<void>>();
      node_->Drain(kFlushMs, [drained](DrainReport) { drained->set_value(); });
      drained->get_future().wait();
      node_->Shutdown();
    }
    executor_->Shutdown();
  }

  std::unique_ptr<Transport> MakeClientTransport(TransportHandler* handler) override {
    MemoryTransportOptions transport_options;
    transport_options.name = "kedge-client";
    return network_.MakeTransport(*handler, *executor_, clock_, transport_options);
  }
  std::string address() const override { return kAddress; }

 private:
  RealClock clock_;
  std::unique_ptr<Executor> executor_ = MakeThreadExecutor("kedge", kThreads);
  std::unique_ptr<Disk> disk_ = MakeRealDisk();
  MemoryNetwork network_;
  std::unique_ptr<Node> node_;
};

absl::Status SetOption(std::string_view name, std::string_view value, EmbeddedOptions* options) {
  const auto wrong = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("embedded address: ", std::string(name), ": ", why));
  };
  if (name == "ssd") {
    if (value.empty()) return wrong("a directory is missing");
    options->ssd_directory = std::string(value);
    return absl::OkStatus();
  }
  if (name == "recode") {
    options->recode.emplace_back(value);
    const absl::Status status = RecodePolicy::Parse(options->recode).status();
    return status.ok() ? status : wrong(status.message());
  }
  if (name == "profile") {
    if (value.empty()) return wrong("a path is missing");
    options->profiles.emplace_back(value);
    return absl::OkStatus();
  }
  if (name == "allow_unprofiled") {
    if (value != "true" && value != "false") return wrong("is neither true nor false");
    options->allow_unprofiled = value == "true";
    return absl::OkStatus();
  }
  uint64_t* bytes = name == "host"       ? &options->host_bytes
                    : name == "ssd_size" ? &options->ssd_bytes
                                         : nullptr;
  if (bytes == nullptr)
    return wrong(
        "unknown option; known are host, ssd, ssd_size, recode, profile, allow_unprofiled");
  const absl::StatusOr<uint64_t> parsed = ParseByteSize(value);
  if (!parsed.ok()) return wrong(parsed.status().message());
  *bytes = *parsed;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EmbeddedOptions> ParseEmbeddedAddress(const std::string& address) {
  std::string_view rest = address;
  if (rest.substr(0, kScheme.size()) != kScheme) {
    return absl::InvalidArgumentError(
        absl::StrCat("address '", address, "': expected embedded:[?host=..&ssd=..&ssd_size=..]"));
  }
  rest.remove_prefix(kScheme.size());
  EmbeddedOptions options;
  if (rest.empty()) return options;
  if (rest.front() != '?') {
    return absl::InvalidArgumentError(
        absl::StrCat("embedded address: '", std::string(rest), "' where '?' was expected"));
  }
  while (!rest.empty()) {
    rest.remove_prefix(1);  // '?' or '&'
    const std::string_view option = rest.substr(0, rest.find('&'));
    rest.remove_prefix(option.size());
    const size_t equals = option.find('=');
    if (equals == std::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("embedded address: '", std::string(option), "' has no '='"));
    }
    const absl::Status status =
        SetOption(option.substr(0, equals), option.substr(equals + 1), &options);
    if (!status.ok()) return status;
  }
  return options;
}

absl::StatusOr<std::unique_ptr<EmbeddedNode>> EmbeddedNode::Start(const EmbeddedOptions& options) {
  auto node = std::make_unique<EmbeddedNodeImpl>();
  if (absl::Status status = node->Open(options); !status.ok()) return status;
  return node;
}

}  // namespace kedge
