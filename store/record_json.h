// store/record_json.h - FlowRecord as the JSON object that users, exporters and --output json share.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "store/record.h"

namespace tierlog::store {

// All keys of docs/records.md, in that order; what is empty or unset is null.
nlohmann::ordered_json to_json(const FlowRecord& record, const Origin& origin);

}  // namespace tierlog::store
