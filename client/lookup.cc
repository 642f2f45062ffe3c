#include "client/lookup.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace kedge {

// --- LookupOperation ---

void LookupOperation::Encode(std::vector<uint8_t>& out) {
  asked_ = std::min<uint32_t>(count() - begin_, kBatchItemsMax);
  MatchBody body;
  if (question_.run) body.flags |= kMatchFlagRun;
  if (question_.lease_ms != 0) body.flags |= kMatchFlagLease;
  body.lease_ms = question_.lease_ms;
  body.variants = question_.variants;
  body.items.assign(question_.keys.begin() + begin_, question_.keys.begin() + begin_ + asked_);
  EncodeMatch(body, out);
}

absl::StatusOr<bool> LookupOperation::Take(std::span<const uint8_t> body) {
  MatchReplyBody reply;
  if (absl::Status status = DecodeMatchReply(body, reply); !status.ok()) return status;
  if (reply.lease != 0) {
    leases_.push_back(reply.lease);
    lease_ms_ = lease_ms_ == 0 ? reply.lease_ms : std::min(lease_ms_, reply.lease_ms);
  }
  bool all = true;
  for (uint32_t i = 0; i < asked_; ++i) {
    ItemResult result;
    result.code = ResultCode::kAbsent;
    if (i < reply.items.size()) {
      const MatchItem& item = reply.items[i];
      result.code = item.code;
      result.tier = item.tier;
      result.variant = item.variant;
      result.bytes = item.payload_bytes;
    }
    all = all && result.code == ResultCode::kOk;
    EndItem(begin_ + i, result, ResultCodeName(result.code));
  }
  begin_ += asked_;
  if (begin_ < count() && (all || !question_.run)) return true;
  for (; begin_ < count(); ++begin_) EndItem(begin_, ResultCode::kAbsent, "after the held run");
  return false;
}

// --- RemoveOperation ---

absl::StatusOr<bool> RemoveOperation::Take(std::span<const uint8_t> body) {
  RemoveReplyBody reply;
  if (absl::Status status = DecodeRemoveReply(body, reply); !status.ok()) return status;
  if (reply.codes.size() != count()) {
    return absl::DataLossError(absl::StrCat("remove_reply.codes: ", reply.codes.size(),
                                            " of them for ", count(), " keys"));
  }
  for (uint32_t item = 0; item < count(); ++item) {
    EndItem(item, reply.codes[item], ResultCodeName(reply.codes[item]));
  }
  return false;
}

}  // namespace kedge
