// cni/host_interface.h - which of the host's interfaces is the other end of the pod's.
//
// prevResult lists what the plugins before made: ptp the veth, bridge the bridge and the veth. The
// kernel knows for sure: a veth's link index is its peer's index.
#pragma once

#include <optional>
#include <string>

#include "cni/configuration.h"

namespace tierlog::cni {

// What the kernel says about links; tests put their own in its place.
class Links {
 public:
  struct Link {
    unsigned index = 0;
    unsigned peer = 0;  // index, in the peer's namespace; `index` itself when it has none
    bool is_bridge = false;
  };
  virtual ~Links() = default;
  virtual std::optional<Link> on_host(const std::string& name) const = 0;
  // The index of an interface in a network namespace.
  virtual std::optional<unsigned> in_container(const std::string& netns, const std::string& name) const = 0;
  // Its hardware address, "02:00:…"; "" when it cannot be read.
  virtual std::string mac_in_container(const std::string& netns, const std::string& name) const = 0;
};

class KernelLinks final : public Links {
 public:
  std::optional<Link> on_host(const std::string& name) const override;
  std::optional<unsigned> in_container(const std::string& netns, const std::string& name) const override;
  std::string mac_in_container(const std::string& netns, const std::string& name) const override;
};

// Errors: InvalidConfiguration, naming what was found, when no veth or more than one can be meant.
Outcome<std::string> host_interface(const PreviousResult& previous, const Environment& environment,
                                    const Links& links);

}  // namespace tierlog::cni
