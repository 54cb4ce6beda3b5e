#include "lab/first_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

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

// Children to reap, or being told to end. Signals without a handler do not reach a pid 1, so they are
// read from a file.
void take_signals(int signals) {
  signalfd_siginfo signal{};
  while (::read(signals, &signal, sizeof signal) == sizeof signal) {
    if (signal.ssi_signo == SIGTERM) ::_exit(0);
  }
  while (::waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

[[noreturn]] void reap_until_told(Reporter& tether) {
  sigset_t wanted;
  sigemptyset(&wanted);
  sigaddset(&wanted, SIGCHLD);
  sigaddset(&wanted, SIGTERM);
  const int signals = ::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
  std::array<pollfd, 2> watched{{{signals, POLLIN, 0}, {tether.number(), POLLIN, 0}}};
  for (;;) {
    if (::poll(watched.data(), watched.size(), -1) < 0) continue;
    if (watched[0].revents != 0) take_signals(signals);
    if (watched[1].revents == 0) continue;
    if (!tether.released()) ::_exit(0);
    tether.close();
    watched[1].fd = -1;
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
  reap_until_told(reporter);
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

Result<StartedFirst> start_first_process(LabOptions::Life life, const MountPlan& mounts) {
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
  return StartedFirst{{id, tied ? keeper : 0}, std::move(channel.first)};
}

Result<void> end_first_process(const FirstProcess& first) {
  const auto ended = end_process(first.id, SIGKILL, std::chrono::seconds(20));
  if (ended && first.keeper > 0) static_cast<void>(wait_for(first.keeper));
  return ended;
}

}  // namespace tierlog::lab
