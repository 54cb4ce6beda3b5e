// query/items.h - rows of every listing as JSON objects, as text: what -o json, jsonl and csv print and what
// HTTP answers.
#pragma once

#include <string>

#include "store/groups.h"
#include "store/query.h"

namespace tierlog::query {

std::string item_of(const store::FlowRecord& record, const store::Origin& origin);
// The record's keys with the sums of its group: start_time is the first, end_time the last, `records` says
// how many there are.
std::string item_of(const store::FlowGroup& group, const store::Origin& origin);
// The fields that were asked for, their sums, rates and bins.
std::string item_of(const store::GroupQuery& query, const store::GroupResult& result,
                    const store::FlowSums& group);
std::string item_of(const store::PolicyActivity& activity);
std::string item_of(const store::RuleActivity& activity);
std::string item_of(const store::EndpointRow& endpoint);

// The time that sums are about, for rates: at least 1.
double seconds_of(const store::GroupResult& result);

}  // namespace tierlog::query
