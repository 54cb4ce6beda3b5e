#include "bench/support.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

extern char** environ;

namespace tierlog::bench {
namespace {

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(3);
}

pid_t spawn(const std::vector<std::string>& command, int input) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (input >= 0) posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  errno = error;
  if (error != 0) give_up("start " + command[0]);
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void must_be_zero(const std::vector<std::string>& command, int code) {
  if (code == 0) return;
  std::string line;
  for (const std::string& word : command) line += word + " ";
  std::fprintf(stderr, "%s: exit code %d\n", line.c_str(), code);
  std::exit(3);
}

double timeval_ms(const timeval& time) {
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_usec) / 1e3;
}

Fd open_own_netns() {
  return Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

void loopback_up() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) < 0) give_up("loopback up");
}

}  // namespace

Fd new_netns() {
  const Fd before = open_own_netns();
  if (::unshare(CLONE_NEWNET) != 0) give_up("new network namespace");
  loopback_up();
  Fd made = open_own_netns();
  enter(before);
  return made;
}

void enter(const Fd& netns) {
  if (::setns(netns.get(), CLONE_NEWNET) != 0) give_up("enter a network namespace");
}

void need_root(const char* program) {
  if (::geteuid() == 0) return;
  std::fprintf(stderr, "%s: needs root: it makes network namespaces of its own\n", program);
  std::exit(3);
}

void must_run(const std::vector<std::string>& command) {
  must_be_zero(command, wait_for(spawn(command, -1)));
}

void must_feed(const std::vector<std::string>& command, const std::string& text) {
  const Fd file(::open(std::filesystem::temp_directory_path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    give_up("write a temporary file");
  ::lseek(file.get(), 0, SEEK_SET);
  must_be_zero(command, wait_for(spawn(command, file.get())));
}

Spent spend(const std::vector<std::string>& command) {
  const auto start = Stopwatch::now();
  const pid_t child = spawn(command, -1);
  int status = 0;
  rusage used{};
  while (::wait4(child, &status, 0, &used) < 0 && errno == EINTR) {
  }
  return {.wall_ms = ms_since(start),
          .cpu_ms = timeval_ms(used.ru_utime) + timeval_ms(used.ru_stime),
          .peak_rss_mib = static_cast<double>(used.ru_maxrss) / 1024,
          .code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
}

pid_t start_child(const std::function<int()>& work) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child < 0) give_up("fork");
  if (child != 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int code = work();
  std::fflush(stdout);
  ::_exit(code);
}

void end_child(pid_t child) {
  ::kill(child, SIGKILL);
  wait_for(child);
}

void pin_to_cpu(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0) give_up("pin to a CPU");
}

double ms_since(Stopwatch::time_point start) {
  return std::chrono::duration<double, std::milli>(Stopwatch::now() - start).count();
}

double process_cpu_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

SenderCpu::SenderCpu(int cpu) {
  const std::string name = "ksoftirqd/" + std::to_string(cpu) + "\n";
  for (const auto& entry : std::filesystem::directory_iterator("/proc"))
    if (text_of(entry.path() / "comm") == name) path_ = entry.path() / "schedstat";
  if (path_.empty()) give_up("find ksoftirqd");
}

std::uint64_t SenderCpu::now_ns() const {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(time.tv_nsec) +
         std::strtoull(text_of(path_).c_str(), nullptr, 10);
}

double status_mib(const char* key, pid_t pid) {
  std::istringstream lines(text_of("/proc/" + (pid == 0 ? "self" : std::to_string(pid)) + "/status"));
  const std::string start = std::string(key) + ":";
  for (std::string line; std::getline(lines, line);)
    if (line.rfind(start, 0) == 0) return std::strtod(line.c_str() + start.size(), nullptr) / 1024;
  return 0;
}

void reset_peak_rss() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0
                        : values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

double median(std::vector<double> values) {
  return percentile(std::move(values), 0.5);
}

Ratio paired(const std::vector<double>& figure, const std::vector<double>& yardstick) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < figure.size() && i < yardstick.size(); ++i)
    ratios.push_back(figure[i] / yardstick[i]);
  return {median(ratios), percentile(ratios, 0), percentile(ratios, 1), ratios.size()};
}

std::string to_text(const Ratio& ratio) {
  char text[96];
  std::snprintf(text, sizeof text, "%.3g [%.3g..%.3g] of %zu pairs", ratio.median, ratio.low, ratio.high,
                ratio.pairs);
  return text;
}

void verdict(const char* what, double figure, double aim) {
  std::printf("%-6s %s: %.3g, aim <= %.3g\n", figure <= aim ? "MET" : "MISSED", what, figure, aim);
}

}  // namespace tierlog::bench
