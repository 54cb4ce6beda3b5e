// lab/network.h - the network around the pods: the node's namespace, the outside host, named namespaces.
//
//   pods ==ptp/bridge== node --uplink 192.0.2.1 | 192.0.2.2 eth0-- outside
// The outside host takes every address that arrives for its own and may send from any, so that it plays
// the rest of the world; what it sends goes to the node.
#pragma once

#include <string>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"
#include "lab/enter.h"

namespace tierlog::lab {

inline constexpr const char* kOutside = "outside";

struct NetworkPlan {
  std::vector<IpAddr> node;     // of the node object in the topology; the uplink's come on top
  std::vector<IpAddr> outside;  // the first of a family is where the outside host sends from
};

// Node and outside host, both families, forwarding on.
Result<void> build_network(const Place& node, const NetworkPlan& plan);
// The uplink's own addresses.
std::vector<IpAddr> uplink_addresses(bool of_node);

// A named network namespace with loopback up and IPv6 addresses usable at once.
Result<void> make_netns(const Place& node, const std::string& name);
Result<void> remove_netns(const Place& node, const std::string& name);

}  // namespace tierlog::lab
