#include "store/rollups.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

namespace tierlog::store {
namespace {

std::string add_sql(const RollupTable& table) {
  const bool with_peer = table.peer != RollupPeer::None;
  return std::string("INSERT INTO ") + table.name + "(action, bucket, " + (with_peer ? "peer, " : "") +
         "rule, reporter, records, connections, verdict_packets, packets_out, packets_in, bytes_out, "
         "bytes_in,"
         " first_ns, last_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13" +
         (with_peer ? ", ?14" : "") + ") ON CONFLICT(action, bucket, " + (with_peer ? "peer, " : "") +
         "rule, reporter) DO UPDATE SET records = records + excluded.records,"
         " connections = connections + excluded.connections,"
         " verdict_packets = verdict_packets + excluded.verdict_packets,"
         " packets_out = packets_out + excluded.packets_out, packets_in = packets_in + excluded.packets_in,"
         " bytes_out = bytes_out + excluded.bytes_out, bytes_in = bytes_in + excluded.bytes_in,"
         " first_ns = min(first_ns, excluded.first_ns), last_ns = max(last_ns, excluded.last_ns)";
}

std::string drop_sql(const RollupTable& table) {
  return std::string("DELETE FROM ") + table.name + " WHERE action = ?1 AND bucket = ?2 AND " +
         (table.peer == RollupPeer::None ? "rule = ?3 AND reporter = ?4"
                                         : "peer = ?3 AND rule = ?4 AND reporter = ?5") +
         " AND records = 0";
}

void mix(std::uint64_t& hash, std::uint64_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  hash ^= hash >> 32;
}

}  // namespace

const char* const kRolledColumns =
    "f.end_ns, f.span_ns, f.action, f.reporter, f.rule, f.src, f.dst, f.logged_by, f.trace, f.staged, "
    "f.connections,"
    " f.verdict_packets, coalesce(f.packets_out, iif(f.action = 1, f.verdict_packets, 0)), f.packets_in, "
    "f.bytes_out, f.bytes_in";

RolledRow read_rolled_row(const sqlite::Statement& row, int first) {
  RolledRow read;
  read.end_ns = row.integer(first);
  read.span_ns = row.integer(first + 1);
  read.action = static_cast<int>(row.integer(first + 2));
  read.reporter = static_cast<int>(row.integer(first + 3));
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

std::size_t Rollups::KeyHash::operator()(const Key& key) const noexcept {
  auto hash = static_cast<std::uint64_t>(key.bucket);
  mix(hash, static_cast<std::uint64_t>(key.peer));
  mix(hash, static_cast<std::uint64_t>(key.rule) << 2 | static_cast<std::uint64_t>(key.action) << 1 |
                static_cast<std::uint64_t>(key.reporter));
  return hash;
}

Result<Rollups> Rollups::open(sqlite::Database& database) {
  Rollups made;
  for (std::size_t i = 0; i < kRollupTableCount; ++i) {
    TL_ASSIGN(made.tables_[i].add, database.prepare(add_sql(kRollupTables[i])));
    TL_ASSIGN(made.tables_[i].drop_empty, database.prepare(drop_sql(kRollupTables[i])));
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
  const std::int64_t minute = row.end_ns / kMinuteNs - (row.end_ns % kMinuteNs < 0 ? 1 : 0);
  const Value value{row.sums, row.end_ns - row.span_ns, row.end_ns};
  sources_[{minute, row.src, row.rule, row.action, row.reporter}].add(value, sign);
  targets_[{minute, row.dst, row.rule, row.action, row.reporter}].add(value, sign);
  peers_[row.src] += sign;
  peers_[row.dst] += sign;
  for (const std::int64_t text : row.texts) texts_[text] += sign;
  ++rows_;
  takes_away_ = takes_away_ || sign < 0;
}

Result<void> Rollups::write_table(std::size_t table, const Sums& minutes) {
  const RollupTable& spec = kRollupTables[table];
  const bool with_peer = spec.peer != RollupPeer::None;
  const std::int64_t minutes_each = spec.width_ns / kMinuteNs;
  Sums sums;
  for (const auto& [minute_key, more] : minutes) {
    Key key = minute_key;
    key.bucket = key.bucket / minutes_each - (key.bucket % minutes_each < 0 ? 1 : 0);
    if (!with_peer) key.peer = 0;
    sums[key].add(more, 1);
  }
  std::vector<const Sums::value_type*> ordered;
  ordered.reserve(sums.size());
  for (const auto& entry : sums) ordered.push_back(&entry);
  // In the tables' own order, so that neighbours are written together.
  std::sort(ordered.begin(), ordered.end(), [](const auto* a, const auto* b) {
    return std::tuple(a->first.action, a->first.bucket, a->first.peer, a->first.rule, a->first.reporter) <
           std::tuple(b->first.action, b->first.bucket, b->first.peer, b->first.rule, b->first.reporter);
  });
  TableStatements& statements = tables_[table];
  for (const auto* entry : ordered) {
    const Key& key = entry->first;
    statements.add.reset();
    int column = 0;
    const auto bind = [&](std::int64_t value) { statements.add.bind_at(++column, value); };
    bind(key.action);
    bind(key.bucket);
    if (with_peer) bind(key.peer);
    bind(key.rule);
    bind(key.reporter);
    for (const std::int64_t sum : entry->second.sums) bind(sum);
    bind(entry->second.first_ns);
    bind(entry->second.last_ns);
    TL_TRY(statements.add.run());
    if (!takes_away_) continue;
    if (with_peer)
      statements.drop_empty.bind(key.action, key.bucket, key.peer, key.rule, key.reporter);
    else
      statements.drop_empty.bind(key.action, key.bucket, key.rule, key.reporter);
    TL_TRY(statements.drop_empty.run());
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
  sources_.clear();
  targets_.clear();
  peers_.clear();
  texts_.clear();
  rows_ = 0;
  takes_away_ = false;
}

}  // namespace tierlog::store
