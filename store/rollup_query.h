// store/rollup_query.h - sums over any range of time, exactly those of the records, from roll-ups where they
// reach: the widest buckets first, narrower ones beside them, and rows only at the edges and for what is not
// rolled up yet.
//
//   RollupRange, RollupSlices --[read_rollups]--> RollupRows --> store/rollup_groups.h
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

#include "base/result.h"
#include "base/time.h"
#include "store/record.h"
#include "store/rollups.h"
#include "store/sqlite.h"

namespace tierlog::store {

struct RollupRange {
  std::optional<WallTime> since, until;  // by the record's end time, both inclusive, as in FlowQuery
  // Width of the bins that the caller makes of `time_ns`; 0 = none, else whole minutes.
  Nanoseconds bin{};
};

// Which sums are to tell of the records of an action and a view (RolledRow): [action][view], as numbers in the file.
// Nothing: such records are not asked for.
using RollupSlices = std::array<std::array<std::optional<RollupPeer>, kRollupViews>, 2>;

struct RollupRow {
  std::int64_t time_ns = 0;  // in the bin; of a roll-up the beginning of its bucket
  int action = 0, view = 0;
  std::int64_t rule = 0;  // of table rule_revision
  std::int64_t peer = 0;  // of table peer; 0 for RollupPeer::None
  RollupSums sums{};
  std::int64_t first_ns = 0, last_ns = 0;  // earliest start, latest end
};

// Rows that, summed, are all records in the range, in no order. To be called in a transaction, so that sums and rows are
// of one moment. Errors: InvalidArgument for a bin that is no whole number of minutes.
Result<void> read_rollups(sqlite::Database& database, const RollupRange& range, const RollupSlices& slices,
                          const std::function<void(const RollupRow&)>& take);

}  // namespace tierlog::store
