#include "tests/quality/summary.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"

namespace kedge::quality {
namespace {

constexpr int64_t kPositionStep = 16;

// What is counted of one question.
struct Selection {
  std::string tag;    // "" for all
  int64_t first = 0;  // tokens of the answer
  int64_t last = INT64_MAX;
};

class Summary {
 public:
  Summary(const EvalTask& task, const std::vector<ContextScores>& scores)
      : task_(task), scores_(scores) {
    for (const EvalContext& context : task.contexts) {
      for (const EvalQuestion& question : context.questions) {
        if (!question.tag.empty()) tags_.insert(question.tag);
        longest_ = std::max(longest_, static_cast<int64_t>(question.answer.size()));
      }
    }
  }

  bool by_token() const { return !task_.prose && longest_ >= kLongAnswer; }
  int64_t longest() const { return longest_; }
  const std::set<std::string>& tags() const { return tags_; }

  // One value for each question; `value` gets dense's and the policy's score.
  template <typename Value>
  Interval Mean(size_t policy, const Selection& selection, const Value& value) const {
    std::vector<ClusteredValue> values;
    for (size_t c = 0; c < scores_.size(); ++c) {
      const EvalContext& context = task_.contexts[c];
      for (size_t q = 0; q < context.questions.size(); ++q) {
        const EvalQuestion& question = context.questions[q];
        if (!selection.tag.empty() && question.tag != selection.tag) continue;
        if (static_cast<int64_t>(question.answer.size()) <= selection.first) continue;
        values.push_back({context.cluster, value(scores_[c].policies[0][q],
                                                 scores_[c].policies[policy][q], selection)});
      }
    }
    return Bootstrap(values);
  }

  // One value for each context; no layer: the mean over them.
  Interval AttentionError(size_t policy, std::optional<size_t> layer) const {
    std::vector<ClusteredValue> values;
    for (size_t c = 0; c < scores_.size(); ++c) {
      const std::vector<double>& errors = scores_[c].attention_errors[policy];
      const double mean =
          std::accumulate(errors.begin(), errors.end(), 0.0) / static_cast<double>(errors.size());
      values.push_back({task_.contexts[c].cluster, layer ? errors[*layer] : mean});
    }
    return Bootstrap(values);
  }
  size_t attention_layers(size_t policy) const {
    if (scores_.empty()) return 0;
    const auto& errors = scores_.front().attention_errors;
    return policy < errors.size() ? errors[policy].size() : 0;
  }

  // Groups whose contexts all got the same answers.
  Interval Consistency(size_t policy) const {
    std::map<std::string, std::set<std::vector<std::vector<int32_t>>>> answers;
    for (size_t c = 0; c < scores_.size(); ++c) {
      if (task_.contexts[c].group.empty()) continue;
      std::vector<std::vector<int32_t>> given;
      for (const QuestionScore& score : scores_[c].policies[policy]) given.push_back(score.greedy);
      answers[task_.contexts[c].group].insert(std::move(given));
    }
    std::vector<ClusteredValue> values;
    for (const auto& [group, different] : answers)
      values.push_back({group, different.size() == 1 ? 1.0 : 0.0});
    return Bootstrap(values);
  }

 private:
  const EvalTask& task_;
  const std::vector<ContextScores>& scores_;
  std::set<std::string> tags_;
  int64_t longest_ = 0;
};

// The mean of a list over the selected tokens.
template <typename T>
double MeanOf(const std::vector<T>& list, const Selection& selection) {
  const int64_t end = std::min(selection.last, static_cast<int64_t>(list.size()));
  double sum = 0;
  for (int64_t i = selection.first; i < end; ++i) sum += list[i];
  return sum / static_cast<double>(end - selection.first);
}

double Accuracy(const QuestionScore& score, const Selection& selection, bool by_token) {
  if (by_token) return MeanOf(score.right, selection);
  return score.correct() ? 1.0 : 0.0;
}

class Writer {
 public:
  Writer(const Summary& summary, const EvalTask& task, std::vector<QualityFigure>& figures)
      : summary_(summary), task_(task), figures_(figures) {}

