// daemon/host_view.h - what the kernel of this node says about interfaces, namespaces and addresses.
#pragma once

#include <string>
#include <vector>

#include "base/net_types.h"

namespace tierlog::daemon {

// Tests put their own in its place.
class HostView {
 public:
  virtual ~HostView() = default;
  virtual std::string boot_id() const = 0;  // another one after each boot
  virtual bool has_interface(const std::string& name) const = 0;
  virtual bool has_netns(const std::string& path) const = 0;
  // Of this network namespace, but for loopback: the node, as its pods see it.
  virtual std::vector<IpAddr> addresses() const = 0;
};

class KernelView final : public HostView {
 public:
  std::string boot_id() const override;
  bool has_interface(const std::string& name) const override;
  bool has_netns(const std::string& path) const override;
  std::vector<IpAddr> addresses() const override;
};

}  // namespace tierlog::daemon
