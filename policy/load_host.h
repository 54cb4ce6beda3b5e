// policy/load_host.h - inside of the loader: HostEndpoint, and the fields of policies that are about them.
#pragma once

#include "base/fields.h"
#include "policy/model.h"

namespace tierlog::policy {

// applyOnForward, preDNAT, doNotTrack of a global policy's spec; its types must be known.
void read_host_stages(yaml::Fields& spec, Policy& policy);

}  // namespace tierlog::policy
