// endpoints/services.h - the Services of a topology, resolved to their backends.
//
// `services` name pods by labels; `endpointSlices` are Kubernetes' objects, addresses already.
#pragma once

#include "base/fields.h"
#include "policy/cluster.h"

namespace tierlog::endpoints {

// Reads both lists into cluster.services. The pods must be in the cluster already.
void read_services(yaml::Fields& topology, policy::Cluster& cluster);

}  // namespace tierlog::endpoints
