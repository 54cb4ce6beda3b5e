// store/rollups.h - sums over records by time, rule and peer: what top-N and histograms read instead of rows.
//
//   rows of table flow --[Rollups]--> activity_…, source_…, target_… (minute and hour), dictionaries' `uses`
//
// The tables hold exactly the sums of the rows whose seq is at most meta 'rolled_sequence'; later rows (at
// most kMostUnrolled, a few seconds' worth) are summed from the table itself. Retention takes away from both;
// of buckets with times up to meta 'eroded_ns' first_ns and last_ns may be those of records that are gone.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "store/sqlite.h"

namespace tierlog::store {

enum class RollupPeer : std::uint8_t { None, Source, Target };

struct RollupTable {
  const char* name;
  RollupPeer peer;
  std::int64_t width_ns;  // of a bucket; column `bucket` is end_ns / width_ns
};

inline constexpr std::int64_t kMinuteNs = 60'000'000'000;
inline constexpr std::int64_t kHourNs = 60 * kMinuteNs;
inline constexpr RollupTable kRollupTables[] = {
    {"activity_minute", RollupPeer::None, kMinuteNs}, {"activity_hour", RollupPeer::None, kHourNs},
    {"source_minute", RollupPeer::Source, kMinuteNs}, {"source_hour", RollupPeer::Source, kHourNs},
    {"target_minute", RollupPeer::Target, kMinuteNs}, {"target_hour", RollupPeer::Target, kHourNs}};
inline constexpr std::size_t kRollupTableCount = std::size(kRollupTables);

// Rows that may wait for their roll-up.
inline constexpr std::int64_t kMostUnrolled = 32'768;

// Columns records … bytes_in of a roll-up, in this order. Nulls count as 0, but for packets_out of a denied
// record: those that were denied.
inline constexpr std::size_t kRollupSums = 7;
using RollupSums = std::array<std::int64_t, kRollupSums>;

// A row of table flow as far as sums go.
struct RolledRow {
  std::int64_t end_ns = 0, span_ns = 0;
  int action = 0, reporter = 0;
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
  bool is_large() const { return sources_.size() + targets_.size() > kManyKeys; }
  // Adds what was counted to the tables, inside the caller's transaction. clear() after its commit.
  Result<void> write();
  void clear();

 private:
  static constexpr std::size_t kManyKeys = 32'768;
  struct Key {
    std::int64_t bucket = 0, peer = 0, rule = 0;
    int action = 0, reporter = 0;
    bool operator==(const Key&) const = default;
    auto operator<=>(const Key&) const = default;
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
  using Sums = std::unordered_map<Key, Value, KeyHash>;
  using Uses = std::unordered_map<std::int64_t, std::int64_t>;
  struct TableStatements {
    sqlite::Statement add, drop_empty;
  };

  void count(const RolledRow& row, int sign);
  Result<void> write_table(std::size_t table, const Sums& minutes);
  static Result<void> write_uses(sqlite::Statement& put, const Uses& uses);

  std::array<TableStatements, kRollupTableCount> tables_;
  sqlite::Statement use_peer_, use_text_;
  Sums sources_, targets_;  // by minute
  Uses peers_, texts_;
  std::int64_t rows_ = 0;
  bool takes_away_ = false;
};

}  // namespace tierlog::store
