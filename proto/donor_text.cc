#include "proto/donor_text.h"

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"
#include "proto/wire.h"

namespace kedge {
namespace {

constexpr uint8_t kVersion = 1;

}  // namespace

std::vector<uint8_t> EncodeDonorText(const DonorText& text) {
  std::vector<uint8_t> bytes;
  WireWriter writer(bytes);
  writer.U8(kVersion);
  writer.Bytes(text.parent.bytes);
  writer.U32(text.depth);
  writer.U64(text.placement);
  writer.Count(text.tokens.size(), kDonorTokensMax);
  writer.Bytes(
      {reinterpret_cast<const uint8_t*>(text.tokens.data()), text.tokens.size() * sizeof(int32_t)});
  return bytes;
}

absl::StatusOr<DonorText> DecodeDonorText(std::span<const uint8_t> bytes) {
  WireReader reader("donor_text", bytes);
  if (const uint8_t version = reader.U8("version"); reader.ok() && version != kVersion) {
    reader.Fail("version", absl::StrCat("is ", version, ", this reads ", kVersion));
  }
  DonorText text;
  reader.Bytes("parent", text.parent.bytes);
  text.depth = reader.U32("depth");
  text.placement = reader.U64("placement");
  text.tokens.resize(reader.Count("tokens", kDonorTokensMax, sizeof(int32_t)));
  reader.Bytes("tokens", {reinterpret_cast<uint8_t*>(text.tokens.data()),
                          text.tokens.size() * sizeof(int32_t)});
  if (absl::Status status = reader.Finish(); !status.ok()) return status;
  return text;
}

absl::StatusOr<std::vector<ChainLink>> VerifyDonorText(const DonorText& text, const KeyChain& chain,
                                                       uint32_t block_tokens, const BlockKey& donor,
                                                       uint32_t begin) {
  ABSL_RAW_CHECK(block_tokens > 0, "a block holds tokens");
  if (text.tokens.empty() || text.tokens.size() % block_tokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat("donor_text.tokens: ", text.tokens.size(),
                                                   " are no whole blocks of ", block_tokens));
  }
  if (uint64_t{text.depth} * block_tokens != begin) {
    return absl::InvalidArgumentError(absl::StrCat("donor_text.depth: ", text.depth, " blocks of ",
                                                   block_tokens, " do not end at ", begin));
  }
  if (text.parent.is_zero() != (text.depth == 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("donor_text.parent: ", text.parent.ToHex(), " at depth ", text.depth));
  }
  ChainLink last{.key = text.parent, .placement = text.placement, .depth = text.depth - 1};
  std::vector<ChainLink> links;
  const std::span<const int32_t> tokens = text.tokens;
  for (size_t at = 0; at < tokens.size(); at += block_tokens) {
    last =
        chain.Next(text.depth == 0 && at == 0 ? nullptr : &last, tokens.subspan(at, block_tokens));
    links.push_back(last);
  }
  if (last.key == donor) return links;
  return absl::InvalidArgumentError(absl::StrCat("donor_text.tokens: lead to ", last.key.ToHex(),
                                                 ", not to the donor ", donor.ToHex()));
}

}  // namespace kedge
