// cli/explain_record.h - a recorded verdict as an Explanation: by what was in force then, else by its trace.
//
//   store/query.h (record) + query/moment.h (policies and pods of its time) --[explain_record]-->
//   policy/explain.h --> explain_text.h
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/explain.h"
#include "query/moment.h"
#include "store/query.h"

namespace tierlog::cli {

struct RecordExplanation {
  policy::Explanation explanation;
  std::optional<query::Past> past;  // what it was evaluated with; nothing: the record's own trace
  std::vector<std::string> notes;   // why the past is not used, a sentence each
};

// Errors: NotFound (no such record), those of the reader.
Result<RecordExplanation> explain_record(store::FlowReader& reader, const std::string& id);

// By the record alone. Rules that did not match are not in it; a policy none of whose rules matched is one
// step.
Result<policy::Explanation> explain_trace(store::FlowReader& reader, const store::FlowRecord& record);

}  // namespace tierlog::cli
