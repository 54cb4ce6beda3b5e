// store/rollup_query.h - sums over any range of time, exactly those of the records, from roll-ups where they
// reach: whole hours, whole minutes, and rows only at the edges and for what is not rolled up yet.
//
//   WHERE of a query (store/query.cpp) --[rollup_rows]--> a FROM clause in the place of `flow AS f`
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "store/record.h"
#include "store/rollups.h"
#include "store/sqlite.h"

namespace tierlog::store {

struct RollupRange {
  std::optional<WallTime> since, until;  // by the record's end time, both inclusive, as in FlowQuery
  std::optional<Verdict> action;
  // Width of the bins that the caller makes of `time_ns`; 0 = none, else whole minutes.
  Nanoseconds bin{};
};

// A parenthesised SELECT whose rows, summed, are those of all records in the range. Columns:
//   time_ns (in the bin; of a roll-up the beginning of its bucket), action, reporter, rule (of
//   rule_revision), peer (of table peer; 0 for RollupPeer::None), records, connections, verdict_packets,
//   packets_out, packets_in, bytes_out, bytes_in (0 for null), first_ns (earliest start), last_ns (latest
//   end)
// Filters over action, reporter, rule and that one peer can be put on top: "SELECT peer, sum(bytes_out) FROM
// " + rows + " WHERE rule IN (…) GROUP BY peer". To be run in the same transaction as this call. Errors:
// InvalidArgument for a bin that is no whole number of minutes.
Result<std::string> rollup_rows(sqlite::Database& database, RollupPeer peer, const RollupRange& range);

// Sums of one value: a reference into table peer or rule_revision, or the beginning of a bin.
struct RollupLine {
  std::int64_t key = 0;
  RollupSums sums{};
};
enum RollupSum : std::size_t {
  kRecords,
  kConnections,
  kVerdictPackets,
  kPacketsOut,
  kPacketsIn,
  kBytesOut,
  kBytesIn
};

// The `limit` peers with the largest sums, largest first. `where`: a condition over the columns above, "1"
// for none. Peers of one address but different identities are different.
Result<std::vector<RollupLine>> top_peers(sqlite::Database& database, RollupPeer peer,
                                          const RollupRange& range, const std::string& where, RollupSum by,
                                          std::size_t limit);
// By bin, oldest first; bins without records are left out. `range.bin` must be set.
Result<std::vector<RollupLine>> histogram(sqlite::Database& database, const RollupRange& range,
                                          const std::string& where);

}  // namespace tierlog::store
