// dataplane/nftables/remove.h - everything of ours out of this network namespace's nftables, whatever
// version made it. Needs no back end: nothing is made or adopted first.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace tierlog::dataplane::nftables {

// Deletes every table named tierlog, of every family, in one transaction; returns them as "inet tierlog".
// Errors: Refused (no permission, or a living process owns one).
Result<std::vector<std::string>> remove_tables();

}  // namespace tierlog::dataplane::nftables
