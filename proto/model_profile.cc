#include "proto/model_profile.h"

#include <openssl/evp.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/crc32c.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint32_t kMagic = 0x5067644b;  // "KdgP"

// Offsets in the file; proto/README.md has the table.
constexpr size_t kVersionAt = 4;
constexpr size_t kReservedAt = 6;
constexpr size_t kFileBytesAt = 8;
constexpr size_t kIdAt = 16;
constexpr size_t kHeaderBytes = 32;
constexpr size_t kSectionNameBytesMax = 64;
constexpr size_t kSectionEntryBytesMin = 2 + 1 + 8 + 4;
constexpr size_t kGateRecordBytesMin = 2 + 2 + 6 * 8 + 4 + 1;
constexpr uint16_t kGateTextBytesMax = 128;

template <typename... Args>
absl::Status Wrong(const Args&... why) {
  return absl::InvalidArgumentError(absl::StrCat("profile.", why...));
}

std::string Quoted(std::string_view text) {
  return absl::StrCat("\"", absl::CHexEscape(std::string(text.substr(0, 80))), "\"");
}

bool IsSectionName(std::string_view name) {
  const auto valid = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '+' || c == '_' ||
           c == '-' || c == '/';
  };
  return !name.empty() && name.size() <= kSectionNameBytesMax &&
         std::all_of(name.begin(), name.end(), valid);
}

absl::Status CheckProfiled(const ProfiledModel& model) {
  if (model.weights_id.empty()) return Wrong("model.weights_id: is empty");
  for (const auto& [field, text] : {std::pair("weights_id", &model.weights_id),
                                    {"adapter_id", &model.adapter_id},
                                    {"rope_scaling", &model.rope_scaling}}) {
    if (text->size() > kProfileTextBytesMax) {
      return Wrong("model.", field, ": ", text->size(), " bytes pass the limit of ",
                   kProfileTextBytesMax);
    }
  }
  if (!std::isfinite(model.rope_theta) || model.rope_theta < 0 || std::signbit(model.rope_theta))
    return Wrong("model.rope_theta: ", model.rope_theta, " is not finite and 0 or more");
  for (const auto& [field, value] : {std::pair("layers", model.layers),
                                     {"kv_heads", model.kv_heads},
                                     {"head_size", model.head_size}}) {
    if (value == 0) return Wrong("model.", field, ": is 0");
  }
  const auto dtype = static_cast<int>(model.dtype);
  if (dtype < 1 || dtype > 5) return Wrong("model.dtype: ", dtype, " is unknown");
  return absl::OkStatus();
}

absl::Status CheckGate(const std::vector<GateRecord>& gate) {
  if (gate.size() > kGateRecordsMax)
    return Wrong("gate: ", gate.size(), " records pass the limit of ", kGateRecordsMax);
  for (size_t i = 0; i < gate.size(); ++i) {
    const GateRecord& r = gate[i];
    for (const std::string* text : {&r.chain, &r.task}) {
      if (text->empty() || text->size() > kGateTextBytesMax) {
        return Wrong("gate[", i, "]: ", text == &r.chain ? "chain" : "task", ": ", text->size(),
                     " bytes, 1 to ", kGateTextBytesMax, " are allowed");
      }
    }
    for (const auto& [field, value] : {std::pair("points_lost", r.points_lost),
                                       {"low", r.low},
                                       {"high", r.high},
                                       {"bar", r.bar},
                                       {"kl", r.kl},
                                       {"bits_per_value", r.bits_per_value}}) {
      if (!std::isfinite(value)) return Wrong("gate[", i, "].", field, ": is not finite");
    }
    const bool sorted =
        i == 0 || std::pair(gate[i - 1].chain, gate[i - 1].task) < std::pair(r.chain, r.task);
    if (!sorted) {
      return Wrong("gate[", i, "]: ", Quoted(r.chain), " on ", Quoted(r.task),
                   " stands twice or out of order");
    }
  }
  return absl::OkStatus();
}

void WriteDouble(double value, WireWriter& writer) { writer.U64(std::bit_cast<uint64_t>(value)); }
double ReadDouble(const char* field, WireReader& reader) {
  return std::bit_cast<double>(reader.U64(field));
}

std::vector<uint8_t> EncodeGate(const std::vector<GateRecord>& gate) {
  std::vector<uint8_t> out;
  WireWriter writer(out);
  writer.Count(gate.size(), kGateRecordsMax);
  for (const GateRecord& r : gate) {
    writer.Text(r.chain, kGateTextBytesMax);
    writer.Text(r.task, kGateTextBytesMax);
    for (double value : {r.points_lost, r.low, r.high, r.bar, r.kl, r.bits_per_value})
      WriteDouble(value, writer);
    writer.U32(r.questions);
    writer.U8(r.passed ? 1 : 0);
  }
  return out;
}

