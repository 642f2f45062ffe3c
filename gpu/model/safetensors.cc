#include "gpu/model/safetensors.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gpu/kernels/cast.h"
#include "gpu/model/json_fields.h"

namespace kedge {
namespace {

using nlohmann::json;

constexpr size_t kLengthBytes = 8;
constexpr int kHeaderDepthMax = 3;  // object, tensor, shape
constexpr int kIndexDepthMax = 4;
constexpr size_t kDimensionsMax = 8;
constexpr uint64_t kIndexBytesMax = 64u << 20;

struct KnownType {
  const char* name;
  uint32_t bits;
  std::optional<DType> dtype;
};
constexpr KnownType kKnownTypes[] = {
    {"F32", 32, DType::kF32},
    {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBf16},
    {"F64", 64, {}},
    {"I64", 64, {}},
    {"U64", 64, {}},
    {"I32", 32, {}},
    {"U32", 32, {}},
    {"I16", 16, {}},
    {"U16", 16, {}},
    {"I8", 8, {}},
    {"U8", 8, {}},
    {"BOOL", 8, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}},
};

absl::Status Bad(std::string_view file, const std::string& tensor, const char* field,
                 const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(file), ": tensor \"", tensor, "\": ", field, ": ", why));
}

const KnownType* FindType(const json& value) {
  if (!value.is_string()) return nullptr;
  for (const KnownType& known : kKnownTypes) {
    if (value.get_ref<const std::string&>() == known.name) return &known;
  }
  return nullptr;
}

absl::Status CheckFields(const json& entry, std::string_view file, const std::string& name) {
  if (!entry.is_object()) return Bad(file, name, "entry", ShowJson(entry) + " is not an object");
  for (const auto& [field, value] : entry.items()) {
    if (field != "dtype" && field != "shape" && field != "data_offsets") {
      return Bad(file, name, "entry", "unknown field " + ShowJson(field));
    }
  }
  for (const char* field : {"dtype", "shape", "data_offsets"}) {
    if (!entry.contains(field)) return Bad(file, name, field, "missing field");
  }
  return absl::OkStatus();
}

// The product of the dimensions, checked against overflow of bits in 64 bits.
absl::StatusOr<uint64_t> ReadShape(const json& shape, std::string_view file,
                                   const std::string& name, uint32_t bits,
                                   std::vector<int64_t>& dimensions) {
  if (!shape.is_array() || shape.size() > kDimensionsMax) {
    return Bad(file, name, "shape",
               absl::StrCat(ShowJson(shape), " is not a list of at most ", kDimensionsMax));
  }
  uint64_t elements = 1;
  for (const json& dimension : shape) {
    if (!dimension.is_number_unsigned()) {
      return Bad(file, name, "shape", ShowJson(dimension) + " is not a dimension");
    }
    const uint64_t size = dimension.get<uint64_t>();
    if (size > INT64_MAX || __builtin_mul_overflow(elements, size, &elements) ||
        elements > static_cast<uint64_t>(INT64_MAX) / bits) {
      return Bad(file, name, "shape", ShowJson(shape) + " is too large");
    }
    dimensions.push_back(static_cast<int64_t>(size));
  }
  return elements;
}

// One entry of the header; `data_bytes` is the length of the data section.
absl::StatusOr<TensorInfo> ReadEntry(const json& entry, std::string_view file,
                                     const std::string& name, uint64_t data_bytes,
                                     bool& known_float) {
  if (absl::Status status = CheckFields(entry, file, name); !status.ok()) return status;
  const KnownType* type = FindType(entry["dtype"]);
  if (type == nullptr) return Bad(file, name, "dtype", ShowJson(entry["dtype"]) + " is unknown");
  TensorInfo info;
  absl::StatusOr<uint64_t> elements = ReadShape(entry["shape"], file, name, type->bits, info.shape);
  if (!elements.ok()) return elements.status();

  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return Bad(file, name, "data_offsets", ShowJson(offsets) + " is not [begin, end]");
  }
  const uint64_t begin = offsets[0].get<uint64_t>();
  const uint64_t end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_bytes) {
    return Bad(file, name, "data_offsets",
               absl::StrCat(ShowJson(offsets), " is not inside the file's ", data_bytes,
                            " bytes of data"));
  }
  const uint64_t bytes = *elements * type->bits / 8;
  if (end - begin != bytes) {
    return Bad(file, name, "data_offsets",
               absl::StrCat(ShowJson(offsets), " is ", end - begin, " bytes, but ", type->name, " ",
                            ShowJson(entry["shape"]), " takes ", bytes));
  }
  info.begin = begin;
  info.bytes = bytes;
  known_float = type->dtype.has_value();
  if (known_float) info.dtype = *type->dtype;
  return info;
}

struct Range {
  uint64_t begin;
  uint64_t end;
  std::string name;
};

absl::Status CheckRanges(std::vector<Range>& ranges, std::string_view file, uint64_t data_bytes) {
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t at = 0;
  for (const Range& range : ranges) {
    if (range.begin != at) {
      return Bad(file, range.name, "data_offsets",
                 absl::StrCat("begins at ", range.begin,
                              range.begin < at ? ", inside the tensor before it, which ends at "
                                               : ", after a hole: the tensor before it ends at ",
                              at));
    }
    at = range.end;
  }
  if (at != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(std::string(file), ": data: tensors take ", at,
                                                   " bytes, but the file has ", data_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ReadHeaderLength(std::span<const uint8_t> bytes, const std::string& file) {
  if (bytes.size() < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": header length: the file has only ", bytes.size(), " bytes"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint64_t{bytes[i]} << (8 * i);
  if (length > kSafetensorsHeaderBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": header length: ", length, " is above the limit ", kSafetensorsHeaderBytesMax));
  }
  if (length > bytes.size() - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": header length: ", length,
                                                   " is past the end of a file of ", bytes.size(),
                                                   " bytes"));
  }
  return length;
}

