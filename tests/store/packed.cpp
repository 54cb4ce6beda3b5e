#include "tests/store/packed.h"

#include <stdexcept>
#include <utility>
#include <vector>

#include "store/denied_blocks.h"
#include "store/reference_uses.h"
#include "store/told_address.h"

namespace tierlog::store::sample {
namespace {

template <typename T>
T need(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::vector<KeySums> unpack(std::string_view bytes, std::int64_t bucket_ns) {
  std::vector<KeySums> all;
  PackedSums packed(bytes, bucket_ns);
  for (KeySums entry; need(packed.next(entry));) all.push_back(entry);
  return all;
}

void more_bytes(sqlite3_context* context, int, sqlite3_value** values) {
  SumPacker packer(0);
  const auto* bytes = static_cast<const char*>(sqlite3_value_blob(values[0]));
  for (KeySums entry : unpack({bytes, static_cast<std::size_t>(sqlite3_value_bytes(values[0]))}, 0)) {
    entry.sums[5] += sqlite3_value_int64(values[1]);
    packer.add(entry);
  }
  sqlite3_result_blob64(context, packer.bytes().data(), packer.bytes().size(), SQLITE_TRANSIENT);
}

}  // namespace

std::int64_t records_by_minute(sqlite::Database& database, const RollupTable& table) {
  auto select = need(database.prepare(std::string("SELECT sums FROM ") + table.name + " WHERE width = 60"));
  std::int64_t records = 0;
  while (need(select.step()))
    for (const KeySums& entry : unpack(select.blob(0), 0)) records += entry.sums[0];
  return records;
}

void add_more_bytes(sqlite::Database& database) {
  sqlite3_create_function(database.handle(), "more_bytes", 2, SQLITE_UTF8, nullptr, more_bytes, nullptr, nullptr);
}

void undo_version_10(const std::string& path) {
  auto database = need(sqlite::Database::open(path, SQLITE_OPEN_READWRITE));
  const auto told = need(need(DeniedBlocks::open(database)).read());
  need(database.execute(
      "DROP TABLE denied_told; CREATE TABLE denied_told(handle INTEGER PRIMARY KEY, rule_id INTEGER NOT NULL,"
      " src BLOB NOT NULL, dst BLOB NOT NULL, proto INTEGER NOT NULL, port_or_icmp INTEGER NOT NULL,"
      " packets INTEGER NOT NULL, bytes INTEGER NOT NULL, last_packet_ns INTEGER NOT NULL) STRICT"));
  auto insert = need(database.prepare("INSERT INTO denied_told(handle, rule_id, proto, port_or_icmp, packets, bytes,"
                                      " last_packet_ns, src, dst) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  for (const ToldDenied& flow : told) {
    insert.bind(flow.handle, number(flow.rule), flow.protocol + (flow.alone ? 256 : 0), flow.port_or_icmp, flow.packets,
                flow.bytes, to_ns(flow.last_packet));
    insert.bind_blob(8, address_bytes(flow.source));
    insert.bind_blob(9, address_bytes(flow.destination));
    need(insert.run());
  }
  for (const auto& [of, table] : {std::pair(Referred::Peer, std::string("peer")), std::pair(Referred::Text, std::string("text"))}) {
    need(database.execute("ALTER TABLE " + table + " ADD COLUMN uses INTEGER NOT NULL DEFAULT 0; CREATE INDEX " + table +
                          "_unused ON " + table + "(id) WHERE uses = 0"));
    auto set = need(database.prepare("UPDATE " + table + " SET uses = ?2 WHERE id = ?1"));
    for (const auto& [id, uses] : need(need(ReferenceUses::open(database)).read(of))) need(set.bind(id, uses).run());
  }
  need(database.execute("DROP TABLE reference_uses; PRAGMA user_version = 9"));
}

void undo_version_9(const std::string& path) {
  undo_version_10(path);
  auto database = need(sqlite::Database::open(path, SQLITE_OPEN_READWRITE));
  for (const RollupTable& table : kRollupTables) {
    const std::string name = table.name, peer = table.peer == RollupPeer::None ? "" : "peer, ";
    need(database.execute(
        "ALTER TABLE " + name + " RENAME TO " + name + "_9; CREATE TABLE " + name +
        "(width INTEGER NOT NULL, action INTEGER NOT NULL, reporter INTEGER NOT NULL, bucket INTEGER NOT NULL, " +
        (peer.empty() ? "" : "peer INTEGER NOT NULL, ") +
        "rule INTEGER NOT NULL, records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,"
        " packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL,"
        " bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,"
        " PRIMARY KEY(width, action, reporter, bucket, " +
        peer + "rule)) STRICT, WITHOUT ROWID"));
    auto select = need(database.prepare("SELECT width, action, reporter, bucket, sums FROM " + name + "_9"));
    auto insert = need(database.prepare("INSERT INTO " + name + " VALUES (?, ?, ?, ?, " + (peer.empty() ? "" : "?, ") +
                                        "?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    while (need(select.step())) {
      const std::int64_t begin = select.integer(3) * select.integer(0) * kRollupSecondNs;
      for (const KeySums& entry : unpack(select.blob(4), begin)) {
        insert.reset();
        int column = 0;
        for (int i = 0; i < 4; ++i) insert.bind_at(++column, select.integer(i));
        if (!peer.empty()) insert.bind_at(++column, entry.peer);
        insert.bind_at(++column, entry.rule);
        for (const std::int64_t sum : entry.sums) insert.bind_at(++column, sum);
        insert.bind_at(++column, entry.first_ns);
        insert.bind_at(++column, entry.last_ns);
        need(insert.run());
      }
    }
    select.reset();
    need(database.execute("DROP TABLE " + name + "_9; PRAGMA user_version = 8"));
  }
}

}  // namespace tierlog::store::sample
