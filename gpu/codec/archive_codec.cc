// The archive as a method of a chain: `archive2`, `archive1`: by the bits a value that the
// operating point aims at. Needs the model's profile (archive.h).
#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gpu/codec/archive.h"
#include "gpu/codec/part_codec.h"
#include "gpu/codec/row_transform.h"
#include "proto/model_profile.h"
#include "proto/wire.h"

namespace kedge::codec {
namespace {

// One part of the model, ready for use: steps are folded into the matrices.
struct Part {
  std::vector<float> mean;
  std::vector<float> analysis;   // [width][kept], in panels
  std::vector<float> synthesis;  // [kept][width], in panels
  std::vector<uint8_t> classes;  // [kept]

  int64_t kept() const { return static_cast<int64_t>(classes.size()); }
};

absl::Status Wrong(const PartTask& task, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("part ", PartName(task), ": ", why));
}

class ArchiveCodec : public PartCodec {
 public:
  ArchiveCodec(std::string name, uint32_t id, const ArchiveBases& bases, ArchivePoint point)
      : name_(std::move(name)),
        id_(id),
        kv_heads_(bases.kv_heads),
        head_size_(bases.head_size),
        point_(std::move(point)) {
    for (const ArchiveClass& c : point_.classes) tables_.push_back(*RansTable::Make(c.shares));
    for (size_t i = 0; i < bases.parts.size(); ++i)
      parts_.push_back(MakePart(bases.parts[i], point_.parts[i]));
  }

  std::string name() const override { return name_; }

  absl::Status Supports(const KvShape& shape, Component) const override {
    if (shape.head_size != head_size_) return Differs("head_size", shape.head_size, head_size_);
    if (shape.kv_heads != kv_heads_ || shape.kv_head_begin != 0)
      return Differs("kv_heads of a shard", shape.kv_heads, kv_heads_);
    if (shape.layer_begin + shape.layer_count > point_.layers)
      return Differs("layers", shape.layer_begin + shape.layer_count, point_.layers);
    return absl::OkStatus();
  }

  bool fixed_size() const override { return false; }

  uint64_t MaxBodyBytes(const KvShape& shape, Component component) const override {
    int64_t kept = 0;
    for (size_t i = component == Component::kV; i < parts_.size(); i += 2)
      kept = std::max(kept, parts_[i].kept());
    const int64_t symbols = kept * shape.block_tokens;
    return RansBytesMax(symbols) + symbols * 2;
  }

  void Describe(PartHeader& header) const override {
    header.method = Method::kArchive;
    header.detail = id_;
  }

  absl::StatusOr<uint64_t> Encode(const PartTask& task, const SourceRows& source, PartHeader&,
                                  std::span<uint8_t> body) const override {
    const Part& part = PartOf(task);
    const int64_t tokens = task.shape.block_tokens - source.skip;
    const int64_t kept = part.kept();
    const std::vector<float> rows = CentredRows(task, source, part);
    if (rows.empty()) return BadValue(task, source);
    std::vector<float> steps(tokens * kept);
    TransformRows({.in = rows.data(),
                   .row_stride = point_.width,
                   .rows = tokens,
                   .inner = point_.width,
                   .matrix = part.analysis.data(),
                   .width = kept},
                  steps.data());
    std::vector<uint8_t> symbols(kept * tokens);
    std::vector<int16_t> escapes;
    for (int64_t c = 0; c < kept; ++c) {
      for (int64_t t = 0; t < tokens; ++t)
        symbols[c * tokens + t] = SymbolOf(steps[t * kept + c], escapes);
    }
    const std::vector<RansRun> runs = RunsOf(part, tokens);
    const int64_t bytes = RansEncode(runs, symbols.data(), body.first(RansBytesMax(kept * tokens)));
    std::copy_n(reinterpret_cast<const uint8_t*>(escapes.data()), escapes.size() * 2,
                body.data() + bytes);
    return bytes + escapes.size() * 2;
  }

