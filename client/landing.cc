#include "client/landing.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"

namespace kedge {

void Landing::Start(const Target& target) {
  target_ = target;
  ended_ = has_header_ = kept_ = false;
  in_order_ = true;
  code_ = ResultCode::kInternal;
  tier_ = TierId::kNone;
  variant_ = 0;
  text_.clear();
  range_base_ = base_ = end_ = cursor_ = part_end_ = 0;
  part_ = part_last_ = 0;
  arrived_.clear();
  early_.clear();
  early_bytes_ = 0;
}

bool Landing::Fail(ResultCode code, std::string text) {
  ended_ = true;
  code_ = code;
  text_ = std::move(text);
  early_.clear();
  return false;
}

bool Landing::OnItem(const GetItemBody& body, std::span<const uint8_t> payload) {
  if (ended_) return code_ == ResultCode::kOk;
  if (has_header_) return Fail(ResultCode::kInternal, "the node answered an item twice");
  tier_ = body.tier;
  if (body.code != ResultCode::kOk) {
    return Fail(body.code, body.text.empty() ? ResultCodeName(body.code) : body.text);
  }
  if (!AcceptHeader(body.header)) return false;
  if (!payload.empty() && !OnBytes(body.payload_offset, payload)) return false;
  const auto early = std::exchange(early_, {});
  for (const auto& [offset, bytes] : early) {
    if (!OnBytes(offset, bytes)) return false;
  }
  return true;
}

bool Landing::AcceptHeader(std::span<const uint8_t> encoded) {
  absl::StatusOr<BlockHeader> header = DecodeBlockHeader(encoded);
  if (!header.ok()) {
    return Fail(ResultCode::kCorrupt, absl::StrCat("header: ", header.status().message()));
  }
  header_ = *std::move(header);
  if (header_.key != target_.key) {
    return Fail(ResultCode::kCorrupt, absl::StrCat("header.key is ", header_.key.ToHex(),
                                                   ", asked was ", target_.key.ToHex()));
  }
  if (target_.shape != nullptr && header_.shape != *target_.shape) {
    return Fail(ResultCode::kCorrupt, absl::StrCat("header.shape is ", header_.shape.ToString(),
                                                   ", the model's is ", target_.shape->ToString()));
  }
  const auto named = std::find(target_.accepted.begin(), target_.accepted.end(), header_.variant);
  const bool fits = target_.accepted.empty() ? header_.fidelity == Fidelity::kLossless
                                             : named != target_.accepted.end();
  if (!fits) {
    return Fail(ResultCode::kNoVariant,
                absl::StrCat("header.variant is ", std::string(header_.variant.view()),
                             ", which was not accepted"));
  }
  variant_ = target_.accepted.empty() ? 0 : static_cast<uint32_t>(named - target_.accepted.begin());

  const uint64_t parts = header_.parts.size();
  const uint64_t last =
      target_.part_count == 0 ? parts : uint64_t{target_.part_begin} + target_.part_count;
  if (last > parts || target_.part_begin > last) {
    return Fail(ResultCode::kInvalid, absl::StrCat("part range ", target_.part_begin, " to ", last,
                                                   " of a block of ", parts, " parts"));
  }
  uint64_t offset = 0;
  for (uint32_t part = 0; part < last; ++part) {
    if (part == target_.range_begin) range_base_ = offset;
    if (part == target_.part_begin) base_ = offset;
    offset += header_.parts[part].bytes;
  }
  end_ = offset;
  if (target_.keep_encoded && header_.variant != Variant::Raw()) {
    if (!KeepEncoded(last - target_.range_begin)) return false;
  } else if (end_ - range_base_ > target_.to->bytes()) {
    return Fail(ResultCode::kTooSmall,
                absl::StrCat("buffer has ", target_.to->bytes(), " bytes, the block needs ",
                             end_ - range_base_));
  }
  has_header_ = true;
  cursor_ = base_;
  part_ = target_.part_begin;
  part_last_ = static_cast<uint32_t>(last);
  if (part_ < part_last_) {
    part_end_ = base_ + header_.parts[part_].bytes;
    digester_.Reset(header_.key, header_.variant, part_);
  }
  if (!EndStreamedParts()) return false;  // parts of no bytes
  CheckEnd();
  return true;
}

// `parts`: that the caller's buffer must have room for once they are decoded.
bool Landing::KeepEncoded(uint64_t parts) {
  const uint64_t raw_bytes = parts * target_.shape->raw_part_bytes();
  if (!target_.any_size && raw_bytes > target_.to->bytes()) {
    return Fail(ResultCode::kTooSmall, absl::StrCat("buffer has ", target_.to->bytes(),
                                                    " bytes, the block needs ", raw_bytes));
  }
  kept_ = true;
  range_base_ = base_;
  encoded_.resize(end_ - base_);
  encoded_list_.Clear();
  encoded_list_.Add(encoded_.data(), encoded_.size());
  return true;
}

bool Landing::OnBytes(uint64_t offset, std::span<const uint8_t> bytes) {
  if (ended_) return code_ == ResultCode::kOk && bytes.empty();
  if (!has_header_) {
    if (bytes.size() > kEarlyBytesMax - early_bytes_) {
      return Fail(ResultCode::kInternal, "the node sent too many bytes before the block's header");
    }
    early_bytes_ += bytes.size();
    early_.emplace_back(offset, std::vector<uint8_t>(bytes.begin(), bytes.end()));
    return true;
  }
  if (offset < base_ || offset > end_ || bytes.size() > end_ - offset) {
    return Fail(ResultCode::kCorrupt,
                absl::StrCat("chunk.offset ", offset, " with ", bytes.size(),
                             " bytes lies outside of the range asked for, ", base_, " to ", end_));
  }
  const bool good = in_order_ && offset == cursor_ ? Stream(bytes) : Scatter(offset, bytes);
  if (good) CheckEnd();
  return good;
}

// Digest and copy stripe by stripe, so that a byte is read from memory once.
bool Landing::Stream(std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const uint64_t n =
        std::min({uint64_t{bytes.size()}, part_end_ - cursor_, uint64_t{kStripeBytes}});
    const std::span<const uint8_t> stripe = bytes.first(n);
    if (!kept_) digester_.Update(stripe);
    to().CopyIn(cursor_ - range_base_, stripe);
    cursor_ += n;
    bytes = bytes.subspan(n);
    if (!EndStreamedParts()) return false;
  }
  return true;
}

