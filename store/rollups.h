// store/rollups.h - sums over records by time, rule and peer: what top-N and histograms read instead of rows.
//
//   rows of table flow --[Rollups]--> sums_by_rule, sums_by_source, sums_by_target, store/reference_uses.h
//
// Buckets of five widths, one row for each 256 peers that are met in it (store/packed_sums.h). Those of a minute hold exactly the sums of the rows whose seq is at most meta
// 'rolled_sequence'; later rows (at most kMostUnrolled, a few seconds' worth) are summed from the table itself. Wider ones
// are made from the next narrower when that is over (fold()): they hold those of the same rows that ended before
// sums_reach.until_ns, later or earlier written. Retention takes away from all; of buckets with times up to meta
// 'eroded_ns' first_ns and last_ns may be those of records that are gone.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/flat_map.h"
#include "base/result.h"
#include "store/packed_sums.h"
#include "store/reference_uses.h"
#include "store/sqlite.h"

namespace tierlog::store {

enum class RollupPeer : std::uint8_t { None, Source, Target };

struct RollupTable {
  const char* name;
  RollupPeer peer;
};
inline constexpr RollupTable kRollupTables[] = {{"sums_by_rule", RollupPeer::None},
                                                {"sums_by_source", RollupPeer::Source},
                                                {"sums_by_target", RollupPeer::Target}};
inline constexpr std::size_t kRollupTableCount = std::size(kRollupTables);

inline constexpr std::int64_t kMinuteNs = 60'000'000'000;
inline constexpr std::int64_t kHourNs = 60 * kMinuteNs;
// Of a bucket: column `width` is in seconds, column `bucket` is end_ns / width. Each divides the next.
inline constexpr std::int64_t kRollupWidths[] = {kMinuteNs, 10 * kMinuteNs, kHourNs, 6 * kHourNs, 24 * kHourNs};
inline constexpr std::size_t kRollupLevels = std::size(kRollupWidths);
inline constexpr std::int64_t kRollupSecondNs = 1'000'000'000;

// The instant at which a bucket of that width begins: the last one that is not after, the first that is not before.
inline std::int64_t floor_to(std::int64_t ns, std::int64_t width) {
  const std::int64_t rest = ns % width;
  return ns - (rest < 0 ? rest + width : rest);
}
inline std::int64_t ceil_to(std::int64_t ns, std::int64_t width) {
  const std::int64_t down = floor_to(ns, width);
  return down == ns ? ns : down + width;
}

// Up to where the buckets of each width count, in ns; those of a minute always do.
using RollupReach = std::array<std::int64_t, kRollupLevels>;
Result<RollupReach> read_rollup_reach(sqlite::Database& database, const RollupTable& table);

// Which row of a bucket has the sums of a peer (column `part`).
inline std::int64_t part_of(std::int64_t peer) {
  constexpr int kPeersInPart = 256;
  return peer / kPeersInPart;
}

// SELECT bucket, sums of the buckets ?4 up to, not including, ?5 of width ?1 (seconds), action ?2 and view ?3.
Result<sqlite::Statement> prepare_rollup_scan(sqlite::Database& database, const RollupTable& table);
// All sums of such a SELECT that is bound: take(where the bucket begins, sums).
template <typename Take>
Result<void> scan_rollups(sqlite::Statement& select, std::int64_t width_ns, Take&& take) {
  KeySums entry;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) break;
    const std::int64_t begin = select.integer(0) * width_ns;
    PackedSums packed(select.blob(1), begin);
    for (;;) {
      TL_ASSIGN(const bool more, packed.next(entry));
      if (!more) break;
      take(begin, entry);
    }
  }
  select.reset();
  return {};
}

// Sums as a file of version 8 has them, a row for each, from table NAME_8 into the table itself.
Result<void> pack_rollups_of_version_8(sqlite::Database& database, const RollupTable& table);

// How many records the roll-ups count.
Result<std::int64_t> count_rolled_records(sqlite::Database& database);

// Row 1 of table text is the empty list: it stays, and nobody counts who refers to it.
inline constexpr std::int64_t kEmptyText = 1;

// Rows that may wait for their roll-up: whoever asks for sums adds them up.
inline constexpr std::int64_t kMostUnrolled = 4096;

// Whose view: the record's reporter, but the source's view of an allowed connection to a pod of this node, which the
// destination tells again, stands apart: column `reporter` of the sums.
inline constexpr int kToldAgain = 2;
inline constexpr int kRollupViews = 3;

// A row of table flow as far as sums go.
struct RolledRow {
  std::int64_t end_ns = 0, span_ns = 0;
  int action = 0, view = 0;
  std::int64_t rule = 0, src = 0, dst = 0;
  std::array<std::int64_t, 3> texts{};  // logged_by, trace, staged
  RollupSums sums{};
};

// The columns of a SELECT over `flow AS f` that read_rolled_row expects, from column `first` on.
extern const char* const kRolledColumns;
RolledRow read_rolled_row(const sqlite::Statement& row, int first);

class Rollups {
 public:
  static Result<Rollups> open(sqlite::Database& database);

  void add(const RolledRow& row) { count(row, 1); }
  void take_away(const RolledRow& row) { count(row, -1); }
  // Rows counted since the last clear.
  std::int64_t rows() const { return rows_; }
  // Adds what was counted to the tables, inside the caller's transaction. clear() after its commit.
  Result<void> write();
  void clear();

  // A piece of the work that makes wide buckets of narrow ones, in a transaction of its own: of one table and width, at
  // most one wide bucket. False when there is nothing to do. Minutes that what was written last may still add to
  // wait; what comes later all the same is added to every width by write().
  Result<bool> fold(sqlite::Database& database);

 private:
  struct Key {
    std::int64_t bucket = 0, peer = 0, rule = 0;
    int action = 0, view = 0;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept;
  };
  struct Value {
    RollupSums sums{};
    // Earliest start and latest end of what was added.
    std::int64_t first_ns = std::numeric_limits<std::int64_t>::max();
    std::int64_t last_ns = std::numeric_limits<std::int64_t>::min();
    void add(const Value& more, int sign);
  };
  using Sums = FlatMap<Key, Value, KeyHash>;
  struct TableStatements {
    sqlite::Statement find, put, change, drop, first_bucket, narrow, reach, put_reach;
  };

  void count(const RolledRow& row, int sign);
  Result<RollupReach> reach_of(std::size_t table);
  Result<void> write_table(std::size_t table, const Sums& minutes);
  Result<void> write_sums(std::size_t table, std::size_t level, const Sums& sums);
  using Entries = std::span<const Sums::Entry* const>;
  Result<void> write_part(TableStatements& statements, std::int64_t width_ns, Entries entries);
  Result<bool> fold_table(sqlite::Database& database, std::size_t table);
  Result<bool> fold_level(sqlite::Database& database, std::size_t table, std::size_t level, std::int64_t from,
                          std::int64_t limit);

  std::array<TableStatements, kRollupTableCount> tables_;
  ReferenceUses uses_;
  Sums sources_, targets_;  // by minute
  Uses peers_, texts_;
  std::int64_t rows_ = 0;
  std::int64_t earliest_ns_ = std::numeric_limits<std::int64_t>::max();  // end, of what is counted
  std::int64_t over_ns_ = std::numeric_limits<std::int64_t>::min();  // minutes before it are over, as of the last write
};

}  // namespace tierlog::store
