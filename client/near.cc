#include "client/near.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/client_limits.h"
#include "client/get.h"
#include "client/put.h"
#include "proto/donor_text.h"

namespace kedge {
namespace {

// Runs it and waits until it has ended.
void RunAndWait(Engine& engine, const std::shared_ptr<Operation>& operation) {
  engine.Run(operation);
  operation->Wait(UINT32_MAX);
}

absl::Status StatusOf(const ItemResult& item, const std::string& text) {
  if (item.code == ResultCode::kOk || item.code == ResultCode::kExists) return absl::OkStatus();
  return absl::Status(ToStatusCode(item.code), text);
}

// A text is a value: a block of one part, beside the donor's blocks.
PutOperation::Item TextItem(const match::Registration& made) {
  PutOperation::Item item;
  item.header.key = made.text_name;
  item.header.placement = made.donor.placement;
  item.header.keyspace = Keyspace::kOpaque;
  item.header.fidelity = Fidelity::kLossless;
  item.header.variant = Variant::Raw();
  item.header.shape = KvShape::Opaque();
  item.header.parts = {{static_cast<uint32_t>(made.text.size()), {}}};
  item.extents = {{0, made.text.data(), made.text.size()}};
  return item;
}

}  // namespace

// --- NearLookupOperation ---

void NearLookupOperation::Encode(std::vector<uint8_t>& body) {
  asked_ = std::min<size_t>(ids_.size() - begin_, kNearIdsMax);
  const auto first = ids_.begin() + static_cast<ptrdiff_t>(begin_);
  EncodeNearLookup({{first, first + static_cast<ptrdiff_t>(asked_)}}, body);
}

absl::StatusOr<bool> NearLookupOperation::Take(std::span<const uint8_t> body) {
  NearFoundBody found;
  if (absl::Status status = DecodeNearFound(body, found); !status.ok()) return status;
  const auto first_donor = static_cast<uint32_t>(reply_.donors.size());
  for (NearHit hit : found.reply.hits) {
    hit.question += static_cast<uint32_t>(begin_);
    hit.donor += first_donor;
    reply_.hits.push_back(hit);
  }
  reply_.donors.insert(reply_.donors.end(), found.reply.donors.begin(), found.reply.donors.end());
  left_out_ += found.left_out;
  begin_ += asked_;
  if (begin_ < ids_.size()) return true;
  EndItem(0, ResultCode::kOk);
  return false;
}

// --- NearInsertOperation ---

void NearInsertOperation::Encode(std::vector<uint8_t>& out) {
  NearInsertBody body;
  size_t bytes = 0;
  for (told_ = 0; begin_ + told_ < count() && told_ < kNearItemsMax; ++told_) {
    const NearInsertItem& item = items_[begin_ + told_];
    bytes += near_item_bytes(item);
    if (told_ > 0 && bytes > kNearInsertBytesMax) break;
    body.items.push_back(item);
  }
  EncodeNearInsert(body, out);
}

absl::StatusOr<bool> NearInsertOperation::Take(std::span<const uint8_t> body) {
  NearInsertedBody inserted;
  if (absl::Status status = DecodeNearInserted(body, inserted); !status.ok()) return status;
  if (inserted.codes.size() != told_) {
    return absl::DataLossError(absl::StrCat("near_inserted.codes: ", inserted.codes.size(),
                                            " of them for ", told_, " donors"));
  }
  for (const ResultCode code : inserted.codes) {
    EndItem(begin_++, code,
            code == ResultCode::kDenied ? "near: the node keeps no near index"
                                        : "near: the node refuses the donor");
  }
  return begin_ < count();
}

// --- NearNodes ---

absl::Status NearNodes::Register(std::span<const match::Registration> made, uint8_t durability) {
  if (made.empty()) return absl::OkStatus();
  absl::Status worst;
  std::vector<NearInsertItem> items;
  for (size_t begin = 0; begin < made.size(); begin += kBatchItemsMax) {
    const auto batch = made.subspan(begin, std::min<size_t>(kBatchItemsMax, made.size() - begin));
    PutOperation::Question question{.variant = Variant::Raw(), .durability = durability};
    for (const match::Registration& one : batch) question.items.push_back(TextItem(one));
    const auto put =
        std::make_shared<PutOperation>(std::move(question), window_bytes_, deadline_us_);
    RunAndWait(*engine_, put);
    std::vector<ItemResult> results(batch.size());
    put->CopyItems(results);
    for (size_t i = 0; i < batch.size(); ++i) {
      worst.Update(StatusOf(results[i], put->final_text()));
      if (StatusOf(results[i], "").ok()) items.push_back({batch[i].donor, batch[i].postings});
    }
  }
  if (items.empty()) return worst;
  const auto insert = std::make_shared<NearInsertOperation>(std::move(items), deadline_us_);
  RunAndWait(*engine_, insert);
  std::vector<ItemResult> results(insert->count());
  insert->CopyItems(results);
  for (const ItemResult& result : results) worst.Update(StatusOf(result, insert->final_text()));
  return worst;
}

void NearNodes::Strike(std::span<const NearDonor> donors) {
  NearStrikeBody body;
  for (const NearDonor& donor : donors.first(std::min<size_t>(donors.size(), kNearStrikesMax)))
    body.keys.push_back(donor.key);
  if (body.keys.empty()) return;
  Engine* engine = engine_.get();  // tasks end with it
  engine_->Post([engine, body = std::move(body)] {
    if (!engine->connected()) return;
    EncodeNearStrike(body, engine->Body());
    engine->Send(FrameType::kNearStrike, 0, 0);
  });
}

// One node so far: every placement is at home there (client/route.h).
uint32_t NearNodes::NodeOf(uint64_t) const { return 0; }

void NearNodes::Lookup(std::span<match::LookupRequest> requests) {
  std::vector<std::shared_ptr<NearLookupOperation>> running;
  for (const match::LookupRequest& request : requests) {
    running.push_back(std::make_shared<NearLookupOperation>(request.ids, deadline_us_));
    engine_->Run(running.back());
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    running[i]->Wait(UINT32_MAX);
    ItemResult result;
    running[i]->CopyItems({&result, 1});
    requests[i].status = StatusOf(result, running[i]->final_text());
    if (requests[i].status.ok()) requests[i].reply = running[i]->TakeReply();
  }
}

void NearNodes::ReadTexts(std::span<match::TextRequest> requests) {
  for (match::TextRequest& request : requests) {
    request.texts.resize(request.names.size());
    for (size_t begin = 0; begin < request.names.size(); begin += kBatchItemsMax) {
      const size_t end = std::min<size_t>(request.names.size(), begin + kBatchItemsMax);
      GetOperation::Question question;
      question.items.resize(end - begin);
      for (size_t i = begin; i < end; ++i) {
        const match::TextName& name = request.names[i];
        std::vector<uint8_t>& text = request.texts[i];
        text.resize(DonorTextBytes(name.tokens));
        question.items[i - begin].key = name.key;
        question.items[i - begin].placement = name.placement;
        question.items[i - begin].to.Add(text.data(), text.size());
      }
      const auto get =
          std::make_shared<GetOperation>(std::move(question), window_bytes_, deadline_us_);
      RunAndWait(*engine_, get);
      std::vector<ItemResult> results(end - begin);
      get->CopyItems(results);
      for (size_t i = begin; i < end; ++i) {
        const bool held = results[i - begin].code == ResultCode::kOk;
        request.texts[i].resize(held ? results[i - begin].bytes : 0);
        // Nobody answered: no donor's fault.
        if (results[i - begin].code == ResultCode::kUnavailable ||
            results[i - begin].code == ResultCode::kDeadline) {
          request.status = absl::Status(ToStatusCode(results[i - begin].code), get->final_text());
        }
      }
    }
  }
}

}  // namespace kedge