  absl::Status Decode(const PartTask& task, const PartHeader&, std::span<const uint8_t> body,
                      const TargetRows& target) const override {
    const Part& part = PartOf(task);
    const int64_t tokens = task.shape.block_tokens - target.skip;
    const int64_t kept = part.kept();
    std::vector<uint8_t> symbols(kept * tokens);
    const absl::StatusOr<int64_t> read = RansDecode(RunsOf(part, tokens), body, symbols.data());
    if (!read.ok()) return Wrong(task, std::string(read.status().message()));
    std::vector<float> steps(kept * tokens);
    absl::Status s = StepsOf(task, part, tokens, symbols, body.subspan(*read), steps);
    if (!s.ok()) return s;
    std::vector<float> rows(tokens * point_.width);
    TransformRows({.in = steps.data(),
                   .row_stride = 1,
                   .inner_stride = tokens,
                   .rows = tokens,
                   .inner = kept,
                   .matrix = part.synthesis.data(),
                   .width = point_.width,
                   .start = part.mean.data()},
                  rows.data());
    for (int64_t t = 0; t < tokens; ++t)
      WriteRow(target, target.skip + t, kv_heads_, head_size_, rows.data() + t * point_.width);
    return absl::OkStatus();
  }

 private:
  static Part MakePart(const ArchiveBasis& basis, const std::vector<ArchiveComponent>& components) {
    const int64_t width = basis.width();
    const auto kept = static_cast<int64_t>(components.size());
    Part part{.mean = basis.mean,
              .analysis = std::vector<float>(PanelFloats(width, kept)),
              .synthesis = std::vector<float>(PanelFloats(kept, width))};
    for (int64_t c = 0; c < kept; ++c) {
      const ArchiveComponent& component = components[c];
      const int64_t from = component.component * width;
      for (int64_t i = 0; i < width; ++i) {
        part.analysis[PanelIndex(width, i, c)] = basis.analysis[from + i] / component.step;
        part.synthesis[PanelIndex(kept, c, i)] = basis.synthesis[from + i] * component.step;
      }
      part.classes.push_back(component.of_class);
    }
    return part;
  }

  static absl::Status Differs(const char* field, int64_t value, int64_t expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", value, ", the profile has ", expected));
  }

  const Part& PartOf(const PartTask& task) const {
    return parts_[task.layer * 2 + (task.component == Component::kV ? 1 : 0)];
  }

  std::vector<RansRun> RunsOf(const Part& part, int64_t tokens) const {
    std::vector<RansRun> runs;
    for (uint8_t of_class : part.classes) runs.push_back({&tables_[of_class], tokens});
    return runs;
  }

  // Empty where a value cannot be encoded.
  std::vector<float> CentredRows(const PartTask& task, const SourceRows& source,
                                 const Part& part) const {
    const int64_t width = point_.width;
    std::vector<float> rows((task.shape.block_tokens - source.skip) * width);
    for (int64_t t = source.skip; t < task.shape.block_tokens; ++t) {
      float* row = rows.data() + (t - source.skip) * width;
      ReadRow(source, t, kv_heads_, head_size_, row);
      for (int64_t i = 0; i < width; ++i) {
        if (!(std::abs(row[i]) <= kF16Max)) return {};
        row[i] -= part.mean[i];
      }
    }
    return rows;
  }

  uint8_t SymbolOf(float steps, std::vector<int16_t>& escapes) const {
    const float size = std::floor(std::min(std::abs(steps), 32000.0f) + point_.rounding);
    const auto code = static_cast<int>(std::copysign(size, steps));
    if (std::abs(code) <= kArchiveCodeMax) return static_cast<uint8_t>(code + kArchiveCodeMax);
    escapes.push_back(static_cast<int16_t>(code));
    return kArchiveEscape;
  }

