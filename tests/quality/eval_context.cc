#include "tests/quality/eval_context.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace kedge::quality {
namespace {

constexpr std::string_view kBosWord = "<bos>";

class Encoder {
 public:
  explicit Encoder(const EvalModel& model)
      : model_(model), words_(model.tokenizer.kind() == Tokenizer::Kind::kWordLevel) {}

  bool words() const { return words_; }

  // `first`: the text begins the sequence.
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, bool first) const {
    std::vector<int32_t> tokens;
    std::string rest = text;
    const bool own_bos = model_.tokenizer.Find(kBosWord).has_value();
    if (first && !own_bos && text.compare(0, kBosWord.size(), kBosWord) == 0) {
      rest.erase(0, std::min(text.size(), kBosWord.size() + 1));
      if (model_.config.bos_token.has_value()) tokens.push_back(*model_.config.bos_token);
    } else if (!words_ && !first) {
      rest.insert(0, " ");
    }
    return Append(rest, std::move(tokens));
  }
  absl::StatusOr<std::vector<int32_t>> Append(const std::string& text,
                                              std::vector<int32_t> tokens) const {
    absl::StatusOr<std::vector<int32_t>> more = model_.tokenizer.Encode(text);
    if (!more.ok()) return more.status();
    const std::optional<int32_t> unknown = model_.tokenizer.unknown();
    if (unknown && std::find(more->begin(), more->end(), *unknown) != more->end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text.substr(0, 60), "' has a word that the tokenizer does not know"));
    }
    tokens.insert(tokens.end(), more->begin(), more->end());
    return tokens;
  }

 private:
  const EvalModel& model_;
  const bool words_;
};

absl::Status Named(const std::string& id, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(id, ": ", std::string(status.message())));
}

int64_t LeadOf(const EvalModel& model, const std::vector<int32_t>& tokens) {
  if (tokens.empty()) return 0;
  const std::optional<int32_t> own = model.tokenizer.Find(kBosWord);
  return tokens[0] == own.value_or(model.config.bos_token.value_or(-1)) ? 1 : 0;
}

class Maker {
 public:
  explicit Maker(const EvalModel& model) : model_(model), encoder_(model) {}

  // `repeated` stands before the context; may be "".
  absl::StatusOr<EvalContext> Make(const TaskContext& task, const std::string& repeated) const {
    EvalContext context{.id = task.id, .consumer = task.consumer, .group = task.group};
    context.cluster = task.group.empty() ? task.id : task.group;
    const bool prose = task.questions.empty();
    // Without questions the last piece is what is scored.
    const size_t pieces = task.pieces.size() - (prose ? 1 : 0);
    for (size_t i = 0; i < pieces; ++i) {
      absl::StatusOr<std::vector<int32_t>> tokens = PieceTokens(task.pieces[i], i == 0);
      if (!tokens.ok()) return tokens.status();
      if (i == 0) {
        context.lead = LeadOf(model_, *tokens);
        if (!repeated.empty()) {
          absl::StatusOr<std::vector<int32_t>> question = encoder_.Encode(repeated, false);
          if (!question.ok()) return question.status();
          tokens->insert(tokens->begin() + context.lead, question->begin(), question->end());
        }
      }
      context.pieces.push_back({.filling = task.pieces[i].filling,
                                .placeholder = task.pieces[i].placeholder,
                                .first = static_cast<int64_t>(context.tokens.size()),
                                .count = static_cast<int64_t>(tokens->size())});
      context.tokens.insert(context.tokens.end(), tokens->begin(), tokens->end());
    }
    absl::Status status = prose ? AddLastPiece(task, context) : absl::OkStatus();
    if (!status.ok()) return status;
    return context;
  }

  absl::Status AddQuestion(const TaskQuestion& task, EvalContext& context) const {
    EvalQuestion question;
    absl::StatusOr<std::vector<int32_t>> tokens = encoder_.Encode(task.text, false);
    if (!tokens.ok()) return tokens.status();
    absl::StatusOr<std::vector<int32_t>> answer = encoder_.Encode(task.answer, false);
    if (!answer.ok()) return answer.status();
    context.questions.push_back({*std::move(tokens), *std::move(answer), task.tag});
    return CheckLength(context);
  }

 private:
  absl::StatusOr<std::vector<int32_t>> PieceTokens(const TaskPiece& piece, bool first) const {
    if (encoder_.words() || piece.plain.empty()) return encoder_.Encode(piece.text, first);
    std::vector<int32_t> tokens;  // prose goes on without a space of ours
    if (first && model_.config.bos_token) tokens.push_back(*model_.config.bos_token);
    return encoder_.Append(piece.plain, std::move(tokens));
  }

  // The score's first token needs a token before it that is computed over the policy's KV.
  absl::Status AddLastPiece(const TaskContext& task, EvalContext& context) const {
    absl::StatusOr<std::vector<int32_t>> last = PieceTokens(task.pieces.back(), false);
    if (!last.ok()) return last.status();
    if (last->size() < 2) return absl::InvalidArgumentError("the last piece has no two tokens");
    context.questions.push_back(
        {{last->begin(), last->begin() + 1}, {last->begin() + 1, last->end()}, ""});
    return CheckLength(context);
  }

  absl::Status CheckLength(const EvalContext& context) const {
    const EvalQuestion& question = context.questions.back();
    const size_t length = context.tokens.size() + question.tokens.size() + question.answer.size();
    if (static_cast<int64_t>(length) <= model_.evaluated_tokens) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("length: ", length, " tokens with question and answer; ", model_.name,
                     " was evaluated up to ", model_.evaluated_tokens));
  }

  const EvalModel& model_;
  const Encoder encoder_;
};

}  // namespace

absl::StatusOr<EvalTask> MakeEvalTask(const TaskFile& file, const EvalModel& model,
                                      const EvalTaskOptions& options) {
  EvalTask task{.name = file.task};
  const Maker maker(model);
  int64_t left = options.contexts == 0 ? INT64_MAX : options.contexts;
  for (const TaskContext& from : file.contexts) {
    if (left-- == 0) break;
    task.prose = task.prose || from.questions.empty();
    const bool apart = (options.query_aware || options.per_question) && !from.questions.empty();
    if (!apart) {
      absl::StatusOr<EvalContext> context = maker.Make(from, "");
      if (!context.ok()) return Named(from.id, context.status());
      for (const TaskQuestion& question : from.questions) {
        if (absl::Status s = maker.AddQuestion(question, *context); !s.ok())
          return Named(from.id, s);
      }
      task.contexts.push_back(*std::move(context));
      continue;
    }
    for (const TaskQuestion& question : from.questions) {
      absl::StatusOr<EvalContext> context =
          maker.Make(from, options.query_aware ? question.text : "");
      if (!context.ok()) return Named(from.id, context.status());
      if (absl::Status s = maker.AddQuestion(question, *context); !s.ok()) return Named(from.id, s);
      task.contexts.push_back(*std::move(context));
    }
  }
  return task;
}

}  // namespace kedge::quality
