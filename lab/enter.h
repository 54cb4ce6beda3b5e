// lab/enter.h - running something inside a lab: how its other parts reach the node, a pod, the outside.
//
//   caller --fork--> door (joins the namespaces) --fork--> the work, in the lab's pid namespace
// Only children of a process that joined a pid namespace live in it, hence the door between.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "lab/process.h"
#include "lab/report.h"

namespace tierlog::lab {

// A host of a lab. `netns` is the name under the lab's /run/netns; empty is the node.
struct Place {
  ProcessId first;
  std::string netns;
};

// Calls `work` there and exits with its value. The pid is the door's: killing it ends the work, and the
// work ends with the caller. Errors: NotFound when the lab or the host is gone.
Result<pid_t> start_in(const Place& place, const std::function<int()>& work);
Result<int> run_in(const Place& place, const std::function<int()>& work);

// Runs work that may fail there, and brings its error back.
Result<void> do_in(const Place& place, const std::function<Result<void>()>& work);

// Starts work that belongs to the lab, not to the caller: it ends when the lab does. `work` closes the
// channel when it serves (or lets exec do so); an error that it reports before is this function's.
Result<ProcessId> start_detached(const Place& place, const std::function<int(Reporter&)>& work);

struct Command {
  std::vector<std::string> words;
  std::vector<std::string> environment;  // "KEY=value" on top of the caller's
};

// Replaces the calling process; returns only when that failed: 127, or 126 when it may not be run.
int run_command(const Command& command);
// The command there with the caller's standard streams and, where it exists, working folder.
Result<int> exec_in(const Place& place, const Command& command);

struct Captured {
  int exit_code = 0;
  std::string output;
  std::string errors;
};
// The command there, fed with `input`.
Result<Captured> capture_in(const Place& place, const Command& command, const std::string& input);

}  // namespace tierlog::lab
