// lab/plan.h - what a lab will be, before anything of it is made: which nodes, which addresses.
//
//   topology --> [plan_state] --> LabState --> up.cpp
// Pure. Nodes that are built: those listed that a pod names, and the first one for pods that name none;
// without a list it is one, "node-1". Whatever lives elsewhere is played by the outside host.
#pragma once

#include <string>

#include "base/result.h"
#include "endpoints/topology.h"
#include "lab/state.h"

namespace tierlog::lab {

LabState plan_state(const endpoints::Topology& topology, const std::string& topology_path,
                    const LabOptions& options);
// The pod is one of this lab's.
bool made_here(const LabState& state, const policy::Endpoint& pod);
// Errors: InvalidArgument.
Result<void> check_plan(const LabState& state, const endpoints::Topology& topology);
// Every Service has a clusterIP of each family it may have, and a NodePort its numbers.
std::vector<endpoints::Service> assign_services(const endpoints::Topology& topology);
// The `number`-th prefix of this size, from `first` on.
Cidr block(const Cidr& first, std::size_t number);

}  // namespace tierlog::lab
