#include "tools/demonstration/node.h"

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

constexpr char kSalt[] = "the demonstration's tenant";
constexpr size_t kLogTailBytes = 800;

// What the daemon said last, for an error about it.
std::string LogTail(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string log = text.str();
  if (log.empty()) return "";
  return "\nits log ends with:\n" +
         (log.size() > kLogTailBytes ? log.substr(log.size() - kLogTailBytes) : log);
}

std::string LogPath(const DemoNodeOptions& options) { return options.directory + "/kedged.log"; }

}  // namespace

absl::StatusOr<std::unique_ptr<DemoNode>> DemoNode::Start(const DemoNodeOptions& options) {
  std::unique_ptr<DemoNode> node(new DemoNode(options));
  const std::string ssd = options.directory + "/ssd";
  if (options.embedded) {
    node->address_ = absl::StrCat("embedded:?host=", options.host_bytes >> 20, "MiB&ssd=", ssd,
                                  "&ssd_size=", options.ssd_bytes >> 20, "MiB",
                                  options.profile.empty() ? "" : "&profile=", options.profile);
    return node;
  }
  std::vector<std::string> flags = {
      absl::StrCat("--host-capacity=", options.host_bytes >> 20, "MiB"),
      absl::StrCat("--ssd-path=", ssd),
      absl::StrCat("--ssd-capacity=", options.ssd_bytes >> 20, "MiB")};
  if (!options.profile.empty()) flags.push_back(absl::StrCat("--profiles=", options.profile));
  auto process = KedgedProcess::Start({.binary = options.kedged,
                                       .listen = options.transport + "://127.0.0.1:0",
                                       .flags = std::move(flags),
                                       .log_path = LogPath(options)});
  if (!process.ok())
    return absl::Status(process.status().code(),
                        absl::StrCat(process.status().message(), LogTail(LogPath(options))));
  node->process_ = *std::move(process);
  node->address_ = node->process_->data_address();
  return node;
}

absl::StatusOr<const sdk::Client*> DemoNode::Connect() {
  if (options_.embedded && client_) return &*client_;
  client_.reset();
  auto client =
      sdk::Client::Open({.address = address_, .salt = kSalt, .client_name = "kedge_demo"});
  if (!client)
    return absl::UnavailableError(
        absl::StrCat(address_, ": ", client.text(), LogTail(LogPath(options_))));
  client_.emplace(std::move(*client));
  return &*client_;
}

std::string DemoNode::wire() const { return client_ ? std::string(client_->info().wire) : ""; }

absl::StatusOr<std::vector<MetricSample>> DemoNode::Metrics() const {
  if (!process_) return absl::FailedPreconditionError("an embedded node has no metrics page");
  return ReadMetrics(process_->metrics_address());
}

absl::Status DemoNode::Stop() {
  client_.reset();
  if (!process_) return absl::OkStatus();
  absl::StatusOr<int> status = process_->Terminate();
  if (!status.ok()) return status.status();
  if (*status == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("kedged ended with status ", *status, LogTail(LogPath(options_))));
}

}  // namespace kedge
