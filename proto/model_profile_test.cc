#include "proto/model_profile.h"

#include <gtest/gtest.h>

#include <limits>

#include "proto/wire.h"

namespace kedge {
namespace {

ProfiledModel AModel() {
  return {.weights_id = "sha256:00ff",
          .adapter_id = "lora-7",
          .rope_scaling = "llama3 factor=8",
          .rope_theta = 500000.0,
          .layers = 32,
          .kv_heads = 8,
          .head_size = 128,
          .dtype = DType::kBf16};
}

GateRecord Record(const std::string& chain, const std::string& task, double lost, bool passed) {
  return {.chain = chain,
          .task = task,
          .points_lost = lost,
          .low = lost - 0.5,
          .high = lost + 0.5,
          .bar = 2.0,
          .kl = 0.01,
          .bits_per_value = 3.0,
          .questions = 640,
          .passed = passed};
}

ModelProfile AProfile() {
  const ModelProfile::Sections sections = {
      {"pca", {1, 2, 3}}, {"entropy/kivi2g32+rans", std::vector<uint8_t>(300, 7)}, {"empty", {}}};
  auto profile = ModelProfile::Make(
      AModel(), sections,
      {Record("kivi2g32", "recall", 0.5, true), Record("kivi2g32", "mean", 0.25, true),
       Record("archive1", "alias", 3.25, false)});
  EXPECT_TRUE(profile.ok()) << profile.status();
  return *std::move(profile);
}

std::vector<uint8_t> BytesOf(const ModelProfile& profile) {
  return {profile.bytes().begin(), profile.bytes().end()};
}

bool Says(const absl::Status& status, std::string_view text) {
  return std::string(status.message()).find(text) != std::string::npos;
}

TEST(ModelProfile, ComesBackAsItWasMade) {
  const ModelProfile made = AProfile();
  const auto read = ModelProfile::Parse(BytesOf(made));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->model(), AModel());
  EXPECT_EQ(read->id(), made.id());
  EXPECT_EQ(read->section_names(),
            (std::vector<std::string>{"empty", "entropy/kivi2g32+rans", "gate", "pca"}));
  const auto pca = read->Section("pca");
  ASSERT_TRUE(pca.ok());
  EXPECT_EQ(std::vector<uint8_t>(pca->begin(), pca->end()), (std::vector<uint8_t>{1, 2, 3}));
  EXPECT_TRUE(read->Section("empty")->empty());
  ASSERT_EQ(read->gate().size(), 3u);
  EXPECT_EQ(read->gate()[1], Record("kivi2g32", "mean", 0.25, true));
  const absl::Status missing = read->Section("prefixkv").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Says(missing, "prefixkv")) << missing;
}

TEST(ModelProfile, IdIsOfTheContent) {
  const ModelProfile one = AProfile();
  const auto other = ModelProfile::Make(AModel(), {{"pca", {1, 2, 4}}}, {});
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(one.id(), AProfile().id());
  EXPECT_NE(one.id(), other->id());
  EXPECT_EQ(one.id().ToHex().size(), 32u);
}

TEST(ModelProfile, SectionsStayWhileACopyLives) {
  std::span<const uint8_t> pca;
  std::optional<ModelProfile> copy;
  {
    const ModelProfile profile = AProfile();
    pca = *profile.Section("pca");
    copy = profile;
  }
  EXPECT_EQ(pca[2], 3);
  EXPECT_EQ(copy->Section("pca")->data(), pca.data());
}

TEST(ModelProfile, AdmitsWhatPassed) {
  const ModelProfile profile = AProfile();
  EXPECT_TRUE(profile.Admits("raw").ok());
  EXPECT_TRUE(profile.Admits("kivi2g32").ok());
  const absl::Status failed = profile.Admits("archive1");
  EXPECT_EQ(failed.code(), absl::StatusCode::kFailedPrecondition);
  for (const char* text : {"archive1", "3.25 points", "alias", "2.00", "sha256:00ff"})
    EXPECT_TRUE(Says(failed, text)) << text << ": " << failed;
  const absl::Status unknown = profile.Admits("kivi4g32");
  EXPECT_EQ(unknown.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Says(unknown, "no measurement")) << unknown;
}

TEST(ModelProfile, OneFailedTaskRefusesTheChain) {
  const auto profile = ModelProfile::Make(
      AModel(), {}, {Record("fp8", "alias", 5, false), Record("fp8", "recall", 0, true)});
  ASSERT_TRUE(profile.ok());
  EXPECT_TRUE(Says(profile->Admits("fp8"), "alias"));
}