absl::StatusOr<std::vector<GateRecord>> DecodeGate(std::span<const uint8_t> bytes) {
  WireReader reader("profile.gate", bytes);
  std::vector<GateRecord> gate(reader.Count("records", kGateRecordsMax, kGateRecordBytesMin));
  for (GateRecord& r : gate) {
    reader.Text("chain", r.chain, kGateTextBytesMax);
    reader.Text("task", r.task, kGateTextBytesMax);
    r.points_lost = ReadDouble("points_lost", reader);
    r.low = ReadDouble("low", reader);
    r.high = ReadDouble("high", reader);
    r.bar = ReadDouble("bar", reader);
    r.kl = ReadDouble("kl", reader);
    r.bits_per_value = ReadDouble("bits_per_value", reader);
    r.questions = reader.U32("questions");
    r.passed = reader.Enum("passed", 1) == 1;
    if (!reader.ok()) break;
  }
  if (absl::Status s = reader.Finish(); !s.ok()) return s;
  if (absl::Status s = CheckGate(gate); !s.ok()) return s;
  return gate;
}

ProfileId IdOf(std::span<const uint8_t> file) {
  constexpr std::array<uint8_t, 16> kZeros{};
  std::array<uint8_t, EVP_MAX_MD_SIZE> digest;
  EVP_MD_CTX* sha = EVP_MD_CTX_new();
  const bool ok =
      sha != nullptr && EVP_DigestInit_ex(sha, EVP_sha256(), nullptr) == 1 &&
      EVP_DigestUpdate(sha, file.data(), kIdAt) == 1 &&
      EVP_DigestUpdate(sha, kZeros.data(), kZeros.size()) == 1 &&
      EVP_DigestUpdate(sha, file.data() + kHeaderBytes, file.size() - kHeaderBytes) == 1 &&
      EVP_DigestFinal_ex(sha, digest.data(), nullptr) == 1;
  EVP_MD_CTX_free(sha);
  ABSL_RAW_CHECK(ok, "OpenSSL has no SHA-256");
  ProfileId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

void WriteModel(const ProfiledModel& model, WireWriter& writer) {
  writer.Text(model.weights_id, kProfileTextBytesMax);
  writer.Text(model.adapter_id, kProfileTextBytesMax);
  writer.Text(model.rope_scaling, kProfileTextBytesMax);
  WriteDouble(model.rope_theta, writer);
  writer.U16(model.layers);
  writer.U16(model.kv_heads);
  writer.U16(model.head_size);
  writer.U8(static_cast<uint8_t>(model.dtype));
  writer.U8(0);
}

void ReadModel(WireReader& reader, ProfiledModel& model) {
  reader.Text("model.weights_id", model.weights_id, kProfileTextBytesMax);
  reader.Text("model.adapter_id", model.adapter_id, kProfileTextBytesMax);
  reader.Text("model.rope_scaling", model.rope_scaling, kProfileTextBytesMax);
  model.rope_theta = ReadDouble("model.rope_theta", reader);
  model.layers = reader.U16("model.layers");
  model.kv_heads = reader.U16("model.kv_heads");
  model.head_size = reader.U16("model.head_size");
  model.dtype = static_cast<DType>(reader.U8("model.dtype"));
  reader.Zero("model.reserved");
}

struct SectionEntry {
  std::string name;
  uint64_t bytes = 0;
  uint32_t crc = 0;
};

absl::StatusOr<std::vector<SectionEntry>> ReadDirectory(WireReader& reader) {
  std::vector<SectionEntry> entries(
      reader.Count("sections", kProfileSectionsMax, kSectionEntryBytesMin));
  for (size_t i = 0; i < entries.size(); ++i) {
    SectionEntry& entry = entries[i];
    reader.Text("section.name", entry.name, kSectionNameBytesMax);
    entry.bytes = reader.U64("section.bytes");
    entry.crc = reader.U32("section.crc");
    if (!reader.ok()) return reader.Finish();
    if (!IsSectionName(entry.name)) {
      return Wrong("section.name: ", Quoted(entry.name), " is not 1 to ", kSectionNameBytesMax,
                   " of [a-z0-9.+_/-]");
    }
    if (i > 0 && entries[i - 1].name >= entry.name)
      return Wrong("section.name: ", Quoted(entry.name), " stands twice or out of order");
  }
  if (!reader.ok()) return reader.Finish();
  return entries;
}

absl::Status CheckHeader(std::span<const uint8_t> bytes) {
  if (bytes.size() < kHeaderBytes)
    return Wrong("file: ", bytes.size(), " bytes, its header has ", kHeaderBytes);
  if (const auto magic = LoadLe<uint32_t>(bytes.data()); magic != kMagic)
    return Wrong("magic: ", absl::StrFormat("0x%08x", magic), " is not a model profile's");
  if (const auto version = LoadLe<uint16_t>(bytes.data() + kVersionAt);
      version != kModelProfileVersion) {
    return absl::UnimplementedError(
        absl::StrCat("profile.version: ", version, ", this program reads ", kModelProfileVersion));
  }
  if (const auto reserved = LoadLe<uint16_t>(bytes.data() + kReservedAt); reserved != 0)
    return Wrong("reserved: ", reserved, " is not 0");
  if (const auto file_bytes = LoadLe<uint64_t>(bytes.data() + kFileBytesAt);
      file_bytes != bytes.size()) {
    return Wrong("file_bytes: ", file_bytes, ", the file has ", bytes.size());
  }
  return absl::OkStatus();
}

}  // namespace

