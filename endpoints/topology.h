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
#include "endpoints/services.h"
#include "policy/cluster.h"

namespace tierlog::endpoints {

// How `tierlog lab up` builds it. Every list has its defaults once it was read.
struct LabOptions {
  enum class Cni : std::uint8_t { Ptp, Bridge } cni = Cni::Ptp;
  std::string dataplane = "nftables";
  std::vector<Family> families;     // of everything in the lab; default both
  std::vector<Cidr> pod_cidrs;      // for pods without an address; default 10.244.0.0/24 and fd00:244::/64
  std::vector<Cidr> service_cidrs;  // for Services without one; default 10.96.0.0/16 and fd00:96::/112
  std::vector<IpAddr> outside;      // of the outside host; default 203.0.113.9, 2001:db8:113::9
  bool masquerade = false;          // pods' traffic to the outside leaves with the node's address

  bool has(Family family) const;  // an empty list means both
};

struct Topology {
  policy::Cluster cluster;        // namespaces, pods (local unset, interface empty), nodes, sets
  std::vector<Service> services;  // as they were written; cluster.services has their backends
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
