// store/rollup_groups.h - --group-by, --top and --bins from the sums beside the rows.
//
//   GroupQuery --is_told_by_rollups--> yes --[rollup_groups]--> lines --> FlowReader::groups
//
// A sum knows a rule, one side's peer, the action and the reporter by reference. What a group is called and
// whether a filter takes it depend on one of these at a time: names are looked up once for each reference
// that is met, never for each sum.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/groups.h"
#include "store/record.h"
#include "store/sqlite.h"

namespace tierlog::store {

// Which part of a sum a filter is about; Row: what no sum knows.
GroupField::Of told_by(const FieldFilter& filter);

// Whether an allowed connection to a pod of this node counts once, by its destination's view.
bool counts_connections_once(const GroupQuery& query);

struct GroupLine {
  std::vector<std::string> names;  // one a field
  std::int64_t bin = 0;            // number of it since 1970; 0 without bins
  Sums sums;
  WallTime first{}, last{};
};

bool is_told_by_rollups(const GroupQuery& query);
// Inside a transaction of the caller. Names may come in several lines.
Result<std::vector<GroupLine>> rollup_groups(sqlite::Database& database, const GroupQuery& query,
                                             const Origin& origin);

}  // namespace tierlog::store
