// Messages through shared memory of one machine, by UCX active messages. Internal to transport_net.
//
// Each connection has a worker, that is a queue, of its own, and both ends reach each other's by
// the addresses in their greetings. UCX's senders take a place in the receiver's queue, copy, and
// only then mark it as full: one that dies or is stopped in between blocks the queue for good. With
// a queue for each peer that is the peer's own loss; the end of the socket beside it tells us, and
// the queue goes away with the connection.
#pragma once

#include <ucp/api/ucp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/transfer/net_connection.h"
#include "store/transfer/ucx_handles.h"

namespace kedge {

class ShmConnection final : public NetConnection {
 public:
  // `context` outlives the connection.
  ShmConnection(NetLoopState& loop, const UcxContext& context, std::string peer)
      : NetConnection(loop, StreamWire::kShm, std::move(peer)), context_(context) {}
  ~ShmConnection() override;

  uint32_t payload_bytes_max() const override { return kShmPayloadBytes; }
  std::string wire() const override;
  bool Progress() override;
  bool Arm() override;

 private:
  // A message that UCX has.
  struct InFlight {
    ShmConnection* connection = nullptr;
    std::unique_ptr<NetSend> send;
    ucp_dt_iov_t iov[2] = {};
  };

  absl::StatusOr<std::vector<uint8_t>> GreetingAddress() override;
  absl::Status OnGreeting(const Greeting& peer) override;
  void OnReadable() override;
  void Pump() override;
  bool ReleaseStep() override;

  absl::Status SetHandlers();
  void Submit(std::unique_ptr<NetSend> send);
  void Deliver(std::span<const uint8_t> head, std::span<const uint8_t> payload);
  static ucs_status_t OnHeadInHeader(void* connection, const void* header, size_t header_bytes,
                                     void* data, size_t bytes, const ucp_am_recv_param_t* param);
  static ucs_status_t OnHeadInData(void* connection, const void* header, size_t header_bytes,
                                   void* data, size_t bytes, const ucp_am_recv_param_t* param);
  static void OnUcxSent(void* request, ucs_status_t status, void* in_flight);
  static void OnUcxError(void* connection, ucp_ep_h endpoint, ucs_status_t status);

  const UcxContext& context_;
  std::optional<UcxWorker> worker_;
  Watched worker_watched_;
  ucp_ep_h endpoint_ = nullptr;
  uint64_t window_bytes_ = 0;  // with UCX
  uint64_t window_sends_ = 0;
  std::vector<std::unique_ptr<InFlight>> spare_;
  bool close_begun_ = false;
  ucs_status_ptr_t close_request_ = nullptr;
};

}  // namespace kedge
