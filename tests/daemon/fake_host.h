// What a kernel would say, as a test wants it.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "daemon/host_view.h"

namespace tierlog::daemon {

class FakeHost final : public HostView {
 public:
  std::string boot_id() const override { return boot; }
  bool has_interface(const std::string& name) const override { return interfaces.contains(name); }
  bool has_netns(const std::string& path) const override { return namespaces.contains(path); }
  std::vector<IpAddr> addresses() const override { return own; }

  std::string boot = "first";
  std::set<std::string> interfaces{"veth1", "veth2"};
  std::set<std::string> namespaces{"/run/netns/1", "/run/netns/2"};
  std::vector<IpAddr> own;
};

}  // namespace tierlog::daemon
