#include "lab/process.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

// glibc 2.36 declares these two without saying that they are C.
extern "C" {
#include <sys/pidfd.h>
}

namespace tierlog::lab {
namespace {

struct Stat {
  char state = 'X';
  std::uint64_t start_time = 0;
};

// The second field is the program's name in parentheses and may hold anything, so fields are counted
// from the last closing one: the state is the 3rd, the start time the 22nd.
Result<Stat> read_stat(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const auto end_of_name = text.rfind(')');
  if (end_of_name == std::string::npos) {
    return fail(ErrorCode::NotFound, "no process " + std::to_string(pid));
  }
  std::istringstream fields(text.substr(end_of_name + 1));
  Stat stat;
  std::string skipped;
  fields >> stat.state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> stat.start_time;
  if (!fields) return fail(ErrorCode::Corrupt, "unreadable /proc/" + std::to_string(pid) + "/stat");
  return stat;
}

bool ended(const Fd& process, std::chrono::milliseconds timeout) {
  pollfd wanted{process.get(), POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&wanted, 1, static_cast<int>(timeout.count()));
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

}  // namespace

Result<ProcessId> identify(pid_t pid) {
  TL_ASSIGN(const Stat stat, read_stat(pid));
  return ProcessId{pid, stat.start_time};
}

bool alive(const ProcessId& process) {
  if (!process) return false;
  const auto stat = read_stat(process.pid);
  return stat && stat->start_time == process.start_time && stat->state != 'Z' && stat->state != 'X';
}

Result<Fd> open_process(const ProcessId& process) {
  Fd held(process ? ::pidfd_open(process.pid, 0) : -1);
  // Looked at after the pidfd is held: from here on the pid cannot pass to somebody else.
  if (!held || !alive(process)) {
    return fail(ErrorCode::NotFound, "process " + std::to_string(process.pid) + " has ended");
  }
  return held;
}

Result<void> end_process(const ProcessId& process, int signal, std::chrono::milliseconds timeout) {
  auto held = open_process(process);
  if (!held) return {};
  if (::pidfd_send_signal(held->get(), signal, nullptr, 0) != 0 && errno != ESRCH) {
    return fail(Error::from_errno(errno, "signal process", std::to_string(process.pid)));
  }
  if (ended(*held, timeout)) return {};
  return fail(ErrorCode::Unavailable, "process " + std::to_string(process.pid) + " still runs " +
                                          std::to_string(timeout.count()) + " ms after signal " +
                                          std::to_string(signal));
}

Result<Fd> open_self() {
  Fd self(::pidfd_open(::getpid(), 0));
  if (!self) return fail(Error::from_errno(errno, "pidfd_open", "self"));
  return self;
}

bool die_with_parent(const Fd& parent) {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return false;
  return !ended(parent, std::chrono::milliseconds(0));
}

int exit_code(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

Result<int> wait_for(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return fail(Error::from_errno(errno, "wait for process", std::to_string(child)));
  }
  return exit_code(status);
}

}  // namespace tierlog::lab
