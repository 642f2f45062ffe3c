#include "gpu/profile/model_identity.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gpu/kernels/rope_scaling_text.h"
#include "gpu/model/file_map.h"

namespace kedge::profile {

absl::StatusOr<std::string> WeightsDigest(const std::string& directory) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (files.empty()) return absl::NotFoundError(absl::StrCat(directory, ": has no *.safetensors"));
  std::sort(files.begin(), files.end());
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> sha(EVP_MD_CTX_new(),
                                                                    &EVP_MD_CTX_free);
  bool ok = sha != nullptr && EVP_DigestInit_ex(sha.get(), EVP_sha256(), nullptr) == 1;
  for (const std::filesystem::path& path : files) {
    const absl::StatusOr<FileMap> file = FileMap::Open(path.string());
    if (!file.ok()) return file.status();
    const std::string name = path.filename().string();
    ok = ok && EVP_DigestUpdate(sha.get(), name.data(), name.size() + 1) == 1 &&
         EVP_DigestUpdate(sha.get(), file->bytes().data(), file->bytes().size()) == 1;
  }
  std::array<char, EVP_MAX_MD_SIZE> digest;
  ok = ok && EVP_DigestFinal_ex(sha.get(), reinterpret_cast<uint8_t*>(digest.data()), nullptr) == 1;
  if (!ok) return absl::InternalError("OpenSSL has no SHA-256");
  return absl::StrCat("sha256:", absl::BytesToHexString(absl::string_view(digest.data(), 32)));
}

ProfiledModel ProfiledModelOf(const ModelConfig& config, DType kv_dtype,
                              std::string_view weights_id) {
  return {.weights_id = std::string(weights_id),
          .adapter_id = "",
          .rope_scaling = kernels::RopeScalingText(config.rope_scaling),
          .rope_theta = config.rope_theta,
          .layers = static_cast<uint16_t>(config.layers),
          .kv_heads = static_cast<uint16_t>(config.kv_heads),
          .head_size = static_cast<uint16_t>(config.head_size),
          .dtype = kv_dtype};
}

}  // namespace kedge::profile
