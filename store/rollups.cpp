#include "store/rollups.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

namespace tierlog::store {
namespace {

constexpr const char* kSumColumns =
    "records, connections, verdict_packets, packets_out, packets_in, bytes_out, bytes_in, first_ns, last_ns";

bool has_peer(const RollupTable& table) {
  return table.peer != RollupPeer::None;
}

std::string key_columns(const RollupTable& table) {
  return std::string("width, action, reporter, bucket, ") + (has_peer(table) ? "peer, " : "") + "rule";
}

// Of the INSERTs below: what is there already is added to.
std::string or_add(const RollupTable& table) {
  return " ON CONFLICT(" + key_columns(table) +
         ") DO UPDATE SET records = records + excluded.records,"
         " connections = connections + excluded.connections,"
         " verdict_packets = verdict_packets + excluded.verdict_packets,"
         " packets_out = packets_out + excluded.packets_out, packets_in = packets_in + excluded.packets_in,"
         " bytes_out = bytes_out + excluded.bytes_out, bytes_in = bytes_in + excluded.bytes_in,"
         " first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)";
}

std::string into(const RollupTable& table) {
  return std::string("INSERT INTO ") + table.name + "(" + key_columns(table) + ", " + kSumColumns + ") ";
}

std::string add_sql(const RollupTable& table) {
  const int columns = has_peer(table) ? 15 : 14;
  std::string marks = "?1";
  for (int i = 2; i <= columns; ++i) marks += ", ?" + std::to_string(i);
  return into(table) + "VALUES (" + marks + ")" + or_add(table);
}

std::string drop_sql(const RollupTable& table) {
  return std::string("DELETE FROM ") + table.name +
         " WHERE width = ?1 AND action = ?2 AND reporter = ?3 AND bucket = ?4 AND " +
         (has_peer(table) ? "peer = ?5 AND rule = ?6" : "rule = ?5") + " AND records = 0";
}

// ?1 the narrow width, ?2 from and ?3 to which of its buckets, ?4 the wide width and ?5 its bucket, ?6
// action, ?7 reporter.
std::string fold_sql(const RollupTable& table) {
  const std::string peer = has_peer(table) ? "peer, " : "";
  return into(table) + "SELECT ?4, ?6, ?7, ?5, " + peer +
         "rule, sum(records), sum(connections), sum(verdict_packets), sum(packets_out), sum(packets_in), "
         "sum(bytes_out),"
         " sum(bytes_in), min(first_ns), max(last_ns) FROM " +
         table.name +
         " WHERE width = ?1 AND action = ?6 AND reporter = ?7 AND bucket >= ?2 AND bucket < ?3 GROUP BY " +
         peer + "rule" + or_add(table);
}

std::string reach_sql(const RollupTable& table) {
  return std::string("SELECT width, until_ns FROM sums_reach WHERE of = '") + table.name + "'";
}

std::int64_t bucket_of(std::int64_t ns, std::int64_t width) {
  return ns / width - (ns % width < 0 ? 1 : 0);
}

Result<RollupReach> read_reach(sqlite::Statement& select) {
  RollupReach reach;
  reach.fill(std::numeric_limits<std::int64_t>::min());
  reach[0] = std::numeric_limits<std::int64_t>::max();
  select.reset();
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) break;
    for (std::size_t level = 1; level < kRollupLevels; ++level)
      if (select.integer(0) * kRollupSecondNs == kRollupWidths[level]) reach[level] = select.integer(1);
  }
  select.reset();
  return reach;
}

void mix(std::uint64_t& hash, std::uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  hash ^= hash >> 32;
}

}  // namespace

const char* const kRolledColumns =
    "f.end_ns, f.span_ns, f.action,"
    " iif(f.action = 0 AND f.reporter = 0 AND (SELECT local FROM peer WHERE peer.id = f.dst), 2, "
    "f.reporter), f.rule, f.src, f.dst, f.logged_by, f.trace, f.staged, "
    "f.connections,"
    " f.verdict_packets, coalesce(f.packets_out, iif(f.action = 1, f.verdict_packets, 0)), f.packets_in, "
    "f.bytes_out, f.bytes_in";

RolledRow read_rolled_row(const sqlite::Statement& row, int first) {
  RolledRow read;
  read.end_ns = row.integer(first);
  read.span_ns = row.integer(first + 1);
  read.action = static_cast<int>(row.integer(first + 2));
  read.view = static_cast<int>(row.integer(first + 3));
  read.rule = row.integer(first + 4);
  read.src = row.integer(first + 5);
  read.dst = row.integer(first + 6);
  read.texts = {row.integer(first + 7), row.integer(first + 8), row.integer(first + 9)};
  read.sums[0] = 1;
  // A null reads as 0.
  for (int i = 1; i < static_cast<int>(kRollupSums); ++i)
    read.sums[static_cast<std::size_t>(i)] = row.integer(first + 9 + i);
  return read;
}

Result<RollupReach> read_rollup_reach(sqlite::Database& database, const RollupTable& table) {
  TL_ASSIGN(auto select, database.prepare(reach_sql(table)));
  return read_reach(select);
}

