#include "store/tier/profile_set.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace kedge {
namespace {

ModelProfile Profile(const char* weights, bool passed) {
  ProfiledModel model;
  model.weights_id = weights;
  model.rope_theta = 1e4;
  model.layers = 4;
  model.kv_heads = 2;
  model.head_size = 64;
  GateRecord record;
  record.chain = "kivi4g32";
  record.task = kGateMean;
  record.points_lost = 3.25;
  record.bar = 2;
  record.passed = passed;
  return *ModelProfile::Make(model, {}, {record});
}

BlockHeader HeaderOf(const char* weights) {
  BlockHeader header;
  header.model = ModelId::Of(weights, "", "", 1e4);
  header.shape = KvShape::KeysAndValues(2, 2, 64, 32, DType::kF16);
  return header;
}

TEST(ProfileSet, FindsTheProfileOfABlocksModel) {
  ProfileSet set;
  ASSERT_TRUE(set.Add(Profile("a", true)).ok());
  ASSERT_TRUE(set.Add(Profile("b", false)).ok());
  EXPECT_EQ(set.Add(Profile("a", false)).code(), absl::StatusCode::kAlreadyExists);
  const Variant kivi = *Variant::Parse("kivi4g32");
  EXPECT_TRUE(set.Admits(HeaderOf("a"), kivi).ok());
  const absl::Status refused = set.Admits(HeaderOf("b"), kivi);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_NE(refused.message().find("3.25"), std::string::npos) << refused;
  EXPECT_TRUE(set.Admits(HeaderOf("b"), Variant::Raw()).ok());
  EXPECT_FALSE(set.Admits(HeaderOf("a"), *Variant::Parse("kivi2g32")).ok()) << "not measured";

  // The same name, another geometry: not that model.
  BlockHeader other = HeaderOf("a");
  other.shape.head_size = 128;
  EXPECT_EQ(set.Find(other), nullptr);
  other = HeaderOf("a");
  other.shape.layer_begin = 3;
  EXPECT_EQ(set.Find(other), nullptr);
}

TEST(ProfileSet, WithoutAProfileOnlyAPlainWordHelps) {
  ProfileSet set;
  const Variant kivi = *Variant::Parse("kivi4g32");
  EXPECT_EQ(set.Admits(HeaderOf("a"), kivi).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(set.Rotation(HeaderOf("a")).none());
  set.AllowUnprofiled();
  EXPECT_TRUE(set.Admits(HeaderOf("a"), kivi).ok());
  // A profile that there is decides all the same.
  ASSERT_TRUE(set.Add(Profile("a", false)).ok());
  EXPECT_FALSE(set.Admits(HeaderOf("a"), kivi).ok());
  EXPECT_FALSE(set.Rotation(HeaderOf("a")).none());
}

TEST(ProfileSet, LoadsFiles) {
  const char* directory = std::getenv("TEST_TMPDIR");
  const std::string path = std::string(directory != nullptr ? directory : "/tmp") + "/a.profile";
  const ModelProfile profile = Profile("a", true);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(profile.bytes().data()),
             static_cast<std::streamsize>(profile.bytes().size()));
  ProfileSet set;
  const absl::Status loaded = set.Load(path);
  ASSERT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(set.size(), 1u);
  EXPECT_NE(set.Load(path).message().find(path), std::string::npos) << "twice";
  EXPECT_NE(set.Load(path + "x").message().find(path + "x"), std::string::npos);
  std::ofstream(path, std::ios::binary) << "nonsense";
  EXPECT_FALSE(set.Load(path).ok());
}

}  // namespace
}  // namespace kedge
