// daemon/bridges.h - keeps the bridges that pods are ports of in front of the packet filter.
//
//   dataplane/links.h <--> [Bridges] --bridges_of--> world.h
//
// Frames between two ports of a bridge meet no rule at all unless the bridge shows them. That switch can be
// thrown by others at any time (a reload of sysctl settings), so it is watched and set again.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/links.h"

namespace tierlog::daemon {

class Bridges {
 public:
  static Result<std::unique_ptr<Bridges>> open();

  int fd() const { return links_->fd(); }
  // Takes what the kernel tells; true when the bridges should be looked at.
  bool on_readable() { return links_->drain(); }

  // The bridge that each of `interfaces` is a port of now; routed ones are not in it. From then on these
  // bridges are kept.
  Result<std::map<std::string, std::string>> bridges_of(const std::set<std::string>& interfaces);
  // Sets the switch on every bridge that has pods. Returns the names of those that had lost it since the
  // last time: frames between their pods were not judged in between.
  Result<std::vector<std::string>> keep();

  std::uint64_t repairs() const { return repairs_; }  // since start
  // Pods are under bridges, and the kernel cannot show the frames: their traffic among each other is open.
  bool blind() const { return !kept_.empty() && !dataplane::Links::has_bridge_netfilter(); }

 private:
  explicit Bridges(std::unique_ptr<dataplane::Links> links) : links_(std::move(links)) {}
  std::unique_ptr<dataplane::Links> links_;
  std::map<std::string, int> kept_;  // bridge -> index when it was set
  std::uint64_t repairs_ = 0;
};

}  // namespace tierlog::daemon
