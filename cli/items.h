// cli/items.h - what listings give to -o json, jsonl and csv: one JSON object a row, as text.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "lab/lab.h"
#include "store/query.h"

namespace tierlog::cli {

std::string item_of(const store::FlowRecord& record, const store::Origin& origin);
// The record's keys with the sums of its group: start_time is the first, end_time the last, `records` says
// how many there are.
std::string item_of(const store::FlowGroup& group, const store::Origin& origin);
std::string item_of(const store::PolicyActivity& activity);
std::string item_of(const store::RuleActivity& activity);
std::string item_of(const store::EndpointRow& endpoint);
std::string item_of(const Diagnostic& finding);
std::string item_of(const lab::Lab& lab);

}  // namespace tierlog::cli
