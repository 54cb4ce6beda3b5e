#include "lab/enter.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace tierlog::lab {
namespace {

Result<void> join(const Place& place) {
  TL_ASSIGN(const Fd first, open_process(place.first));
  if (::setns(first.get(), CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET) != 0) {
    return fail(Error::from_errno(errno, "join the lab's namespaces"));
  }
  if (place.netns.empty()) return {};
  const std::string path = "/run/netns/" + place.netns;
  const Fd netns(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!netns) return fail(ErrorCode::NotFound, "the lab has no network namespace " + place.netns);
  if (::setns(netns.get(), CLONE_NEWNET) != 0) return fail(Error::from_errno(errno, "join", path));
  return {};
}

[[noreturn]] void leave(int code) {
  std::fflush(nullptr);
  ::_exit(code);
}

// The innermost process: the work itself.
[[noreturn]] void work_there(const Fd& door, Reporter& reporter, const std::function<int()>& work) {
  if (!die_with_parent(door)) ::_exit(125);
  reporter.hello();
  reporter.close();
  leave(work());
}

[[noreturn]] void be_door(const Place& place, Reporter& reporter, const std::function<int()>& work) {
  const auto self = open_self();
  const auto joined = join(place);
  if (!self || !joined) {
    reporter.error(!self ? self.error() : joined.error());
    ::_exit(125);
  }
  const pid_t child = ::fork();
  if (child < 0) {
    reporter.error(Error::from_errno(errno, "fork"));
    ::_exit(125);
  }
  if (child == 0) work_there(*self, reporter, work);
  reporter.close();
  ::_exit(wait_for(child).value_or(125));
}

// The process that stays in the lab; its parent ends at once, so that the lab's first process adopts it.
[[noreturn]] void stay(Reporter& reporter, const std::function<int(Reporter&)>& work) {
  ::setsid();
  const Fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (int stream = 0; stream < 3; ++stream) ::dup2(nothing.get(), stream);
  // What the caller had open (pipes, locks, terminals) must not live on here.
  for (int number = 3; number < reporter.number(); ++number) ::close(number);
  ::close_range(static_cast<unsigned>(reporter.number()) + 1, ~0U, 0);
  // Not before the starter knows exactly who this is.
  reporter.hello();
  ::_exit(reporter.released() ? work(reporter) : 1);
}

Result<void> drain(int output, int errors, Captured& into) {
  std::array<pollfd, 2> ends{{{output, POLLIN, 0}, {errors, POLLIN, 0}}};
  std::array<std::string*, 2> texts{&into.output, &into.errors};
  std::array<char, 4096> buffer{};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (::poll(ends.data(), ends.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return fail(Error::from_errno(errno, "poll"));
    }
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      const ssize_t size = ::read(ends[i].fd, buffer.data(), buffer.size());
      if (size > 0) {
        texts[i]->append(buffer.data(), static_cast<std::size_t>(size));
      } else {
        ends[i].fd = -1;
      }
    }
  }
  return {};
}

struct Pipe {
  Fd read_end, write_end;
};

Result<Pipe> open_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail(Error::from_errno(errno, "pipe"));
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

// A file in memory that is read from its start: unlike a pipe it takes input of any size at once.
Result<Fd> file_with(const std::string& text) {
  Fd file(::memfd_create("lab-input", MFD_CLOEXEC));
  if (!file) return fail(Error::from_errno(errno, "memfd_create"));
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::lseek(file.get(), 0, SEEK_SET) != 0) {
    return fail(Error::from_errno(errno, "write", "input"));
  }
  return file;
}

// /sys shows the network devices of who mounted it; a pod's commands get one of their own.
void mount_own_sysfs() {
  if (::unshare(CLONE_NEWNS) != 0) return;
  ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  ::mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr);
}

}  // namespace

Result<pid_t> start_in(const Place& place, const std::function<int()>& work) {
  TL_ASSIGN(auto channel, Report::open());
  TL_ASSIGN(const Fd self, open_self());
  std::fflush(nullptr);
  const pid_t door = ::fork();
  if (door < 0) return fail(Error::from_errno(errno, "fork"));
  if (door == 0) {
    if (!die_with_parent(self)) ::_exit(125);
    be_door(place, channel.second, work);
  }
  channel.second.close();
  const auto there = channel.first.hello();
  if (!there) {
    static_cast<void>(wait_for(door));
    return fail(there.error());
  }
  return door;
}

Result<int> run_in(const Place& place, const std::function<int()>& work) {
  TL_ASSIGN(const pid_t child, start_in(place, work));
  return wait_for(child);
}

Result<void> do_in(const Place& place, const std::function<Result<void>()>& work) {
  TL_ASSIGN(auto channel, Report::open());
  TL_ASSIGN(const pid_t child, start_in(place, [&] {
              const auto done = work();
              if (!done) channel.second.error(done.error());
              return done ? 0 : 1;
            }));
  channel.second.close();
  const auto said = channel.first.rest();
  TL_ASSIGN(const int code, wait_for(child));
  TL_TRY(said);
  if (code != 0) return fail(ErrorCode::Io, "a process of the lab ended with code " + std::to_string(code));
  return {};
}

Result<ProcessId> start_detached(const Place& place, const std::function<int(Reporter&)>& work) {
  TL_ASSIGN(auto channel, Report::open());
  const auto parted = run_in(place, [&] {
    const pid_t child = ::fork();
    if (child == 0) stay(channel.second, work);
    return child < 0 ? 1 : 0;
  });
  channel.second.close();
  TL_ASSIGN(const int code, parted);
  if (code != 0) return fail(ErrorCode::Io, "cannot fork inside the lab");
  TL_ASSIGN(const pid_t pid, channel.first.hello());
  TL_ASSIGN(const ProcessId process, identify(pid));
  channel.first.release();
  TL_TRY(channel.first.rest());
  return process;
}

int run_command(const Command& command) {
  for (const auto& variable : command.environment) {
    const auto split = variable.find('=');
    ::setenv(variable.substr(0, split).c_str(), variable.substr(split + 1).c_str(), 1);
  }
  std::vector<char*> words;
  for (const auto& word : command.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(words.front(), words.data());
  return errno == ENOENT ? 127 : 126;
}

Result<int> exec_in(const Place& place, const Command& command) {
  std::error_code ignored;
  const auto folder = std::filesystem::current_path(ignored);
  return run_in(place, [&] {
    if (!place.netns.empty()) mount_own_sysfs();
    std::error_code absent;
    std::filesystem::current_path(folder, absent);
    const int code = run_command(command);
    std::fprintf(stderr, "%s: %s\n", command.words.front().c_str(),
                 code == 127 ? "no such command" : "cannot be run");
    return code;
  });
}

Result<Captured> capture_in(const Place& place, const Command& command, const std::string& input) {
  TL_ASSIGN(const Fd text, file_with(input));
  TL_ASSIGN(Pipe output, open_pipe());
  TL_ASSIGN(Pipe errors, open_pipe());
  TL_ASSIGN(const pid_t child, start_in(place, [&] {
              ::dup2(text.get(), STDIN_FILENO);
              ::dup2(output.write_end.get(), STDOUT_FILENO);
              ::dup2(errors.write_end.get(), STDERR_FILENO);
              return run_command(command);
            }));
  output.write_end.reset();
  errors.write_end.reset();
  Captured captured;
  const auto drained = drain(output.read_end.get(), errors.read_end.get(), captured);
  TL_ASSIGN(captured.exit_code, wait_for(child));
  TL_TRY(drained);
  return captured;
}

}  // namespace tierlog::lab
