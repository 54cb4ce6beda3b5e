// cli/explain_text.h - an Explanation as the picture that people read.
//
//   policy/explain.h --[explain_text]--> stdout
#pragma once

#include <optional>
#include <string>

#include "cli/table.h"
#include "policy/explain.h"

namespace tierlog::cli {

// The picture without the "Last seen" line. Policies of which many rules did not match are shortened
// unless `view.wide` is set.
std::string explain_text(const policy::Explanation& explanation, const View& view);

// The step that decided: of a denial the denying direction's, else ingress, else egress.
const policy::ExplainedStep* deciding_step(const policy::Explanation& explanation);

}  // namespace tierlog::cli
