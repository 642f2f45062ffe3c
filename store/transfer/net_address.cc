#include "store/transfer/net_address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

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

}  // namespace

std::string NetAddress::text() const {
  return absl::StrCat(StreamWireName(wire), "://", HostText(socket.sin_addr), ":",
                      ntohs(socket.sin_port));
}

absl::StatusOr<NetAddress> ParseNetAddress(const std::string& address) {
  NetAddress result;
  const size_t scheme_end = address.find("://");
  const std::string scheme = address.substr(0, scheme_end == std::string::npos ? 0 : scheme_end);
  if (scheme != "tcp" && scheme != "shm") return Malformed(address, "unknown scheme");
  result.wire = scheme == "tcp" ? StreamWire::kTcp : StreamWire::kShm;
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

}  // namespace kedge
