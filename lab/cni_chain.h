// lab/cni_chain.h - creating a pod's network as a container runtime does: by executing CNI plugins.
//
//   [ptp | bridge] with ipam static (the topology gives addresses) or host-local (it does not)
//      --prevResult--> tierlog-cni --> tierlogd
// The plugins run in the node's namespaces; what DEL needs later is in CniPod.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "lab/addressing.h"
#include "lab/enter.h"
#include "policy/cluster.h"

namespace tierlog::lab {

struct Chain {
  Cni cni = Cni::Ptp;
  std::string cni_folder;  // of ptp, bridge, static, host-local
  std::string bin_folder;  // of tierlog-cni
  std::string socket;      // tierlogd's; empty: the chain ends without tierlog-cni
};

struct CniPod {
  std::string container_id;                 // also the name of its network namespace
  std::string arguments;                    // CNI_ARGS
  std::vector<std::string> configurations;  // of each plugin in the order of ADD, without prevResult
  std::string result;                       // of the whole ADD
  std::vector<IpAddr> addresses;            // out of the result
};

// What the runtime will hand to the plugins. Errors: InvalidArgument (names, addresses).
Result<CniPod> plan_pod(const Chain& chain, AddressPlan& plan, const policy::Endpoint& pod);
// ADD through the chain; fills result and addresses. On an error everything that was added is deleted.
Result<void> cni_add(const Chain& chain, const Place& node, CniPod& pod);
// DEL in reverse order, of every plugin even when one fails. Errors: the first failure.
Result<void> cni_del(const Chain& chain, const Place& node, const CniPod& pod);

}  // namespace tierlog::lab
