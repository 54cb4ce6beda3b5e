#include "daemon/syscalls.h"

#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <memory>

namespace tierlog::daemon {
namespace {

// By name: a call that this architecture does not have is passed over.
constexpr const char* kAllowed[] = {
    // files: policies, databases, switches below /proc/sys
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "close", "lseek", "open",
    "openat", "creat", "stat", "lstat", "fstat", "newfstatat", "fstatat64", "statx", "statfs", "fstatfs", "access",
    "faccessat", "faccessat2", "readlink", "readlinkat", "getdents64", "getcwd", "rename", "renameat", "renameat2",
    "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown",
    "fchownat", "umask", "truncate", "ftruncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "flock",
    "fcntl", "ioctl", "dup", "dup2", "dup3", "pipe", "pipe2", "utimensat", "copy_file_range", "sendfile",
    "fadvise64", "memfd_create", "link", "linkat", "symlink", "symlinkat", "fgetxattr", "flistxattr",
    // memory
    "mmap", "munmap", "mremap", "mprotect", "madvise", "mlock", "munlock", "mincore", "msync", "brk", "membarrier",
    // sockets: netlink, control, exports, HTTP; families below
    "bind", "connect", "listen", "accept", "accept4", "getsockname", "getpeername", "setsockopt", "getsockopt",
    "sendto", "recvfrom", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "shutdown", "socketpair",
    // waiting
    "poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
    "epoll_pwait2", "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime", "signalfd4", "inotify_init1",
    "inotify_add_watch", "inotify_rm_watch", "nanosleep", "clock_nanosleep", "restart_syscall",
    // threads and signals
    "futex", "futex_waitv", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "exit", "exit_group",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigtimedwait", "sigaltstack", "tgkill",
    "sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_getscheduler",
    // who and when
    "getpid", "gettid", "getppid", "getpgrp", "getsid", "getuid", "geteuid", "getgid", "getegid", "getgroups",
    "getresuid", "getresgid", "capget", "prctl", "arch_prctl", "clock_gettime", "clock_getres", "gettimeofday",
    "time", "times", "getrusage", "getrlimit", "prlimit64", "sysinfo", "uname", "getrandom", "getcpu"};

constexpr std::array kFamilies{AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// The leak checker stops the process's own threads from a process of its own.
constexpr const char* kForSanitizers[] = {"clone", "ptrace", "wait4", "kill", "tkill", "personality",
                                          "process_vm_readv"};
#else
constexpr std::array<const char*, 0> kForSanitizers{};
#endif

struct Free {
  void operator()(void* filter) const { seccomp_release(filter); }
};

}  // namespace

Result<void> restrict_syscalls(bool bpf) {
  const std::unique_ptr<void, Free> filter(seccomp_init(SCMP_ACT_ERRNO(EPERM)));
  if (!filter) return fail(ErrorCode::Refused, "make a filter of system calls: no memory");
  int code = 0;
  const auto add = [&](std::uint32_t action, const char* call, std::initializer_list<scmp_arg_cmp> when = {}) {
    const int number = seccomp_syscall_resolve_name(call);
    if (number == __NR_SCMP_ERROR || code != 0) return;
    code = seccomp_rule_add_array(filter.get(), action, number, static_cast<unsigned>(when.size()),
                                  when.size() == 0 ? nullptr : when.begin());
  };
  for (const char* call : kAllowed) add(SCMP_ACT_ALLOW, call);
  for (const char* call : kForSanitizers) add(SCMP_ACT_ALLOW, call);
  if (bpf) add(SCMP_ACT_ALLOW, "bpf");
  for (const int family : kFamilies)
    add(SCMP_ACT_ALLOW, "socket", {scmp_arg_cmp{0, SCMP_CMP_EQ, static_cast<scmp_datum_t>(family), 0}});
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  // Threads, no processes. What clone3 is asked for cannot be seen from here: the C library then uses clone.
  add(SCMP_ACT_ALLOW, "clone", {scmp_arg_cmp{0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD}});
  // Is there such a process?
  add(SCMP_ACT_ALLOW, "kill", {scmp_arg_cmp{1, SCMP_CMP_EQ, 0, 0}});
#endif
  add(SCMP_ACT_ERRNO(ENOSYS), "clone3");
  if (code == 0) code = seccomp_load(filter.get());
  if (code != 0) return fail(Error::from_errno(-code, "load", "the filter of system calls"));
  return {};
}

bool syscalls_are_restricted() {
  return ::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == SECCOMP_MODE_FILTER;
}

}  // namespace tierlog::daemon
