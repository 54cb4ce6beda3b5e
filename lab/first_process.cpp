#include "lab/first_process.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdio>

#include "lab/report.h"

namespace tierlog::lab {
namespace {

void forget_streams(bool errors_too, int kept) {
  const Fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ::dup2(nothing.get(), STDIN_FILENO);
  ::dup2(nothing.get(), STDOUT_FILENO);
  if (errors_too) ::dup2(nothing.get(), STDERR_FILENO);
  for (int number = 3; number < kept; ++number) ::close(number);
  ::close_range(static_cast<unsigned>(kept) + 1, ~0U, 0);
}

// Processes whose starter has left are adopted by pid 1. A signal that has no handler does not reach it
// from inside, and from outside only SIGKILL does, so SIGTERM is taken here.
[[noreturn]] void reap_until_told() {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGCHLD);
  sigaddset(&wanted, SIGTERM);
  for (;;) {
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    if (::sigwaitinfo(&wanted, nullptr) == SIGTERM) ::_exit(0);
  }
}

[[noreturn]] void be_first(const Fd& keeper, LabOptions::Life life, const MountPlan& mounts,
                           Reporter& reporter) {
  const bool tied = life == LabOptions::Life::WithCaller;
  if (tied && !die_with_parent(keeper)) ::_exit(1);
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  ::prctl(PR_SET_NAME, "tierlog-lab");
  if (const auto mounted = mount_lab(mounts); !mounted) {
    reporter.error(mounted.error());
    ::_exit(1);
  }
  static_cast<void>(::chdir("/"));
  forget_streams(!tied, reporter.number());
  reporter.hello();
  reporter.close();
  reap_until_told();
}

[[noreturn]] void be_keeper(LabOptions::Life life, const MountPlan& mounts, Reporter& reporter) {
  ::setsid();
  const auto self = open_self();
  pid_t first = -1;
  if (!self || ::unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID) != 0 || (first = ::fork()) < 0) {
    reporter.error(self ? Error::from_errno(errno, "make the lab's namespaces") : self.error());
    ::_exit(1);
  }
  if (first == 0) be_first(*self, life, mounts, reporter);
  if (life == LabOptions::Life::UntilDown) ::_exit(0);
  forget_streams(true, reporter.number());
  reporter.close();
  ::_exit(wait_for(first).value_or(1));
}

}  // namespace

Result<FirstProcess> start_first_process(LabOptions::Life life, const MountPlan& mounts) {
  TL_ASSIGN(auto channel, Report::open());
  TL_ASSIGN(const Fd self, open_self());
  std::fflush(nullptr);
  const pid_t keeper = ::fork();
  if (keeper < 0) return fail(Error::from_errno(errno, "fork"));
  if (keeper == 0) {
    if (life == LabOptions::Life::WithCaller && !die_with_parent(self)) ::_exit(1);
    be_keeper(life, mounts, channel.second);
  }
  channel.second.close();
  const auto pid = channel.first.hello();
  const bool tied = life == LabOptions::Life::WithCaller;
  if (!pid || !tied) static_cast<void>(wait_for(keeper));
  if (!pid) return fail(pid.error());
  TL_ASSIGN(const ProcessId id, identify(*pid));
  return FirstProcess{id, tied ? keeper : 0};
}

Result<void> end_first_process(const FirstProcess& first) {
  const auto ended = end_process(first.id, SIGKILL, std::chrono::seconds(20));
  if (ended && first.keeper > 0) static_cast<void>(wait_for(first.keeper));
  return ended;
}

}  // namespace tierlog::lab
