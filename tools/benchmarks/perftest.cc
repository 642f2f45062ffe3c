#include "tools/benchmarks/perftest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "tools/benchmarks/measure.h"

namespace kedge::bench {
namespace {

// Starts ucx_perftest on `core`; its output goes to `out_fd`. -1 when it cannot be started.
// By posix_spawn, not fork: a fork makes every page of this process read-only until it is written
// again, and what is measured next would pay for a fault on each of them.
pid_t Spawn(const PerftestCase& perftest, std::vector<std::string> arguments, int core,
            int out_fd) {
  arguments.insert(arguments.begin(), {"taskset", "-c", std::to_string(core)});
  std::vector<std::string> variables = {"UCX_TLS=" + perftest.tls + ",self",
                                        "UCX_WARN_UNUSED_ENV_VARS=n"};
  if (!perftest.segment.empty()) {
    variables.push_back("UCX_TCP_TX_SEG_SIZE=" + perftest.segment);
    variables.push_back("UCX_TCP_RX_SEG_SIZE=" + perftest.segment);
  }
  for (char** variable = environ; *variable != nullptr; ++variable) {
    variables.emplace_back(*variable);
  }
  std::vector<char*> argv, envp;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  for (std::string& variable : variables) envp.push_back(variable.data());
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (out_fd >= 0) {
    posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
  } else {
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  }
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, "taskset", &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  return error == 0 ? pid : -1;
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
  if (server < 0) return absl::InternalError("taskset (Debian package util-linux) does not start");
  usleep(150'000);  // the server prints nothing when it listens
  const pid_t client =
      Spawn(perftest,
            {"ucx_perftest", "127.0.0.1", "-p", port, "-t", perftest.test, "-s",
             std::to_string(perftest.bytes), "-n", std::to_string(perftest.iterations), "-w",
             std::to_string(perftest.iterations / 10 + 1)},
            0, out[1]);
  close(out[1]);
  if (client < 0) {
    kill(server, SIGKILL);
    waitpid(server, nullptr, 0);
    close(out[0]);
    return absl::InternalError("ucx_perftest's client does not start");
  }
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