// Checks the parts that end at cursor_ and moves on to the next one.
bool Landing::EndStreamedParts() {
  while (part_ < part_last_ && cursor_ == part_end_) {
    const Digest128 digest = kept_ ? header_.parts[part_].digest : digester_.Finish();
    if (digest != header_.parts[part_].digest) {
      return Fail(ResultCode::kCorrupt,
                  absl::StrCat("part ", part_, " has digest ", digest.ToHex(), ", its header says ",
                               header_.parts[part_].digest.ToHex()));
    }
    if (++part_ == part_last_) break;
    part_end_ += header_.parts[part_].bytes;
    digester_.Reset(header_.key, header_.variant, part_);
  }
  return true;
}

bool Landing::Scatter(uint64_t offset, std::span<const uint8_t> bytes) {
  if (bytes.empty()) return true;
  if (in_order_) {
    in_order_ = false;
    if (cursor_ > base_) arrived_.emplace_back(base_, cursor_);
  }
  const uint64_t end = offset + bytes.size();
  auto next = std::lower_bound(arrived_.begin(), arrived_.end(), std::make_pair(offset, offset));
  const bool overlaps_next = next != arrived_.end() && next->first < end;
  const bool overlaps_last = next != arrived_.begin() && std::prev(next)->second > offset;
  if (overlaps_next || overlaps_last) {
    return Fail(ResultCode::kCorrupt, absl::StrCat("chunk.offset ", offset, " with ", bytes.size(),
                                                   " bytes: some of them came before"));
  }
  to().CopyIn(offset - range_base_, bytes);

  const bool joins_next = next != arrived_.end() && next->first == end;
  const bool joins_last = next != arrived_.begin() && std::prev(next)->second == offset;
  if (joins_last && joins_next) {
    std::prev(next)->second = next->second;
    arrived_.erase(next);
  } else if (joins_last) {
    std::prev(next)->second = end;
  } else if (joins_next) {
    next->first = offset;
  } else {
    if (arrived_.size() >= kGapsMax) {
      return Fail(ResultCode::kInternal, "chunks came in too many pieces");
    }
    arrived_.emplace(next, offset, end);
  }
  if (arrived_.size() == 1 && arrived_[0] == std::make_pair(base_, end_)) return VerifyRest();
  return true;
}

// Everything is there: digests the parts that were not streamed, from the caller's memory.
bool Landing::VerifyRest() {
  while (part_ < part_last_) {
    digester_.Reset(header_.key, header_.variant, part_);
    cursor_ = part_end_ - header_.parts[part_].bytes;
    to().ForRange(cursor_ - range_base_, part_end_ - cursor_,
                  [&](std::span<uint8_t> run) { digester_.Update(run); });
    cursor_ = part_end_;
    if (!EndStreamedParts()) return false;
  }
  return true;
}

void Landing::CheckEnd() {
  if (part_ == part_last_) {
    ended_ = true;
    code_ = ResultCode::kOk;
  }
}

}  // namespace kedge
