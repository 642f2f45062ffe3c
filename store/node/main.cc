// kedged: one node as a process. Reads its configuration, wires the parts, serves until SIGTERM or
// SIGINT, drains.
//
// Exit status: 0 after a drain; 2 when it could not start, with one line on standard error that
// names the field and the value.

#include <pthread.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "store/node/byte_size.h"
#include "store/node/config.h"
#include "store/node/control_service.h"
#include "store/node/metrics_server.h"
#include "store/node/node.h"
#include "store/transfer/transport_net.h"

namespace kedge {
namespace {

constexpr int kExitUsage = 2;

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "kedged: %s\n", std::string(status.message()).c_str());
  return kExitUsage;
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError("cannot be read");
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// All threads inherit the mask: the signals wait for sigwait.
sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  return signals;
}

// The process: the world it lives in, and the node. Members are destroyed from the last to the
// first.
class Kedged {
 public:
  explicit Kedged(Config config)
      : config_(std::move(config)),
        executor_(MakeThreadExecutor("kedged", static_cast<int>(config_.threads))) {}
  ~Kedged() {
    metrics_.reset();
    control_.reset();
    if (node_ != nullptr) node_->Shutdown();
    executor_->Shutdown();
    node_.reset();
  }

  absl::Status Start() {
    if (absl::Status status = MakeNode(); !status.ok()) return status;
    std::vector<std::string> data;
    for (const std::string& address : config_.listen) {
      const absl::StatusOr<std::string> bound = node_->Listen(address);
      if (!bound.ok()) {
        return absl::Status(bound.status().code(),
                            absl::StrCat("listen: ", bound.status().message()));
      }
      data.push_back(*bound);
    }
    data_ = absl::StrJoin(data, ",");
    if (!config_.metrics.empty()) {
      auto metrics = MetricsServer::Start(*node_, config_.metrics);
      if (!metrics.ok()) return metrics.status();
      metrics_ = *std::move(metrics);
    }
    ControlOptions options;
    options.address = config_.control;
    options.data_address = data_;
    options.metrics_address = metrics_address();
    options.drain_ms = static_cast<int64_t>(config_.drain_ms);
    options.on_exit = [] { kill(getpid(), SIGTERM); };
    auto control = ControlServer::Start(*node_, std::move(options));
    if (!control.ok()) return control.status();
    control_ = *std::move(control);
    node_->SetControlAddress(control_->address());
    return absl::OkStatus();
  }

  void SayReady() const {
    std::printf("kedged ready data=%s control=%s metrics=%s\n", data_.c_str(),
                control_->address().c_str(), metrics_address().c_str());
    std::fflush(stdout);
    spdlog::info("ready: host tier {}, {}", FormatByteSize(config_.host_capacity),
                 config_.ssd_path.empty() ? "no SSD tier" : "SSD tier in " + config_.ssd_path);
  }

  void Drain() {
    spdlog::info("draining for at most {} ms", config_.drain_ms);
    control_->SetReady(false);
    auto drained = std::make_shared<std::promise<DrainReport>>();
    auto result = drained->get_future();
    node_->Drain(static_cast<int64_t>(config_.drain_ms),
                 [drained](DrainReport report) { drained->set_value(report); });
    const DrainReport report = result.get();
    spdlog::info("drained: {} blocks written, {} left", report.flushed_blocks, report.left_blocks);
  }

 private:
  std::string metrics_address() const { return metrics_ == nullptr ? "none" : metrics_->address(); }

