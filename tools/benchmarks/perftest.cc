#include "tools/benchmarks/perftest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "tools/benchmarks/measure.h"

namespace kedge::bench {
namespace {

// Forks and executes ucx_perftest on `core`; its output goes to `out_fd`.
pid_t Spawn(const PerftestCase& perftest, std::vector<std::string> arguments, int core,
            int out_fd) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  PinTo(core);
  setenv("UCX_TLS", (perftest.tls + ",self").c_str(), 1);
  setenv("UCX_WARN_UNUSED_ENV_VARS", "n", 1);
  if (!perftest.segment.empty()) {
    setenv("UCX_TCP_TX_SEG_SIZE", perftest.segment.c_str(), 1);
    setenv("UCX_TCP_RX_SEG_SIZE", perftest.segment.c_str(), 1);
  }
  const int null = open("/dev/null", O_RDWR);
  dup2(null, STDIN_FILENO);
  dup2(out_fd >= 0 ? out_fd : null, STDOUT_FILENO);
  dup2(null, STDERR_FILENO);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  execvp("ucx_perftest", argv.data());
  _exit(127);
}

std::string ReadAll(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  return text;
}

// The line "Final: iterations p50 average overall MB/s MB/s ...".
absl::StatusOr<PerftestResult> ParseFinal(const std::string& output) {
  const size_t at = output.rfind("Final:");
  if (at == std::string::npos) return absl::InternalError("ucx_perftest printed no line 'Final:'");
  std::istringstream line(output.substr(at + 6));
  double iterations, median_us, average_us, overall_us, megabytes, overall_megabytes;
  if (!(line >> iterations >> median_us >> average_us >> overall_us >> megabytes >>
        overall_megabytes)) {
    return absl::InternalError("ucx_perftest printed an unreadable line: " +
                               output.substr(at, 120));
  }
  return PerftestResult{.bytes_per_second = overall_megabytes * (1 << 20), .latency_us = median_us};
}

}  // namespace

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  int port = 0;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    port = ntohs(address.sin_port);
  }
  close(fd);
  return port;
}

std::string PerftestCase::Name() const {
  return "ucx_perftest " + test + ", " + (segment.empty() ? "default" : segment) + " segments";
}

absl::StatusOr<PerftestResult> RunPerftest(const PerftestCase& perftest) {
  const std::string port = std::to_string(FreePort());
  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) return absl::InternalError("pipe failed");
  const pid_t server = Spawn(perftest, {"ucx_perftest", "-p", port}, 1, -1);
  usleep(150'000);  // the server prints nothing when it listens
  const pid_t client =
      Spawn(perftest,
            {"ucx_perftest", "127.0.0.1", "-p", port, "-t", perftest.test, "-s",
             std::to_string(perftest.bytes), "-n", std::to_string(perftest.iterations), "-w",
             std::to_string(perftest.iterations / 10 + 1)},
            0, out[1]);
  close(out[1]);
  const std::string output = ReadAll(out[0]);
  close(out[0]);
  int status = 0;
  waitpid(client, &status, 0);
  kill(server, SIGKILL);
  waitpid(server, nullptr, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    return absl::NotFoundError("ucx_perftest is not installed (Debian package ucx-utils)");
  }
  return ParseFinal(output);
}

absl::StatusOr<PerftestCase> BestTcpBandwidth(size_t bytes, int iterations) {
  PerftestCase best;
  double best_rate = 0;
  for (const char* test : {"ucp_put_bw", "ucp_get", "tag_bw", "ucp_am_bw"}) {
    for (const char* segment : {"", "64k", "128k", "256k", "512k", "1m"}) {
      PerftestCase candidate{
          .test = test, .segment = segment, .bytes = bytes, .iterations = iterations};
      const auto result = RunPerftest(candidate);
      if (absl::IsNotFound(result.status())) return result.status();
      if (result.ok() && result->bytes_per_second > best_rate) {
        best_rate = result->bytes_per_second;
        best = candidate;
      }
    }
  }
  if (best_rate == 0) return absl::InternalError("no ucx_perftest bandwidth test ran");
  return best;
}

absl::StatusOr<PerftestCase> BestTcpLatency(size_t bytes, int iterations) {
  PerftestCase best;
  double best_us = 0;
  for (const char* test : {"tag_lat", "ucp_am_lat"}) {
    for (const char* segment : {"", "128k", "256k"}) {
      PerftestCase candidate{
          .test = test, .segment = segment, .bytes = bytes, .iterations = iterations};
      const auto result = RunPerftest(candidate);
      if (absl::IsNotFound(result.status())) return result.status();
      if (result.ok() && (best_us == 0 || result->latency_us < best_us)) {
        best_us = result->latency_us;
        best = candidate;
      }
    }
  }
  if (best_us == 0) return absl::InternalError("no ucx_perftest latency test ran");
  return best;
}

}  // namespace kedge::bench
