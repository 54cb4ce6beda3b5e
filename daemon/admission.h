// daemon/admission.h - whether a pod can be enforced as its CNI plugin describes it.
//
//   tierlog-cni ADD --RegisteredEndpoint--> [admit] --> World::add_endpoint
//
// Rules are found by address and by host interface: each must be one pod's.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "daemon/host_view.h"
#include "policy/cluster.h"
#include "store/state_db.h"

namespace tierlog::daemon {

// Registrations that `given` takes the place of: of the same container and interface, and of pods that are
// gone without a DEL and whose address or interface was given away again. Errors: InvalidArgument (no such
// interface, or an address that no pod can have), Refused (the address or the interface is another living
// pod's); each says what and whose. `known`: the pods of the whole cluster that files name.
Result<std::vector<store::RegisteredEndpoint>> admit(const store::RegisteredEndpoint& given,
                                                     const std::vector<store::RegisteredEndpoint>& registered,
                                                     const std::vector<policy::Endpoint>& known,
                                                     const std::string& node, const HostView& host);

}  // namespace tierlog::daemon
