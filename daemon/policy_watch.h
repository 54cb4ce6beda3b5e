// daemon/policy_watch.h - tells when the policy files or the topology changed, once things are quiet.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "base/time.h"

namespace tierlog::daemon {

class PolicyWatch {
 public:
  // Watches the folders, and the folders of the files (editors replace files, so a file's own watch
  // would be lost). What does not exist yet is not watched.
  static Result<PolicyWatch> open(const std::vector<std::string>& paths);

  int fd() const { return inotify_.get(); }  // borrowed, to poll
  void on_readable(Nanoseconds now);
  // When to look again; nothing when nothing changed.
  std::optional<Nanoseconds> due() const { return due_; }
  void done() { due_.reset(); }

 private:
  explicit PolicyWatch(Fd inotify) : inotify_(std::move(inotify)) {}
  Fd inotify_;
  std::optional<Nanoseconds> due_;
};

}  // namespace tierlog::daemon
