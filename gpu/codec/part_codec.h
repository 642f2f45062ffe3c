// What a method of a codec chain is: one class, one file (NAME_codec.cc), one line in the list at
// the end of part_codec.cc.
//
// CodecChain does what all lossy parts have in common: the header, the first tokens that stay raw,
// pages, the checks of shape and size. A method has the bytes between, the *body*, and nothing
// else. Its values are read through SourceRows and written through TargetRows, un-rotated keys.
//
// A PartCodec is immutable; all methods may be called by any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gpu/codec/part_header.h"
#include "gpu/codec/part_rows.h"
#include "gpu/kernels/rope.h"
#include "proto/block_header.h"
#include "proto/kv_shape.h"

namespace kedge {
class ModelProfile;  // proto/model_profile.h
}  // namespace kedge

namespace kedge::codec {

struct PartTask {
  KvShape shape;
  uint32_t layer = 0;  // inside the model, as KvShape::PartIndex counts
  Component component = Component::kK;
  // The block's tokens' angles, [block_tokens, head_size / 2]. Null: keys stay as they are (a model
  // without RoPE, or a caller that wants them un-rotated). Looked at for lossy keys only.
  const kernels::RopeTable* rope = nullptr;
};

// "layer 3 k": how errors call a part.
std::string PartName(const PartTask& task);

// The first value of `source` that no method can encode, as InvalidArgument naming layer and token.
absl::Status BadValue(const PartTask& task, const SourceRows& source);

class PartCodec {
 public:
  virtual ~PartCodec() = default;

  virtual std::string name() const = 0;
  virtual Fidelity fidelity() const { return Fidelity::kQuantized; }

  // InvalidArgument, both numbers named, when parts of this shape cannot be encoded. The shape is
  // valid, its dtype f32, f16 or bf16, the component k or v.
  virtual absl::Status Supports(const KvShape& shape, Component component) const {
    (void)shape;
    (void)component;
    return absl::OkStatus();
  }

  // Whether every body of a shape and component has the same size. CodecChain refuses others of it
  // before Decode sees them.
  virtual bool fixed_size() const { return true; }
  // The most bytes of a body; all bodies' bytes where fixed_size().
  virtual uint64_t MaxBodyBytes(const KvShape& shape, Component component) const = 0;

  // Sets the header's fields that are the method's: method, bits, flags, detail.
  virtual void Describe(PartHeader& header) const = 0;

  // Writes the body and gives its bytes. `body` has MaxBodyBytes. May set header.detail where
  // Describe left it free. BadValue where a value cannot be encoded.
  virtual absl::StatusOr<uint64_t> Encode(const PartTask& task, const SourceRows& source,
                                          PartHeader& header, std::span<uint8_t> body) const = 0;

  // Checks all of `body`, which may be hostile, before it touches the first row of `target`. The
  // error names the part, the field and its value.
  virtual absl::Status Decode(const PartTask& task, const PartHeader& header,
                              std::span<const uint8_t> body, const TargetRows& target) const = 0;
};

using PartCodecPtr = std::shared_ptr<const PartCodec>;

// Makes the method of `name`, or null when the name is not of its grammar. FailedPrecondition when
// the method needs a profile and has none, or the profile lacks its section; what it needs of the
// profile it copies.
using PartCodecMaker = absl::StatusOr<PartCodecPtr> (*)(std::string_view name,
                                                        const ModelProfile* profile);

struct PartCodecFamily {
  const char* grammar;  // for people: "kivi{2,4,8}g{32,64,128}"
  PartCodecMaker make;
};

// All methods there are.
std::span<const PartCodecFamily> PartCodecFamilies();

// One file each.
absl::StatusOr<PartCodecPtr> MakeFp8Codec(std::string_view name, const ModelProfile* profile);
absl::StatusOr<PartCodecPtr> MakeKiviCodec(std::string_view name, const ModelProfile* profile);
absl::StatusOr<PartCodecPtr> MakeKiviRansCodec(std::string_view name, const ModelProfile* profile);
absl::StatusOr<PartCodecPtr> MakeArchiveCodec(std::string_view name, const ModelProfile* profile);

}  // namespace kedge::codec
