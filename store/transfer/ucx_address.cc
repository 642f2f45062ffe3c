#include "store/transfer/ucx_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace kedge {
namespace {

absl::Status Malformed(const std::string& address, const char* why) {
  return absl::InvalidArgumentError(absl::StrCat("address '", address, "': ", why,
                                                 "; expected tcp://HOST:PORT or shm://HOST:PORT"));
}

bool IsHostText(const std::string& host) {
  for (const char c : host) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '-') return false;
  }
  return true;
}

// -1 when it is not a port.
int ParsePort(const std::string& text) {
  if (text.empty() || text.size() > 5) return -1;
  int port = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return -1;
    port = port * 10 + (c - '0');
  }
  return port <= 65535 ? port : -1;
}

absl::StatusOr<in_addr> Resolve(const std::string& address, const std::string& host) {
  in_addr result{};
  if (host.empty() || host == "localhost") {
    result.s_addr = htonl(INADDR_LOOPBACK);
    return result;
  }
  if (inet_pton(AF_INET, host.c_str(), &result) == 1) return result;
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error == EAI_AGAIN || error == EAI_SYSTEM) {
    return absl::UnavailableError(
        absl::StrCat("address '", address, "': cannot resolve now: ", gai_strerror(error)));
  }
  if (error != 0) return Malformed(address, gai_strerror(error));
  std::memcpy(&result, &reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_addr,
              sizeof(result));
  freeaddrinfo(found);
  return result;
}

std::string HostText(const in_addr& host) {
  char text[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &host, text, sizeof(text));
  return text;
}

// Empty when no device has it. All of 127.0.0.0/8 is the loopback device.
std::string DeviceWith(const in_addr& host) {
  const bool loopback = (ntohl(host.s_addr) >> 24) == 127;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return "";
  std::string name;
  for (const ifaddrs* a = all; a != nullptr && name.empty(); a = a->ifa_next) {
    if (a->ifa_addr == nullptr || a->ifa_addr->sa_family != AF_INET) continue;
    const in_addr& has = reinterpret_cast<const sockaddr_in*>(a->ifa_addr)->sin_addr;
    const bool both_loopback = loopback && (ntohl(has.s_addr) >> 24) == 127;
    if (has.s_addr == host.s_addr || both_loopback) name = a->ifa_name;
  }
  freeifaddrs(all);
  // "eth0:1" is a second address of eth0.
  return name.substr(0, name.find(':'));
}

}  // namespace

std::string UcxAddress::text() const {
  return absl::StrCat(scheme, "://", HostText(socket.sin_addr), ":", ntohs(socket.sin_port));
}

absl::StatusOr<UcxAddress> ParseUcxAddress(const std::string& address) {
  UcxAddress result;
  const size_t scheme_end = address.find("://");
  result.scheme = address.substr(0, scheme_end == std::string::npos ? 0 : scheme_end);
  if (result.scheme != "tcp" && result.scheme != "shm") return Malformed(address, "unknown scheme");
  const size_t colon = address.rfind(':');
  if (colon < scheme_end + 3) return Malformed(address, "no port");
  const std::string host = address.substr(scheme_end + 3, colon - scheme_end - 3);
  const int port = ParsePort(address.substr(colon + 1));
  if (port < 0) return Malformed(address, "the port is not a number from 0 to 65535");
  if (!IsHostText(host)) return Malformed(address, "the host is not a name or an IPv4 address");
  absl::StatusOr<in_addr> ip = Resolve(address, host);
  if (!ip.ok()) return ip.status();
  result.socket.sin_family = AF_INET;
  result.socket.sin_port = htons(static_cast<uint16_t>(port));
  result.socket.sin_addr = *ip;
  return result;
}

absl::StatusOr<std::string> DeviceOfLocal(const UcxAddress& address) {
  if (address.socket.sin_addr.s_addr == htonl(INADDR_ANY)) return std::string("all");
  std::string device = DeviceWith(address.socket.sin_addr);
  if (device.empty()) return Malformed(address.text(), "no network device has this address");
  return device;
}

absl::StatusOr<std::string> DeviceTowards(const UcxAddress& address) {
  // Connecting a datagram socket sends nothing; it makes the kernel choose.
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in to = address.socket;
  if (to.sin_port == 0) to.sin_port = htons(1);
  sockaddr_in from{};
  socklen_t from_bytes = sizeof(from);
  const bool known = fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&from), &from_bytes) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  const std::string device = known ? DeviceWith(from.sin_addr) : "";
  if (device.empty()) {
    return absl::UnavailableError(absl::StrCat("address '", address.text(), "': no route",
                                               known ? "" : ": ", known ? "" : strerror(error)));
  }
  return device;
}

}  // namespace kedge
