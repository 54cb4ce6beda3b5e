// cni/plugin.h - tierlog-cni: the last plugin of a chain, tells tierlogd which pod an interface belongs to.
//
//   ptp, bridge, … --prevResult--> [tierlog-cni] --cni-add|cni-check|cni-del--> tierlogd
//
// ADD returns when the pod's rules are in the kernel, with prevResult unchanged; while the daemon is down
// it fails with code 11, so that the runtime tries again and no pod starts unprotected. DEL never fails
// for the daemon's sake: its request waits in the spool, which the daemon reads when it starts.
#pragma once

#include <string_view>

#include "cni/host_interface.h"
#include "cni/protocol.h"

namespace tierlog::cni {

Output run(const Environment& environment, std::string_view configuration, const Links& links);

}  // namespace tierlog::cni
