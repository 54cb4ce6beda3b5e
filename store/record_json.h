// store/record_json.h - FlowRecord as the JSON object that users, exporters and --output json share.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/record.h"

namespace tierlog::store {

// All keys of docs/records.md, in that order. A value that is empty or unset is null; the lists
// (logged_by, trace, staged) and the labels are then [] and {}, so that programs can walk them unasked.
nlohmann::ordered_json to_json(const FlowRecord& record, const Origin& origin);

// The nested parts as JSON text: what the flow index keeps and its views show. Equal values give equal
// text. The parse_… functions read exactly what these wrote. Errors: Corrupt.
std::string logged_by_text(const std::vector<LoggedBy>& entries);
std::string trace_text(const std::vector<TraceEntry>& entries);
std::string staged_text(const std::vector<StagedVerdict>& entries);
std::string labels_text(const policy::Labels& labels);
std::string strings_text(const std::vector<std::string>& items);
Result<std::vector<LoggedBy>> parse_logged_by(std::string_view text);
Result<std::vector<TraceEntry>> parse_trace(std::string_view text);
Result<std::vector<StagedVerdict>> parse_staged(std::string_view text);
Result<policy::Labels> parse_labels(std::string_view text);
Result<std::vector<std::string>> parse_strings(std::string_view text);

// All keys that to_json may give, in its order.
const std::vector<std::string>& record_keys();

}  // namespace tierlog::store
