// What the filter of system calls lets through and what it refuses, tried for real in a child.
#include "daemon/syscalls.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <functional>
#include <thread>

namespace tierlog::daemon {
namespace {

enum class Filter : bool { Off, On };

int in_child(Filter filter, const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (filter == Filter::On && !restrict_syscalls()) ::_exit(3);
    ::_exit(work() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

struct Refused {
  const char* name;
  bool (*is_refused)();
};
const Refused kRefused[] = {
    {"Execve",
     [] {
       char* none[] = {nullptr};
       ::execve("/nonexistent", none, none);
       return errno == EPERM;
     }},
    {"Unshare", [] { return ::unshare(CLONE_NEWUTS) < 0 && errno == EPERM; }},
    {"Setns", [] { return ::syscall(SYS_setns, -1, 0) < 0 && errno == EPERM; }},
    {"Mount", [] { return ::mount("", "/nonexistent", "tmpfs", 0, nullptr) < 0 && errno == EPERM; }},
    {"Bpf", [] { return ::syscall(SYS_bpf, -1, nullptr, 0) < 0 && errno == EPERM; }},
    {"LoadAModule", [] { return ::syscall(SYS_finit_module, -1, "", 0) < 0 && errno == EPERM; }},
    {"Keys", [] { return ::syscall(SYS_keyctl, -1) < 0 && errno == EPERM; }},
    {"WriteIntoAProcess",
     [] { return ::syscall(SYS_process_vm_writev, -1, nullptr, 0, nullptr, 0, 0) < 0 && errno == EPERM; }},
    {"PacketSocket", [] { return ::socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == EPERM; }},
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    {"Ptrace", [] { return ::syscall(SYS_ptrace, 0x4206, -1, 0, 0) < 0 && errno == EPERM; }},
    {"Fork",
     [] { return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr) < 0 && errno == EPERM; }},
    {"Kill", [] { return ::kill(::getpid(), SIGUSR1) < 0 && errno == EPERM; }},
#endif
};

class RefusedCalls : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedCalls, FailWithEperm) {
  EXPECT_EQ(in_child(Filter::On, GetParam().is_refused), 0);
}
INSTANTIATE_TEST_SUITE_P(Syscalls, RefusedCalls, ::testing::ValuesIn(kRefused),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

// The control: without the filter the same call fails for another reason.
TEST(Syscalls, WithoutTheFilterExecveIsOnlyNotFound) {
  EXPECT_EQ(in_child(Filter::Off, kRefused[0].is_refused), 1);
}

TEST(Syscalls, ThreadsSocketsAndFilesGoOnAndThreadsAreRestrictedToo) {
  EXPECT_EQ(in_child(Filter::On,
                     [] {
                       bool restricted = false;
                       std::thread([&] { restricted = syscalls_are_restricted(); }).join();
                       const int socket = ::socket(AF_NETLINK, SOCK_RAW, 0);
                       const int file = ::open("/proc/self/status", 0);
                       return restricted && socket >= 0 && file >= 0;
                     }),
            0);
}

}  // namespace
}  // namespace tierlog::daemon
