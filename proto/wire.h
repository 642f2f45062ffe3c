// Little-endian integers and a bounds-checked reader and writer: the alphabet of every encoding in
// this room.
//
// A reader remembers its first error and answers zeros from then on, so that a decoder reads as a
// plain list of fields and asks once, at the end. The error names message, field and value.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace kedge {

static_assert(std::endian::native == std::endian::little,
              "encodings are copied from memory as they are");

template <typename T>
inline T LoadLe(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <typename T>
inline void StoreLe(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// Appends to a vector that the caller owns.
class WireWriter {
 public:
  explicit WireWriter(std::vector<uint8_t>& out) : out_(out) {}

  void U8(uint8_t value) { out_.push_back(value); }
  void U16(uint16_t value) { Append(&value, sizeof value); }
  void U32(uint32_t value) { Append(&value, sizeof value); }
  void U64(uint64_t value) { Append(&value, sizeof value); }
  void Bytes(std::span<const uint8_t> bytes) { Append(bytes.data(), bytes.size()); }
  // u32 count. Aborts past `max`.
  void Count(size_t count, uint32_t max);
  // u16 length, then the bytes. Aborts past `max`.
  void Text(std::string_view text, uint16_t max);
  // The same for texts that only people read: what is past `max` is cut off.
  void TextCut(std::string_view text, uint16_t max) { Text(text.substr(0, max), max); }
  // u32 length, then the bytes. Aborts past `max`.
  void Blob(std::span<const uint8_t> bytes, uint32_t max);

 private:
  void Append(const void* from, size_t bytes) {
    const auto* begin = static_cast<const uint8_t*>(from);
    out_.insert(out_.end(), begin, begin + bytes);
  }
  std::vector<uint8_t>& out_;
};

// Reads hostile bytes. `message` and the field names are literals: they are kept by address.
class WireReader {
 public:
  WireReader(const char* message, std::span<const uint8_t> bytes)
      : message_(message), next_(bytes.data()), left_(bytes.size()) {}

  uint8_t U8(const char* field) { return Integer<uint8_t>(field); }
  uint16_t U16(const char* field) { return Integer<uint16_t>(field); }
  uint32_t U32(const char* field) { return Integer<uint32_t>(field); }
  uint64_t U64(const char* field) { return Integer<uint64_t>(field); }
  // A one-byte enum whose values end at `max`.
  uint8_t Enum(const char* field, uint8_t max);
  // A reserved byte: zero.
  void Zero(const char* field);
  void Bytes(const char* field, std::span<uint8_t> out);
  // u32 count of items of at least `item_bytes` each: at most `max`, and no more than the bytes
  // left can hold.
  uint32_t Count(const char* field, uint32_t max, uint32_t item_bytes);
  // u16 length, then that many bytes.
  void Text(const char* field, std::string& out, uint16_t max);
  // u32 length, then that many bytes; the answer points into the input.
  std::span<const uint8_t> Blob(const char* field, uint32_t max);

  bool ok() const { return status_.ok(); }
  size_t left() const { return left_; }
  // Records InvalidArgument "message.field: why" unless an error is there already.
  void Fail(const char* field, std::string_view why);
  // The first error, or one that says how many bytes are left over.
  absl::Status Finish();

 private:
  template <typename T>
  T Integer(const char* field) {
    const uint8_t* from = Take(field, sizeof(T));
    return from == nullptr ? T{0} : LoadLe<T>(from);
  }
  // nullptr, and the error is recorded, when fewer than `bytes` are left.
  const uint8_t* Take(const char* field, size_t bytes);

  const char* message_;
  const uint8_t* next_;
  size_t left_;
  absl::Status status_;
};

}  // namespace kedge
