#include "tests/quality/policies.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace kedge::quality {

std::vector<std::string> PolicyNames() {
  return {"dense",
          "none",
          "fetched",
          "fp8",
          "[had+]kivi{2,4,8}g{32,64,128}[s8]",
          "[had+]kivi{2,4,8}g{32,64,128}[s8]+rans",
          "archiveN",
          "CHAIN+tailN",
          "kivi2g32-keys-per-token",
          "kivi2g32-values-per-channel",
          "{prefixkv,uniform}B[-SCORE][+kvcrushS[-ANCHOR]]+CHAIN",
          "{random,oracle,asked}B+CHAIN",
          "{kvcomm,linear}[-VARIANT...]",
          "auto[-linear][-nogate][+RECOMPUTE]",
          "{deviation,dhd,cacheblend,random,oracle,epic}RATIO@CHECK_LAYER",
          "dhdRATIO@CHECK_LAYER+asked",
          "{deviation,dhd,cacheblend}RATIO@CHECK_LAYER+repairTOKENS",
          "epicTOKENS"};
}

absl::StatusOr<std::unique_ptr<KvPolicy>> MakePolicy(const std::string& name,
                                                     const ModelProfile* profile) {
  if (name == "dense") return MakeDensePolicy();
  if (name == "none") return MakeNonePolicy();
  if (name == "fetched") return MakeFetchedPolicy();
  if (IsOffsetPolicy(name)) return MakeOffsetPolicy(name);
  if (IsAutoPolicy(name)) return MakeAutoPolicy(name);
  if (IsRecomputePolicy(name)) return MakeRecomputePolicy(name);
  if (IsPrunedPolicy(name)) return MakePrunedPolicy(name, profile);
  absl::StatusOr<std::unique_ptr<KvPolicy>> codec = name.find("+tail") != std::string::npos
                                                        ? MakeTailPolicy(name, profile)
                                                        : MakeCodecPolicy(name, profile);
  if (codec.ok() || absl::IsFailedPrecondition(codec.status())) return codec;
  return absl::InvalidArgumentError(
      absl::StrCat("policy: '", name, "' is none of: ", absl::StrJoin(PolicyNames(), ", ")));
}

const char* KvProvenanceName(KvProvenance provenance) {
  switch (provenance) {
    case KvProvenance::kDense:
      return "dense";
    case KvProvenance::kExact:
      return "exact";
    case KvProvenance::kCorrected:
      return "corrected";
    case KvProvenance::kRecomputed:
      return "recomputed";
    case KvProvenance::kMoved:
      return "moved";
  }
  return "unknown";
}

}  // namespace kedge::quality
