// Hostile prompts, donors and known runs: whatever comes in, the rows are consistent, and the order
// of the donors does not matter.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "client/match/align.h"

namespace kedge::match {
namespace {

// Reads the input byte by byte; zeros after its end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint8_t Next() { return at_ < size_ ? data_[at_++] : 0; }
  bool left() const { return at_ < size_; }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

std::vector<int32_t> Tokens(Bytes& bytes) {
  std::vector<int32_t> tokens(bytes.Next());
  const int32_t vocabulary = 1 + bytes.Next() % 32;
  for (int32_t& token : tokens) token = bytes.Next() % vocabulary - 3;
  return tokens;
}

void Run(Bytes bytes) {
  const AlignOptions options{.min_run = 1u + bytes.Next() % 12,
                             .last_tokens = 1u + bytes.Next() % 6,
                             .prefix_tokens = bytes.Next()};
  const std::vector<int32_t> prompt = Tokens(bytes);
  std::vector<std::vector<int32_t>> texts;
  std::vector<KnownRun> known;
  while (bytes.left() && texts.size() < 8) texts.push_back(Tokens(bytes));
  for (int i = 0; i < 4; ++i) {
    known.push_back(
        {bytes.Next(), static_cast<uint32_t>(i), bytes.Next(), i == 3 ? UINT32_MAX : bytes.Next()});
  }
  std::vector<AlignDonor> donors;
  for (const std::vector<int32_t>& text : texts) {
    AlignDonor donor{.tokens = text};
    donor.key.bytes[0] = static_cast<uint8_t>(donors.size() * 37);
    donors.push_back(donor);
  }
  const std::vector<RowSource> rows = Align(prompt, donors, options, known);
  if (!ValidateRows(prompt, donors, options, rows).ok()) std::abort();

  std::reverse(donors.begin(), donors.end());
  const auto mirrored = [&](uint32_t donor) {
    return donor < donors.size() ? static_cast<uint32_t>(donors.size()) - 1 - donor : donor;
  };
  for (KnownRun& run : known) run.donor = mirrored(run.donor);
  std::vector<RowSource> again = Align(prompt, donors, options, known);
  for (RowSource& row : again) row.donor = mirrored(row.donor);
  if (again != rows) std::abort();
}

}  // namespace
}  // namespace kedge::match

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kedge::match::Run({data, size});
  return 0;
}
