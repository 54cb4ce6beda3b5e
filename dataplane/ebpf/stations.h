// dataplane/ebpf/stations.h - which interfaces of the node programs stand at, and as what.
//
//   policy/program.h, kernel's interfaces --[stations_of]--> Attached --> installed.h (entries), programs.h (filters)
#pragma once

#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/installed.h"
#include "policy/program.h"

namespace tierlog::dataplane::ebpf {

// Pods' interfaces, in the Program's order; behind them those of the node itself that a host endpoint is about, or all
// (`carries`: who sent what comes in must be noted). Loopback, ports of bridges and bridges of pods are never the
// node's. An interface that is not there is left out. Errors: InvalidArgument, a host endpoint's interface has frames
// that are not Ethernet's; Refused.
Result<std::vector<Attached>> stations_of(const policy::Program& program, bool carries);

}  // namespace tierlog::dataplane::ebpf