Result<std::int64_t> count_rolled_records(sqlite::Database& database) {
  const RollupTable& table = kRollupTables[0];
  TL_ASSIGN(const RollupReach reach, read_rollup_reach(database, table));
  TL_ASSIGN(
      auto sum,
      database.prepare(std::string("SELECT coalesce(sum(records), 0) FROM ") + table.name +
                       " WHERE width = ?1 AND action IN (0, 1) AND reporter IN (0, 1, 2) AND bucket >= ?2"));
  std::int64_t records = 0;
  for (std::size_t level = 0; level < kRollupLevels; ++level) {
    // What is before is in the wider ones.
    const std::int64_t from = level + 1 < kRollupLevels ? bucket_of(reach[level + 1], kRollupWidths[level])
                                                        : std::numeric_limits<std::int64_t>::min();
    TL_TRY(sum.bind(kRollupWidths[level] / kRollupSecondNs, from).step());
    records += sum.integer(0);
  }
  return records;
}

std::size_t Rollups::KeyHash::operator()(const Key& key) const noexcept {
  auto hash = static_cast<std::uint64_t>(key.bucket);
  mix(hash, static_cast<std::uint64_t>(key.peer));
  mix(hash, static_cast<std::uint64_t>(key.rule) << 3 | static_cast<std::uint64_t>(key.action) << 2 |
                static_cast<std::uint64_t>(key.view));
  return hash;
}

Result<Rollups> Rollups::open(sqlite::Database& database) {
  Rollups made;
  for (std::size_t i = 0; i < kRollupTableCount; ++i) {
    const RollupTable& table = kRollupTables[i];
    TL_ASSIGN(made.tables_[i].add, database.prepare(add_sql(table)));
    TL_ASSIGN(made.tables_[i].drop_empty, database.prepare(drop_sql(table)));
    TL_ASSIGN(made.tables_[i].fold, database.prepare(fold_sql(table)));
    TL_ASSIGN(made.tables_[i].reach, database.prepare(reach_sql(table)));
    TL_ASSIGN(made.tables_[i].put_reach,
              database.prepare(std::string("INSERT INTO sums_reach(of, width, until_ns)"
                                           " VALUES ('") +
                               table.name +
                               "', ?1, ?2) ON CONFLICT(of, width) DO UPDATE SET"
                               " until_ns = excluded.until_ns"));
    TL_ASSIGN(made.tables_[i].first_bucket,
              database.prepare(std::string("SELECT min(bucket) FROM ") + table.name +
                               " WHERE width = ?1 AND action = ?2 AND reporter = ?3 AND bucket >= ?4"));
  }
  TL_ASSIGN(made.use_peer_, database.prepare("UPDATE peer SET uses = uses + ?2 WHERE id = ?1"));
  TL_ASSIGN(made.use_text_, database.prepare("UPDATE text SET uses = uses + ?2 WHERE id = ?1"));
  return made;
}

void Rollups::Value::add(const Value& more, int sign) {
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += sign * more.sums[i];
  if (sign < 0) return;
  first_ns = std::min(first_ns, more.first_ns);
  last_ns = std::max(last_ns, more.last_ns);
}

void Rollups::count(const RolledRow& row, int sign) {
  // Rounded down also before 1970: a wall clock may say anything.
  const std::int64_t minute = bucket_of(row.end_ns, kMinuteNs);
  const Value value{row.sums, row.end_ns - row.span_ns, row.end_ns};
  sources_[{minute, row.src, row.rule, row.action, row.view}].add(value, sign);
  targets_[{minute, row.dst, row.rule, row.action, row.view}].add(value, sign);
  peers_[row.src] += sign;
  peers_[row.dst] += sign;
  for (const std::int64_t text : row.texts) texts_[text] += sign;
  ++rows_;
  takes_away_ = takes_away_ || sign < 0;
  if (sign > 0) earliest_ns_ = std::min(earliest_ns_, row.end_ns);
}

Result<RollupReach> Rollups::reach_of(std::size_t table) {
  return read_reach(tables_[table].reach);
}

Result<void> Rollups::write_sums(std::size_t table, std::size_t level, const Sums& sums) {
  const bool with_peer = has_peer(kRollupTables[table]);
  std::vector<const Sums::value_type*> ordered;
  ordered.reserve(sums.size());
  for (const auto& entry : sums) ordered.push_back(&entry);
  // In the tables' own order, so that neighbours are written together.
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::tuple(a->first.action, a->first.view, a->first.bucket, a->first.peer, a->first.rule) <
           std::tuple(b->first.action, b->first.view, b->first.bucket, b->first.peer, b->first.rule);
  });
  TableStatements& statements = tables_[table];
  const std::int64_t width = kRollupWidths[level] / kRollupSecondNs;
  for (const auto* entry : ordered) {
    const Key& key = entry->first;
    statements.add.reset();
    int column = 0;
    const auto bind = [&](std::int64_t value) { statements.add.bind_at(++column, value); };
    bind(width);
    bind(key.action);
    bind(key.view);
    bind(key.bucket);
    if (with_peer) bind(key.peer);
    bind(key.rule);
    for (const std::int64_t sum : entry->second.sums) bind(sum);
    bind(entry->second.first_ns);
    bind(entry->second.last_ns);
    TL_TRY(statements.add.run());
    if (!takes_away_) continue;
    if (with_peer)
      statements.drop_empty.bind(width, key.action, key.view, key.bucket, key.peer, key.rule);
    else
      statements.drop_empty.bind(width, key.action, key.view, key.bucket, key.rule);
    TL_TRY(statements.drop_empty.run());
  }
  return {};
}

