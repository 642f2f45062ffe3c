// One small owner for each kind of UCX handle, and the settings that Kedge gives UCX. Internal to
// transport_net.
#pragma once

#include <ucp/api/ucp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kedge {

absl::Status UcxError(const char* what, ucs_status_t status);

// Chosen by measuring: README.md. Both ends of a connection have to agree on it, like on a format.
inline constexpr uint32_t kShmPayloadBytes = 60 << 10;
// Room in a fragment for the head; with larger heads UCX cuts the message into several fragments
// and copies it together.
inline constexpr uint32_t kFragmentHeadBytes = 4000;
// UCX 1.13 takes larger segments for shared memory, but its queue has 16 bits for a length: longer
// messages arrive cut off.
static_assert(kShmPayloadBytes + kFragmentHeadBytes < (64 << 10));
// Larger heads travel as data, in front of the payload.
inline constexpr uint32_t kAmHeaderBytesMax = 2 << 10;

// A context for shared memory: active messages and wake-up, nothing else.
class UcxContext {
 public:
  // FailedPrecondition with UCX's own words when it does not take a setting; UCX's warnings count
  // as errors.
  static absl::StatusOr<UcxContext> Make();
  ucp_context_h get() const { return context_.get(); }

 private:
  struct Cleanup {
    void operator()(ucp_context_h c) const { ucp_cleanup(c); }
  };
  std::unique_ptr<ucp_context, Cleanup> context_;
};

// A worker is used by one thread at a time.
class UcxWorker {
 public:
  static absl::StatusOr<UcxWorker> Make(const UcxContext& context);
  ucp_worker_h get() const { return worker_.get(); }
  int event_fd() const { return event_fd_; }  // the worker's own
  // Where others reach it.
  absl::StatusOr<std::vector<uint8_t>> Address() const;
  uint32_t am_header_bytes_max() const { return am_header_bytes_max_; }

 private:
  struct Destroy {
    void operator()(ucp_worker_h w) const { ucp_worker_destroy(w); }
  };
  std::unique_ptr<ucp_worker, Destroy> worker_;
  int event_fd_ = -1;
  uint32_t am_header_bytes_max_ = 0;
};

// What carries the active messages of an endpoint: "sysv"; empty while it is connecting.
std::string WireOf(ucp_ep_h endpoint);

}  // namespace kedge
