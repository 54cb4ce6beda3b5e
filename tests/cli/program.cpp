#include "tests/cli/program.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace tierlog::cli::testing_program {
namespace {

constexpr auto kLongTime = std::chrono::seconds(60);

std::array<int, 2> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  return ends;
}

std::vector<std::string> environment(const Variables& variables) {
  std::vector<std::string> entries;
  for (const char* kept : {"PATH", "HOME", "ASAN_OPTIONS", "UBSAN_OPTIONS"})
    if (const char* value = std::getenv(kept)) entries.push_back(std::string(kept) + "=" + value);
  for (const auto& [name, value] : variables) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

pid_t start(const Words& words, const Variables& variables, int out, int err) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
  std::vector<std::string> arguments = {TIERLOG_PROGRAM};
  arguments.insert(arguments.end(), words.begin(), words.end());
  std::vector<std::string> entries = environment(variables);
  pid_t child = -1;
  const int error = ::posix_spawn(&child, TIERLOG_PROGRAM, &actions, nullptr, pointers(arguments).data(),
                                  pointers(entries).data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " TIERLOG_PROGRAM);
  return child;
}

// Reads once what is there; false at the end of the stream.
bool read_some(int pipe, std::string& into) {
  std::array<char, 4096> buffer{};
  const ssize_t got = ::read(pipe, buffer.data(), buffer.size());
  if (got > 0) into.append(buffer.data(), static_cast<std::size_t>(got));
  return got > 0;
}

}  // namespace

Running::Running(const Words& words, const Variables& variables) {
  const auto out = make_pipe(), err = make_pipe();
  child_ = start(words, variables, out[1], err[1]);
  ::close(out[1]);
  ::close(err[1]);
  out_ = out[0];
  err_ = err[0];
}

Running::~Running() {
  if (child_ > 0) end_with(SIGKILL);
}

void Running::drain() {
  while (out_ >= 0 || err_ >= 0) {
    std::array<pollfd, 2> watched{{{out_, POLLIN, 0}, {err_, POLLIN, 0}}};
    if (::poll(watched.data(), watched.size(), -1) < 0) return;
    if (watched[0].revents != 0 && !read_some(out_, outcome_.out)) {
      ::close(out_);
      out_ = -1;
    }
    if (watched[1].revents != 0 && !read_some(err_, outcome_.err)) {
      ::close(err_);
      err_ = -1;
    }
  }
}

bool Running::wait_for(const std::string& text, int& pipe, std::string& into) {
  const auto deadline = std::chrono::steady_clock::now() + kLongTime;
  while (into.find(text) == std::string::npos) {
    pollfd watched{pipe, POLLIN, 0};
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || ::poll(&watched, 1, static_cast<int>(left.count())) <= 0) return false;
    if (!read_some(pipe, into)) return into.find(text) != std::string::npos;
  }
  return true;
}

bool Running::wait_for_out(const std::string& text) {
  return wait_for(text, out_, outcome_.out);
}
bool Running::wait_for_err(const std::string& text) {
  return wait_for(text, err_, outcome_.err);
}

bool Running::wait_for_full_out() const {
  const int room = ::fcntl(out_, F_GETPIPE_SZ);
  const auto deadline = std::chrono::steady_clock::now() + kLongTime;
  for (int waiting = 0; std::chrono::steady_clock::now() < deadline;) {
    if (::ioctl(out_, FIONREAD, &waiting) != 0) return false;
    if (waiting == room) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

bool Running::interrupt_with(int signal) const {
  ::kill(child_, signal);
  const std::uint64_t bit = 1ULL << (signal - 1);
  const auto deadline = std::chrono::steady_clock::now() + kLongTime;
  while (std::chrono::steady_clock::now() < deadline) {
    std::ifstream status("/proc/" + std::to_string(child_) + "/status");
    std::uint64_t pending = 0;
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("SigPnd:") || line.starts_with("ShdPnd:")) pending |= std::stoull(line.substr(7), nullptr, 16);
    if ((pending & bit) == 0) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

Outcome Running::end_with(int signal) {
  if (signal != 0) ::kill(child_, signal);
  drain();
  int status = 0;
  ::waitpid(child_, &status, 0);
  child_ = -1;
  outcome_.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome_;
}

Outcome run(const Words& words, const Variables& variables) {
  Running program(words, variables);
  return program.end_with(0);
}

}  // namespace tierlog::cli::testing_program
