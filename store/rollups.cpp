#include "store/rollups.h"

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

namespace tierlog::store {
namespace {

bool has_peer(const RollupTable& table) {
  return table.peer != RollupPeer::None;
}

constexpr const char* kOfKey = " WHERE width = ?1 AND action = ?2 AND reporter = ?3 AND bucket = ?4 AND part = ?5";
constexpr const char* kPut = "(width, action, reporter, bucket, part, sums) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

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

Result<sqlite::Statement> prepare_rollup_scan(sqlite::Database& database, const RollupTable& table) {
  return database.prepare(std::string("SELECT bucket, sums FROM ") + table.name +
                          " WHERE width = ?1 AND action = ?2 AND reporter = ?3 AND bucket >= ?4 AND bucket < ?5");
}

Result<void> pack_rollups_of_version_8(sqlite::Database& database, const RollupTable& table) {
  TL_ASSIGN(auto put, database.prepare(std::string("INSERT INTO ") + table.name + kPut));
  // In the order of their key.
  TL_ASSIGN(auto rows, database.prepare(std::string("SELECT width, action, reporter, bucket, ") +
                                        (has_peer(table) ? "peer" : "0") +
                                        ", rule, first_ns, last_ns, records, connections, verdict_packets, packets_out,"
                                        " packets_in, bytes_out, bytes_in FROM " +
                                        table.name + "_8 ORDER BY 1, 2, 3, 4, 5, 6"));
  using PartKey = std::array<std::int64_t, 5>;
  std::optional<PartKey> current;
  SumPacker packer(0);
  const auto finish = [&]() -> Result<void> {
    if (!current) return {};
    for (std::size_t i = 0; i < current->size(); ++i) put.bind_at(static_cast<int>(i) + 1, (*current)[i]);
    put.bind_blob(6, sqlite::Borrowed{packer.bytes()});
    return put.run();
  };
  for (;;) {
    TL_ASSIGN(const bool row, rows.step());
    if (!row) break;
    KeySums entry{rows.integer(4), rows.integer(5), {}, rows.integer(6), rows.integer(7)};
    for (std::size_t i = 0; i < kRollupSums; ++i) entry.sums[i] = rows.integer(static_cast<int>(i) + 8);
    const PartKey key{rows.integer(0), rows.integer(1), rows.integer(2), rows.integer(3), part_of(entry.peer)};
    if (current != key) {
      TL_TRY(finish());
      current = key;
      packer = SumPacker(key[3] * key[0] * kRollupSecondNs);
    }
    packer.add(entry);
  }
  return finish();
}

Result<std::int64_t> count_rolled_records(sqlite::Database& database) {
  const RollupTable& table = kRollupTables[0];
  TL_ASSIGN(const RollupReach reach, read_rollup_reach(database, table));
  TL_ASSIGN(auto select, prepare_rollup_scan(database, table));
  std::int64_t records = 0;
  for (std::size_t level = 0; level < kRollupLevels; ++level) {
    // What is before is in the wider ones.
    const std::int64_t from = level + 1 < kRollupLevels ? bucket_of(reach[level + 1], kRollupWidths[level])
                                                        : std::numeric_limits<std::int64_t>::min();
    for (const int action : {0, 1})
      for (int view = 0; view < kRollupViews; ++view) {
        select.bind(kRollupWidths[level] / kRollupSecondNs, action, view, from, std::numeric_limits<std::int64_t>::max());
        TL_TRY(scan_rollups(select, kRollupWidths[level],
                            [&](std::int64_t, const KeySums& entry) { records += entry.sums[0]; }));
      }
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
    const std::string name = table.name;
    TL_ASSIGN(made.tables_[i].find, database.prepare("SELECT id, sums FROM " + name + kOfKey));
    TL_ASSIGN(made.tables_[i].put, database.prepare("INSERT INTO " + name + kPut));
    TL_ASSIGN(made.tables_[i].change, database.prepare("UPDATE " + name + " SET sums = ?2 WHERE id = ?1"));
    TL_ASSIGN(made.tables_[i].drop, database.prepare("DELETE FROM " + name + " WHERE id = ?1"));
    TL_ASSIGN(made.tables_[i].narrow, prepare_rollup_scan(database, table));
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
  TL_ASSIGN(made.uses_, ReferenceUses::open(database));
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
  sources_.at({minute, row.src, row.rule, row.action, row.view}).add(value, sign);
  targets_.at({minute, row.dst, row.rule, row.action, row.view}).add(value, sign);
  peers_.at(row.src) += sign;
  peers_.at(row.dst) += sign;
  for (const std::int64_t text : row.texts)
    if (text != kEmptyText) texts_.at(text) += sign;
  ++rows_;
  if (sign > 0) earliest_ns_ = std::min(earliest_ns_, row.end_ns);
}

Result<RollupReach> Rollups::reach_of(std::size_t table) {
  return read_reach(tables_[table].reach);
}

// What is there already is added to, in one pass over both.
Result<void> Rollups::write_part(TableStatements& statements, std::int64_t width_ns, Entries entries) {
  const Key& key = entries.front()->key;
  const std::int64_t width = width_ns / kRollupSecondNs, begin = key.bucket * width_ns, part = part_of(key.peer);
  const auto places = [](const auto& at) { return std::tuple(at.peer, at.rule); };
  SumPacker packer(begin);
  const auto put = [&packer](const KeySums& sums) {
    if (sums.sums[0] != 0) packer.add(sums);  // else its last record is taken away
  };
  const auto put_new = [&](const Sums::Entry& entry) {
    put({entry.key.peer, entry.key.rule, entry.value.sums, entry.value.first_ns, entry.value.last_ns});
  };
  std::optional<std::int64_t> id;
  auto next = entries.begin();
  statements.find.bind(width, key.action, key.view, key.bucket, part);
  TL_ASSIGN(const bool there, statements.find.step());
  if (there) {
    id = statements.find.integer(0);
    PackedSums packed(statements.find.blob(1), begin);
    KeySums old;
    for (;;) {
      TL_ASSIGN(const bool more, packed.next(old));
      if (!more) break;
      for (; next != entries.end() && places((*next)->key) < places(old); ++next) put_new(**next);
      if (next != entries.end() && places((*next)->key) == places(old)) {
        const Value& more_of_it = (*next++)->value;
        for (std::size_t i = 0; i < kRollupSums; ++i) old.sums[i] += more_of_it.sums[i];
        old.first_ns = std::min(old.first_ns, more_of_it.first_ns);
        old.last_ns = std::max(old.last_ns, more_of_it.last_ns);
      }
      put(old);
    }
  }
  statements.find.reset();
  for (; next != entries.end(); ++next) put_new(**next);
  if (id && packer.bytes().empty()) return statements.drop.bind(*id).run();
  if (packer.bytes().empty()) return {};
  if (id) {
    statements.change.bind(*id);
    statements.change.bind_blob(2, sqlite::Borrowed{packer.bytes()});
    return statements.change.run();
  }
  statements.put.bind(width, key.action, key.view, key.bucket, part);
  statements.put.bind_blob(6, sqlite::Borrowed{packer.bytes()});
  return statements.put.run();
}

Result<void> Rollups::write_sums(std::size_t table, std::size_t level, const Sums& sums) {
  std::vector<const Sums::Entry*> ordered;
  ordered.reserve(sums.size());
  for (const Sums::Entry& entry : sums.entries()) ordered.push_back(&entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::tuple(a->key.action, a->key.view, a->key.bucket, a->key.peer, a->key.rule) <
           std::tuple(b->key.action, b->key.view, b->key.bucket, b->key.peer, b->key.rule);
  });
  const auto part = [](const auto* entry) {
    return std::tuple(entry->key.action, entry->key.view, entry->key.bucket, part_of(entry->key.peer));
  };
  for (auto from = ordered.begin(); from != ordered.end();) {
    const auto to = std::find_if(from, ordered.end(), [&](const auto* entry) { return part(entry) != part(*from); });
    TL_TRY(write_part(tables_[table], kRollupWidths[level], Entries(from, to)));
    from = to;
  }
  return {};
}

Result<void> Rollups::write_table(std::size_t table, const Sums& minutes) {
  TL_ASSIGN(const RollupReach reach, reach_of(table));
  const bool with_peer = has_peer(kRollupTables[table]);
  // Minutes by peer are written as they were counted.
  if (with_peer) TL_TRY(write_sums(table, 0, minutes));
  for (std::size_t level = with_peer ? 1 : 0; level < kRollupLevels; ++level) {
    const std::int64_t minutes_each = kRollupWidths[level] / kMinuteNs;
    Sums sums;
    for (const auto& [minute_key, more] : minutes.entries()) {
      // What is not over yet comes into wider buckets by fold().
      if (level > 0 && minute_key.bucket * kMinuteNs >= reach[level]) continue;
      Key key = minute_key;
      key.bucket = bucket_of(key.bucket, minutes_each);
      if (!with_peer) key.peer = 0;
      sums.at(key).add(more, 1);
    }
    TL_TRY(write_sums(table, level, sums));
  }
  return {};
}

Result<void> Rollups::write() {
  for (std::size_t i = 0; i < kRollupTableCount; ++i)
    TL_TRY(write_table(i, kRollupTables[i].peer == RollupPeer::Target ? targets_ : sources_));
  TL_TRY(uses_.add(Referred::Peer, peers_));
  return uses_.add(Referred::Text, texts_);
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
  Sums sums;
  for (const int action : {0, 1})
    for (int view = 0; view < kRollupViews; ++view) {
      if (first >= past) continue;
      statements.narrow.bind(narrow / kRollupSecondNs, action, view, first, to);
      TL_TRY(scan_rollups(statements.narrow, narrow, [&](std::int64_t, const KeySums& entry) {
        sums.at({bucket, entry.peer, entry.rule, action, view}).add({entry.sums, entry.first_ns, entry.last_ns}, 1);
      }));
    }
  TL_TRY(write_sums(table, level, sums));
  TL_TRY(statements.put_reach.bind(wide / kRollupSecondNs, to * narrow).run());
  TL_TRY(transaction.commit());
  return true;
}

}  // namespace tierlog::store
