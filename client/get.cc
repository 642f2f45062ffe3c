#include "client/get.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/engine.h"
#include "client/lookup.h"

namespace kedge {
namespace {

// The most that one part of the model can have in any of the accepted variants.
uint64_t MaxPartBytes(const GetOperation::Question& question) {
  uint64_t most = question.shape->raw_part_bytes();
  for (const codec::CodecChain& chain : question.chains) {
    for (const Component component : {Component::kK, Component::kV}) {
      const auto bytes = chain.MaxPartBytes(*question.shape, component, /*sequence_start=*/true);
      if (bytes.ok()) most = std::max(most, *bytes);
    }
  }
  return most;
}

}  // namespace

GetOperation::GetOperation(Question question, uint64_t window_bytes, int64_t deadline_us)
    : Operation(static_cast<uint32_t>(question.items.size()), deadline_us),
      question_(std::move(question)),
      progress_(question_.items.size()) {
  const auto raw = [](const Variant& variant) { return variant == Variant::Raw(); };
  const bool decodes = question_.chains.size() == question_.variants.size();
  if (question_.reader != nullptr) {
    part_bytes_max_ = question_.part_bytes_max;
  } else if (question_.shape &&
             (decodes || std::all_of(question_.variants.begin(), question_.variants.end(), raw))) {
    part_bytes_max_ = MaxPartBytes(question_);
  }
  if (question_.group_parts != 0) {
    groups_ = (question_.part_count + question_.group_parts - 1) / question_.group_parts;
  }
  for (Progress& progress : progress_) progress.ranges_left = groups_;
  CutBatches(window_bytes);
  subs_left_.assign(groups_, static_cast<uint32_t>(batches_.size()));
}

uint32_t GetOperation::GroupParts(uint32_t group) const {
  if (question_.group_parts == 0) return question_.part_count;
  return std::min(question_.group_parts, question_.part_count - group * question_.group_parts);
}

// The most that the parts of one group can take in an item's buffer.
uint64_t GetOperation::RangeBytes(uint32_t item, uint32_t group) const {
  const uint64_t room = question_.items[item].to.bytes();
  if (part_bytes_max_ == 0) return room;
  const uint64_t part_bytes = question_.shape->raw_part_bytes();
  const uint64_t before = uint64_t{group} * question_.group_parts * part_bytes;
  const uint32_t parts = question_.part_count == 0
                             ? question_.shape->part_count() - question_.part_begin
                             : GroupParts(group);
  // A lossy variant's parts land elsewhere; what they become is checked with the header.
  if (!question_.chains.empty() || question_.reader != nullptr) return parts * part_bytes_max_;
  return std::min(parts * part_bytes, room > before ? room - before : 0);
}

void GetOperation::CutBatches(uint64_t window_bytes) {
  uint64_t group_bytes = 0;
  for (uint32_t item = 0; item < count(); ++item) {
    const uint64_t bytes = RangeBytes(item, 0);
    group_bytes += bytes;
    if (batches_.empty() || batches_.back().bytes + bytes > kSubRequestBytes) {
      batches_.push_back({item, item, 0});
    }
    batches_.back().end = item + 1;
    batches_.back().bytes += bytes;
  }
  in_flight_max_ =
      groups_ == 1 ? window_bytes
                   : std::min(window_bytes,
                              std::max(kLayerGroupsInFlight * group_bytes, kLayerBytesInFlightMin));
}

void GetOperation::Start(Engine& engine) {
  AskMore(engine);
  EndWhenDone(engine);
}

void GetOperation::AskMore(Engine& engine) {
  while (next_group_ < groups_ && in_flight_ < in_flight_max_ &&
         subs_open_ < kSubRequestsInFlightMax) {
    const uint32_t group = next_group_;
    const Batch& batch = batches_[next_batch_];
    if (++next_batch_ == batches_.size()) {
      next_batch_ = 0;
      ++next_group_;
    }
    Ask(engine, group, batch);
  }
}

GetOperation::Sub& GetOperation::FreeSub(uint32_t& tag) {
  tag = 0;
  while (tag < subs_.size() && subs_[tag]->wire != 0) ++tag;
  if (tag == subs_.size()) subs_.push_back(std::make_unique<Sub>());
  return *subs_[tag];
}

void GetOperation::Ask(Engine& engine, uint32_t group, const Batch& batch) {
  uint32_t tag = 0;
  Sub& sub = FreeSub(tag);
  sub.group = group;
  sub.part_begin = question_.part_begin + group * question_.group_parts;
  sub.part_count = GroupParts(group);
  sub.bytes = 0;
  sub.attempt = 0;
  sub.items.clear();
  for (uint32_t item = batch.begin; item < batch.end; ++item) {
    if (item_ended(item)) continue;  // it failed in an earlier group
    sub.items.push_back(item);
    sub.bytes += RangeBytes(item, group);
  }
  if (sub.items.empty()) {
    OnGroupPiece(group);
    return;
  }
  ++subs_open_;
  in_flight_ += sub.bytes;
  sub.wire = engine.OpenWire(*this, tag);
  SendGet(engine, sub);
}

void GetOperation::SendGet(Engine& engine, Sub& sub) {
  sub.running = static_cast<uint32_t>(sub.items.size());
  if (sub.landings.size() < sub.items.size()) sub.landings.resize(sub.items.size());
  GetBody body;
  body.part_begin = static_cast<uint16_t>(sub.part_begin);
  body.part_count = static_cast<uint16_t>(sub.part_count);
  body.variants = question_.variants;
  body.items.reserve(sub.items.size());
  for (size_t i = 0; i < sub.items.size(); ++i) {
    const Item& item = question_.items[sub.items[i]];
    body.items.push_back({item.key, item.placement, RangeBytes(sub.items[i], sub.group)});
    Landing::Target target;
    target.key = item.key;
    target.to = &item.to;
    target.range_begin = question_.part_begin;
    target.part_begin = sub.part_begin;
    target.part_count = sub.part_count;
    target.shape = question_.shape ? &*question_.shape : nullptr;
    target.accepted = question_.variants;
    target.keep_encoded = !question_.chains.empty() || question_.reader != nullptr;
    target.any_size = question_.reader != nullptr;
    sub.landings[i].Start(target);
  }
  EncodeGet(body, engine.Body());
  engine.Send(FrameType::kGet, sub.wire, deadline_us());
}

void GetOperation::OnFrame(Engine& engine, uint64_t, uint32_t tag, const Frame& frame,
                           std::span<const uint8_t> payload) {
  Sub& sub = *subs_[tag];
  absl::Status status;
  uint64_t index = 0;
  uint64_t offset = 0;
  switch (frame.header.type) {
    case FrameType::kChunk: {
      ChunkBody chunk;
      status = DecodeChunk(frame.body, chunk);
      index = chunk.target;
      offset = chunk.offset;
      break;
    }
    case FrameType::kGetItem:
      status = DecodeGetItem(frame.body, item_body_);
      index = item_body_.item;
      break;
    case FrameType::kError:
      OnError(engine, sub, frame);
      return;
    default:
      return;
  }
  if (status.ok() && index >= sub.items.size()) {
    status = absl::DataLossError(
        absl::StrCat("item ", index, " of a request with ", sub.items.size(), " items"));
  }
  if (!status.ok()) {
    Abandon(engine, ResultCode::kInternal,
            std::string_view(status.message().data(), status.message().size()));
    return;
  }
  Landing& landing = sub.landings[index];
  if (landing.ended()) return;  // what the node still sends of a failed item
  if (frame.header.type == FrameType::kChunk) {
    landing.OnBytes(offset, payload);
  } else {
    landing.OnItem(item_body_, payload);
  }
  if (landing.ended()) OnLanding(engine, sub, static_cast<uint32_t>(index));
}

void GetOperation::OnLanding(Engine& engine, Sub& sub, uint32_t index) {
  const Landing& landing = sub.landings[index];
  const uint32_t item = sub.items[index];
  Progress& progress = progress_[item];
  ItemResult result;
  result.code = landing.code();
  result.tier = landing.tier();
  std::string text = landing.text();
  uint64_t written = landing.bytes();
  if (result.code == ResultCode::kOk) {
    if (progress.has_root && progress.root != landing.header().root) {
      result.code = ResultCode::kCorrupt;
      text = "layers of one fetch came from two copies that differ";
    } else if (landing.kept_encoded()) {
      const absl::StatusOr<uint64_t> decoded = Decode(landing, item);
      if (decoded.ok()) {
        written = *decoded;
      } else {
        result.code = ResultCode::kCorrupt;
        text = std::string(decoded.status().message());
      }
    }
  }
  if (result.code == ResultCode::kCorrupt) engine.CountCorrupt();
  if (result.code != ResultCode::kOk) {
    progress.rope.reset();
    EndItem(item, result, text);
  } else {
    progress.has_root = true;
    progress.root = landing.header().root;
    progress.bytes += written;
    if (--progress.ranges_left == 0) {
      progress.rope.reset();
      result.fidelity = static_cast<uint8_t>(landing.header().fidelity);
      result.variant = static_cast<uint8_t>(landing.variant());
      result.exact = true;
      result.bytes = progress.bytes;
      EndItem(item, result);
    }
  }
  if (--sub.running == 0) OnSubEnded(engine, sub);
}

// Checks, decodes, rotates and scatters what landed.
absl::StatusOr<uint64_t> GetOperation::Decode(const Landing& landing, uint32_t item) {
  const BlockHeader& header = landing.header();
  if (question_.lossy != nullptr && header.fidelity != Fidelity::kLossless) {
    question_.lossy->Add(question_.items[item].block, header.variant);
  }
  if (question_.reader != nullptr) {
    return question_.reader->Read(header, landing.part_begin(), landing.part_end(),
                                  landing.encoded());
  }
  std::unique_ptr<kernels::RopeTable>& rope = progress_[item].rope;
  if (rope == nullptr && header.rope == RopeState::kUnrotated && !question_.rotation.none()) {
    const int64_t tokens = question_.shape->block_tokens;
    rope = std::make_unique<kernels::RopeTable>(
        *question_.rotation.Table(question_.items[item].block * tokens, tokens));
  }
  std::span<const uint8_t> rest = landing.encoded();
  for (uint32_t part = landing.part_begin(); part < landing.part_end(); ++part) {
    const std::span<const uint8_t> bytes = rest.first(header.parts[part].bytes);
    rest = rest.subspan(bytes.size());
    if (absl::Status status = DecodePart(landing, item, part, bytes); !status.ok()) return status;
  }
  return (landing.part_end() - landing.part_begin()) * question_.shape->raw_part_bytes();
}

absl::Status GetOperation::DecodePart(const Landing& landing, uint32_t item, uint32_t part,
                                      std::span<const uint8_t> bytes) {
  const KvShape& shape = *question_.shape;
  const uint64_t part_bytes = shape.raw_part_bytes();
  const uint64_t row_bytes = part_bytes / shape.block_tokens;
  const uint64_t offset = (part - question_.part_begin) * part_bytes;
  const ScatterList& to = question_.items[item].to;
  // Where the caller's pieces are pages of whole tokens, all of one size, they are written at once.
  pages_.clear();
  to.ForRange(offset, part_bytes, [&](std::span<uint8_t> run) { pages_.push_back(run); });
  const uint64_t page_bytes = pages_[0].size();
  const bool paged = page_bytes % row_bytes == 0 && part_bytes % page_bytes == 0 &&
                     std::all_of(pages_.begin(), pages_.end(), [&](std::span<uint8_t> page) {
                       return page.size() == page_bytes;
                     });
  if (!paged) {
    page_.resize(part_bytes);
    pages_.assign(1, page_);
  }
  const codec::PartPlace place = codec::PlaceOfPart(shape, part);
  const codec::PartTask task{shape, place.layer, place.component, progress_[item].rope.get()};
  const codec::PartPages pages{pages_, static_cast<int64_t>(pages_[0].size() / row_bytes)};
  const codec::CodecChain& chain = question_.chains[landing.variant()];
  absl::Status status = chain.DecodeFetchedPart(landing.header(), task, bytes, pages);
  if (status.ok() && !paged) to.CopyIn(offset, page_);
  return status;
}

void GetOperation::OnSubEnded(Engine& engine, Sub& sub) {
  engine.CloseWire(sub.wire);
  sub.wire = 0;
  --subs_open_;
  in_flight_ -= sub.bytes;
  OnGroupPiece(sub.group);
  AskMore(engine);
  EndWhenDone(engine);
}

void GetOperation::OnGroupPiece(uint32_t group) {
  --subs_left_[group];
  const uint32_t before = groups_done_;
  while (groups_done_ < groups_ && subs_left_[groups_done_] == 0) ++groups_done_;
  if (groups_done_ == before || question_.group_parts == 0) return;
  SetLayers(std::min(groups_done_ * question_.group_parts, question_.part_count) /
            question_.layer_parts);
}

void GetOperation::EndWhenDone(Engine& engine) {
  if (subs_open_ == 0 && next_group_ == groups_) End(engine);
}

void GetOperation::OnError(Engine& engine, Sub& sub, const Frame& frame) {
  ErrorBody error;
  engine.CloseWire(sub.wire);
  if (WorthRetry(engine, frame, sub.attempt++, error)) {
    uint32_t tag = 0;
    while (subs_[tag].get() != &sub) ++tag;
    sub.wire = engine.OpenWire(*this, tag);
    SendGet(engine, sub);
    return;
  }
  for (uint32_t i = 0; i < sub.items.size(); ++i) {
    if (!sub.landings[i].ended()) EndItem(sub.items[i], error.code, error.text);
  }
  OnSubEnded(engine, sub);
}

// Closing the wires is what makes the caller's memory safe: a frame that has no wire finds no
// landing.
void GetOperation::Abandon(Engine& engine, ResultCode code, std::string_view text) {
  if (ended()) return;
  for (const auto& sub : subs_) {
    if (sub->wire != 0) engine.CancelWire(sub->wire);
    sub->wire = 0;
  }
  subs_open_ = 0;
  for (uint32_t item = 0; item < count(); ++item) EndItem(item, code, text);
  End(engine);
}

}  // namespace kedge
