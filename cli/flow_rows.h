// cli/flow_rows.h - columns and rows of `flows` and `denied`.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "cli/table.h"
#include "store/query.h"

namespace tierlog::cli {

// Displays that policies of several kinds share: only then is the kind shown with the name.
using SharedNames = std::set<std::string>;

std::vector<Column> flow_columns();
std::vector<Cell> flow_cells(const store::FlowRecord& record, const SharedNames& shared);
std::vector<Column> denied_columns();
std::vector<Cell> denied_cells(const store::FlowGroup& group, const SharedNames& shared);
// One record as a group of its own, for lines that come one after the other.
store::FlowGroup group_of(const store::FlowRecord& record);

SharedNames shared_names(const std::vector<store::FlowRecord>& records);
SharedNames shared_names(const std::vector<store::FlowGroup>& groups);

}  // namespace tierlog::cli
