#include "tools/demonstration/progress.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace kedge {
namespace {

constexpr int kBarCells = 30;

bool MayColor(int file) {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(file) && (no_color == nullptr || *no_color == '\0');
}

}  // namespace

bool ColorStdout() { return MayColor(STDOUT_FILENO); }
bool ColorStderr() { return MayColor(STDERR_FILENO); }

Progress::Progress(std::string label, uint64_t total)
    : label_(std::move(label)), total_(total), terminal_(isatty(STDERR_FILENO)) {
  if (!terminal_) std::fprintf(stderr, "%s ...\n", label_.c_str());
  Set(0);
}

Progress::~Progress() {
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K");
  } else if (done_ >= total_) {
    std::fprintf(stderr, "%s: done\n", label_.c_str());
  }
}

void Progress::Set(uint64_t done, const std::string& detail) {
  done_ = done;
  if (!terminal_) return;
  const int percent = total_ == 0 ? 100 : static_cast<int>(100 * done / total_);
  if (percent == percent_shown_ && detail == detail_shown_) return;
  percent_shown_ = percent;
  detail_shown_ = detail;
  const int cells = percent * kBarCells / 100;
  std::string bar(cells, '=');
  bar.resize(kBarCells, ' ');
  const bool color = ColorStderr();
  std::fprintf(stderr, "\r\033[K%s [%s%s%s] %3d%% %s", label_.c_str(), color ? "\033[32m" : "",
               bar.c_str(), color ? "\033[0m" : "", percent, detail.c_str());
  std::fflush(stderr);
}

}  // namespace kedge
