#include "client/reuse/node_pools.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/reuse/pool_operations.h"
#include "gpu/kernels/cast.h"
#include "store/block/pool_roster.h"

namespace kedge {
namespace {

// Past the operation's own deadline: the loop looks at those every 20 ms.
constexpr int64_t kGraceMs = 1'000;

absl::Status ResultOf(const Operation& operation) {
  ItemResult result;
  operation.CopyItems({&result, 1});
  if (result.ended && IsSuccess(result.code)) return absl::OkStatus();
  return absl::Status(ToStatusCode(result.code), operation.text());
}

OffsetRefusal RefusalOf(PoolVerdict verdict) {
  switch (verdict) {
    case PoolVerdict::kNoPool:
      return OffsetRefusal::kNoPool;
    case PoolVerdict::kShape:
      return OffsetRefusal::kShape;
    case PoolVerdict::kTemplate:
      return OffsetRefusal::kTemplate;
    case PoolVerdict::kEmpty:
      return OffsetRefusal::kEmpty;
    case PoolVerdict::kOk:
      return OffsetRefusal::kNone;
    case PoolVerdict::kTooLarge:
    case PoolVerdict::kSealed:
    case PoolVerdict::kDamaged:
    case PoolVerdict::kBusy:
      break;
  }
  return OffsetRefusal::kUnavailable;
}

// Takes rows of one layer from the front of `from`.
void TakeRows(DType dtype, int64_t layer, int64_t layers, std::span<const uint8_t>& from,
              std::vector<float>& rows) {
  const int64_t count = static_cast<int64_t>(rows.size()) / layers;
  kernels::CastToFloat(dtype, from.data(), count, rows.data() + layer * count);
  from = from.subspan(static_cast<size_t>(count * kernels::FloatBytes(dtype)));
}

OffsetAnswer AnswerOf(const MixReplyBody& reply, std::span<const uint8_t> mixed) {
  OffsetAnswer answer;
  answer.refusal = RefusalOf(reply.verdict);
  if (answer.refusal != OffsetRefusal::kNone) return answer;
  answer.evidence = {
      .runs = reply.runs,
      .longest = reply.longest,
      .eligible = reply.eligible,
      .same = reply.same != 0,
      .entropy = reply.entropy,
      .nearest = reply.nearest,
      .error = {reply.predicted, reply.error[0], reply.error[1], reply.error[2], reply.error[3]}};
  answer.has_rows = reply.has_rows != 0;
  answer.active = reply.active;
  if (!answer.has_rows) return answer;
  const int64_t layers = reply.shape.layers;
  const int64_t width = reply.shape.width;
  answer.filling = offset::KvRows::Of(layers, reply.tokens, width);
  answer.prefix = offset::KvRows::Of(layers, reply.shape.prefix_tokens, width);
  for (int64_t layer = 1; layer < layers; ++layer) {
    TakeRows(reply.dtype, layer, layers, mixed, answer.filling.keys);
    TakeRows(reply.dtype, layer, layers, mixed, answer.filling.values);
    TakeRows(reply.dtype, layer, layers, mixed, answer.prefix.keys);
    TakeRows(reply.dtype, layer, layers, mixed, answer.prefix.values);
  }
  return answer;
}

class NodeCall final : public OffsetCall {
 public:
  NodeCall(std::shared_ptr<Engine> engine, std::shared_ptr<MixOperation> operation,
           int64_t deadline_ms)
      : engine_(std::move(engine)), operation_(std::move(operation)), deadline_ms_(deadline_ms) {}
  ~NodeCall() override { NodeCall::Cancel(); }

  absl::StatusOr<OffsetAnswer> Wait() override {
    if (engine_->closed() && !operation_->ended())
      return absl::UnavailableError("the client was closed");
    if (!operation_->Wait(static_cast<uint32_t>(deadline_ms_ + kGraceMs)))
      return absl::UnavailableError("the client was closed");
    if (absl::Status s = ResultOf(*operation_); !s.ok()) return s;
    OffsetAnswer answer = AnswerOf(operation_->reply(), operation_->mixed());
    answer.bytes_moved = static_cast<int64_t>(operation_->bytes_moved());
    if (answer.refusal == OffsetRefusal::kUnavailable) {
      return absl::ResourceExhaustedError(
          absl::StrCat("mix: ", PoolVerdictName(operation_->reply().verdict)));
    }
    return answer;
  }
  void Cancel() override {
    if (!operation_->ended() && !engine_->closed())
      engine_->Cancel(operation_, ResultCode::kCancelled);
  }

 private:
  const std::shared_ptr<Engine> engine_;
  const std::shared_ptr<MixOperation> operation_;
  const int64_t deadline_ms_;
};

class FailedCall final : public OffsetCall {
 public:
  explicit FailedCall(absl::Status status) : status_(std::move(status)) {}
  absl::StatusOr<OffsetAnswer> Wait() override { return status_; }
  void Cancel() override {}

