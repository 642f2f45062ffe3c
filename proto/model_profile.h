// What was learned about one model, offline: a file that nodes and clients load.
//
// Lossy chains need to know the model: which tables code its values, which basis its keys lie in,
// what a layer may lose; and whether they may be used for it at all. tools/profile_model measures
// that once, on samples, and writes one file: identity of the model, then named sections, each with
// a CRC. A section's encoding stands beside the method that uses it (gpu/codec); this room knows
// one, `gate`: what every chain was found to lose.
//
//     auto profile = ModelProfile::Parse(bytes);
//     if (auto s = profile->CheckModel(model); !s.ok()) ...      // another model's profile
//     if (auto s = profile->Admits("kivi2g32"); !s.ok()) ...     // says what it loses, and the bar
//
// A profile is a value that shares its bytes: copies are cheap, and sections stay where they are as
// long as one copy lives. Const methods; any thread. proto/README.md has the bytes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/block_key.h"
#include "proto/kv_shape.h"

namespace kedge {

inline constexpr uint16_t kModelProfileVersion = 1;
inline constexpr uint64_t kModelProfileBytesMax = 1ull << 30;  // bases of the largest models fit
inline constexpr uint32_t kProfileSectionsMax = 256;
inline constexpr uint32_t kProfileTextBytesMax = 4096;
inline constexpr uint32_t kGateRecordsMax = 65536;
inline constexpr char kGateSection[] = "gate";
// The record over all tasks of a chain has this for its task.
inline constexpr char kGateMean[] = "mean";

// The model that a profile is of. Not its block_tokens, shard or tokenizer: those change names of
// blocks, not what is in them.
struct ProfiledModel {
  std::string weights_id;
  std::string adapter_id;
  std::string rope_scaling;  // as in ModelIdentity
  double rope_theta = 0;
  uint16_t layers = 0;    // of the whole model
  uint16_t kv_heads = 0;  // of the whole model
  uint16_t head_size = 0;
  DType dtype = DType::kF16;

  friend bool operator==(const ProfiledModel&, const ProfiledModel&) = default;
};

// 16 bytes: the first half of SHA-256 over the file, these bytes as zeros. Bytes that were encoded
// with a profile carry it.
struct ProfileId {
  std::array<uint8_t, 16> bytes{};

  std::string ToHex() const;
  friend bool operator==(const ProfileId&, const ProfileId&) = default;
};

// What one chain was found to lose on one task (or, `mean`, over all of them).
struct GateRecord {
  std::string chain;
  std::string task;
  double points_lost = 0;  // of 100, against dense
  double low = 0;          // 95% interval
  double high = 0;
  double bar = 0;  // points_lost may be at most this
  double kl = 0;   // nats, of the next-token distribution from dense's
  double bits_per_value = 0;
  uint32_t questions = 0;
  bool passed = false;

  friend bool operator==(const GateRecord&, const GateRecord&) = default;
};

class ModelProfile {
 public:
  // Names of 1 to 64 of [a-z0-9.+_/-] to contents. Not `gate`.
  using Sections = std::map<std::string, std::vector<uint8_t>, std::less<>>;

  // InvalidArgument names the field: sizes of 0, a text that is too long, a section's name, a
  // figure that is not finite, two records of one chain and task.
  static absl::StatusOr<ModelProfile> Make(const ProfiledModel& model, const Sections& sections,
                                           const std::vector<GateRecord>& gate);

  // Reads hostile bytes. InvalidArgument, Unimplemented (another version) or DataLoss (a CRC, the
  // id) name the field or the section. Bytes that are read are the bytes that Make would write.
  static absl::StatusOr<ModelProfile> Parse(std::vector<uint8_t> bytes);

  const ProfiledModel& model() const { return content_->model; }
  const ProfileId& id() const { return content_->id; }
  std::span<const uint8_t> bytes() const { return content_->bytes; }
  std::vector<std::string> section_names() const;
  // NotFound names the section and the profile.
  absl::StatusOr<std::span<const uint8_t>> Section(std::string_view name) const;
  const std::vector<GateRecord>& gate() const { return content_->gate; }

  // FailedPrecondition names the field, and what both say, when the profile is of another model.
  absl::Status CheckModel(const ProfiledModel& model) const;
  // The same from what names blocks; `identity.shape` may be a shard.
  absl::Status CheckModel(const ModelIdentity& identity) const;

  // Whether the chain may be used for this model. `raw` always may. FailedPrecondition names the
  // chain, the task, the figure and its bar; or says that the chain was never measured.
  absl::Status Admits(std::string_view chain) const;

 private:
  struct Content {
    std::vector<uint8_t> bytes;
    ProfiledModel model;
    ProfileId id;
    std::map<std::string, std::span<const uint8_t>, std::less<>> sections;
    std::vector<GateRecord> gate;
  };
  explicit ModelProfile(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

  std::shared_ptr<const Content> content_;
};

}  // namespace kedge
