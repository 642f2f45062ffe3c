// The main() of a fuzz target in the default build: replays the files named on the command line,
// then mutates them with a fixed seed, so that every test run takes the same inputs. Under
// --config=fuzz libFuzzer takes its place. A finding is a crash, an abort or a sanitizer report;
// the input that caused it is written beside the test's outputs first.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;

constexpr int kMutations = 4000;
constexpr size_t kMaxInputBytes = 64 * 1024;

// Numbers that lengths and offsets trip over, written in 1, 2, 4 or 8 bytes.
constexpr uint64_t kEdges[] = {0,      1,          0x7f,       0x80,       0xff,       0x7fff,
                               0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 63, ~0ull};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  // A few edits of `base`, perhaps spliced with `other`.
  Input Mutate(Input base, const Input& other) {
    const uint64_t edits = 1 + Below(4);
    for (uint64_t i = 0; i < edits; ++i) Edit(base, other);
    if (base.size() > kMaxInputBytes) base.resize(kMaxInputBytes);
    return base;
  }

  // std::uniform_int_distribution may differ between libraries; the remainder is good enough here.
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }

 private:
  void Edit(Input& input, const Input& other) {
    const size_t at = Below(input.size() + 1);
    const auto here = input.begin() + static_cast<ptrdiff_t>(at);
    switch (Below(7)) {
      case 0:  // Flip a bit.
        if (at < input.size()) input[at] ^= static_cast<uint8_t>(1u << Below(8));
        return;
      case 1:  // Replace a byte.
        if (at < input.size()) input[at] = static_cast<uint8_t>(random_());
        return;
      case 2:  // Truncate.
        input.resize(at);
        return;
      case 3:  // Insert a run.
        input.insert(here, 1 + Below(16), static_cast<uint8_t>(random_()));
        return;
      case 4:  // Erase a run.
        input.erase(here, here + static_cast<ptrdiff_t>(Below(input.size() - at + 1)));
        return;
      case 5:  // Overwrite with an edge number, little endian.
        OverwriteNumber(input, at);
        return;
      default:  // Take over the end of another input.
        input.resize(at);
        input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(Below(other.size() + 1)),
                     other.end());
    }
  }

  void OverwriteNumber(Input& input, size_t at) {
    const uint64_t number = kEdges[Below(std::size(kEdges))];
    const size_t bytes = size_t{1} << Below(4);
    for (size_t i = 0; i < bytes && at + i < input.size(); ++i) {
      input[at + i] = static_cast<uint8_t>(number >> (8 * i));
    }
  }

  std::mt19937_64 random_;
};

// The exact bytes on the heap, so that AddressSanitizer sees a read past their end. Never null, as
// with libFuzzer.
void Run(const Input& input) {
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[input.size()]);
  std::copy(input.begin(), input.end(), copy.get());
  LLVMFuzzerTestOneInput(copy.get(), input.size());
}

// Leaves the input on disk before running it, so that a crash can be replayed by its file. One
// open file, rewritten in place: some file systems flush every file that is truncated and closed.
class Recorder {
 public:
  Recorder() {
    const char* outputs = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
    if (outputs != nullptr)
      file_ = std::fopen((std::string(outputs) + "/last_input").c_str(), "wb");
  }
  ~Recorder() {
    if (file_ != nullptr) std::fclose(file_);
  }

  void Record(const Input& input) const {
    if (file_ == nullptr) return;
    std::rewind(file_);
    if (!input.empty()) std::fwrite(input.data(), 1, input.size(), file_);
    std::fflush(file_);
    if (ftruncate(fileno(file_), static_cast<off_t>(input.size())) != 0) std::abort();
  }

 private:
  std::FILE* file_ = nullptr;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<Input> corpus = {{}};
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read the corpus file %s\n", argv[i]);
      return 2;
    }
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }

  const Recorder recorder;
  for (const Input& input : corpus) {
    recorder.Record(input);
    Run(input);
  }
  Mutator mutator(/*seed=*/1);
  for (int i = 0; i < kMutations; ++i) {
    const Input& base = corpus[mutator.Below(corpus.size())];
    const Input& other = corpus[mutator.Below(corpus.size())];
    const Input input = mutator.Mutate(base, other);
    recorder.Record(input);
    Run(input);
  }
  std::printf("%zu corpus files and %d mutations, no finding\n", corpus.size() - 1, kMutations);
  return 0;
}
