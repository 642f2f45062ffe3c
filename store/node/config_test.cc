#include "store/node/config.h"

#include <gtest/gtest.h>

namespace kedge {
namespace {

absl::StatusOr<std::string> ReadTestFile(const std::string& path) {
  if (path == "good.yaml") {
    return std::string("host_capacity: 2GiB\nnode_id: from-file\nlisten: tcp://127.0.0.1:1\n");
  }
  if (path == "bad.yaml") return std::string("host_capacity: 2GiB\nhots: 1\n");
  return absl::NotFoundError("cannot be read");
}

absl::StatusOr<CommandLine> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "kedged");
  return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data(), ReadTestFile);
}

// The text of the error names all of `parts`.
void ExpectError(const absl::Status& status, const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  for (const std::string& part : parts) {
    EXPECT_NE(std::string(status.message()).find(part), std::string::npos)
        << "'" << status.message() << "' does not name " << part;
  }
}

TEST(ConfigTest, DefaultsAreValidAndLocal) {
  const auto line = Parse({});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config, Config());
  EXPECT_EQ(line->config.listen, std::vector<std::string>{"tcp://127.0.0.1:7420"});
}

TEST(ConfigTest, FlagsWinOverTheFileAndTheFileOverDefaults) {
  const auto line = Parse({"--config=good.yaml", "--node-id", "from-flag"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.node_id, "from-flag");
  EXPECT_EQ(line->config.host_capacity, 2ull << 30);
  EXPECT_EQ(line->config.control, Config().control);
}

TEST(ConfigTest, ListenMayBeRepeated) {
  const auto line = Parse({"--listen=tcp://127.0.0.1:0", "--listen=shm://127.0.0.1:0"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.listen.size(), 2u);
}

TEST(ConfigTest, WhatIsPrintedReadsBackTheSame) {
  Config config;
  config.node_id = "a \"quoted\" name: #";
  config.listen = {"tcp://1.2.3.4:5", "shm://127.0.0.1:0"};
  config.metrics = "";
  config.host_capacity = 3ull << 20;
  config.ssd_capacity = 4097;
  config.durability = "ssd";
  Config again;
  const absl::Status status = ApplyYaml(ToYaml(config), &again);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(again, config);
}

TEST(ConfigTest, RecodingIsSaidInLinesAListOrAMap) {
  const std::vector<std::string> lines = {"host: raw", "ssd: kivi4g32", "ssd after 7d: kivi2g32"};
  Config as_map, as_list, as_texts;
  ASSERT_TRUE(
      ApplyYaml("ssd_path: /x\nrecode: {host: raw, ssd: kivi4g32, ssd after 7d: kivi2g32}\n",
                &as_map)
          .ok());
  ASSERT_TRUE(
      ApplyYaml("recode:\n- host: raw\n- ssd: kivi4g32\n- ssd after 7d: kivi2g32\n", &as_list)
          .ok());
  ASSERT_TRUE(
      ApplyYaml("recode: ['host: raw', 'ssd: kivi4g32', 'ssd after 7d: kivi2g32']\n", &as_texts)
          .ok());
  EXPECT_EQ(as_map.recode, lines);
  EXPECT_EQ(as_list.recode, lines);
  EXPECT_EQ(as_texts.recode, lines);
  EXPECT_TRUE(CheckConfig(as_map).ok());
  as_map.profiles = {"/a", "/b"};
  as_map.allow_unprofiled = true;
  Config again;
  ASSERT_TRUE(ApplyYaml(ToYaml(as_map), &again).ok()) << ToYaml(as_map);
  EXPECT_EQ(again, as_map);

  const auto line = Parse({"--ssd-path=/x", "--recode=ssd: kivi4g32", "--recode=tenant 3: ssd: raw",
                           "--allow-unprofiled=true"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.recode.size(), 2u);
  EXPECT_TRUE(line->config.allow_unprofiled);
  ExpectError(Parse({"--ssd-path=/x", "--recode=ssd: zip"}).status(), {"recode", "zip"});
  ExpectError(Parse({"--recode=ssd: kivi4g32"}).status(), {"recode", "ssd_path"});
  ExpectError(Parse({"--allow-unprofiled=yes"}).status(), {"--allow-unprofiled", "'yes'"});
  Config config;
  ExpectError(ApplyYaml("recode: {ssd: [a]}\n", &config), {"recode"});
}

TEST(ConfigTest, ErrorsNameTheFieldAndTheValue) {
  ExpectError(Parse({"--host-capacity=64Q"}).status(), {"--host-capacity", "64Q"});
  ExpectError(Parse({"--host-capacity=1MiB"}).status(), {"host_capacity", "1MiB"});
  ExpectError(Parse({"--threads=0"}).status(), {"--threads", "'0'"});
  ExpectError(Parse({"--threads=-1"}).status(), {"--threads", "'-1'"});
  ExpectError(Parse({"--lease-max-ms=soon"}).status(), {"--lease-max-ms", "soon"});
  ExpectError(Parse({"--durability=disk"}).status(), {"--durability", "disk"});
  ExpectError(Parse({"--durability=ssd"}).status(), {"ssd_path"});
  ExpectError(Parse({"--log-level=loud"}).status(), {"--log-level", "loud"});
  ExpectError(Parse({"--listen=udp://127.0.0.1:1"}).status(), {"listen", "udp://127.0.0.1:1"});
  ExpectError(Parse({"--listen=tcp://127.0.0.1:65536"}).status(), {"listen", "65536"});
  ExpectError(Parse({"--control=localhost"}).status(), {"control", "localhost"});
  ExpectError(Parse({"--ssd-path=/x", "--ssd-capacity=1MiB"}).status(), {"ssd_capacity", "1MiB"});
  ExpectError(Parse({"--node-id=a\xff"}).status(), {"--node-id", "\\377"});
  ExpectError(Parse({"--no-such-flag=1"}).status(), {"no-such-flag"});
  ExpectError(Parse({"--config=bad.yaml"}).status(), {"bad.yaml", "line 2", "hots"});
  ExpectError(Parse({"--config=missing.yaml"}).status(), {"missing.yaml"});
}

TEST(ConfigTest, FilesThatAreNoMapOfFieldsAreRefused) {
  Config config;
  ExpectError(ApplyYaml("- a\n- b\n", &config), {"map"});
  ExpectError(ApplyYaml("node_id: {a: b}\n", &config), {"line 1", "node_id"});
  ExpectError(ApplyYaml("node_id: [a, b]\n", &config), {"node_id", "2 values"});
  ExpectError(ApplyYaml("listen: [[a]]\n", &config), {"listen"});
  ExpectError(ApplyYaml("host_capacity:\n", &config), {"host_capacity"});
  ExpectError(ApplyYaml("a: [\n", &config), {"line"});
  ExpectError(ApplyYaml(std::string(100'000, ' '), &config), {"100000"});
  EXPECT_EQ(config, Config()) << "a refused file changes nothing";
  EXPECT_TRUE(ApplyYaml("", &config).ok());
}

}  // namespace
}  // namespace kedge
