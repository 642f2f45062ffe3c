// Shows on stderr how far a piece of work is: a bar that is drawn again and again on a terminal,
// a line at its beginning and at its end elsewhere.
#pragma once

#include <cstdint>
#include <string>

namespace kedge {

// May stdout, or stderr, be coloured? Not when NO_COLOR is set (https://no-color.org) or it is no
// terminal.
bool ColorStdout();
bool ColorStderr();

class Progress {
 public:
  Progress(std::string label, uint64_t total);
  // Clears the bar; elsewhere says that the work is done, if it is.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `detail` is a few words beside the bar.
  void Set(uint64_t done, const std::string& detail = "");

 private:
  const std::string label_;
  const uint64_t total_;
  const bool terminal_;
  uint64_t done_ = 0;
  int percent_shown_ = -1;
  std::string detail_shown_;
};

}  // namespace kedge
