// A codec chain: the dense KV's whole blocks encoded and decoded in place, before any question is
// known; the tokens behind the last whole block are computed over what came back, as after a fetch.
// A store keeps whole blocks only, so there is no full-precision tail of KIVI's. The first block
// begins the sequence: its first 4 tokens stay raw.
//
// Two more, which are no chains: KIVI with the axis of keys, or of values, the other way round, to
// show why it is the way it is.
#include <atomic>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/kivi.h"
#include "tests/quality/policies.h"

namespace kedge::quality {
namespace {

using codec::CodecChain;

constexpr std::string_view kKeysPerToken = "kivi2g32-keys-per-token";
constexpr std::string_view kValuesPerChannel = "kivi2g32-values-per-channel";

KvShape ShapeOf(const Model& model) {
  return KvShape::KeysAndValues(static_cast<uint16_t>(model.config().layers),
                                static_cast<uint16_t>(model.config().kv_heads),
                                static_cast<uint16_t>(model.config().head_size),
                                static_cast<uint16_t>(model.block_tokens()), model.kv_dtype());
}

class CodecPolicy : public KvPolicy {
 public:
  CodecPolicy(std::string name, CodecChain chain, bool other_keys, bool other_values)
      : name_(std::move(name)),
        chain_(std::move(chain)),
        other_keys_(other_keys),
        other_values_(other_values) {}

  std::string name() const override { return name_; }

  double BitsPerValue(const Model& model, int64_t tokens) const override {
    const KvShape shape = ShapeOf(model);
    if (first_.values > 0 || later_.values > 0) {
      return 8.0 * static_cast<double>(first_.bytes + later_.bytes) /
             static_cast<double>(first_.values + later_.values);
    }
    const int64_t blocks = tokens / shape.block_tokens;
    double bytes = 0.0;
    for (int64_t block = 0; block < blocks; ++block) {
      for (const Component component : {Component::kK, Component::kV})
        bytes += static_cast<double>(chain_.MaxPartBytes(shape, component, block == 0).value_or(0));
    }
    return 8.0 * bytes /
           static_cast<double>(blocks * shape.block_tokens * 2 * shape.kv_heads * shape.head_size);
  }

  double LaterBitsPerValue() const override {
    if (later_.values == 0) return 0.0;
    return 8.0 * static_cast<double>(later_.bytes) / static_cast<double>(later_.values);
  }

  absl::StatusOr<PolicyKv> Obtain(Model& model, const PolicyInput& input) const override {
    const auto length = static_cast<int64_t>(input.context.tokens.size());
    const int64_t whole = length - length % model.block_tokens();
    absl::StatusOr<KvCache> cache = model.Fork(input.dense, whole, input.capacity);
    if (!cache.ok()) return cache.status();
    codec::PartTask task{.shape = ShapeOf(model)};
    for (int64_t first = 0; first < whole; first += model.block_tokens()) {
      const kernels::RopeTable rope = model.RopeTableAt(first, model.block_tokens());
      task.rope = &rope;
      for (task.layer = 0; task.layer < task.shape.layer_count; ++task.layer) {
        for (const Component component : {Component::kK, Component::kV}) {
          task.component = component;
          const std::span<uint8_t> part =
              cache->PartSpan(task.layer, task.component, first, model.block_tokens());
          if (absl::Status s = ThereAndBack(task, first == 0, part); !s.ok()) return s;
        }
      }
    }
    if (whole < length) {
      absl::Status s = model.Prefill(input.context.tokens, *cache).status();
      if (!s.ok()) return s;
    }
    return PolicyKv{
        .cache = *std::move(cache), .provenance = KvProvenance::kExact, .lossless = false};
  }

 private:
  absl::Status ThereAndBack(const codec::PartTask& task, bool sequence_start,
                            std::span<uint8_t> part) const {
    const bool keys = task.component == Component::kK;
    if (keys ? other_keys_ : other_values_) return OtherAxis(task, sequence_start, part);
    const absl::StatusOr<uint64_t> most =
        chain_.MaxPartBytes(task.shape, task.component, sequence_start);
    if (!most.ok()) return most.status();
    std::vector<uint8_t> encoded(*most);
    const absl::StatusOr<uint64_t> used = chain_.EncodePart(task, sequence_start, part, encoded);
    if (!used.ok()) return used.status();
    encoded.resize(*used);
    Stored& stored = sequence_start ? first_ : later_;
    stored.bytes += static_cast<int64_t>(*used);
    stored.values += static_cast<int64_t>(part.size() / DTypeBytes(task.shape.dtype));
    return chain_.DecodePart(task, encoded, {{&part, 1}, task.shape.block_tokens});
  }

  // 2 bits in groups of 32, as kivi2g32 but for the axis.
  static absl::Status OtherAxis(const codec::PartTask& task, bool sequence_start,
                                std::span<uint8_t> part) {
    const bool keys = task.component == Component::kK;
    const KvShape& shape = task.shape;
    const absl::StatusOr<codec::KiviLayout> layout =
        codec::MakeKiviLayout(2, 32, keys ? codec::GroupAxis::kChannels : codec::GroupAxis::kTokens,
                              shape.block_tokens, shape.kv_heads, shape.head_size);
    if (!layout.ok()) return layout.status();
    const kernels::RopeTable* rope = keys ? task.rope : nullptr;
    const int64_t skip = sequence_start ? 4 : 0;
    std::vector<uint8_t> encoded(layout->bytes());
    if (!codec::KiviEncode(*layout, {shape.dtype, part.data(), rope, skip}, encoded.data()))
      return absl::InvalidArgumentError(absl::StrCat("layer ", task.layer, ": not finite"));
    std::vector<uint8_t*> rows;
    for (int64_t t = 0; t < layout->tokens; ++t)
      rows.push_back(part.data() + t * (part.size() / layout->tokens));
    codec::KiviDecode(*layout, encoded.data(), {shape.dtype, rows.data(), rope, skip});
    return absl::OkStatus();
  }

  // What Obtain has encoded so far.
  struct Stored {
    std::atomic<int64_t> bytes = 0;
    std::atomic<int64_t> values = 0;
  };

  const std::string name_;
  const CodecChain chain_;
  const bool other_keys_;
  const bool other_values_;
  mutable Stored first_;  // blocks that begin a sequence
  mutable Stored later_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KvPolicy>> MakeCodecPolicy(const std::string& name,
                                                          const ModelProfile* profile) {
  const bool other_keys = name == kKeysPerToken;
  const bool other_values = name == kValuesPerChannel;
  absl::StatusOr<CodecChain> chain =
      CodecChain::Parse(other_keys || other_values ? "kivi2g32" : name, profile);
  if (!chain.ok()) return chain.status();
  return std::make_unique<CodecPolicy>(name, *std::move(chain), other_keys, other_values);
}

}  // namespace kedge::quality
