// lab/names.h - /etc/hosts of a lab: `db.tenant-01` is the pod's address, `db.tenant-01.svc` the
// Service's.
#pragma once

#include <string>

#include "base/result.h"
#include "lab/state.h"

namespace tierlog::lab {

std::string hosts_text(const LabState& state);
// Rewrites the lab's hosts file in place: it is mounted, so it must stay the same file.
Result<void> write_hosts(const LabState& state);

}  // namespace tierlog::lab
