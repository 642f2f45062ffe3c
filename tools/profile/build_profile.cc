#include "tools/profile/build_profile.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gpu/codec/codec_chain.h"
#include "gpu/codec/kivi_rans.h"
#include "gpu/codec/kivi_rans_codec.h"
#include "gpu/codec/part_header.h"
#include "gpu/codec/pruned_chain.h"
#include "gpu/model/prune_profile.h"
#include "gpu/profile/archive_fit.h"
#include "gpu/profile/kv_samples.h"
#include "gpu/profile/model_identity.h"
#include "tests/quality/evaluate.h"
#include "tests/quality/kv_policy.h"

namespace kedge::profile {
namespace {

using quality::EvalContext;
using quality::EvalQuestion;
using quality::EvalTask;
using quality::Runner;

// Encodes and decodes some parts of every whole block, in place.
absl::Status ThereAndBack(const codec::CodecChain& chain, const Model& model, int64_t layer,
                          Component component, int64_t tokens, KvCache& cache) {
  codec::PartTask task{
      .shape = model.kv_shape(), .layer = static_cast<uint32_t>(layer), .component = component};
  const int64_t block = model.block_tokens();
  for (int64_t first = 0; first + block <= tokens; first += block) {
    const kernels::RopeTable rope = model.RopeTableAt(first, block);
    task.rope = &rope;
    const std::span<uint8_t> part = cache.PartSpan(layer, component, first, block);
    const absl::StatusOr<uint64_t> most = chain.MaxPartBytes(task.shape, component, first == 0);
    if (!most.ok()) return most.status();
    std::vector<uint8_t> encoded(*most);
    const absl::StatusOr<uint64_t> used = chain.EncodePart(task, first == 0, part, encoded);
    if (!used.ok()) return used.status();
    encoded.resize(*used);
    if (absl::Status s = chain.DecodePart(task, encoded, {{&part, 1}, block}); !s.ok()) return s;
  }
  return absl::OkStatus();
}

// Dense KV of which one part was quantized: for sensitivities.
class ProbePolicy : public quality::KvPolicy {
 public:
  ProbePolicy(codec::CodecChain chain, size_t part) : chain_(std::move(chain)), part_(part) {}

  std::string name() const override { return absl::StrCat("probe", part_); }

  absl::StatusOr<quality::PolicyKv> Obtain(Model& model,
                                           const quality::PolicyInput& input) const override {
    const auto length = static_cast<int64_t>(input.context.tokens.size());
    absl::StatusOr<KvCache> cache = model.Fork(input.dense, length, input.capacity);
    if (!cache.ok()) return cache.status();
    const absl::Status s =
        ThereAndBack(chain_, model, static_cast<int64_t>(part_ / 2),
                     part_ % 2 == 0 ? Component::kK : Component::kV, length, *cache);
    if (!s.ok()) return s;
    return quality::PolicyKv{
        .cache = *std::move(cache), .provenance = quality::KvProvenance::kExact, .lossless = false};
  }

