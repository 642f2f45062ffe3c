#include "proto/result_code.h"

namespace kedge {

const char* ResultCodeName(ResultCode code) {
  switch (code) {
    case ResultCode::kOk:
      return "ok";
    case ResultCode::kAbsent:
      return "absent";
    case ResultCode::kEvicted:
      return "evicted";
    case ResultCode::kRemoved:
      return "removed";
    case ResultCode::kNoVariant:
      return "no_variant";
    case ResultCode::kCorrupt:
      return "corrupt";
    case ResultCode::kExists:
      return "exists";
    case ResultCode::kExhausted:
      return "exhausted";
    case ResultCode::kDeadline:
      return "deadline";
    case ResultCode::kCancelled:
      return "cancelled";
    case ResultCode::kUnavailable:
      return "unavailable";
    case ResultCode::kInvalid:
      return "invalid";
    case ResultCode::kTooSmall:
      return "too_small";
    case ResultCode::kMismatch:
      return "mismatch";
    case ResultCode::kStaleEpoch:
      return "stale_epoch";
    case ResultCode::kDenied:
      return "denied";
    case ResultCode::kInternal:
      return "internal";
  }
  return "unknown";
}

bool IsSuccess(ResultCode code) { return code == ResultCode::kOk || code == ResultCode::kExists; }

absl::StatusCode ToStatusCode(ResultCode code) {
  switch (code) {
    case ResultCode::kOk:
      return absl::StatusCode::kOk;
    case ResultCode::kExists:
      return absl::StatusCode::kOk;
    case ResultCode::kAbsent:
      return absl::StatusCode::kNotFound;
    case ResultCode::kEvicted:
      return absl::StatusCode::kNotFound;
    case ResultCode::kRemoved:
      return absl::StatusCode::kNotFound;
    case ResultCode::kNoVariant:
      return absl::StatusCode::kNotFound;
    case ResultCode::kCorrupt:
      return absl::StatusCode::kDataLoss;
    case ResultCode::kExhausted:
      return absl::StatusCode::kResourceExhausted;
    case ResultCode::kDeadline:
      return absl::StatusCode::kDeadlineExceeded;
    case ResultCode::kCancelled:
      return absl::StatusCode::kCancelled;
    case ResultCode::kUnavailable:
      return absl::StatusCode::kUnavailable;
    case ResultCode::kInvalid:
      return absl::StatusCode::kInvalidArgument;
    case ResultCode::kTooSmall:
      return absl::StatusCode::kOutOfRange;
    case ResultCode::kMismatch:
      return absl::StatusCode::kFailedPrecondition;
    case ResultCode::kStaleEpoch:
      return absl::StatusCode::kAborted;
    case ResultCode::kDenied:
      return absl::StatusCode::kPermissionDenied;
    case ResultCode::kInternal:
      return absl::StatusCode::kInternal;
  }
  return absl::StatusCode::kInternal;
}

ResultCode FromStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return ResultCode::kOk;
    case absl::StatusCode::kNotFound:
      return ResultCode::kAbsent;
    case absl::StatusCode::kAlreadyExists:
      return ResultCode::kExists;
    case absl::StatusCode::kDataLoss:
      return ResultCode::kCorrupt;
    case absl::StatusCode::kResourceExhausted:
      return ResultCode::kExhausted;
    case absl::StatusCode::kDeadlineExceeded:
      return ResultCode::kDeadline;
    case absl::StatusCode::kCancelled:
      return ResultCode::kCancelled;
    case absl::StatusCode::kUnavailable:
      return ResultCode::kUnavailable;
    case absl::StatusCode::kInvalidArgument:
      return ResultCode::kInvalid;
    case absl::StatusCode::kUnimplemented:
      return ResultCode::kInvalid;  // another version's bytes
    case absl::StatusCode::kOutOfRange:
      return ResultCode::kTooSmall;
    case absl::StatusCode::kFailedPrecondition:
      return ResultCode::kMismatch;
    case absl::StatusCode::kAborted:
      return ResultCode::kStaleEpoch;
    case absl::StatusCode::kPermissionDenied:
      return ResultCode::kDenied;
    case absl::StatusCode::kUnauthenticated:
      return ResultCode::kDenied;
    default:
      return ResultCode::kInternal;
  }
}

const char* TierName(TierId tier) {
  switch (tier) {
    case TierId::kNone:
      return "none";
    case TierId::kGpu:
      return "gpu";
    case TierId::kHost:
      return "host";
    case TierId::kSsd:
      return "ssd";
  }
  return "unknown";
}

}  // namespace kedge
