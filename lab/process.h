// lab/process.h - processes named so that a reused pid can never be mistaken for them.
//
// A pid alone means nothing in a file that outlives its writer; with the start time of /proc/PID/stat it
// names one process for ever. All pids are those of the caller's own pid namespace.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::lab {

struct ProcessId {
  pid_t pid = 0;
  std::uint64_t start_time = 0;  // clock ticks since boot

  explicit operator bool() const { return pid > 0; }
  bool operator==(const ProcessId&) const = default;
};

// The process that has this pid now. Errors: NotFound.
Result<ProcessId> identify(pid_t pid);
// It runs still: neither gone, nor a zombie, nor another process of the same pid.
bool alive(const ProcessId& process);
// A pidfd of exactly this process. Errors: NotFound when it has ended.
Result<Fd> open_process(const ProcessId& process);
// Sends the signal and waits until it has ended; done when it was gone already. Errors: Unavailable
// when it still runs after `timeout`.
Result<void> end_process(const ProcessId& process, int signal, std::chrono::milliseconds timeout);

// A pidfd of the calling process, for children that are to die with it.
Result<Fd> open_self();
// In a fresh child: SIGKILL at the end of the thread that forked it. False when the parent (a pidfd from
// open_self) has ended already, also one in another pid namespace, where getppid() tells nothing.
bool die_with_parent(const Fd& parent);

// The exit code, or 128 + signal, out of a wait status.
int exit_code(int wait_status);
// Waits for a child; its exit code as above.
Result<int> wait_for(pid_t child);

}  // namespace tierlog::lab
