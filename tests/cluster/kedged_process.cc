#include "tests/cluster/kedged_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>

namespace kedge {
namespace {

constexpr int kReadyTimeoutMs = 30'000;

// One line from `fd`, or what came before its end.
absl::StatusOr<std::string> ReadReadyLine(int fd) {
  std::string line;
  for (;;) {
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = poll(&wait, 1, kReadyTimeoutMs);
    if (ready == 0) return absl::DeadlineExceededError("kedged printed no ready line in 30 s");
    char c;
    const ssize_t n = ready < 0 ? -1 : read(fd, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return absl::FailedPreconditionError("kedged ended before it was ready: '" + line + "'");
    if (c != '\n') {
      line.push_back(c);
    } else if (line.starts_with("kedged ready ")) {
      return line;
    } else {
      line.clear();
    }
  }
}

std::string Field(const std::string& line, const std::string& name) {
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word.starts_with(name + "=")) return word.substr(name.size() + 1);
  }
  return "";
}

void PinChild(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);  // best effort: a machine may have one core only
}

}  // namespace

absl::StatusOr<std::unique_ptr<KedgedProcess>> KedgedProcess::Start(const Options& options) {
  std::unique_ptr<KedgedProcess> process(new KedgedProcess(options));
  if (process->options_.binary.empty()) process->options_.binary = FindKedged();
  if (absl::Status s = process->Spawn(options.listen, "127.0.0.1:0"); !s.ok()) return s;
  return process;
}

KedgedProcess::~KedgedProcess() { Kill(); }

absl::Status KedgedProcess::Spawn(const std::string& listen, const std::string& control) {
  std::vector<std::string> arguments = {options_.binary, "--listen=" + listen,
                                        "--control=" + control, "--metrics=127.0.0.1:0"};
  arguments.insert(arguments.end(), options_.flags.begin(), options_.flags.end());
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0)
    return absl::InternalError("pipe: " + std::string(strerror(errno)));
  const int log = options_.log_path.empty() ? -1
                                            : open(options_.log_path.c_str(),
                                                   O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(125);
    if (options_.core >= 0) PinChild(options_.core);
    dup2(out[1], STDOUT_FILENO);
    if (log >= 0) dup2(log, STDERR_FILENO);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(out[1]);
  if (log >= 0) close(log);
  if (out_fd_ >= 0) close(out_fd_);
  out_fd_ = out[0];
  if (pid_ < 0) return absl::InternalError("fork: " + std::string(strerror(errno)));

  absl::StatusOr<std::string> line = ReadReadyLine(out_fd_);
  if (!line.ok()) {
    int status = 0;
    kill(pid_, SIGKILL);
    waitpid(pid_, &status, 0);
    pid_ = -1;
    const std::string how =
        WIFEXITED(status) ? "; exit status " + std::to_string(WEXITSTATUS(status)) : "";
    return absl::Status(line.status().code(),
                        std::string(line.status().message()) + how + " (" + options_.binary + ")");
  }
  data_ = Field(*line, "data");
  control_ = Field(*line, "control");
  metrics_ = Field(*line, "metrics");
  return absl::OkStatus();
}

void KedgedProcess::Signal(int signal) const {
  if (pid_ <= 0) return;
  kill(pid_, signal);
  // kill() does not wait: a thread on another core may answer a request before it stops.
  if (signal == SIGSTOP) waitpid(pid_, nullptr, WUNTRACED);
}

void KedgedProcess::Kill() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  if (out_fd_ >= 0) close(out_fd_);
  out_fd_ = -1;
}

absl::StatusOr<int> KedgedProcess::Terminate() {
  if (pid_ <= 0) return absl::FailedPreconditionError("kedged does not run");
  kill(pid_, SIGTERM);
  int status = 0;
  if (waitpid(pid_, &status, 0) != pid_)
    return absl::InternalError("waitpid: " + std::string(strerror(errno)));
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

absl::Status KedgedProcess::Restart() {
  if (pid_ > 0) return absl::FailedPreconditionError("kedged still runs");
  return Spawn(data_, control_);
}

std::string FindKedged() {
  namespace fs = std::filesystem;
  if (const char* path = getenv("KEDGED"); path != nullptr && *path != '\0') return path;
  const std::string relative = "store/node/kedged";
  std::vector<fs::path> places = {fs::path(relative)};  // a test runs in its runfiles
  if (const char* runfiles = getenv("TEST_SRCDIR"))
    places.push_back(fs::path(runfiles) / "kedge" / relative);
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  for (fs::path up = self.parent_path(); !up.empty() && up != up.root_path();
       up = up.parent_path()) {
    places.push_back(up / relative);
    places.push_back(up / "bazel-bin" / relative);
  }
  for (const fs::path& place : places) {
    if (fs::exists(place, error)) return fs::absolute(place).string();
  }
  return relative;
}

}  // namespace kedge
