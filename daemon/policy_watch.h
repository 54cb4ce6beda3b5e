// daemon/policy_watch.h - tells when the policy files or the topology changed, once things are quiet.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "base/time.h"

namespace tierlog::daemon {

class PolicyWatch {
 public:
  // Watches the folders, and the folders of the files (editors replace files, so a file's own watch
  // would be lost; what else happens there is no change). Of what does not exist yet, the nearest folder
  // above that does.
  static Result<PolicyWatch> open(const std::vector<std::string>& paths);

  int fd() const { return inotify_.get(); }  // borrowed, to poll
  void on_readable(Nanoseconds now);
  // When to look again; nothing when nothing changed.
  std::optional<Nanoseconds> due() const { return due_; }
  void done() { due_.reset(); }

 private:
  PolicyWatch(Fd inotify, std::vector<std::string> paths)
      : inotify_(std::move(inotify)), paths_(std::move(paths)) {}
  Result<void> watch_all();
  bool matters(int watch, std::uint32_t what, const std::string& name) const;

  Fd inotify_;
  std::vector<std::string> paths_;
  struct Folder {
    std::string path;
    bool whole = false;           // anything in it counts
    std::set<std::string> names;  // else these
  };
  std::map<int, Folder> folders_;  // by watch
  std::optional<Nanoseconds> due_;
};

}  // namespace tierlog::daemon
