// endpoints/topology.h - the topology file: who there is, on a node without a cluster, in a lab, in a test.
//
//   topology.yaml --base/yaml.h--> [Topology] --> policy/cluster.h, lab/
//
// The format of the test cases' `topology` plus `services` and `lab` (see docs/topology.md). Unknown
// fields are findings with the nearest known name.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/yaml.h"
#include "policy/cluster.h"

namespace tierlog::endpoints {

// How `tierlog lab up` builds it.
struct LabOptions {
  enum class Cni : std::uint8_t { Ptp, Bridge } cni = Cni::Ptp;
  std::string dataplane = "nftables";
  std::vector<Cidr> pod_cidrs;  // for pods without an address; default 10.244.0.0/24 and fd00:244::/64
  std::vector<IpAddr> outside;  // addresses the outside host answers on; default 203.0.113.9, 2001:db8:113::9
};

struct Topology {
  policy::Cluster cluster;  // namespaces, pods (local unset, interface empty), nodes, sets
  LabOptions lab;
};

struct LoadedTopology {
  Topology topology;
  Diagnostics findings;
};

LoadedTopology load_topology(const std::string& path);
// A text, as if it were the file `name`.
LoadedTopology load_topology_text(std::string_view text, const std::string& name);
LoadedTopology read_topology(const yaml::Node& node);  // the `topology` of a test case

}  // namespace tierlog::endpoints
