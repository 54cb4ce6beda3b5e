// daemon/privileges.h - what the daemon may do once everything is open: change this network namespace
// and read files, no more. docs/install.md says what each is for.
#pragma once

#include <string>

#include "base/result.h"

namespace tierlog::daemon {

enum class MayUseBpf : bool { No, Yes };
// Keeps CAP_NET_ADMIN and CAP_DAC_READ_SEARCH, and CAP_BPF where the data plane is eBPF, as far as the process
// has them, for good (no_new_privs).
// Capabilities belong to threads: call it before there is a second one. Errors: Refused.
Result<void> drop_privileges(MayUseBpf bpf = MayUseBpf::No);

// "net_admin, dac_read_search", "none".
std::string effective_capabilities();

}  // namespace tierlog::daemon
