#include "tools/benchmarks/node_status.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "proto/control.grpc.pb.h"

namespace kedge::bench {

absl::StatusOr<NodeStatusView> NodeStatus(const std::string& control_address) {
  auto channel = grpc::CreateChannel(control_address, grpc::InsecureChannelCredentials());
  auto stub = control::v1::Control::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
  control::v1::StatusReply reply;
  const grpc::Status status = stub->Status(&context, {}, &reply);
  if (!status.ok()) return absl::UnavailableError(control_address + ": " + status.error_message());
  return NodeStatusView{.blocks = reply.blocks(), .index_bytes = reply.index_bytes()};
}

}  // namespace kedge::bench
