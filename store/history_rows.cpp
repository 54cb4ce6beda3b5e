#include "store/history_rows.h"

#include <nlohmann/json.hpp>

#include "store/record_json.h"

namespace tierlog::store {
namespace {

using Json = nlohmann::json;

Result<std::int64_t> text_reference(sqlite::Database& database, const std::string& text) {
  const auto hash = static_cast<std::int64_t>(key_hash(text));
  TL_ASSIGN(auto find, database.prepare("SELECT id FROM policy_text WHERE hash = ?1 AND value = ?2"));
  TL_ASSIGN(const bool known, find.bind(hash, text).step());
  if (known) return find.integer(0);
  TL_ASSIGN(auto insert, database.prepare("INSERT INTO policy_text(hash, value) VALUES (?1, ?2)"));
  TL_TRY(insert.bind(hash, text).run());
  return sqlite3_last_insert_rowid(database.handle());
}

// [["FILE", reference of its text], …] in the order of reading.
Result<std::string> files_text(sqlite::Database& database, const std::vector<policy::SourceText>& texts) {
  Json files = Json::array();
  for (const policy::SourceText& source : texts) {
    TL_ASSIGN(const std::int64_t reference, text_reference(database, source.text));
    files.push_back(Json::array({source.file, reference}));
  }
  return files.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// The same again is no new row: a set stays in force while pods come and go.
Result<void> write_set(sqlite::Database& database, const Moment& moment) {
  TL_ASSIGN(const std::string files, files_text(database, moment.texts));
  std::vector<std::string> hosts;
  for (const IpAddr& address : moment.host_addresses) hosts.push_back(address.to_string());
  const std::string host_addresses = strings_text(hosts);
  TL_ASSIGN(auto newest, database.prepare("SELECT files, ready, host_addresses FROM policy_set"
                                          " ORDER BY id DESC LIMIT 1"));
  TL_ASSIGN(const bool any, newest.step());
  if (any && newest.view(0) == files && (newest.integer(1) != 0) == moment.ready &&
      newest.view(2) == host_addresses)
    return {};
  TL_ASSIGN(auto insert,
            database.prepare("INSERT INTO policy_set(since_ns, revision, ready, host_addresses, files)"
                             " VALUES (?1, ?2, ?3, ?4, ?5)"));
  return insert.bind(to_ns(moment.since), moment.revision, moment.ready, host_addresses, files).run();
}

Result<void> write_keys(sqlite::Database& database, std::span<const KnownRule> rules) {
  TL_ASSIGN(auto put, database.prepare("INSERT OR REPLACE INTO rule_key(hash, rule_id, revision)"
                                       " VALUES (?1, ?2, ?3)"));
  for (const KnownRule& rule : rules)
    TL_TRY(put.bind(static_cast<std::int64_t>(rule.hash), number(rule.identity.id), rule.identity.revision)
               .run());
  return {};
}

}  // namespace

std::uint64_t key_hash(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

Result<void> HistoryRows::load(sqlite::Database& database) {
  TL_ASSIGN(auto select,
            database.prepare("SELECT id, kind, name, value FROM object_history WHERE until_ns IS NULL"));
  OpenObjects open;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) break;
    open[{static_cast<ObjectKind>(select.integer(1)), select.text(2)}] = {select.integer(0), select.text(3)};
  }
  open_ = std::move(open);
  return {};
}

Result<void> HistoryRows::write_objects(sqlite::Database& database, const policy::Cluster& cluster,
                                        WallTime since) {
  TL_ASSIGN(auto close, database.prepare("UPDATE object_history SET until_ns = ?2 WHERE id = ?1"));
  TL_ASSIGN(auto insert, database.prepare("INSERT INTO object_history(kind, name, since_ns, value)"
                                          " VALUES (?1, ?2, ?3, ?4)"));
  OpenObjects now;
  for (ObjectVersion& object : objects_of(cluster)) {
    const std::pair key(object.kind, object.name);
    if (const auto known = open_->find(key); known != open_->end() && known->second.value == object.value) {
      now.insert(open_->extract(known));
      continue;
    }
    TL_TRY(insert.bind(static_cast<int>(object.kind), object.name, to_ns(since), object.value).run());
    now[key] = {sqlite3_last_insert_rowid(database.handle()), std::move(object.value)};
  }
  // What is left is gone, or is another version by now.
  for (const auto& [key, object] : *open_) TL_TRY(close.bind(object.row, to_ns(since)).run());
  open_ = std::move(now);
  return {};
}

Result<void> HistoryRows::write(sqlite::Database& database, const Moment& moment,
                                const policy::Cluster& cluster, std::span<const KnownRule> rules) {
  if (!open_) TL_TRY(load(database));
  TL_TRY(write_set(database, moment));
  TL_TRY(write_objects(database, cluster, moment.since));
  return write_keys(database, rules);
}

}  // namespace tierlog::store
