#include "tools/benchmarks/codec_workload.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <numeric>
#include <random>

#include "gpu/codec/part_header.h"
#include "tools/benchmarks/codec_values.h"

namespace kedge::bench {
namespace {

using codec::CodecChain;

constexpr int64_t kPageTokens = 16;
constexpr int64_t kDistinct = 32;        // parts of keys and of values; the others are their copies
constexpr uint64_t kFirstNumber = 1000;  // not those that tables were counted from

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

void EncodedParts::Resize(int64_t parts, uint64_t most) {
  stride = most;
  bytes.resize(parts * most);
  sizes.resize(parts);
}

CodecWorkload::CodecWorkload(int64_t blocks)
    : shape_(KvShape::KeysAndValues(32, 8, 128, 64, DType::kF16)),
      blocks_(blocks),
      part_bytes_(static_cast<int64_t>(shape_.raw_part_bytes())),
      rope_(kernels::MakeRopeTable(kernels::RopeFrequencies(shape_.head_size, 500000.0f, {}), 640,
                                   shape_.block_tokens)),
      raw_(parts() * part_bytes_),
      pages_(raw_.size()) {
  for (int64_t i = 0; i < parts(); ++i) {
    uint8_t* to = raw_.data() + i * part_bytes_;
    if (i >= 2 * kDistinct) {
      std::memcpy(to, to - 2 * kDistinct * part_bytes_, part_bytes_);
      continue;
    }
    const std::vector<uint8_t> part =
        MakeCodecPart(shape_, Task(i).component, kFirstNumber + i / 2, rope_);
    std::memcpy(to, part.data(), part_bytes_);
  }
  page_order_.resize(raw_.size() / page_bytes());
  std::iota(page_order_.begin(), page_order_.end(), 0);
  std::mt19937_64 shuffle(2);
  std::shuffle(page_order_.begin(), page_order_.end(), shuffle);
}

double CodecWorkload::SampleBytes(Sample sample) const {
  return static_cast<double>((parts() + sample.every - 1) / sample.every * part_bytes_);
}

absl::StatusOr<double> CodecWorkload::Encode(const CodecChain& chain, Sample sample,
                                             EncodedParts& encoded) const {
  encoded.Resize(parts(), *chain.MaxPartBytes(shape_, Component::kK, false));
  const double start = CpuSeconds();
  for (int64_t i = 0; i < parts(); i += sample.every) {
    const absl::StatusOr<uint64_t> used = chain.EncodePart(Task(i), false, Raw(i), encoded.Room(i));
    if (!used.ok()) return used.status();
    encoded.sizes[i] = *used;
  }
  return SampleBytes(sample) / (CpuSeconds() - start);
}

absl::Status CodecWorkload::AddHeaders(const CodecChain& chain, EncodedParts& encoded) const {
  encoded.headers.assign(blocks_, {});
  for (int64_t block = 0; block < blocks_; ++block) {
    BlockHeader& header = encoded.headers[block];
    header.key.bytes[0] = static_cast<uint8_t>(block);
    const absl::StatusOr<Variant> variant = Variant::Parse(chain.name());
    if (!variant.ok()) return variant.status();
    header.variant = *variant;
    header.shape = shape_;
    for (uint32_t part = 0; part < shape_.part_count(); ++part) {
      const std::span<const uint8_t> bytes = encoded.Part(block * shape_.part_count() + part);
      header.parts.push_back({static_cast<uint32_t>(bytes.size()),
                              PartDigest(header.key, header.variant, part, bytes)});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> CodecWorkload::Decode(const CodecChain& chain, Sample sample,
                                             const EncodedParts& encoded, bool with_digest) {
  const int64_t part_pages = shape_.block_tokens / kPageTokens;
  std::vector<std::span<uint8_t>> pages(part_pages);
  const double start = CpuSeconds();
  for (int64_t i = 0; i < parts(); i += sample.every) {
    for (int64_t p = 0; p < part_pages; ++p) {
      const int64_t page = page_order_[i * part_pages + p];
      pages[p] = {pages_.data() + page * page_bytes(), static_cast<size_t>(page_bytes())};
    }
    const codec::PartPages target{pages, kPageTokens};
    const BlockHeader& header = encoded.headers[i / shape_.part_count()];
    const absl::Status s = with_digest
                               ? chain.DecodeFetchedPart(header, Task(i), encoded.Part(i), target)
                               : chain.DecodePart(Task(i), encoded.Part(i), target);
    if (!s.ok()) return s;
  }
  return SampleBytes(sample) / (CpuSeconds() - start);
}

absl::StatusOr<double> CodecWorkload::Digest(Sample sample, const EncodedParts& encoded) const {
  const double start = CpuSeconds();
  for (int64_t i = 0; i < parts(); i += sample.every) {
    const auto part = static_cast<uint32_t>(i % shape_.part_count());
    const absl::Status s =
        VerifyPart(encoded.headers[i / shape_.part_count()], part, encoded.Part(i));
    if (!s.ok()) return s;
  }
  return SampleBytes(sample) / (CpuSeconds() - start);
}

double CodecWorkload::RansEncode(const EncodedParts& bodies,
                                 std::span<const codec::KiviLayout, 2> layouts,
                                 const std::vector<codec::KiviTables>& tables,
                                 EncodedParts& coded) const {
  coded.Resize(parts(),
               std::max(codec::KiviRansBytesMax(layouts[0]), codec::KiviRansBytesMax(layouts[1])));
  const double start = CpuSeconds();
  for (int64_t i = 0; i < parts(); ++i) {
    const uint8_t* body = bodies.Part(i).data() + codec::kPartHeaderBytes;
    const codec::KiviTables& own = tables[i % shape_.part_count()];
    coded.sizes[i] = codec::KiviRansEncode(layouts[i % 2], own, body, coded.Room(i));
  }
  return raw_bytes() / (CpuSeconds() - start);
}

absl::StatusOr<double> CodecWorkload::RansDecode(
    const EncodedParts& coded, std::span<const codec::KiviLayout, 2> layouts,
    const std::vector<codec::KiviTables>& tables) const {
  std::vector<uint8_t> body(std::max(layouts[0].bytes(), layouts[1].bytes()));
  const double start = CpuSeconds();
  for (int64_t i = 0; i < parts(); ++i) {
    const codec::KiviTables& own = tables[i % shape_.part_count()];
    const absl::Status s = codec::KiviRansDecode(layouts[i % 2], own, coded.Part(i), body.data());
    if (!s.ok()) return s;
  }
  return raw_bytes() / (CpuSeconds() - start);
}

ScratchUse CodecWorkload::Scratch(const CodecChain& chain) {
  std::vector<uint8_t> encoded(*chain.MaxPartBytes(shape_, Component::kK, false));
  const std::span<uint8_t> page(pages_.data(), part_bytes_);
  ScratchUse most;
  for (int64_t part : {0, 1}) {
    uint64_t used = 0;
    const auto add = [&](const ScratchUse& use) {
      most.heap_bytes = std::max(most.heap_bytes, use.heap_bytes);
      most.stack_bytes = std::max(most.stack_bytes, use.stack_bytes);
    };
    add(MeasureScratch(
        [&] { used = chain.EncodePart(Task(part), false, Raw(part), encoded).value_or(0); }));
    add(MeasureScratch([&] {
      const std::span<const uint8_t> bytes = std::span<const uint8_t>(encoded).first(used);
      if (!chain.DecodePart(Task(part), bytes, {{&page, 1}, shape_.block_tokens}).ok())
        std::abort();
    }));
  }
  return most;
}

double CodecWorkload::Copy(int64_t piece) {
  const double start = CpuSeconds();
  const auto total = static_cast<int64_t>(raw_.size());
  for (int64_t at = 0; at < total; at += piece)
    std::memcpy(pages_.data() + at, raw_.data() + at, std::min(piece, total - at));
  return raw_bytes() / (CpuSeconds() - start);
}

int64_t CodecWorkload::BestPiece() {
  int64_t best = part_bytes_;
  double best_rate = 0.0;
  for (int64_t piece : {part_bytes_, part_bytes_ * 64, static_cast<int64_t>(raw_.size())}) {
    double rate = 0.0;
    for (int i = 0; i < 3; ++i) rate = std::max(rate, Copy(piece));
    if (rate <= best_rate) continue;
    best_rate = rate;
    best = piece;
  }
  return best;
}

int64_t CodecWorkload::page_bytes() const {
  return part_bytes_ / shape_.block_tokens * kPageTokens;
}

// Keys and values in turns.
codec::PartTask CodecWorkload::Task(int64_t part) const {
  return {shape_, static_cast<uint32_t>(part / 2 % shape_.layer_count),
          part % 2 == 0 ? Component::kK : Component::kV, &rope_};
}

}  // namespace kedge::bench
