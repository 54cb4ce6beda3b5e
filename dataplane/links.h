// dataplane/links.h - the node's interfaces: who is a bridge's port, and whether bridges show their frames to
// the packet filter.
//
//   kernel --rtnetlink--> [Links] --> daemon/bridges.h
//
// Of one network namespace: the one of the thread that opens it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"

struct nlmsghdr;

namespace tierlog::dataplane {

struct Link {
  int index = 0;
  std::string name;
  int master = 0;  // index of the bridge it is a port of; 0: none
  bool is_bridge = false;
  // Of a bridge: frames that it forwards pass the filter hooks of IPv4 and IPv6.
  bool filters_v4 = false, filters_v6 = false;
};

class Links {
 public:
  // Subscribes to changes. Errors: Refused.
  static Result<std::unique_ptr<Links>> open();
  int fd() const { return events_.get(); }  // borrowed, to wait on
  // Takes the changes that are waiting, without blocking; true when there was any.
  bool drain();
  Result<std::vector<Link>> list();
  // Makes a bridge show its frames. Needs module br_netfilter to have an effect.
  Result<void> filter_bridge(const Link& bridge);
  static bool has_bridge_netfilter();  // the module is there

 private:
  Links(Fd events, Fd requests) : events_(std::move(events)), requests_(std::move(requests)) {}
  Result<void> exchange(nlmsghdr* request, const std::string& about,
                        const std::function<void(const nlmsghdr*)>& each);
  Fd events_, requests_;
  std::uint32_t sequence_ = 0;
};

}  // namespace tierlog::dataplane
