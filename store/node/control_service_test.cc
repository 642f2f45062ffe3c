#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>

#include "proto/control.grpc.pb.h"
#include "store/node/control_service.h"
#include "store/node/node_testing.h"

namespace kedge {
namespace {

namespace pb = control::v1;

class ControlServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    world_.with_ssd = true;
    ASSERT_TRUE(world_.Start().ok());
    ControlOptions options;
    options.address = "127.0.0.1:0";
    options.data_address = "memory://node";
    options.on_exit = [this] { exits_ += 1; };
    auto server = ControlServer::Start(*world_.node, options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel(server_->address(), grpc::InsecureChannelCredentials());
    stub_ = pb::Control::NewStub(channel_);
  }
  static std::string Bytes(const BlockKey& key) {
    return std::string(reinterpret_cast<const char*>(key.bytes.data()), key.bytes.size());
  }

  TestWorld world_;
  std::atomic<int> exits_{0};
  std::unique_ptr<ControlServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pb::Control::Stub> stub_;
};

TEST_F(ControlServiceTest, AnswersWhatAnOperatorAsks) {
  TestClient client(world_);
  const TestBlock block = MakeLayeredTestBlock(1);
  ASSERT_EQ(client.Put(block, kDurabilitySsd), ResultCode::kOk);

  grpc::ClientContext status_context;
  pb::StatusReply status;
  ASSERT_TRUE(stub_->Status(&status_context, {}, &status).ok());
  EXPECT_EQ(status.health(), pb::HEALTH_OK);
  EXPECT_EQ(status.blocks(), 1u);
  EXPECT_EQ(status.tiers_size(), 2);
  EXPECT_EQ(status.version(), KedgeVersion());

  grpc::ClientContext inspect_context;
  pb::InspectRequest inspect;
  inspect.set_key(Bytes(block.header.key));
  pb::InspectReply inspected;
  ASSERT_TRUE(stub_->Inspect(&inspect_context, inspect, &inspected).ok());
  ASSERT_EQ(inspected.variants_size(), 1);
  EXPECT_EQ(inspected.variants(0).variant(), "raw");
  EXPECT_EQ(inspected.variants(0).parts(), 4u);
  EXPECT_EQ(inspected.variants(0).tiers_size(), 2);
  ASSERT_EQ(status.variants_size(), 1);
  EXPECT_EQ(status.variants(0).variant(), "raw");
  EXPECT_EQ(status.variants(0).host_bytes(), block.payload.size());
  EXPECT_EQ(status.variants(0).ssd_blocks(), 1u);

  grpc::ClientContext verify_context;
  pb::VerifyReply verified;
  ASSERT_TRUE(stub_->Verify(&verify_context, {}, &verified).ok());
  EXPECT_EQ(verified.blocks(), 1u);
  EXPECT_EQ(verified.damaged_size(), 0);

  const uint64_t lease = client.Match({&block}, kMatchFlagLease).lease;
  pb::RemoveRequest remove;
  remove.set_key(Bytes(block.header.key));
  pb::RemoveReply removed;
  grpc::ClientContext leased_context;
  EXPECT_EQ(stub_->Remove(&leased_context, remove, &removed).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  client.Release(lease);
  grpc::ClientContext remove_context;
  ASSERT_TRUE(stub_->Remove(&remove_context, remove, &removed).ok());
  EXPECT_EQ(removed.variants(), 1u);
  grpc::ClientContext again_context;
  EXPECT_EQ(stub_->Remove(&again_context, remove, &removed).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(client.Get(block), ResultCode::kRemoved);
}

TEST_F(ControlServiceTest, RemovesOneVariant) {
  TestClient client(world_);
  const TestBlock block = MakeModelTestBlock(1);
  ASSERT_EQ(client.Put(block, kDurabilitySsd), ResultCode::kOk);
  grpc::ClientContext inspect_context;
  pb::InspectRequest inspect;
  inspect.set_key(Bytes(block.header.key));
  pb::InspectReply inspected;
  ASSERT_TRUE(stub_->Inspect(&inspect_context, inspect, &inspected).ok());
  EXPECT_EQ(inspected.variants(0).model(), block.header.model.ToHex());
  EXPECT_EQ(inspected.variants(0).rope(), "rotated from 0");

  const auto remove = [&](const std::string& variant) {
    grpc::ClientContext context;
    pb::RemoveVariantRequest request;
    request.set_key(Bytes(block.header.key));
    request.set_variant(variant);
    pb::RemoveReply reply;
    return stub_->RemoveVariant(&context, request, &reply).error_code();
  };
  EXPECT_EQ(remove("NO"), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(remove("kivi4g32"), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(remove("raw"), grpc::StatusCode::OK);
  EXPECT_EQ(client.Get(block), ResultCode::kRemoved);
}

TEST_F(ControlServiceTest, AKeyOfAWrongLengthIsNamed) {
  grpc::ClientContext context;
  pb::InspectRequest request;
  request.set_key("short");
  pb::InspectReply reply;
  const grpc::Status status = stub_->Inspect(&context, request, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("5 bytes"), std::string::npos) << status.error_message();
}

TEST_F(ControlServiceTest, DrainFlushesAndAsksForTheEnd) {
  TestClient client(world_);
  ASSERT_EQ(client.Put(MakeTestBlock(1)), ResultCode::kOk);
  pb::DrainRequest request;
  request.set_exit(true);
  pb::DrainReply reply;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Drain(&context, request, &reply).ok());
  EXPECT_EQ(exits_, 1);
  EXPECT_EQ(client.Put(MakeTestBlock(2)), ResultCode::kUnavailable);
  grpc::ClientContext status_context;
  pb::StatusReply status;
  ASSERT_TRUE(stub_->Status(&status_context, {}, &status).ok());
  EXPECT_EQ(status.health(), pb::HEALTH_DRAINING);
}

TEST_F(ControlServiceTest, AnAddressInUseIsNamed) {
  ControlOptions options;
  options.address = server_->address();
  const auto second = ControlServer::Start(*world_.node, options);
  ASSERT_FALSE(second.ok());
  EXPECT_NE(second.status().ToString().find(server_->address()), std::string::npos);
}

}  // namespace
}  // namespace kedge