  void Policy(size_t index, const std::string& policy) {
    Part(index, policy, "", {});
    for (const std::string& tag : summary_.tags()) Part(index, policy, "/" + tag, {.tag = tag});
    if (summary_.by_token()) {
      for (int64_t first = 0; first < summary_.longest(); first += kPositionStep) {
        Part(index, policy, absl::StrCat("/at", first),
             {.first = first, .last = first + kPositionStep});
      }
      Add(policy, "exact", "", "share",
          summary_.Mean(index, {},
                        [](const QuestionScore&, const QuestionScore& score, const Selection&) {
                          return score.correct() ? 1.0 : 0.0;
                        }));
    }
    const Interval consistency = summary_.Consistency(index);
    if (consistency.values > 0) Add(policy, "consistency", "", "share", consistency);
    if (index == 0) return;
    Add(policy, "kl", "", "nats",
        summary_.Mean(index, {},
                      [](const QuestionScore&, const QuestionScore& score, const Selection& all) {
                        return MeanOf(score.kl, all);
                      }));
    const size_t layers = summary_.attention_layers(index);
    if (layers == 0) return;
    Add(policy, "attention_error", "", "ratio", summary_.AttentionError(index, {}));
    for (size_t layer = 0; layer < layers; ++layer) {
      Add(policy, "attention_error", absl::StrCat("/layer", layer), "ratio",
          summary_.AttentionError(index, layer));
    }
  }

 private:
  void Add(const std::string& policy, const char* measure, const std::string& part,
           const char* unit, const Interval& interval) {
    figures_.push_back({.name = absl::StrCat(policy, "/", measure, "/", task_.name, part),
                        .unit = unit,
                        .interval = interval});
  }

  // Accuracy and points lost, or loss, of some questions or tokens.
  void Part(size_t index, const std::string& policy, const std::string& part,
            const Selection& selection) {
    if (task_.prose) {
      Add(policy, "loss", part, "nats",
          summary_.Mean(index, selection,
                        [](const QuestionScore&, const QuestionScore& score, const Selection& s) {
                          return -MeanOf(score.log_probability, s);
                        }));
      if (index == 0) return;
      Add(policy, "loss_added", part, "nats",
          summary_.Mean(
              index, selection,
              [](const QuestionScore& dense, const QuestionScore& score, const Selection& s) {
                return MeanOf(dense.log_probability, s) - MeanOf(score.log_probability, s);
              }));
      return;
    }
    const bool by_token = summary_.by_token();
    // A policy's accuracy by part is dense's less the points lost.
    if (index == 0 || part.empty())
      Add(policy, "accuracy", part, "share",
          summary_.Mean(index, selection,
                        [by_token](const QuestionScore&, const QuestionScore& score,
                                   const Selection& s) { return Accuracy(score, s, by_token); }));
    if (index == 0) return;
    Add(policy, "points_lost", part, "points",
        summary_.Mean(
            index, selection,
            [by_token](const QuestionScore& dense, const QuestionScore& score, const Selection& s) {
              return 100 * (Accuracy(dense, s, by_token) - Accuracy(score, s, by_token));
            }));
    if (part.empty()) figures_.back().bar = BarOf(policy, task_.name);
  }

  const Summary& summary_;
  const EvalTask& task_;
  std::vector<QualityFigure>& figures_;
};

}  // namespace

double BarOf(const std::string& policy, const std::string& task) {
  return policy == "none" && task != "recall" ? 20 : 1;
}

std::vector<QualityFigure> Summarize(const EvalTask& task, const std::vector<ContextScores>& scores,
                                     const std::vector<std::string>& policies) {
  std::vector<QualityFigure> figures;
  const Summary summary(task, scores);
  Writer writer(summary, task, figures);
  for (size_t i = 0; i < policies.size(); ++i) writer.Policy(i, policies[i]);
  return figures;
}

}  // namespace kedge::quality
