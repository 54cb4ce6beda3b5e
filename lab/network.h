// lab/network.h - the network around the pods: the nodes' namespaces, the outside host, named namespaces.
//
//   pods ==ptp/bridge== node --uplink 192.0.2.1 |                one node: a veth
//   pods ==ptp/bridge== second --uplink 192.0.2.3 |-- eth0 192.0.2.2 outside     several: a bridge
// The outside host takes every address that arrives for its own and may send from any, so that it plays
// the rest of the world; what it sends goes to the first node, but for what it knows to be elsewhere.
// Between nodes pods are routed: each node has a route to each other node's pod.
#pragma once

#include <string>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"
#include "lab/enter.h"

namespace tierlog::lab {

inline constexpr const char* kOutside = "outside";

struct NodePlan {
  std::string name;
  ProcessId keeper;               // whose namespaces are the node's
  std::vector<IpAddr> addresses;  // of the node object in the topology; the uplink's come on top
};

struct NetworkPlan {
  std::vector<NodePlan>
      nodes;  // the first is in the lab's own network namespace, others in one of their name
  std::vector<IpAddr> outside;  // the first of a family is where the outside host sends from
  std::vector<Family> families;
};

// One more node's namespace with a process that keeps it and a mount namespace of its own, in which
// `socket` is found at tierlogd's usual place. The process ends with the lab.
Result<ProcessId> start_node(const Place& first, const std::string& name, const std::vector<Family>& families,
                             const std::string& socket);
// Nodes and outside host with their links, addresses and routes, forwarding on.
Result<void> build_network(const NetworkPlan& plan);
// The uplink's own addresses: of a node by its number from 0, of the outside host.
std::vector<IpAddr> node_link(std::size_t node, const std::vector<Family>& families);
std::vector<IpAddr> outside_link(const std::vector<Family>& families);

// Leads addresses to a node's uplink, or no longer: what the place is told that has no link to them.
Result<void> route_to_node(const Place& place, const std::vector<IpAddr>& addresses, std::size_t node,
                           bool there);

// A named network namespace with loopback up and IPv6 addresses usable at once.
Result<void> make_netns(const Place& node, const std::string& name, const std::vector<Family>& families);
Result<void> remove_netns(const Place& node, const std::string& name);

}  // namespace tierlog::lab