TEST(ModelProfile, NamesTheFieldOfAnotherModel) {
  const ModelProfile profile = AProfile();
  EXPECT_TRUE(profile.CheckModel(AModel()).ok());
  const auto refused = [&](auto change, const char* field) {
    ProfiledModel other = AModel();
    change(other);
    const absl::Status s = profile.CheckModel(other);
    EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition) << field;
    EXPECT_TRUE(Says(s, field)) << s;
  };
  refused([](ProfiledModel& m) { m.weights_id = "sha256:00fe"; }, "weights_id");
  refused([](ProfiledModel& m) { m.adapter_id = ""; }, "adapter_id");
  refused([](ProfiledModel& m) { m.rope_scaling = ""; }, "rope_scaling");
  refused([](ProfiledModel& m) { m.rope_theta = 10000; }, "rope_theta");
  refused([](ProfiledModel& m) { m.layers = 31; }, "layers");
  refused([](ProfiledModel& m) { m.kv_heads = 4; }, "kv_heads");
  refused([](ProfiledModel& m) { m.head_size = 64; }, "head_size");
  refused([](ProfiledModel& m) { m.dtype = DType::kF16; }, "dtype");
}

TEST(ModelProfile, AShardIsOfTheModel) {
  const ModelProfile profile = AProfile();
  ModelIdentity shard{.weights_id = "sha256:00ff",
                      .adapter_id = "lora-7",
                      .tokenizer_id = "any",
                      .shape = KvShape::KeysAndValues(16, 4, 128, 64, DType::kBf16),
                      .rope_theta = 500000.0,
                      .rope_scaling = "llama3 factor=8"};
  shard.shape.layer_begin = 16;
  shard.shape.kv_head_begin = 4;
  EXPECT_TRUE(profile.CheckModel(shard).ok()) << profile.CheckModel(shard);
  shard.shape.layer_count = 17;
  EXPECT_TRUE(Says(profile.CheckModel(shard), "32 layers")) << profile.CheckModel(shard);
}

TEST(ModelProfile, RefusesWhatCannotBeWritten) {
  const auto refused = [](const auto& profile, const char* text) {
    EXPECT_EQ(profile.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_TRUE(Says(profile.status(), text)) << profile.status();
  };
  ProfiledModel model = AModel();
  model.weights_id.clear();
  refused(ModelProfile::Make(model, {}, {}), "weights_id");
  model = AModel();
  model.head_size = 0;
  refused(ModelProfile::Make(model, {}, {}), "head_size");
  model = AModel();
  model.rope_theta = std::numeric_limits<double>::quiet_NaN();
  refused(ModelProfile::Make(model, {}, {}), "rope_theta");
  refused(ModelProfile::Make(AModel(), {{"PCA", {}}}, {}), "PCA");
  refused(ModelProfile::Make(AModel(), {{"gate", {}}}, {}), "gate");
  const GateRecord record = Record("fp8", "recall", 0, true);
  refused(ModelProfile::Make(AModel(), {}, {record, record}), "twice");
  GateRecord infinite = record;
  infinite.kl = std::numeric_limits<double>::infinity();
  refused(ModelProfile::Make(AModel(), {}, {infinite}), "kl");
}

TEST(ModelProfile, NamesWhatIsDamaged) {
  const std::vector<uint8_t> good = BytesOf(AProfile());
  const auto refused = [](std::vector<uint8_t> bytes, absl::StatusCode code, const char* text) {
    const absl::Status s = ModelProfile::Parse(std::move(bytes)).status();
    EXPECT_EQ(s.code(), code) << text << ": " << s;
    EXPECT_TRUE(Says(s, text)) << text << ": " << s;
  };
  std::vector<uint8_t> bytes = good;
  bytes[0] ^= 1;
  refused(bytes, absl::StatusCode::kInvalidArgument, "magic");
  bytes = good;
  bytes[4] = 2;
  refused(bytes, absl::StatusCode::kUnimplemented, "version");
  bytes = good;
  bytes.pop_back();
  refused(bytes, absl::StatusCode::kInvalidArgument, "file_bytes");
  bytes = good;
  bytes.back() ^= 1;  // the last section in order is pca
  refused(bytes, absl::StatusCode::kDataLoss, "section pca");
  bytes = good;
  bytes[16] ^= 1;
  refused(bytes, absl::StatusCode::kDataLoss, "profile.id");
  refused({}, absl::StatusCode::kInvalidArgument, "file");
}

TEST(ModelProfile, NoFlippedBitPasses) {
  const std::vector<uint8_t> good = BytesOf(AProfile());
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> bytes = good;
      bytes[i] ^= static_cast<uint8_t>(1 << bit);
      EXPECT_FALSE(ModelProfile::Parse(std::move(bytes)).ok()) << "byte " << i << " bit " << bit;
    }
  }
}

TEST(ModelProfile, NoTruncationPasses) {
  const std::vector<uint8_t> good = BytesOf(AProfile());
  for (size_t size = 0; size < good.size(); ++size) {
    std::vector<uint8_t> bytes(good.begin(), good.begin() + size);
    EXPECT_FALSE(ModelProfile::Parse(bytes).ok()) << size;
    if (size < 16) continue;
    StoreLe<uint64_t>(bytes.data() + 8, size);  // a liar
    EXPECT_FALSE(ModelProfile::Parse(std::move(bytes)).ok()) << size;
  }
}

}  // namespace
}  // namespace kedge
