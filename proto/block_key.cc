#include "proto/block_key.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge {
namespace {

// First bytes of everything that is hashed here: no input of one kind is ever an input of another.
constexpr std::string_view kFingerprintDomain = "kedge/fingerprint/1";
constexpr std::string_view kModelDomain = "kedge/model/1";
constexpr std::string_view kChainDomain = "kedge/chain/1";
constexpr std::string_view kLinkDomain = "kedge/link/1";
constexpr std::string_view kOpaqueDomain = "kedge/opaque/1";
constexpr std::string_view kAnchorDomain = "kedge/anchor/1";
constexpr std::string_view kRosterDomain = "kedge/roster/1";
constexpr std::string_view kSequenceDomain = "kedge/sequence/1";

// What a link's content is.
constexpr uint8_t kSourceTokens = 1;
constexpr uint8_t kSourceEngineHash = 2;
constexpr size_t kEngineHashBytesMax = 64;
constexpr size_t kIdentityTextBytesMax = 64 << 10;

std::span<const uint8_t> AsBytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::array<uint8_t, 32> Sha256(std::span<const uint8_t> bytes) {
  std::array<uint8_t, 32> digest;
  unsigned int digest_bytes = 0;
  ABSL_RAW_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.data(), &digest_bytes, EVP_sha256(),
                            nullptr) == 1 &&
                     digest_bytes == digest.size(),
                 "OpenSSL cannot compute SHA-256");
  return digest;
}

// One HMAC context for each thread: fetching the algorithm costs more than a block's HMAC.
class HmacSha256 {
 public:
  HmacSha256() {
    EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
    ABSL_RAW_CHECK(mac != nullptr, "OpenSSL has no HMAC");
    context_ = EVP_MAC_CTX_new(mac);
    EVP_MAC_free(mac);  // the context holds its own reference
    char digest_name[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest_name, 0), OSSL_PARAM_END};
    ABSL_RAW_CHECK(context_ != nullptr && EVP_MAC_CTX_set_params(context_, params) == 1,
                   "OpenSSL has no HMAC-SHA-256");
  }
  ~HmacSha256() { EVP_MAC_CTX_free(context_); }
  HmacSha256(const HmacSha256&) = delete;
  HmacSha256& operator=(const HmacSha256&) = delete;

  void Start(const TenantSalt& salt) {
    Check(EVP_MAC_init(context_, salt.bytes.data(), salt.bytes.size(), nullptr));
  }
  void Update(std::span<const uint8_t> bytes) {
    Check(EVP_MAC_update(context_, bytes.data(), bytes.size()));
  }
  BlockKey Finish() {
    BlockKey key;
    size_t bytes = 0;
    Check(EVP_MAC_final(context_, key.bytes.data(), &bytes, key.bytes.size()));
    return key;
  }

 private:
  static void Check(int result) {
    ABSL_RAW_CHECK(result == 1, "OpenSSL cannot compute HMAC-SHA-256");
  }
  EVP_MAC_CTX* context_ = nullptr;
};

HmacSha256& ThreadHmac() {
  thread_local HmacSha256 hmac;
  return hmac;
}

