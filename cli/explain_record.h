// cli/explain_record.h - a record's own trace as an Explanation: the past, from the flow index alone.
//
//   store/query.h (record, rules) --[explain_record]--> policy/explain.h --> explain_text.h
#pragma once

#include <string>

#include "base/result.h"
#include "policy/explain.h"
#include "store/query.h"

namespace tierlog::cli {

// Rules that did not match are not in a record; a policy none of whose rules matched is one step.
// Errors: NotFound (no such record), those of the reader.
Result<policy::Explanation> explain_record(store::FlowReader& reader, const std::string& id);

}  // namespace tierlog::cli
