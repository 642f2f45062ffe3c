#include "tests/quality/task_source.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace kedge::quality {

absl::Status GenerateTasks(const std::string& generator, const std::string& split, int64_t contexts,
                           const std::string& folder) {
  std::vector<std::string> words = {"python3", "-B",  generator,    "--all",
                                    "--split", split, "--contexts", std::to_string(contexts),
                                    "--out",   folder};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int error =
      ::posix_spawnp(&child, words[0].c_str(), nullptr, nullptr, arguments.data(), environ);
  if (error != 0) return absl::ErrnoToStatus(error, "python3");
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return absl::ErrnoToStatus(errno, "waitpid");
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(generator, ": ended with ", WIFEXITED(status) ? "status " : "signal ",
                   WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
}

absl::StatusOr<std::vector<std::string>> TasksIn(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end;
       at.increment(error)) {
    if (at->path().extension() == ".jsonl") names.push_back(at->path().stem().string());
  }
  if (error || names.empty())
    return absl::NotFoundError(absl::StrCat(folder, ": has no task files (*.jsonl)"));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace kedge::quality
