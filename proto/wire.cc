#include "proto/wire.h"

#include "absl/base/internal/raw_logging.h"
#include "absl/strings/str_cat.h"

namespace kedge {

void WireWriter::Count(size_t count, uint32_t max) {
  ABSL_RAW_CHECK(count <= max, "encoding more items than the format allows");
  U32(static_cast<uint32_t>(count));
}

void WireWriter::Text(std::string_view text, uint16_t max) {
  ABSL_RAW_CHECK(text.size() <= max, "encoding a longer text than the format allows");
  U16(static_cast<uint16_t>(text.size()));
  Append(text.data(), text.size());
}

void WireWriter::Blob(std::span<const uint8_t> bytes, uint32_t max) {
  ABSL_RAW_CHECK(bytes.size() <= max, "encoding more bytes than the format allows");
  U32(static_cast<uint32_t>(bytes.size()));
  Bytes(bytes);
}

const uint8_t* WireReader::Take(const char* field, size_t bytes) {
  if (!status_.ok()) return nullptr;
  if (left_ < bytes) {
    Fail(field, absl::StrCat("needs ", bytes, " bytes, ", left_, " are left"));
    return nullptr;
  }
  const uint8_t* from = next_;
  next_ += bytes;
  left_ -= bytes;
  return from;
}

uint8_t WireReader::Enum(const char* field, uint8_t max) {
  const uint8_t value = U8(field);
  if (value <= max) return value;
  Fail(field, absl::StrCat("value ", value, " is unknown, the largest is ", max));
  return 0;
}

void WireReader::Zero(const char* field) {
  const uint8_t value = U8(field);
  if (value != 0) Fail(field, absl::StrCat("value ", value, " where zero is reserved"));
}

void WireReader::Bytes(const char* field, std::span<uint8_t> out) {
  const uint8_t* from = Take(field, out.size());
  if (from != nullptr && !out.empty()) std::memcpy(out.data(), from, out.size());
}

uint32_t WireReader::Count(const char* field, uint32_t max, uint32_t item_bytes) {
  const uint32_t count = U32(field);
  if (count > max) {
    Fail(field, absl::StrCat("count ", count, " passes the limit of ", max));
    return 0;
  }
  if (uint64_t{count} * item_bytes > left_) {
    Fail(field, absl::StrCat("count ", count, " needs ", uint64_t{count} * item_bytes, " bytes, ",
                             left_, " are left"));
    return 0;
  }
  return count;
}

void WireReader::Text(const char* field, std::string& out, uint16_t max) {
  out.clear();
  const uint16_t bytes = U16(field);
  if (bytes > max) {
    Fail(field, absl::StrCat("length ", bytes, " passes the limit of ", max));
    return;
  }
  const uint8_t* from = Take(field, bytes);
  if (from != nullptr && bytes > 0) out.assign(reinterpret_cast<const char*>(from), bytes);
}

std::span<const uint8_t> WireReader::Blob(const char* field, uint32_t max) {
  const uint32_t bytes = U32(field);
  if (bytes > max) {
    Fail(field, absl::StrCat("length ", bytes, " passes the limit of ", max));
    return {};
  }
  const uint8_t* from = Take(field, bytes);
  if (from == nullptr) return {};
  return {from, bytes};
}

void WireReader::Fail(const char* field, std::string_view why) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(message_, ".", field, ": ", absl::string_view(why.data(), why.size())));
}

absl::Status WireReader::Finish() {
  if (left_ != 0) Fail("end", absl::StrCat(left_, " bytes after the last field"));
  return status_;
}

}  // namespace kedge
