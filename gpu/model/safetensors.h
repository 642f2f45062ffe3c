// Reads weights from *.safetensors files, assuming that every byte was chosen by an enemy.
//
// Format (huggingface.co/docs/safetensors): u64 little-endian header length; that many bytes of
// JSON, {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ...} with an
// optional "__metadata__" of strings; then the data, to which offsets count. Data ranges must
// follow each other without overlap or hole and end with the file.
//
// Errors are InvalidArgument and name file, tensor, field and value.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "gpu/model/file_map.h"
#include "proto/kv_shape.h"

namespace kedge {

// A header of a large model takes some 100 bytes a tensor. The limit bounds what a lying length can
// make us allocate.
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 16u << 20;

struct TensorInfo {
  DType dtype = DType::kF32;  // f32, f16 or bf16
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // from the start of the file
  uint64_t bytes = 0;

  int64_t elements() const;
};

// Checks the header and every tensor in it. `file` names the source in errors; `bytes` is the whole
// file. Tensors of types other than F32, F16 and BF16 are checked and left out of the result.
absl::StatusOr<std::map<std::string, TensorInfo>> ParseSafetensors(std::span<const uint8_t> bytes,
                                                                   std::string_view file);

// The tensors of one checkpoint directory: model.safetensors, or the shards that
// model.safetensors.index.json names. Files stay mapped while the object lives.
class Checkpoint {
 public:
  // NotFound when the directory has neither file.
  static absl::StatusOr<Checkpoint> Open(const std::string& directory);

  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }

  // NotFound names a tensor that no file has, InvalidArgument a shape that differs from `shape`.
  absl::Status CheckShape(const std::string& name, const std::vector<int64_t>& shape) const;

  // Converts a tensor to fp32 into `target`; checks as CheckShape does.
  absl::Status Read(const std::string& name, const std::vector<int64_t>& shape,
                    float* target) const;

 private:
  struct Tensor {
    TensorInfo info;
    size_t file = 0;
  };

  absl::Status AddFile(const std::string& path);
  absl::Status AddShards(const std::string& directory, const std::string& index_path);

  std::string directory_;
  std::vector<FileMap> files_;
  std::vector<std::string> paths_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace kedge
