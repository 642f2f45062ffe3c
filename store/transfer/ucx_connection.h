// One connection over a UCX endpoint, and what all connections of a loop share. Internal to
// transport_ucx.
//
// A message waits in the connection's own queue until the window has room, then UCX has it (and may
// look at the payload until it says so), then it is on the list `ended`, and the loop tells the
// owner. Every message goes through that list, also one that UCX took at once or that was never
// given to it: callbacks never come inside Send or Close.
#pragma once

#include <ucp/api/ucp.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "store/transfer/transport.h"
#include "store/transfer/transport_counters.h"
#include "store/transfer/transport_ucx.h"
#include "store/transfer/ucx_handles.h"

namespace kedge {

class UcxConnection;

struct UcxSend {
  UcxConnection* connection = nullptr;
  std::vector<uint8_t> own;  // the head; behind it a payload that was copied
  uint32_t head_bytes = 0;
  std::span<const uint8_t> payload;
  uint64_t cookie = 0;
  bool submitted = false;  // UCX has or had it
  ucp_dt_iov_t iov[2] = {};
  absl::Status status;

  uint64_t bytes() const { return head_bytes + payload.size(); }
};

// [loop] What the connections of one loop share.
struct UcxLoopState {
  TransportHandler& handler;
  const UcxTransportOptions options;
  std::vector<std::unique_ptr<UcxSend>> ended;
  std::vector<std::unique_ptr<UcxSend>> spare;
  std::vector<UcxConnection*> closing;

  std::unique_ptr<UcxSend> NewSend();
  void Recycle(std::unique_ptr<UcxSend> send);
};

// One worker: a scheme on a network device, with its listeners and connections.
struct UcxWire {
  UcxWire(std::string s, std::string d, UcxContext c, UcxWorker w)
      : scheme(std::move(s)), device(std::move(d)), context(std::move(c)), worker(std::move(w)) {}

  const std::string scheme;
  const std::string device;
  UcxContext context;
  UcxWorker worker;  // before the context dies
  std::vector<UcxListener> listeners;
  absl::flat_hash_map<ucp_ep_h, UcxConnection*> by_endpoint;
  TransportCounters* counters = nullptr;

  uint32_t payload_bytes_max() const {
    return scheme == "tcp" ? kTcpPayloadBytes : kShmPayloadBytes;
  }
};

class UcxConnection final : public Connection {
 public:
  // Either of the two makes the endpoint; without a good end of it the object is of no use.
  static absl::StatusOr<std::unique_ptr<UcxConnection>> Connect(UcxLoopState& loop, UcxWire& wire,
                                                                const ucs_sock_addr_t& address,
                                                                std::string peer);
  static absl::StatusOr<std::unique_ptr<UcxConnection>> Accept(UcxLoopState& loop, UcxWire& wire,
                                                               ucp_conn_request_h request,
                                                               std::string peer);
  ~UcxConnection() override = default;

  uint32_t payload_bytes_max() const override { return wire_.payload_bytes_max(); }
  absl::Status Send(std::span<const uint8_t> head, std::span<const uint8_t> payload,
                    uint64_t cookie) override;
  uint64_t queued_bytes() const override { return queued_bytes_; }
  void Close(const absl::Status& why) override;
  std::string peer() const override { return peer_; }
  std::string wire() const override;

  // What follows is for the loop.
  const UcxWire& ucx_wire() const { return wire_; }
  const absl::Status& why() const { return why_; }
  bool closing() const { return closing_; }
  // `send` is over: tells the owner, sends on.
  void Tell(std::unique_ptr<UcxSend> send);
  // Goes on with closing; true when UCX has let go of everything. Not inside ucp_worker_progress.
  bool CloseStep();

 private:
  UcxConnection(UcxLoopState& loop, UcxWire& wire, std::string peer)
      : loop_(loop), wire_(wire), peer_(std::move(peer)) {}
  absl::Status Open(ucp_ep_params_t& params);
  void Pump();
  void Submit(std::unique_ptr<UcxSend> send);
  static void OnUcxSent(void* request, ucs_status_t status, void* send);
  static void OnUcxError(void* connection, ucp_ep_h endpoint, ucs_status_t status);

  UcxLoopState& loop_;
  UcxWire& wire_;
  const std::string peer_;
  ucp_ep_h endpoint_ = nullptr;
  // Small ones go first, so that they do not wait behind bulk; but bulk has its turn.
  std::deque<std::unique_ptr<UcxSend>> small_;
  std::deque<std::unique_ptr<UcxSend>> bulk_;
  int small_in_a_row_ = 0;
  uint64_t queued_bytes_ = 0;  // accepted and not told
  uint64_t window_bytes_ = 0;  // with UCX
  uint64_t window_sends_ = 0;
  bool closing_ = false;
  absl::Status why_;
  bool close_begun_ = false;
  ucs_status_ptr_t close_request_ = nullptr;
};

}  // namespace kedge