// -1 for a character that is no hex digit.
int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool ParseHex32(std::string_view hex, std::array<uint8_t, 32>& out) {
  if (hex.size() != 2 * out.size()) return false;
  for (size_t i = 0; i < out.size(); ++i) {
    const int high = HexDigit(hex[2 * i]);
    const int low = HexDigit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return true;
}

template <size_t kBytes>
std::string Hex(const std::array<uint8_t, kBytes>& bytes) {
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace

const char* KeyspaceName(Keyspace keyspace) {
  switch (keyspace) {
    case Keyspace::kPrefix:
      return "prefix";
    case Keyspace::kChunk:
      return "chunk";
    case Keyspace::kAnchor:
      return "anchor";
    case Keyspace::kOpaque:
      return "opaque";
  }
  return "unknown";
}

std::string BlockKey::ToHex() const { return Hex(bytes); }

absl::StatusOr<BlockKey> BlockKey::FromHex(std::string_view hex) {
  BlockKey key;
  if (ParseHex32(hex, key.bytes)) return key;
  return absl::InvalidArgumentError(absl::StrCat(
      "key: \"", absl::CHexEscape(std::string(hex.substr(0, 80))), hex.size() > 80 ? "..." : "",
      "\" is not 64 hex digits (it has ", hex.size(), " characters)"));
}

absl::StatusOr<TenantSalt> TenantSalt::FromText(std::string_view text) {
  if (text.empty()) return absl::InvalidArgumentError("salt: the text is empty");
  TenantSalt salt;
  if (!ParseHex32(text, salt.bytes)) salt.bytes = Sha256(AsBytes(text));
  return salt;
}

absl::StatusOr<Fingerprint> Fingerprint::Of(const ModelIdentity& model) {
  if (model.weights_id.empty()) return absl::InvalidArgumentError("model.weights_id: is empty");
  if (model.tokenizer_id.empty()) return absl::InvalidArgumentError("model.tokenizer_id: is empty");
  if (!std::isfinite(model.rope_theta) || model.rope_theta < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.rope_theta: ", model.rope_theta, " is not a finite number from 0 up"));
  }
  if (model.shape.opaque()) return absl::InvalidArgumentError("model.shape: is opaque");
  if (absl::Status status = model.shape.Validate(); !status.ok()) return status;

  std::vector<uint8_t> input;
  WireWriter writer(input);
  writer.Bytes(AsBytes(kFingerprintDomain));
  for (const std::string* text : {&model.weights_id, &model.adapter_id, &model.tokenizer_id,
                                  &model.rope_scaling, &model.kv_scales_id}) {
    if (text->size() > kIdentityTextBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat("model: a text of ", text->size(),
                                                     " bytes passes the limit of ",
                                                     kIdentityTextBytesMax, "; use its digest"));
    }
    writer.Blob(AsBytes(*text), kIdentityTextBytesMax);
  }
  writer.U64(std::bit_cast<uint64_t>(model.rope_theta == 0 ? 0.0 : model.rope_theta));  // one zero
  std::array<uint8_t, KvShape::kEncodedBytes> shape;
  EncodeKvShape(model.shape, shape);
  writer.Bytes(shape);
  return Fingerprint{Sha256(input)};
}

std::string Fingerprint::ToHex() const { return Hex(bytes); }

ModelId ModelId::Of(std::string_view weights_id, std::string_view adapter_id,
                    std::string_view rope_scaling, double rope_theta) {
  std::vector<uint8_t> input;
  WireWriter writer(input);
  writer.Bytes(AsBytes(kModelDomain));
  for (const std::string_view text : {weights_id, adapter_id, rope_scaling}) {
    writer.U64(text.size());
    writer.Bytes(AsBytes(text));
  }
  writer.U64(std::bit_cast<uint64_t>(rope_theta == 0 ? 0.0 : rope_theta));  // one zero
  const std::array<uint8_t, 32> digest = Sha256(input);
  ModelId id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

std::string ModelId::ToHex() const { return Hex(bytes); }

KeyChain::KeyChain(const TenantSalt& salt, const Fingerprint& model, Keyspace keyspace,
                   std::string_view extra)
    : salt_(salt) {
  ABSL_RAW_CHECK(keyspace == Keyspace::kPrefix || keyspace == Keyspace::kChunk,
                 "only prefix and chunk keys form chains");
  std::vector<uint8_t> input;
  WireWriter writer(input);
  writer.Bytes(AsBytes(kChainDomain));
  writer.Bytes(model.bytes);
  writer.U8(static_cast<uint8_t>(keyspace));
  writer.U64(extra.size());
  writer.Bytes(AsBytes(extra));
  root_ = Sha256(input);
}

ChainLink KeyChain::Link(const ChainLink* parent, uint8_t source,
                         std::span<const uint8_t> content) const {
  ChainLink link;
  if (parent != nullptr) {
    link.parent = parent->key;
    link.depth = parent->depth + 1;
  }
  // Everything before the content has a fixed length, so the content needs no length of its own.
  HmacSha256& hmac = ThreadHmac();
  hmac.Start(salt_);
  hmac.Update(AsBytes(kLinkDomain));
  hmac.Update(root_);
  hmac.Update(link.parent.bytes);
  hmac.Update({&source, 1});
  hmac.Update(content);
  link.key = hmac.Finish();
  const bool run_begins = link.depth % kPlacementRunBlocks == 0;
  link.placement = run_begins ? PlacementOf(link.key) : parent->placement;
  return link;
}

ChainLink KeyChain::Next(const ChainLink* parent, std::span<const int32_t> tokens) const {
  ABSL_RAW_CHECK(!tokens.empty(), "a block holds tokens");
  return Link(parent, kSourceTokens,
              {reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()});
}

ChainLink KeyChain::NextFromEngineHash(const ChainLink* parent,
                                       std::span<const uint8_t> engine_hash) const {
  ABSL_RAW_CHECK(!engine_hash.empty() && engine_hash.size() <= kEngineHashBytesMax,
                 "an engine's hash has 1 to 64 bytes");
  return Link(parent, kSourceEngineHash, engine_hash);
}

std::vector<ChainLink> KeyChain::Links(std::span<const int32_t> tokens,
                                       uint32_t block_tokens) const {
  ABSL_RAW_CHECK(block_tokens > 0, "a block holds tokens");
  std::vector<ChainLink> links;
  links.reserve(tokens.size() / block_tokens);
  for (size_t at = 0; at + block_tokens <= tokens.size(); at += block_tokens) {
    links.push_back(
        Next(links.empty() ? nullptr : &links.back(), tokens.subspan(at, block_tokens)));
  }
  return links;
}

BlockKey OpaqueKey(const TenantSalt& salt, std::span<const uint8_t> name) {
  HmacSha256& hmac = ThreadHmac();
  hmac.Start(salt);
  hmac.Update(AsBytes(kOpaqueDomain));
  hmac.Update(name);
  return hmac.Finish();
}

BlockKey AnchorNameKey(const TenantSalt& salt, const Fingerprint& model,
                       std::span<const uint8_t> name) {
  HmacSha256& hmac = ThreadHmac();
  hmac.Start(salt);
  hmac.Update(AsBytes(kAnchorDomain));
  hmac.Update(model.bytes);
  hmac.Update(name);
  return hmac.Finish();
}

BlockKey RosterKey(const BlockKey& pool, uint32_t sequence) {
  std::vector<uint8_t> input;
  WireWriter writer(input);
  writer.Bytes(AsBytes(kRosterDomain));
  writer.Bytes(pool.bytes);
  writer.U32(sequence);
  return BlockKey{Sha256(input)};
}

BlockKey SequenceKey(const TenantSalt& salt, const BlockKey& tail, uint32_t tokens,
                     std::string_view chain, std::span<const uint8_t, 16> profile_id) {
  constexpr size_t kChainBytesMax = 47;  // of a variant's name
  ABSL_RAW_CHECK(!chain.empty() && chain.size() <= kChainBytesMax,
                 "a chain has 1 to 47 characters");
  std::vector<uint8_t> input;
  WireWriter writer(input);
  writer.Bytes(AsBytes(kSequenceDomain));
  writer.Bytes(tail.bytes);
  writer.U32(tokens);
  writer.Text(chain, kChainBytesMax);
  writer.Bytes(profile_id);
  HmacSha256& hmac = ThreadHmac();
  hmac.Start(salt);
  hmac.Update(input);
  return hmac.Finish();
}

uint64_t PlacementOf(const BlockKey& key) { return LoadLe<uint64_t>(key.bytes.data()); }

}  // namespace kedge