  absl::Status StepsOf(const PartTask& task, const Part& part, int64_t tokens,
                       std::span<const uint8_t> symbols, std::span<const uint8_t> escapes,
                       std::vector<float>& steps) const {
    size_t at = 0;
    for (int64_t c = 0; c < part.kept(); ++c) {
      const auto& points = point_.classes[part.classes[c]].points;
      for (int64_t i = c * tokens; i < (c + 1) * tokens; ++i) {
        if (symbols[i] != kArchiveEscape) {
          steps[i] = points[symbols[i]];
          continue;
        }
        if (escapes.size() - at < 2) {
          return Wrong(task, absl::StrCat("escapes: they end before that of component ", c,
                                          ", token ", i - c * tokens));
        }
        const auto code = LoadLe<int16_t>(escapes.data() + at);
        if (std::abs(int{code}) <= kArchiveCodeMax || std::abs(int{code}) > 32000) {
          return Wrong(task, absl::StrCat("escape of component ", c, ", token ", i - c * tokens,
                                          ": code ", code, " is not in 32 to 32000"));
        }
        steps[i] = code;
        at += 2;
      }
    }
    if (at != escapes.size())
      return Wrong(task, absl::StrCat("escapes: ", escapes.size() - at, " bytes are left over"));
    return absl::OkStatus();
  }

  const std::string name_;
  const uint32_t id_;
  const uint16_t kv_heads_;
  const uint16_t head_size_;
  const ArchivePoint point_;
  std::vector<RansTable> tables_;
  std::vector<Part> parts_;
};

// "archive" and the bits a value that the operating point aims at: 2, 1.5, 0.75.
bool IsArchiveName(std::string_view name) {
  constexpr std::string_view kPrefix = "archive";
  if (name.substr(0, kPrefix.size()) != kPrefix) return false;
  name.remove_prefix(kPrefix.size());
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (name.empty() || !digit(name.front()) || !digit(name.back())) return false;
  return std::count(name.begin(), name.end(), '.') <= 1 &&
         std::all_of(name.begin(), name.end(), [&](char c) { return digit(c) || c == '.'; });
}

}  // namespace

absl::StatusOr<PartCodecPtr> MakeArchiveCodec(std::string_view name, const ModelProfile* profile) {
  if (!IsArchiveName(name)) return nullptr;
  const std::string own(name);
  const auto refused = [&](const std::string& why) {
    return absl::FailedPreconditionError(absl::StrCat("variant ", own, ": ", why));
  };
  if (profile == nullptr) return refused("needs the model's profile, there is none");
  const auto pca = profile->Section(kPcaSection);
  if (!pca.ok()) return refused(std::string(pca.status().message()));
  const auto tables = profile->Section("entropy/" + own);
  if (!tables.ok()) return refused(std::string(tables.status().message()));
  absl::StatusOr<ArchiveBases> bases = ArchiveBases::Parse(*pca);
  if (!bases.ok()) return bases.status();
  absl::StatusOr<ArchivePoint> point = ArchivePoint::Parse(*tables);
  if (!point.ok()) return point.status();
  const ProfiledModel& model = profile->model();
  if (bases->layers != model.layers || bases->kv_heads != model.kv_heads ||
      bases->head_size != model.head_size)
    return refused("section pca: is of another shape than its profile's model");
  if (point->layers != model.layers || point->width != uint32_t{model.kv_heads} * model.head_size)
    return refused("section entropy/" + own + ": is of another shape than its profile's model");
  for (size_t i = 0; i < bases->parts.size(); ++i) {
    if (point->parts[i].empty() || point->parts[i].back().component < bases->parts[i].rank())
      continue;
    return refused(absl::StrCat("section entropy/", own,
                                ": component: ", point->parts[i].back().component,
                                ", the basis has ", bases->parts[i].rank()));
  }
  return std::make_shared<ArchiveCodec>(own, ArchiveId(*pca, *tables), *bases, *std::move(point));
}

}  // namespace kedge::codec
