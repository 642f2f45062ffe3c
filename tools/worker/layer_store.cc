#include "tools/worker/layer_store.h"

#include <span>

namespace kedge {

LayerStore::LayerStore(const sdk::Sequence& sequence, KvCache& cache, int64_t block_tokens,
                       const sdk::StoreOptions& options)
    : cache_(cache),
      block_tokens_(block_tokens),
      begin_(options.block_begin),
      count_(options.block_count) {
  if (count_ == 0) return;
  auto writer = sequence.StoreBegin(options);
  if (writer) {
    writer_ = std::move(*writer);
  } else {
    trouble_ = "store: " + writer.text();
  }
}

void LayerStore::OnLayerDone(int64_t layer, int64_t first_token, int64_t tokens) {
  const int64_t block = first_token / block_tokens_ - begin_;
  if (!writer_ || tokens != block_tokens_ || block < 0 || block >= count_) return;
  for (sdk::Component component : {sdk::Component::kK, sdk::Component::kV}) {
    std::span<const uint8_t> part =
        cache_.PartSpan(layer, static_cast<Component>(component), first_token, tokens);
    auto status =
        writer_->Part(static_cast<uint32_t>(block), static_cast<uint32_t>(layer), component, part);
    if (status) continue;
    trouble_ = "store: " + status.text();
    writer_.reset();
    return;
  }
}

void LayerStore::Commit() {
  if (!writer_) return;
  auto request = writer_->Commit();
  writer_.reset();
  if (request) {
    request_ = std::move(*request);
  } else {
    trouble_ = "store: " + request.text();
  }
}

void LayerStore::Wait() {
  if (!request_) return;
  request_->Wait();
  for (const sdk::Item& item : request_->items()) {
    if (item.code == KEDGE_OK) {
      ++stored_blocks_;
      stored_bytes_ += item.bytes;
    } else if (item.code != KEDGE_EXISTS && trouble_.empty()) {
      trouble_ = "store: " + std::string(sdk::CodeName(static_cast<sdk::Code>(item.code))) + ": " +
                 request_->text();
    }
  }
  request_.reset();
}

}  // namespace kedge
