// cli/policy_history.h - `tierlog policies --history`: a policy's revisions, each as a change of the last.
//
//   query/revisions.h --> [show_history] --> stdout
#pragma once

#include <string>

#include "base/result.h"
#include "cli/output.h"
#include "store/query.h"

namespace tierlog::cli {

// Prints them; the exit code. Errors: NotFound, with the nearest policy.
Result<int> show_history(store::FlowReader& reader, const std::string& pattern, Format format);

}  // namespace tierlog::cli