 private:
  const absl::Status status_;
};

absl::Status CheckQuestion(const OffsetQuestion& question) {
  const AnchorShape& shape = question.shape;
  const auto within = [](const char* field, int64_t value, int64_t least, int64_t most) {
    if (value >= least && value <= most) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("question.", field, ": ", value, " is not ", least, " to ", most));
  };
  absl::Status s = within("layers", shape.layers, 1, kMixLayersMax);
  if (s.ok()) s = within("width", shape.width, 1, kMixWidthMax);
  if (s.ok()) s = within("prefix_tokens", shape.prefix_tokens, 0, kMixTokensMax);
  if (s.ok()) s = within("tokens", question.sketch.tokens, 0, kMixTokensMax);
  if (s.ok() && question.sketch.values.size() != size_t{kSketchFloats} * question.sketch.tokens) {
    s = absl::InvalidArgumentError("question.sketch: not 16 numbers a token");
  }
  return s;
}

}  // namespace

absl::Status NodePools::Learn(OffsetLesson lesson) {
  const offset::Anchor& anchor = lesson.anchor;
  if (anchor.filling.tokens < 1)
    return absl::InvalidArgumentError("anchor.tokens: 0, nothing is learnt of an empty filling");
  if (options_.pool.capacity < 1 || options_.pool.capacity > kAnchorsPerPoolMax) {
    return absl::InvalidArgumentError(absl::StrCat("pool.capacity: ", options_.pool.capacity,
                                                   " is not 1 to ", kAnchorsPerPoolMax));
  }
  const uint64_t bytes = offset::EncodedAnchorBytes(anchor, options_.anchor_dtype);
  if (bytes > kBlockBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("anchor.bytes: ", bytes,
                                                   ", a block has at most ", kBlockBytesMax,
                                                   "; half types halve it"));
  }
  if (engine_->closed()) return absl::UnavailableError("the client was closed");
  const AnchorInsertBody insert{.durability = options_.durability,
                                .pool = offset::PoolKey(salt_, model_, lesson.pool),
                                .placement = offset::AnchorPlacement(salt_, model_, lesson.pool),
                                .key = anchor.key,
                                .capacity = static_cast<uint32_t>(options_.pool.capacity),
                                .window = static_cast<uint32_t>(options_.pool.window),
                                .nucleus = options_.pool.nucleus};
  const auto operation =
      std::make_shared<AnchorOperation>(insert, offset::EncodeAnchor(anchor, options_.anchor_dtype),
                                        engine_->NowUs() + options_.learn_deadline_ms * 1000);
  engine_->Run(operation);
  if (!operation->Wait(static_cast<uint32_t>(options_.learn_deadline_ms + kGraceMs)))
    return absl::UnavailableError("the client was closed");
  return ResultOf(*operation);
}

std::unique_ptr<OffsetCall> NodePools::Ask(OffsetQuestion question) {
  if (absl::Status s = CheckQuestion(question); !s.ok()) return std::make_unique<FailedCall>(s);
  if (engine_->closed())
    return std::make_unique<FailedCall>(absl::UnavailableError("the client was closed"));
  MixBody mix{.pool = offset::PoolKey(salt_, model_, question.pool),
              .placement = offset::AnchorPlacement(salt_, model_, question.pool),
              .key = question.key,
              .context_digest = question.context_digest,
              .shape = WireShapeOf(question.shape),
              .weighting = static_cast<uint8_t>(question.mix.weighting),
              .with_error = question.with_error,
              .dtype = options_.answer_dtype,
              .sharpness = question.mix.sharpness,
              .max_error = question.max_error,
              .max_token_error = question.max_token_error,
              .tokens = static_cast<uint32_t>(question.sketch.tokens)};
  mix.sketch = std::move(question.sketch.values);
  const int64_t deadline_ms =
      question.deadline_ms > 0 ? question.deadline_ms : options_.deadline_ms;
  auto operation =
      std::make_shared<MixOperation>(std::move(mix), engine_->NowUs() + deadline_ms * 1000);
  engine_->Run(operation);
  return std::make_unique<NodeCall>(engine_, std::move(operation), deadline_ms);
}

void NodePools::Activate(const offset::PoolName& pool, const OffsetAnswer& answer) {
  if (answer.active.empty() || engine_->closed()) return;
  MixUsedBody used{offset::PoolKey(salt_, model_, pool),
                   offset::AnchorPlacement(salt_, model_, pool), answer.active};
  engine_->Post([engine = engine_.get(), used = std::move(used)] {
    if (!engine->connected()) return;
    EncodeMixUsed(used, engine->Body());
    engine->Send(FrameType::kMixUsed, 0, 0);
  });
}

}  // namespace kedge