std::string ProfileId::ToHex() const {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::StatusOr<ModelProfile> ModelProfile::Make(const ProfiledModel& model,
                                                const Sections& sections,
                                                const std::vector<GateRecord>& gate) {
  if (absl::Status s = CheckProfiled(model); !s.ok()) return s;
  std::vector<GateRecord> sorted = gate;
  std::sort(sorted.begin(), sorted.end(), [](const GateRecord& a, const GateRecord& b) {
    return std::pair(a.chain, a.task) < std::pair(b.chain, b.task);
  });
  if (absl::Status s = CheckGate(sorted); !s.ok()) return s;
  Sections all = sections;
  if (!all.emplace(kGateSection, EncodeGate(sorted)).second)
    return Wrong("section.name: \"gate\" is made from the records");
  if (all.size() > kProfileSectionsMax)
    return Wrong("sections: count ", all.size(), " passes the limit of ", kProfileSectionsMax);

  std::vector<uint8_t> bytes(kHeaderBytes);
  WireWriter writer(bytes);
  WriteModel(model, writer);
  writer.Count(all.size(), kProfileSectionsMax);
  uint64_t total = 0;
  for (const auto& [name, content] : all) {
    if (!IsSectionName(name)) {
      return Wrong("section.name: ", Quoted(name), " is not 1 to ", kSectionNameBytesMax,
                   " of [a-z0-9.+_/-]");
    }
    writer.Text(name, kSectionNameBytesMax);
    writer.U64(content.size());
    writer.U32(Crc32c(content));
    total += content.size();
  }
  if (total + bytes.size() > kModelProfileBytesMax)
    return Wrong("file_bytes: ", total + bytes.size(), " pass the limit of ",
                 kModelProfileBytesMax);
  for (const auto& [name, content] : all) writer.Bytes(content);
  StoreLe<uint32_t>(bytes.data(), kMagic);
  StoreLe<uint16_t>(bytes.data() + kVersionAt, kModelProfileVersion);
  StoreLe<uint64_t>(bytes.data() + kFileBytesAt, bytes.size());
  const ProfileId id = IdOf(bytes);
  std::copy(id.bytes.begin(), id.bytes.end(), bytes.begin() + kIdAt);
  return Parse(std::move(bytes));
}

absl::StatusOr<ModelProfile> ModelProfile::Parse(std::vector<uint8_t> bytes) {
  if (bytes.size() > kModelProfileBytesMax)
    return Wrong("file: ", bytes.size(), " bytes pass the limit of ", kModelProfileBytesMax);
  if (absl::Status s = CheckHeader(bytes); !s.ok()) return s;
  auto content = std::make_shared<Content>();
  content->bytes = std::move(bytes);
  const std::span<const uint8_t> file = content->bytes;
  WireReader reader("profile", file.subspan(kHeaderBytes));
  ReadModel(reader, content->model);
  absl::StatusOr<std::vector<SectionEntry>> entries = ReadDirectory(reader);
  if (!entries.ok()) return entries.status();
  if (absl::Status s = CheckProfiled(content->model); !s.ok()) return s;

  size_t at = file.size() - reader.left();
  for (const SectionEntry& entry : *entries) {
    if (entry.bytes > file.size() - at) {
      return Wrong("section ", entry.name, ": bytes: ", entry.bytes, ", ", file.size() - at,
                   " are left");
    }
    const std::span<const uint8_t> section = file.subspan(at, entry.bytes);
    if (const uint32_t crc = Crc32c(section); crc != entry.crc) {
      return absl::DataLossError(absl::StrFormat("profile.section %s: crc 0x%08x, expected 0x%08x",
                                                 entry.name, crc, entry.crc));
    }
    content->sections.emplace(entry.name, section);
    at += entry.bytes;
  }
  if (at != file.size()) return Wrong("file: ", file.size() - at, " bytes are left over");
  std::copy_n(file.begin() + kIdAt, content->id.bytes.size(), content->id.bytes.begin());
  if (const ProfileId id = IdOf(file); id != content->id) {
    return absl::DataLossError(absl::StrCat("profile.id: the file says ", content->id.ToHex(),
                                            ", its bytes make ", id.ToHex()));
  }
  const auto gate = content->sections.find(kGateSection);
  if (gate == content->sections.end()) return Wrong("section gate: is missing");
  absl::StatusOr<std::vector<GateRecord>> records = DecodeGate(gate->second);
  if (!records.ok()) return records.status();
  content->gate = *std::move(records);
  return ModelProfile(std::move(content));
}

std::vector<std::string> ModelProfile::section_names() const {
  std::vector<std::string> names;
  for (const auto& [name, section] : content_->sections) names.push_back(name);
  return names;
}

absl::StatusOr<std::span<const uint8_t>> ModelProfile::Section(std::string_view name) const {
  const auto found = content_->sections.find(name);
  if (found != content_->sections.end()) return found->second;
  return absl::NotFoundError(
      absl::StrCat("profile ", id().ToHex(), " has no section ", Quoted(name)));
}

absl::Status ModelProfile::CheckModel(const ProfiledModel& model) const {
  const ProfiledModel& own = content_->model;
  const auto differs = [&](const char* field, const auto& of_profile, const auto& of_model) {
    return absl::FailedPreconditionError(absl::StrCat("profile ", id().ToHex(),
                                                      " is of another model: ", field, ": ",
                                                      of_profile, ", the model has ", of_model));
  };
  if (own.weights_id != model.weights_id)
    return differs("weights_id", Quoted(own.weights_id), Quoted(model.weights_id));
  if (own.adapter_id != model.adapter_id)
    return differs("adapter_id", Quoted(own.adapter_id), Quoted(model.adapter_id));
  if (own.rope_scaling != model.rope_scaling)
    return differs("rope_scaling", Quoted(own.rope_scaling), Quoted(model.rope_scaling));
  if (own.rope_theta != model.rope_theta)
    return differs("rope_theta", own.rope_theta, model.rope_theta);
  if (own.layers != model.layers) return differs("layers", own.layers, model.layers);
  if (own.kv_heads != model.kv_heads) return differs("kv_heads", own.kv_heads, model.kv_heads);
  if (own.head_size != model.head_size) return differs("head_size", own.head_size, model.head_size);
  if (own.dtype != model.dtype)
    return differs("dtype", std::string(DTypeName(own.dtype)), std::string(DTypeName(model.dtype)));
  return absl::OkStatus();
}

absl::Status ModelProfile::CheckModel(const ModelIdentity& identity) const {
  const KvShape& shape = identity.shape;
  if (shape.layer_begin + shape.layer_count > model().layers ||
      shape.kv_head_begin + shape.kv_heads > model().kv_heads) {
    return absl::FailedPreconditionError(absl::StrCat(
        "profile ", id().ToHex(), " is of another model: shape: it has ", model().layers,
        " layers and ", model().kv_heads, " KV heads, the blocks are ", shape.ToString()));
  }
  return CheckModel(ProfiledModel{.weights_id = identity.weights_id,
                                  .adapter_id = identity.adapter_id,
                                  .rope_scaling = identity.rope_scaling,
                                  .rope_theta = identity.rope_theta,
                                  .layers = model().layers,
                                  .kv_heads = model().kv_heads,
                                  .head_size = shape.head_size,
                                  .dtype = shape.dtype});
}

absl::Status ModelProfile::Admits(std::string_view chain) const {
  if (chain == "raw") return absl::OkStatus();
  bool measured = false;
  for (const GateRecord& record : gate()) {
    if (record.chain != chain) continue;
    measured = true;
    if (record.passed) continue;
    return absl::FailedPreconditionError(absl::StrFormat(
        "variant %s is refused for %s: it loses %.2f points on %s [%.2f, %.2f], the bar is %.2f "
        "(profile %s)",
        record.chain, Quoted(model().weights_id), record.points_lost, record.task, record.low,
        record.high, record.bar, id().ToHex()));
  }
  if (measured) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("variant ", Quoted(chain), " is refused for ",
                                                    Quoted(model().weights_id), ": profile ",
                                                    id().ToHex(), " has no measurement of it"));
}

}  // namespace kedge
