#include "tools/benchmarks/redis_yardstick.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <string>

#include "tools/benchmarks/measure.h"
#include "tools/benchmarks/perftest.h"

namespace kedge::bench {
namespace {

constexpr uint32_t kPipeline = 32;

// A RESP command of bulk strings.
std::string Command(std::initializer_list<std::string> words) {
  std::string text = "*" + std::to_string(words.size()) + "\r\n";
  for (const std::string& word : words)
    text += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RedisYardstick>> RedisYardstick::Start(uint32_t values,
                                                                      uint32_t value_bytes) {
  std::unique_ptr<RedisYardstick> redis(new RedisYardstick);
  redis->values_ = values;
  redis->value_bytes_ = value_bytes;
  redis->target_.assign(static_cast<size_t>(values) * value_bytes, 1);
  const int port = FreePort();
  redis->pid_ = fork();
  if (redis->pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    PinTo(1);
    const int null = open("/dev/null", O_RDWR);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    const std::string text = std::to_string(port);
    execlp("redis-server", "redis-server", "--port", text.c_str(), "--bind", "127.0.0.1", "--save",
           "", "--appendonly", "no", static_cast<char*>(nullptr));
    _exit(127);
  }
  if (absl::Status s = redis->Connect(port); !s.ok()) return s;
  const std::string value(value_bytes, 'x');
  for (uint32_t i = 0; i < values; ++i) {
    const std::string set = Command({"SET", std::to_string(i), value});
    if (absl::Status s = redis->Write(set.data(), set.size()); !s.ok()) return s;
    auto answer = redis->ReadLine();
    if (!answer.ok()) return answer.status();
    if (*answer != "+OK") return absl::InternalError("redis SET answered " + *answer);
  }
  return redis;
}

RedisYardstick::~RedisYardstick() {
  if (fd_ >= 0) close(fd_);
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
}

absl::Status RedisYardstick::Connect(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  for (int attempt = 0; attempt < 100; ++attempt) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return absl::NotFoundError("redis-server did not start (Debian package redis-server)");
    }
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
      const int one = 1;
      setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      return absl::OkStatus();
    }
    close(fd_);
    fd_ = -1;
    usleep(50'000);
  }
  return absl::UnavailableError("redis-server does not answer");
}

absl::Status RedisYardstick::Write(const void* bytes, size_t count) {
  const auto* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t n = write(fd_, at, count);
    if (n <= 0) return absl::UnavailableError("redis closed the connection");
    at += n;
    count -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::Status RedisYardstick::ReadExactly(void* bytes, size_t count) {
  auto* at = static_cast<char*>(bytes);
  while (count > 0) {
    const ssize_t n = read(fd_, at, count);
    if (n <= 0) return absl::UnavailableError("redis closed the connection");
    at += n;
    count -= static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> RedisYardstick::ReadLine() {
  std::string line;
  for (char c;;) {
    if (absl::Status s = ReadExactly(&c, 1); !s.ok()) return s;
    if (c == '\n') return line;
    if (c != '\r') line.push_back(c);
  }
}

absl::StatusOr<double> RedisYardstick::Get() {
  const auto start = std::chrono::steady_clock::now();
  const std::string expected = "$" + std::to_string(value_bytes_);
  for (uint32_t first = 0; first < values_; first += kPipeline) {
    const uint32_t count = std::min(kPipeline, values_ - first);
    std::string commands;
    for (uint32_t i = 0; i < count; ++i) commands += Command({"GET", std::to_string(first + i)});
    if (absl::Status s = Write(commands.data(), commands.size()); !s.ok()) return s;
    for (uint32_t i = 0; i < count; ++i) {
      auto line = ReadLine();
      if (!line.ok()) return line.status();
      if (*line != expected) return absl::InternalError("redis GET answered " + *line);
      char end[2];
      uint8_t* target = target_.data() + static_cast<size_t>(first + i) * value_bytes_;
      if (absl::Status s = ReadExactly(target, value_bytes_); !s.ok()) return s;
      if (absl::Status s = ReadExactly(end, 2); !s.ok()) return s;
    }
  }
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
  return static_cast<double>(target_.size()) / time.count();
}

}  // namespace kedge::bench