bool FileExists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

// Shards are plain names beside the index: nothing that leads elsewhere.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace

int64_t TensorInfo::elements() const {
  int64_t product = 1;
  for (int64_t dimension : shape) product *= dimension;
  return product;
}

absl::StatusOr<std::map<std::string, TensorInfo>> ParseSafetensors(std::span<const uint8_t> bytes,
                                                                   std::string_view file) {
  absl::StatusOr<uint64_t> length = ReadHeaderLength(bytes, std::string(file));
  if (!length.ok()) return length.status();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, *length);
  absl::StatusOr<json> header =
      ParseJsonObject(text, std::string(file) + ": header", kHeaderDepthMax);
  if (!header.ok()) return header.status();

  const uint64_t data_begin = kLengthBytes + *length;
  const uint64_t data_bytes = bytes.size() - data_begin;
  std::map<std::string, TensorInfo> tensors;
  std::vector<Range> ranges;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    bool known_float = false;
    absl::StatusOr<TensorInfo> info = ReadEntry(entry, file, name, data_bytes, known_float);
    if (!info.ok()) return info.status();
    ranges.push_back({info->begin, info->begin + info->bytes, name});
    info->begin += data_begin;
    if (known_float) tensors.emplace(name, *std::move(info));
  }
  if (absl::Status status = CheckRanges(ranges, file, data_bytes); !status.ok()) return status;
  return tensors;
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& directory) {
  Checkpoint checkpoint;
  checkpoint.directory_ = directory;
  const std::string single = directory + "/model.safetensors";
  const std::string index = directory + "/model.safetensors.index.json";
  absl::Status status;
  if (FileExists(index)) {
    status = checkpoint.AddShards(directory, index);
  } else if (FileExists(single)) {
    status = checkpoint.AddFile(single);
  } else {
    status = absl::NotFoundError(
        absl::StrCat(directory, ": neither model.safetensors nor model.safetensors.index.json"));
  }
  if (!status.ok()) return status;
  return checkpoint;
}

absl::Status Checkpoint::AddFile(const std::string& path) {
  absl::StatusOr<FileMap> file = FileMap::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<std::map<std::string, TensorInfo>> tensors = ParseSafetensors(file->bytes(), path);
  if (!tensors.ok()) return tensors.status();
  for (auto& [name, info] : *tensors) {
    const auto [at, added] = tensors_.emplace(name, Tensor{std::move(info), files_.size()});
    if (!added) return Bad(path, name, "entry", "is also in " + paths_[at->second.file]);
  }
  files_.push_back(*std::move(file));
  paths_.push_back(path);
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& directory, const std::string& index_path) {
  absl::StatusOr<FileMap> file = FileMap::Open(index_path);
  if (!file.ok()) return file.status();
  const std::span<const uint8_t> bytes = file->bytes();
  if (bytes.size() > kIndexBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": size: ", bytes.size(),
                                                   " bytes is above the limit ", kIndexBytesMax));
  }
  absl::StatusOr<json> root = ParseJsonObject(
      {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, index_path, kIndexDepthMax);
  if (!root.ok()) return root.status();
  if (!root->contains("weight_map") || !(*root)["weight_map"].is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map: missing field"));
  }
  std::map<std::string, std::string> shard_of;
  std::set<std::string> shards;
  for (const auto& [name, shard] : (*root)["weight_map"].items()) {
    if (!shard.is_string() || !IsPlainFileName(shard.get_ref<const std::string&>())) {
      return Bad(index_path, name, "weight_map", ShowJson(shard) + " is not a file name");
    }
    shard_of[name] = shard.get<std::string>();
    shards.insert(shard.get<std::string>());
  }
  for (const std::string& shard : shards) {
    if (absl::Status status = AddFile(directory + "/" + shard); !status.ok()) return status;
  }
  for (const auto& [name, shard] : shard_of) {
    const auto at = tensors_.find(name);
    if (at != tensors_.end() && paths_[at->second.file] != directory + "/" + shard) {
      return Bad(index_path, name, "weight_map",
                 absl::StrCat("\"", shard, "\", but the tensor is in ", paths_[at->second.file]));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::CheckShape(const std::string& name,
                                    const std::vector<int64_t>& shape) const {
  const auto at = tensors_.find(name);
  if (at == tensors_.end()) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": tensor \"", name, "\" is missing, or not F32, F16 or BF16"));
  }
  const Tensor& tensor = at->second;
  if (tensor.info.shape != shape) {
    return Bad(paths_[tensor.file], name, "shape",
               absl::StrCat("[", absl::StrJoin(tensor.info.shape, ", "),
                            "], but config.json needs [", absl::StrJoin(shape, ", "), "]"));
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Read(const std::string& name, const std::vector<int64_t>& shape,
                              float* target) const {
  if (absl::Status status = CheckShape(name, shape); !status.ok()) return status;
  const Tensor& tensor = tensors_.find(name)->second;
  kernels::CastToFloat(tensor.info.dtype, files_[tensor.file].bytes().data() + tensor.info.begin,
                       tensor.info.elements(), target);
  return absl::OkStatus();
}

}  // namespace kedge
