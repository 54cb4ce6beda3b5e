// lab/report.h - how a process that the lab forks tells its starter that it is there, or what went wrong.
//
//   starter [Report] <-- {hello | error} -- child, in whatever namespaces
//                    -- {release, or the end of the starter} -->
// The kernel translates the sender's pid into the reader's pid namespace, so that the starter learns
// the pid by which it can signal a process that lives in the lab's own pid namespace.
#pragma once

#include <sys/types.h>

#include <utility>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::lab {

// The child's end. Closed on exec; the starter takes its end without an error as success.
class Reporter {
 public:
  explicit Reporter(Fd channel) : channel_(std::move(channel)) {}
  void hello() const;
  void error(const Error& error) const;
  int number() const { return channel_.get(); }
  // True when the starter released this process, false when it has ended; blocks until either.
  bool released() const;
  void close() { channel_.reset(); }

 private:
  Fd channel_;
};

// The starter's end.
class Report {
 public:
  static Result<std::pair<Report, Reporter>> open();
  // The pid of who says hello. Errors: the child's own, or Io when it ended without a word.
  Result<pid_t> hello() const;
  // Waits until the child has closed its end. Errors: what it said meanwhile.
  Result<void> rest() const;
  // From now on the child does without its starter.
  void release() const;

 private:
  explicit Report(Fd channel) : channel_(std::move(channel)) {}
  Fd channel_;
};

}  // namespace tierlog::lab
