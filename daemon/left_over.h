// daemon/left_over.h - what happened to pods while no daemon ran: DEL requests that the CNI plugin left
// in the spool, and registrations of pods that are gone without one (a reboot, a runtime that crashed).
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "daemon/host_view.h"
#include "store/state_db.h"

namespace tierlog::daemon {

struct SpooledDel {
  std::string path;  // to be removed when it is carried out
  std::string container_id, ifname;
};
// What waits in the spool, sorted by name. Files that are no such request are removed and told; what is no
// regular file is told and let be.
std::vector<SpooledDel> read_spool(const std::string& folder, std::vector<std::string>& complaints);

struct GonePod {
  store::RegisteredEndpoint endpoint;
  std::string why;

  std::string to_string() const;
};
// Takes registrations out of `state` whose host interface is gone, and after a reboot those whose network
// namespace is (an interface of that name is another pod's then). Remembers this boot.
Result<std::vector<GonePod>> drop_gone_pods(store::StateDb& state, const HostView& host);

}  // namespace tierlog::daemon
