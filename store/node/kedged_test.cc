// The process: what it prints, and how it ends. Its argument is the path of kedged.

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace {

std::string kedged_path;

// A child with its standard output and error in one pipe.
class Process {
 public:
  explicit Process(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), kedged_path);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int out[2];
    if (pipe(out) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(out[1], STDOUT_FILENO);
      dup2(out[1], STDERR_FILENO);
      close(out[0]);
      close(out[1]);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(out[1]);
    out_ = fdopen(out[0], "r");
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    std::fclose(out_);
  }
  std::string ReadLine() {
    std::string line;
    for (int c = std::fgetc(out_); c != EOF && c != '\n'; c = std::fgetc(out_)) {
      line.push_back(static_cast<char>(c));
    }
    return line;
  }
  // The first line that starts with `start`; empty when the output ends first.
  std::string ReadLineWith(const std::string& start) {
    while (!std::feof(out_)) {
      const std::string line = ReadLine();
      if (line.rfind(start, 0) == 0) return line;
    }
    return "";
  }
  std::string ReadAll() {
    std::string text;
    for (int c = std::fgetc(out_); c != EOF; c = std::fgetc(out_)) {
      text.push_back(static_cast<char>(c));
    }
    return text;
  }
  void Signal(int signal) const { kill(pid_, signal); }
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
};

std::vector<std::string> LocalFlags() {
  return {"--listen=tcp://127.0.0.1:0", "--control=127.0.0.1:0", "--metrics=127.0.0.1:0",
          "--host-capacity=128MiB"};
}

std::vector<std::string> With(std::vector<std::string> flags, const std::string& flag) {
  flags.push_back(flag);
  return flags;
}

std::string Field(const std::string& line, const std::string& name) {
  const size_t at = line.find(name + "=");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 1;
  return line.substr(begin, line.find(' ', begin) - begin);
}

// Exit status 2 and an error that names all of `parts`.
void ExpectRefused(const std::vector<std::string>& flags, const std::vector<std::string>& parts) {
  Process process(flags);
  const std::string text = process.ReadAll();
  EXPECT_EQ(process.Wait(), 2) << text;
  for (const std::string& part : parts) {
    EXPECT_NE(text.find(part), std::string::npos) << "'" << text << "' does not name " << part;
  }
}

TEST(KedgedTest, PrintsItsConfiguration) {
  Process process({"--print-config", "--node-id=x", "--host-capacity=96MiB"});
  const std::string text = process.ReadAll();
  EXPECT_EQ(process.Wait(), 0);
  EXPECT_NE(text.find("node_id: \"x\""), std::string::npos) << text;
  EXPECT_NE(text.find("host_capacity: 96MiB"), std::string::npos) << text;
}

TEST(KedgedTest, BadFlagsAndFilesEndWithTwo) {
  ExpectRefused({"--host-capacity=lots"}, {"--host-capacity", "lots"});
  ExpectRefused({"--nonsense"}, {"nonsense"});
  const std::string path = testing::TempDir() + "/bad.yaml";
  std::ofstream(path) << "node_id: a\nhost_capacity: [1\n";
  ExpectRefused({"--config=" + path}, {path, "line"});
}

TEST(KedgedTest, ServesUntilToldToEnd) {
  for (const int signal : {SIGTERM, SIGINT}) {
    Process process(LocalFlags());
    const std::string ready = process.ReadLineWith("kedged ready");
    EXPECT_EQ(Field(ready, "data").rfind("tcp://127.0.0.1:", 0), 0u) << ready;
    EXPECT_NE(Field(ready, "data"), "tcp://127.0.0.1:0") << ready;
    EXPECT_EQ(Field(ready, "control").rfind("127.0.0.1:", 0), 0u) << ready;
    EXPECT_EQ(Field(ready, "metrics").rfind("127.0.0.1:", 0), 0u) << ready;
    process.Signal(signal);
    EXPECT_EQ(process.Wait(), 0);
  }
}

TEST(KedgedTest, APortInUseIsNamed) {
  Process first(LocalFlags());
  const std::string ready = first.ReadLineWith("kedged ready");
  for (const char* name : {"data", "control", "metrics"}) {
    const std::string address = Field(ready, name);
    const std::string flag = name == std::string("data") ? "--listen" : std::string("--") + name;
    std::vector<std::string> flags = LocalFlags();
    std::erase_if(flags, [&](const std::string& f) { return f.rfind(flag + "=", 0) == 0; });
    ExpectRefused(With(flags, flag + "=" + address), {address});
  }
  first.Signal(SIGTERM);
  EXPECT_EQ(first.Wait(), 0);
}

TEST(KedgedTest, AnSsdPathThatCannotBeUsedIsNamed) {
  ExpectRefused(With(LocalFlags(), "--ssd-path=/proc/kedge"), {"/proc/kedge"});
  const std::string directory = testing::TempDir() + "/held";
  const std::string flag = "--ssd-path=" + directory;
  Process first(With(LocalFlags(), flag));
  ASSERT_NE(first.ReadLineWith("kedged ready"), "");
  ExpectRefused(With(LocalFlags(), flag), {directory});
  first.Signal(SIGKILL);
  first.Wait();
  Process second(With(LocalFlags(), flag));
  EXPECT_NE(second.ReadLineWith("kedged ready"), "");
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (argc < 2) {
    std::fprintf(stderr, "usage: kedged_test KEDGED\n");
    return 2;
  }
  kedged_path = argv[1];
  return RUN_ALL_TESTS();
}
