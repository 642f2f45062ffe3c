// kedgectl as its users run it, against a real kedged: outputs, exit codes, and what errors say.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <yaml-cpp/yaml.h>
#include <nlohmann/json.hpp>

#include "tests/cluster/kedged_process.h"

namespace kedge {
namespace {

std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string FindKedgectl() {
  if (const char* path = std::getenv("KEDGECTL"); path != nullptr) return path;
  return "tools/kedgectl/kedgectl";
}

class KedgectlTest : public ::testing::Test {
 protected:
  struct Ended {
    int code = -1;
    std::string out;
    std::string err;
  };

  static void SetUpTestSuite() {
    KedgedProcess::Options options;
    options.flags = {"--host-capacity=256MiB"};
    auto process = KedgedProcess::Start(options);
    ASSERT_TRUE(process.ok()) << process.status();
    kedged_ = process->release();
  }
  static void TearDownTestSuite() {
    delete kedged_;
    kedged_ = nullptr;
  }

  void SetUp() override {
    ASSERT_NE(kedged_, nullptr);
    const char* base = std::getenv("TEST_TMPDIR");
    directory_ =
        std::string(base != nullptr ? base : "/tmp") + "/kedgectl_" + std::to_string(getpid());
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  // Runs `kedgectl ARGUMENTS` in a shell with the node's addresses in the environment.
  Ended Ctl(const std::string& arguments) const {
    const std::string command =
        "KEDGE_DATA=" + kedged_->data_address() + " KEDGE_CONTROL=" + kedged_->control_address() +
        " " + FindKedgectl() + " " + arguments + " >" + Path("out") + " 2>" + Path("err");
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, Slurp(Path("out")), Slurp(Path("err"))};
  }

  static KedgedProcess* kedged_;
  std::string directory_;
};

KedgedProcess* KedgectlTest::kedged_ = nullptr;

TEST_F(KedgectlTest, PutGetInspectVerifyRm) {
  std::ofstream(Path("value"), std::ios::binary) << std::string("hello\0there", 11);
  Ended put = Ctl("put name:a " + Path("value") + " --salt s -o json");
  ASSERT_EQ(put.code, 0) << put.err;
  const auto json = nlohmann::json::parse(put.out);
  EXPECT_EQ(json["bytes"], 11);
  EXPECT_EQ(json["result"], "ok");
  const std::string key = json["key"];
  EXPECT_EQ(key.size(), 64u);
  EXPECT_EQ(Ctl("put name:a " + Path("value") + " --salt s").code, 0) << "held already";

  Ended get = Ctl("get name:a --salt s");
  EXPECT_EQ(get.code, 0) << get.err;
  EXPECT_EQ(get.out, std::string("hello\0there", 11));
  EXPECT_EQ(Ctl("get " + key + " " + Path("landed")).code, 0);
  EXPECT_EQ(Slurp(Path("landed")), std::string("hello\0there", 11));

  Ended inspect = Ctl("inspect " + key + " --output yaml");
  ASSERT_EQ(inspect.code, 0) << inspect.err;
  const YAML::Node yaml = YAML::Load(inspect.out);
  EXPECT_EQ(yaml["variants"][0]["variant"].as<std::string>(), "raw");
  EXPECT_EQ(yaml["variants"][0]["bytes"].as<int>(), 11);
  EXPECT_EQ(yaml["variants"][0]["fidelity"].as<std::string>(), "lossless");
  EXPECT_EQ(yaml["variants"][0]["rope"].as<std::string>(), "none");

  Ended verify = Ctl("verify " + key + " -o json");
  ASSERT_EQ(verify.code, 0) << verify.err;
  EXPECT_EQ(nlohmann::json::parse(verify.out)["blocks"], 1);
  EXPECT_EQ(Ctl("verify").code, 0);

  const auto status = nlohmann::json::parse(Ctl("status -o json").out);
  ASSERT_EQ(status["variants"].size(), 1u);
  EXPECT_EQ(status["variants"][0]["variant"], "raw");
  EXPECT_EQ(status["variants"][0]["host_bytes"], 11);
  const Ended other = Ctl("rm --variant kivi4g32 " + key);
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.err.find("kivi4g32"), std::string::npos) << other.err;
  EXPECT_EQ(Ctl("rm --variant raw " + key).code, 0);
  const Ended gone = Ctl("get " + key);
  EXPECT_EQ(gone.code, 1);
  EXPECT_EQ(gone.out, "");
  EXPECT_NE(gone.err.find("error: "), std::string::npos);
  EXPECT_NE(gone.err.find("\ntry: "), std::string::npos) << gone.err;
  EXPECT_EQ(Ctl("rm " + key).code, 1);
  EXPECT_EQ(Ctl("inspect " + key).code, 1);
}

TEST_F(KedgectlTest, Status) {
  const Ended table = Ctl("status");
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_NE(table.out.find("health"), std::string::npos);
  const Ended json = Ctl("status -o json");
  EXPECT_EQ(nlohmann::json::parse(json.out)["health"], "ok");
  EXPECT_TRUE(YAML::Load(Ctl("status -o yaml").out)["tiers"].IsSequence());
}

TEST_F(KedgectlTest, UsageErrorsExit2AndSayWhatToTry) {
  for (const char* arguments :
       {"", "fly", "put", "get 12", "get name:a", "status -o xml",
        "put name:a /no/such/file --salt s", "put name:a /dev/null --salt s",
        "status --timeout-ms 0", "get name:a --salt-file /no/such"}) {
    const Ended ended = Ctl(arguments);
    EXPECT_EQ(ended.code, 2) << arguments << ": " << ended.err;
    EXPECT_NE(ended.err.find("try: "), std::string::npos) << arguments << ": " << ended.err;
    EXPECT_EQ(ended.out, "") << arguments;
  }
  EXPECT_NE(Ctl("get 12").err.find("'12'"), std::string::npos);
  EXPECT_EQ(Ctl("--help").code, 0);
  EXPECT_NE(Ctl("--help").out.find("Examples:"), std::string::npos);
  EXPECT_NE(Ctl("put --help").out.find("Example:"), std::string::npos);
}

TEST_F(KedgectlTest, ANodeThatIsAwayExits4) {
  for (const char* arguments : {"status --control 127.0.0.1:1 --timeout-ms 300",
                                "get name:a --salt s --data tcp://127.0.0.1:1 --timeout-ms 300"}) {
    const Ended ended = Ctl(arguments);
    EXPECT_EQ(ended.code, 4) << ended.err;
    EXPECT_NE(ended.err.find("127.0.0.1:1"), std::string::npos) << ended.err;
    EXPECT_NE(ended.err.find("try: "), std::string::npos) << ended.err;
    EXPECT_EQ(ended.err.find('\033'), std::string::npos) << "no colours in a file";
  }
}

}  // namespace
}  // namespace kedge
