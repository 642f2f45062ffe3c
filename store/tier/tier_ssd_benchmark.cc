// Appends of 1 MiB blocks, and reads of them at random places, against the same bytes written and
// read straight through the disk: the yardstick is the better of one large write and many of 1 MiB.
// Rounds alternate (ours, raw, raw, ours). Prints medians.
//
//   tier_ssd_benchmark DIRECTORY [ROUNDS] [MIB]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "store/tier/page_buffer.h"
#include "store/tier/ssd_index.h"
#include "store/tier/tier_ssd.h"
#include "store/world/clock.h"
#include "store/world/disk.h"
#include "store/world/random.h"

namespace kedge {
namespace {

constexpr uint64_t kPayloadBytes = 1 << 20;
constexpr uint64_t kBatch = 32;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  fprintf(stderr, "%s\n", status.ToString().c_str());
  exit(1);
}

struct Blocks {
  explicit Blocks(uint64_t count) {
    Random random(1);
    for (uint64_t i = 0; i < count; ++i) {
      BlockHeader& header = headers.emplace_back();
      for (uint8_t& byte : header.key.bytes) byte = static_cast<uint8_t>(random.Next());
      header.variant = Variant::Raw();
      std::vector<uint8_t> payload(kPayloadBytes);
      for (uint8_t& byte : payload) byte = static_cast<uint8_t>(random.Next());
      header.parts = {{kPayloadBytes, PartDigest(header.key, header.variant, 0, payload)}};
      const auto encoded = EncodeBlockHeader(header);
      Check(encoded.status());
      image_bytes =
          ImageLayout{static_cast<uint32_t>(encoded->size()), kPayloadBytes}.image_bytes();
      PageBuffer& image = images.emplace_back(image_bytes);
      std::copy(encoded->begin(), encoded->end(), image.first(image_bytes).begin());
      std::copy(payload.begin(), payload.end(), image.first(image_bytes).begin() + kDiskPageBytes);
    }
  }
  std::vector<BlockHeader> headers;
  std::vector<PageBuffer> images;
  uint64_t image_bytes = 0;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Benchmark {
 public:
  Benchmark(std::string directory, uint64_t mib)
      : directory_(std::move(directory)), batches_(mib / kBatch), blocks_(kBatch) {}

  // Seconds of each way.
  void Ours() {
    SsdTier::Options options;
    options.directory = directory_ + "/tier";
    options.segment_bytes = 256 << 20;
    options.capacity_bytes = batches_ * kBatch * (kPayloadBytes + 8192) + 2 * options.segment_bytes;
    auto opened = SsdTier::Open(
        *disk_, MakeRocksdbIndex(options.directory + "/index"), options, nullptr,
        [](const BlockKey&, const Variant&, SsdLocation) {}, nullptr);
    Check(opened.status());
    SsdTier& tier = **opened;
    std::vector<SsdTier::Image> images;
    for (uint64_t i = 0; i < kBatch; ++i) {
      images.push_back({&blocks_.headers[i], blocks_.images[i].first(blocks_.image_bytes)});
    }
    std::vector<SsdLocation> locations, all;
    locations.resize(kBatch);
    const int64_t begin = clock_.NowUs();
    for (uint64_t batch = 0; batch < batches_; ++batch) {
      Check(tier.Append(images, locations));
      all.insert(all.end(), locations.begin(), locations.end());
    }
    Note("put/ours", begin);
    Random random(2);
    PageBuffer memory(blocks_.image_bytes);
    const int64_t read_begin = clock_.NowUs();
    for (size_t i = 0; i < all.size(); ++i) {
      Check(tier.Read(all[random.Below(all.size())], 0, memory.first(blocks_.image_bytes)));
    }
    Note("get-random/ours", read_begin);
    opened->reset();
    std::filesystem::remove_all(options.directory);
  }

  void Raw(uint64_t write_bytes, const char* name) {
    Check(disk_->MakeDirectory(directory_));
    const std::string path = directory_ + "/raw";
    auto file = disk_->Open(path, true);
    Check(file.status());
    PageBuffer memory(write_bytes);
    Random random(3);
    for (uint8_t& byte : memory.first(write_bytes)) byte = static_cast<uint8_t>(random.Next());
    const uint64_t total = batches_ * kBatch * kPayloadBytes;
    const int64_t begin = clock_.NowUs();
    for (uint64_t at = 0; at < total; at += write_bytes) {
      Check((*file)->Write(at, memory.first(write_bytes)));
      if ((at + write_bytes) % (kBatch * kPayloadBytes) == 0) Check((*file)->Sync());
    }
    Note(name, begin);
    const int64_t read_begin = clock_.NowUs();
    for (uint64_t i = 0; i < batches_ * kBatch; ++i) {
      Check((*file)->Read(random.Below(batches_ * kBatch) * kPayloadBytes,
                          memory.first(kPayloadBytes)));
    }
    Note("get-random/raw", read_begin);
    file->reset();
    Check(disk_->Remove(path));
  }

  void Print() const {
    std::map<std::string, double> median;
    for (const auto& [name, seconds] : seconds_) {
      median[name] = Median(seconds);
      const auto [low, high] = std::minmax_element(seconds.begin(), seconds.end());
      printf("%-20s %6.2f GB/s  (%.2f to %.2f)\n", name.c_str(), Gigabytes() / median[name],
             Gigabytes() / *high, Gigabytes() / *low);
    }
    const double raw = std::min(median["put/raw-1MiB"], median["put/raw-32MiB"]);
    printf("%-20s %6.2f of the best raw write\n", "ssd/put/1MiB", raw / median["put/ours"]);
    printf("%-20s %6.2f of a raw read\n", "ssd/get-random/1MiB",
           median["get-random/raw"] / median["get-random/ours"]);
  }

 private:
  double Gigabytes() const { return static_cast<double>(batches_ * kBatch * kPayloadBytes) * 1e-9; }
  void Note(const char* name, int64_t begin_us) {
    seconds_[name].push_back(static_cast<double>(clock_.NowUs() - begin_us) * 1e-6);
  }

  const std::string directory_;
  const uint64_t batches_;
  const std::unique_ptr<Disk> disk_ = MakeRealDisk();
  const RealClock clock_;
  Blocks blocks_;
  std::map<std::string, std::vector<double>> seconds_;
};

}  // namespace
}  // namespace kedge

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s DIRECTORY [ROUNDS] [MIB]\n", argv[0]);
    return 2;
  }
  const int rounds = argc > 2 ? atoi(argv[2]) : 5;
  const uint64_t mib = argc > 3 ? strtoull(argv[3], nullptr, 10) : 1024;
  if (rounds < 1 || mib < kedge::kBatch) {
    fprintf(stderr, "ROUNDS is at least 1, MIB at least %llu\n",
            static_cast<unsigned long long>(kedge::kBatch));
    return 2;
  }
  kedge::Benchmark benchmark(std::string(argv[1]) + "/kedge-ssd-benchmark", mib);
  const auto raw = [&] {
    benchmark.Raw(1 << 20, "put/raw-1MiB");
    benchmark.Raw(32 << 20, "put/raw-32MiB");
  };
  for (int round = 0; round < rounds; ++round) {
    if (round % 2 == 0) benchmark.Ours();
    raw();
    if (round % 2 != 0) benchmark.Ours();
  }
  benchmark.Print();
  std::filesystem::remove_all(std::string(argv[1]) + "/kedge-ssd-benchmark");
  return 0;
}