  absl::Status MakeNode() {
    NodeOptions options;
    options.node_id = config_.node_id;
    options.durability = config_.durability == "ssd" ? kDurabilitySsd : kDurabilityHost;
    options.lease_ms_max = static_cast<uint32_t>(config_.lease_max_ms);
    options.put_idle_ms = static_cast<uint32_t>(config_.put_idle_ms);
    options.sessions_max = static_cast<uint32_t>(config_.sessions_max);
    options.near_donors_max = static_cast<uint32_t>(config_.near_donors);
    options.pool_memory_bytes = config_.pool_memory;
    options.seed = EntropySeed();
    options.recode = *RecodePolicy::Parse(config_.recode);  // CheckConfig has read it
    NodeParts parts;
    parts.profiles = std::make_unique<ProfileSet>();
    if (config_.allow_unprofiled) parts.profiles->AllowUnprofiled();
    for (const std::string& path : config_.profiles) {
      if (absl::Status status = parts.profiles->Load(path); !status.ok()) {
        return absl::Status(status.code(), absl::StrCat("profiles: ", status.message()));
      }
    }
    parts.clock = &clock_;
    parts.executor = executor_.get();
    parts.disk = disk_.get();
    HostTier::Options host_options;
    host_options.capacity_bytes = config_.host_capacity;
    absl::StatusOr<std::unique_ptr<HostTier>> host = HostTier::Create(host_options);
    if (!host.ok()) {
      return absl::Status(host.status().code(),
                          absl::StrCat("host_capacity: ", host.status().message()));
    }
    parts.host = *std::move(host);
    if (!config_.ssd_path.empty()) {
      options.ssd.directory = config_.ssd_path;
      options.ssd.capacity_bytes = config_.ssd_capacity;
      options.ssd.ballast_bytes = SsdBallastBytes(config_.ssd_capacity);
      options.ssd.segment_bytes = config_.ssd_segment;
      parts.ssd_index = MakeRocksdbIndex(config_.ssd_path + "/index");
    }
    parts.make_transport = [this](TransportHandler& handler) {
      return MakeNetTransport(handler, *executor_, clock_);
    };
    absl::StatusOr<std::unique_ptr<Node>> node = Node::Create(std::move(options), std::move(parts));
    if (!node.ok()) {
      const bool ssd = !config_.ssd_path.empty();
      return absl::Status(
          node.status().code(),
          absl::StrCat(ssd ? "ssd_path " + config_.ssd_path + ": " : "", node.status().message()));
    }
    node_ = *std::move(node);
    const SsdTier::RecoveryReport& recovery = node_->recovery();
    if (!recovery.index_error.empty()) {
      spdlog::error(
          "the SSD's index cannot be opened; it was rebuilt in memory from the segments, and the "
          "next start reads all of them again. Make room on the disk. {}",
          recovery.index_error);
    }
    if (!config_.ssd_path.empty()) {
      spdlog::info("recovered {} blocks from the SSD ({} records read, {} damaged{})",
                   recovery.blocks, recovery.scanned_records, recovery.damaged_records,
                   recovery.index_rebuilt ? ", index rebuilt" : "");
    }
    return absl::OkStatus();
  }

  const Config config_;
  RealClock clock_;
  std::unique_ptr<Disk> disk_ = MakeRealDisk();
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<MetricsServer> metrics_;
  std::unique_ptr<ControlServer> control_;
  std::string data_;
};

int Main(int argc, char** argv) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(argc, argv, ReadConfigFile);
  if (!line.ok()) return Fail(line.status());
  if (line->stop) {
    std::printf("%s\n", line->text.empty() ? absl::StrCat("kedged ", KedgeVersion()).c_str()
                                           : line->text.c_str());
    return 0;
  }
  if (line->print_config) {
    std::printf("%s", ToYaml(line->config).c_str());
    return 0;
  }
  spdlog::set_default_logger(spdlog::stderr_color_mt("kedged"));
  spdlog::set_level(
      spdlog::level::from_str(line->config.log_level == "error" ? "err" : line->config.log_level));
  const sigset_t signals = BlockSignals();
  Kedged kedged(line->config);
  if (absl::Status status = kedged.Start(); !status.ok()) return Fail(status);
  kedged.SayReady();
  int signal = 0;
  sigwait(&signals, &signal);
  kedged.Drain();
  return 0;
}

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) { return kedge::Main(argc, argv); }
