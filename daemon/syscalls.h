// daemon/syscalls.h - which system calls the daemon may make once everything is open: those of its work, and
// none that starts a program, looks into another process, or changes namespaces, mounts or the kernel.
#pragma once

#include "base/result.h"

namespace tierlog::daemon {

// For this thread and all it starts later, for good; no_new_privs must be set. What is not on the list fails with
// EPERM. `bpf`: bpf(2) too. Errors: Refused (this kernel has no seccomp filters).
Result<void> restrict_syscalls(bool bpf = false);
// The calling thread is restricted.
bool syscalls_are_restricted();

}  // namespace tierlog::daemon
