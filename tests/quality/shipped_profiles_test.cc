// A profile that lies beside shipped weights must be of these weights, admit what it says it
// admits, and hold the tables of the chains that it has measured.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "gpu/codec/codec_chain.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/model/file_map.h"
#include "gpu/model/model_config.h"
#include "gpu/profile/model_identity.h"
#include "proto/model_profile.h"

namespace kedge::quality {
namespace {

constexpr char kAgain[] = "; make it again: tools/profile_model --shipped";
constexpr size_t kBytesMax = 2 << 20;

TEST(ShippedProfiles, BelongToTheirWeights) {
  int profiles = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/quality/models")) {
    const std::string directory = entry.path().string();
    if (!std::filesystem::exists(directory + "/kedge_profile.bin")) continue;
    ++profiles;
    const auto file = FileMap::Open(directory + "/kedge_profile.bin");
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_LE(file->bytes().size(), kBytesMax) << directory;
    const auto profile = ModelProfile::Parse({file->bytes().begin(), file->bytes().end()});
    ASSERT_TRUE(profile.ok()) << directory << ": " << profile.status() << kAgain;
    const auto weights = profile::WeightsDigest(directory);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto config = ReadModelConfig(directory);
    ASSERT_TRUE(config.ok()) << config.status();
    const absl::Status same =
        profile->CheckModel(profile::ProfiledModelOf(*config, config->dtype, *weights));
    ASSERT_TRUE(same.ok()) << directory << ": " << same << kAgain;
    int pruned = 0;
    for (const GateRecord& record : profile->gate()) {
      const absl::Status status = codec::PrunedChain::IsPruned(record.chain)
                                      ? codec::PrunedChain::Parse(record.chain, &*profile).status()
                                      : codec::CodecChain::Parse(record.chain, &*profile).status();
      EXPECT_TRUE(status.ok()) << directory << ": " << status << kAgain;
      EXPECT_GT(record.bits_per_value, 0.0) << directory << ": " << record.chain << kAgain;
      if (record.task != kGateMean || !codec::PrunedChain::IsPruned(record.chain)) continue;
      ++pruned;
      EXPECT_LT(record.bits_per_value, 16.0) << directory << ": " << record.chain;
    }
    EXPECT_GT(pruned, 0) << directory << ": no pruned chain was measured" << kAgain;
  }
  EXPECT_GT(profiles, 0) << "no model has a kedge_profile.bin";
}

}  // namespace
}  // namespace kedge::quality
