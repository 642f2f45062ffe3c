// A real `kedged` as a child process: start, read its ready line, stop, kill, start again with the
// same files.
//
// It listens on 127.0.0.1 with ports that the kernel chooses; after `Restart` the same data and
// control ports are used, so that a client may reconnect. The child dies with its parent. Not
// thread-safe.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

class KedgedProcess {
 public:
  struct Options {
    std::string binary;  // path of kedged; empty: FindKedged()
    std::string listen = "tcp://127.0.0.1:0";
    std::vector<std::string> flags;  // e.g. "--host-capacity=256MiB", "--ssd-path=/tmp/x"
    int core = -1;                   // pin to one core; -1: no
    std::string log_path;            // where its standard error goes; empty: inherited
  };

  // Starts it and waits for its line "kedged ready data=... control=... metrics=..." (30 s at
  // most). An early exit is FAILED_PRECONDITION with its status.
  static absl::StatusOr<std::unique_ptr<KedgedProcess>> Start(const Options& options);
  ~KedgedProcess();  // SIGKILL, if it still runs

  const std::string& data_address() const { return data_; }
  const std::string& control_address() const { return control_; }
  const std::string& metrics_address() const { return metrics_; }
  pid_t pid() const { return pid_; }

  void Signal(int signal) const;    // SIGSTOP (returns when it has stopped), SIGCONT, ...
  void Kill();                      // SIGKILL and reap
  absl::StatusOr<int> Terminate();  // SIGTERM, reap; the exit status (or 128 + signal)
  absl::Status Restart();  // with the same flags, on the same ports; the old one must have ended

 private:
  explicit KedgedProcess(Options options) : options_(std::move(options)) {}
  absl::Status Spawn(const std::string& listen, const std::string& control);

  Options options_;
  pid_t pid_ = -1;
  int out_fd_ = -1;
  std::string data_;
  std::string control_;
  std::string metrics_;
};

// Where the build put kedged: $KEDGED, beside this program's runfiles, or bazel-bin.
std::string FindKedged();

}  // namespace kedge