Result<void> Rollups::write_table(std::size_t table, const Sums& minutes) {
  TL_ASSIGN(const RollupReach reach, reach_of(table));
  const bool with_peer = has_peer(kRollupTables[table]);
  for (std::size_t level = 0; level < kRollupLevels; ++level) {
    const std::int64_t minutes_each = kRollupWidths[level] / kMinuteNs;
    Sums sums;
    for (const auto& [minute_key, more] : minutes) {
      // What is not over yet comes into wider buckets by fold().
      if (level > 0 && minute_key.bucket * kMinuteNs >= reach[level]) continue;
      Key key = minute_key;
      key.bucket = bucket_of(key.bucket, minutes_each);
      if (!with_peer) key.peer = 0;
      sums[key].add(more, 1);
    }
    TL_TRY(write_sums(table, level, sums));
  }
  return {};
}

Result<void> Rollups::write_uses(sqlite::Statement& put, const Uses& uses) {
  for (const auto& [reference, more] : uses)
    if (more != 0) TL_TRY(put.bind(reference, more).run());
  return {};
}

Result<void> Rollups::write() {
  for (std::size_t i = 0; i < kRollupTableCount; ++i)
    TL_TRY(write_table(i, kRollupTables[i].peer == RollupPeer::Target ? targets_ : sources_));
  TL_TRY(write_uses(use_peer_, peers_));
  return write_uses(use_text_, texts_);
}

void Rollups::clear() {
  // By the earliest record of the last batch: one with a time in the future does not end the present.
  if (earliest_ns_ != std::numeric_limits<std::int64_t>::max())
    over_ns_ = bucket_of(earliest_ns_, kMinuteNs) * kMinuteNs;
  earliest_ns_ = std::numeric_limits<std::int64_t>::max();
  sources_.clear();
  targets_.clear();
  peers_.clear();
  texts_.clear();
  rows_ = 0;
  takes_away_ = false;
}

Result<bool> Rollups::fold(sqlite::Database& database) {
  for (std::size_t table = 0; table < kRollupTableCount; ++table) {
    TL_ASSIGN(const bool done, fold_table(database, table));
    if (done) return true;
  }
  return false;
}

Result<bool> Rollups::fold_table(sqlite::Database& database, std::size_t table) {
  TL_ASSIGN(RollupReach reach, reach_of(table));
  reach[0] = over_ns_;
  for (std::size_t level = 1; level < kRollupLevels; ++level) {
    const std::int64_t narrow = kRollupWidths[level - 1];
    if (reach[level] / narrow >= bucket_of(reach[level - 1], narrow)) continue;
    return fold_level(database, table, level, reach[level], reach[level - 1]);
  }
  return false;
}

// Buckets of the next narrower width that begin at or after `from` and end at or before `limit`, as far as
// they are in one wide bucket.
Result<bool> Rollups::fold_level(sqlite::Database& database, std::size_t table, std::size_t level,
                                 std::int64_t from, std::int64_t limit) {
  TableStatements& statements = tables_[table];
  const std::int64_t narrow = kRollupWidths[level - 1], wide = kRollupWidths[level];
  const std::int64_t past = bucket_of(limit, narrow);
  std::int64_t first = past;
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  for (const int action : {0, 1})
    for (int reporter = 0; reporter < kRollupViews; ++reporter) {
      statements.first_bucket.bind(narrow / kRollupSecondNs, action, reporter, bucket_of(from, narrow));
      TL_ASSIGN(const bool row, statements.first_bucket.step());
      if (row && !statements.first_bucket.is_null(0))
        first = std::min(first, statements.first_bucket.integer(0));
      statements.first_bucket.reset();
    }
  const std::int64_t bucket = bucket_of(first * narrow, wide);
  const std::int64_t to = std::min(past, (bucket + 1) * (wide / narrow));
  for (const int action : {0, 1})
    for (int reporter = 0; reporter < kRollupViews; ++reporter)
      if (first < past) {
        statements.fold.bind(narrow / kRollupSecondNs, first, to, wide / kRollupSecondNs, bucket, action,
                             reporter);
        TL_TRY(statements.fold.run());
      }
  TL_TRY(statements.put_reach.bind(wide / kRollupSecondNs, to * narrow).run());
  TL_TRY(transaction.commit());
  return true;
}

}  // namespace tierlog::store
