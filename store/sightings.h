// store/sightings.h - when there were records of some peers or rules: spans of time, newest first, from the
// roll-ups.
//
//   FlowQuery --[Sightings]--> spans of minutes --> store/query.cpp reads the rows that ended in them
//
// Rows have no index by peer: who asks for a pod that is rare would read all of them. A bucket of a day
// without it is one look-up, whatever traffic there was.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "store/filter_sql.h"
#include "store/query.h"
#include "store/rollups.h"
#include "store/sqlite.h"

namespace tierlog::store {

// Instants from `from` up to, not including, `to`, by the record's end.
struct EndSpan {
  std::int64_t from = 0, to = 0;
};

class Sightings {
 public:
  // Nothing: no filter of the query names peers or rules. To be called, like next(), in one transaction.
  static Result<std::optional<Sightings>> of(sqlite::Database& database, const FlowQuery& query,
                                             const Origin& origin);

  // No peer or no rule is what the filters want: nothing matches, rolled up or not.
  bool nobody() const { return nobody_; }
  // Whole minutes from the oldest to the newest record that the query's range has.
  std::int64_t minutes() const { return all_minutes_; }
  // The next older span in which rolled-up records of them ended; other filters may leave nothing of it.
  // Nothing: that was the last. Spans begin and end with whole minutes, whatever the query's range is.
  Result<std::optional<EndSpan>> next();

 private:
  using References = std::unordered_set<std::int64_t>;
  // Sums of one table that would tell of such records.
  struct Look {
    sqlite::Statement scan;
    std::optional<References> peers;  // nothing: any
    RollupReach reach{};
  };
  struct Piece {
    std::size_t level;
    EndSpan span;  // whole buckets of that level
  };

  Result<void> choose(const FlowQuery& query, const Origin& origin);
  Result<void> look_in(RollupPeer table, std::optional<References> peers);
  void cover(const EndSpan& span);
  Result<std::vector<std::int64_t>> seen_in(const Piece& piece);

  sqlite::Database* database_ = nullptr;
  bool nobody_ = false;
  std::array<bool, 2> actions_{true, true};
  std::optional<References> rules_;
  std::vector<Look> looks_;
  std::int64_t all_minutes_ = 0;
  std::vector<Piece> pieces_;     // to look into; the newest last
  std::vector<EndSpan> minutes_;  // newer than all of them; the newest last
};

// f.seq of the newest records that match (by end, then by sequence), newest first. Nothing where sightings
// are of no use: in another order, without a limit, or without a filter that names peers or rules. In the
// caller's transaction.
Result<std::optional<std::vector<std::int64_t>>> newest_sighted(sqlite::Database& database,
                                                                const FlowQuery& query, const Origin& origin);

// A filter of the query chooses peers.
bool names_peers(const FlowQuery& query);

// For those who read all that match: the conditions, and that of all rows only those are looked at that ended
// in a minute in which the peers or rules were seen. Nothing where these minutes are many, or no filter names
// peers or rules.
Result<std::optional<WhereClause>> where_if_rare(sqlite::Database& database, const FlowQuery& query,
                                                 const Origin& origin);
// That, or WhereClause::of(query).
Result<WhereClause> where_sighted(sqlite::Database& database, const FlowQuery& query, const Origin& origin);

}  // namespace tierlog::store
