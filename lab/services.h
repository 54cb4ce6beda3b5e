// lab/services.h - Services and masquerade of a lab, done on every node as kube-proxy's nftables mode does.
//
//   LabState --[nat_rules, per node and family]--> nft script --[program_services]--> table ip/ip6
//   lab-services
// DNAT in prerouting and output at priority -100, masquerade in postrouting at 100 by mark 0x4000, Services
// without a backend refused in filter at -110. Real engines meet exactly this on a node, marks included.
#pragma once

#include <string>

#include "base/result.h"
#include "lab/state.h"

namespace tierlog::lab {

inline constexpr const char* kServiceTable = "lab-services";

// The whole table of one family as nft reads it, replacing the one before.
std::string nat_rules(const LabState& state, const NodeState& node, Family family);
// On all nodes; nothing where there is nothing to do.
Result<void> program_services(const LabState& state);

}  // namespace tierlog::lab
