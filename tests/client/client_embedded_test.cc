// The client against a node in its own process: no socket, no daemon.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "tests/client/client_suite.h"

namespace kedge {
namespace {

class EmbeddedTestNode final : public TestNode {
 public:
  std::string address() const override { return "embedded:?host=4GiB&allow_unprofiled=true"; }
};

INSTANTIATE_TEST_SUITE_P(Embedded, ClientSuite,
                         ::testing::Values(WireUnderTest{
                             "embedded", [] { return std::make_unique<EmbeddedTestNode>(); }}),
                         [](const auto& info) { return info.param.name; });

TEST(EmbeddedClient, KeepsWhatIsDurableAcrossClients) {
  const std::string directory =
      std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") +
      "/kedge_embedded_" + std::to_string(getpid());
  const std::string address = "embedded:?host=128MiB&ssd_size=1GiB&ssd=" + directory;
  {
    auto client = sdk::Client::Open({.address = address, .salt = "s"});
    ASSERT_TRUE(client) << client.text();
    const auto put = client->Put("name", "value", sdk::Durability::kSsd);
    ASSERT_TRUE(put) << put.text();
  }
  auto client = sdk::Client::Open({.address = address, .salt = "s"});
  ASSERT_TRUE(client) << client.text();
  EXPECT_EQ(client->Get("name").value(), "value");
}

TEST(EmbeddedClient, AddressesAreChecked) {
  for (const char* address : {"", "http://x", "embedded:?host=much", "embedded:?color=red"}) {
    auto client = sdk::Client::Open({.address = address, .salt = "s"});
    EXPECT_EQ(client.code(), sdk::Code::kInvalid) << address;
    EXPECT_FALSE(client.text().empty());
  }
  EXPECT_EQ(sdk::Client::Open({.address = "embedded:", .salt = ""}).code(), sdk::Code::kInvalid);
}

TEST(EmbeddedClient, DoesNotSurviveAFork) {
  auto client = sdk::Client::Open({.address = "embedded:?host=256MiB", .salt = "s"});
  ASSERT_TRUE(client) << client.text();
  ASSERT_TRUE(client->Put("name", "value"));
  const pid_t child = fork();
  if (child == 0) {
    const auto value = client->Get("name");
    const bool good =
        value.code() == sdk::Code::kDenied && value.text().find("fork()") != std::string::npos;
    { sdk::Client gone = std::move(*client); }  // closing in the child touches nothing
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(client->Get("name").value(), "value");  // the parent's goes on
}

}  // namespace
}  // namespace kedge