 private:
  const codec::CodecChain chain_;
  const size_t part_;
};

// Contexts of all tasks in turn, so that a limit on tokens leaves none out.
std::vector<const EvalContext*> Interleaved(const std::vector<EvalTask>& tasks) {
  std::vector<const EvalContext*> contexts;
  for (size_t i = 0;; ++i) {
    const size_t before = contexts.size();
    for (const EvalTask& task : tasks) {
      if (i < task.contexts.size()) contexts.push_back(&task.contexts[i]);
    }
    if (contexts.size() == before) return contexts;
  }
}

std::vector<std::vector<int32_t>> SomeQuestions(const EvalContext& context, int64_t most) {
  std::vector<std::vector<int32_t>> result;
  const auto count = static_cast<int64_t>(context.questions.size());
  const int64_t stride = std::max<int64_t>(1, count / std::max<int64_t>(most, 1));
  for (int64_t i = 0; i < count && static_cast<int64_t>(result.size()) < most; i += stride) {
    std::vector<int32_t>& tokens = result.emplace_back(context.questions[i].tokens);
    const std::vector<int32_t>& answer = context.questions[i].answer;
    tokens.insert(tokens.end(), answer.begin(), answer.end());
  }
  return result;
}

// What a unit of error of each part costs, in nats of KL.
absl::StatusOr<std::vector<double>> Sensitivities(const ProfiledModel& model,
                                                  std::vector<Runner>& runners,
                                                  const std::vector<EvalTask>& tasks,
                                                  const codec::ArchiveBases& bases,
                                                  const ProjectedSamples& samples,
                                                  const ProfileOptions& options) {
  const size_t parts = bases.parts.size();
  if (options.probe_contexts == 0) return std::vector<double>(parts, 1.0);
  constexpr char kProbe[] = "archive0";
  quality::Policies policies;
  std::vector<double> error(parts);
  for (size_t part = 0; part < parts; ++part) {
    const codec::ArchivePoint point =
        ProbePoint(bases, samples, part, options.probe_share, &error[part]);
    const absl::StatusOr<ModelProfile> probe = ModelProfile::Make(
        model,
        {{codec::kPcaSection, bases.Encode()}, {absl::StrCat("entropy/", kProbe), point.Encode()}},
        {});
    if (!probe.ok()) return probe.status();
    absl::StatusOr<codec::CodecChain> chain = codec::CodecChain::Parse(kProbe, &*probe);
    if (!chain.ok()) return chain.status();
    policies.push_back(std::make_unique<ProbePolicy>(*std::move(chain), part));
  }
  std::vector<double> cost(parts);
  for (const EvalTask& task : tasks) {
    EvalTask some{.name = task.name, .prose = task.prose, .contexts = {}};
    const auto count = std::min<size_t>(task.contexts.size(), options.probe_contexts);
    some.contexts.assign(task.contexts.begin(), task.contexts.begin() + count);
    const auto scores = quality::Evaluate(some, policies, runners);
    if (!scores.ok()) return scores.status();
    std::vector<double> sums(parts);
    double values = 0;
    for (const quality::ContextScores& context : *scores) {
      for (size_t part = 0; part < parts; ++part) {
        for (const quality::QuestionScore& question : context.policies[part + 1]) {
          for (float kl : question.kl) sums[part] += kl;
          if (part == 0) values += static_cast<double>(question.kl.size());
        }
      }
    }
    for (size_t part = 0; part < parts; ++part) cost[part] += sums[part] / std::max(values, 1.0);
  }
  // A part that costs nothing still gets a little, lest it be left out on the word of few samples.
  const double total = *std::max_element(cost.begin(), cost.end());
  std::vector<double> sensitivity(parts);
  for (size_t part = 0; part < parts; ++part)
    sensitivity[part] = std::max(cost[part], total * 1e-3) / std::max(error[part], 1e-30);
  return sensitivity;
}

// Tables of one KIVI chain, from the blocks of samples.
absl::StatusOr<std::vector<uint8_t>> KiviSection(const std::string& name, Model& model,
                                                 const std::vector<const EvalContext*>& contexts,
                                                 int64_t tokens_max) {
  absl::StatusOr<codec::CodecChain> chain = codec::CodecChain::Parse(name);
  if (!chain.ok()) return chain.status();
  const KvShape shape = model.kv_shape();
  codec::KiviCounts counts(size_t{shape.layer_count} * 2);
  int64_t tokens = 0;
  for (const EvalContext* context : contexts) {
    const auto length = static_cast<int64_t>(context->tokens.size());
    absl::StatusOr<KvCache> cache = model.NewCache(length);
    if (!cache.ok()) return cache.status();
    if (absl::Status s = model.Prefill(context->tokens, *cache).status(); !s.ok()) return s;
    const int64_t block = model.block_tokens();
    for (int64_t first = 0; first + block <= length; first += block) {
      const kernels::RopeTable rope = model.RopeTableAt(first, block);
      codec::PartTask task{.shape = shape, .rope = &rope};
      for (size_t part = 0; part < counts.size(); ++part) {
        task.layer = static_cast<uint32_t>(part / 2);
        task.component = part % 2 == 0 ? Component::kK : Component::kV;
        const std::span<const uint8_t> raw =
            std::as_const(*cache).PartSpan(task.layer, task.component, first, block);
        const absl::StatusOr<uint64_t> most =
            chain->MaxPartBytes(shape, task.component, first == 0);
        if (!most.ok()) return most.status();
        std::vector<uint8_t> encoded(*most);
        if (absl::Status s = chain->EncodePart(task, first == 0, raw, encoded).status(); !s.ok())
          return s;
        const absl::StatusOr<codec::KiviLayout> layout =
            codec::KiviChainLayout(name, shape, task.component);
        if (!layout.ok()) return layout.status();
        codec::CountKivi(*layout,
                         std::span<const uint8_t>(encoded).subspan(codec::kPartHeaderBytes),
                         counts[part]);
      }
    }
    if ((tokens += length) >= tokens_max) break;
  }
  return codec::EncodeKiviTables(counts);
}

// What pruned chains need to know: layer budgets and query statistics.
absl::Status AddPruneSections(Model& model, const std::vector<const EvalContext*>& contexts,
                              int64_t count, ModelProfile::Sections& sections) {
  PruneProfiler profiler(model);
  for (const EvalContext* context : contexts) {
    if (count-- == 0) break;
    if (absl::Status s = profiler.Add(model, context->tokens); !s.ok()) return s;
  }
  const absl::StatusOr<codec::PruneProfile> learned = profiler.Build();
  if (!learned.ok()) return learned.status();
  sections[codec::kPrefixKvSection] = codec::EncodePrefixKv(learned->budgets);
  sections[codec::kQueryStatsSection] = codec::EncodeQueryStats(*learned->queries);
  return absl::OkStatus();
}

// What a pruned chain encodes its rows as; any other chain itself.
std::string_view RestOf(std::string_view chain) {
  if (!codec::PrunedChain::IsPruned(chain)) return chain;
  const auto behind_plus = [](std::string_view text) {
    const size_t plus = text.find('+');
    return plus == std::string_view::npos ? std::string_view() : text.substr(plus + 1);
  };
  const std::string_view rest = behind_plus(chain);
  return rest.substr(0, 7) == "kvcrush" ? behind_plus(rest) : rest;
}

void AddOnce(std::string_view name, std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
}

}  // namespace

absl::StatusOr<ProfileOptions> OptionsFor(const std::vector<std::string>& chains) {
  constexpr std::string_view kRans = "+rans";
  ProfileOptions options;
  for (const std::string& chain : chains) {
    const std::string_view rest = RestOf(chain);
    if (rest.empty()) return absl::InvalidArgumentError(absl::StrCat("chain: '", chain, "'"));
    if (rest.substr(0, 7) == "archive") {
      AddOnce(rest, options.archives);
    } else if (rest.size() > kRans.size() && rest.substr(rest.size() - kRans.size()) == kRans) {
      AddOnce(rest.substr(0, rest.size() - kRans.size()), options.kivi);
    }
  }
  return options;
}

absl::StatusOr<ModelProfile> BuildProfile(const quality::EvalModel& model,
                                          const std::string& weights_id,
                                          std::vector<Runner>& runners,
                                          const std::vector<EvalTask>& tasks,
                                          const ProfileOptions& options, const Progress& progress) {
  Model& runner = *runners[0].model;
  const absl::StatusOr<OutputProjections> projections =
      ReadOutputProjections(model.directory, model.config);
  if (!projections.ok()) return projections.status();
  const std::vector<const EvalContext*> contexts = Interleaved(tasks);
  KvSampler sampler(runner, *projections, options.tokens_max);
  int64_t tokens = 0;
  for (const EvalContext* context : contexts) {
    absl::Status s = sampler.Add(context->tokens, SomeQuestions(*context, options.questions));
    if (!s.ok()) return s;
    if ((tokens += static_cast<int64_t>(context->tokens.size())) >= options.tokens_max) break;
  }
  const KvSamples samples = sampler.Take();
  progress(absl::StrCat("sampled ", samples.tokens, " tokens"));

  const codec::ArchiveBases bases = FitBases(samples);
  const ProjectedSamples projected = Project(samples, bases);
  progress("fitted the bases");
  const ProfiledModel identity = ProfiledModelOf(model.config, runner.kv_dtype(), weights_id);
  const absl::StatusOr<std::vector<double>> sensitivity =
      Sensitivities(identity, runners, tasks, bases, projected, options);
  if (!sensitivity.ok()) return sensitivity.status();
  progress("measured the sensitivities");

  ModelProfile::Sections sections = {{codec::kPcaSection, bases.Encode()}};
  for (const std::string& name : options.archives) {
    const double bits = std::strtod(name.c_str() + std::string_view("archive").size(), nullptr);
    if (!(bits > 0)) return absl::InvalidArgumentError(absl::StrCat("archive: '", name, "'"));
    const FittedPoint fitted =
        FitPoint(bases, projected, {.bits_per_value = bits, .sensitivity = *sensitivity});
    sections["entropy/" + name] = fitted.point.Encode();
    std::string by_part;
    for (double b : fitted.bits)
      absl::StrAppendFormat(&by_part, " %.2f", b / static_cast<double>(samples.width()));
    progress(absl::StrCat("fitted ", name, "; bits a value of each layer's k, v:", by_part));
  }
  for (const std::string& name : options.kivi) {
    absl::StatusOr<std::vector<uint8_t>> section =
        KiviSection(name, runner, contexts, options.tokens_max);
    if (!section.ok()) return section.status();
    sections["entropy/" + name + "+rans"] = *std::move(section);
    progress(absl::StrCat("counted ", name));
  }
  if (options.prune_contexts > 0) {
    absl::Status s = AddPruneSections(runner, contexts, options.prune_contexts, sections);
    if (!s.ok()) return s;
    progress("learned layer budgets and query statistics");
  }
  return ModelProfile::Make(identity, sections, {});
}

}  // namespace kedge::profile
