#include "store/state_db.h"

#include <limits>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

#include "store/files.h"
#include "store/record_json.h"
#include "store/sqlite.h"

namespace tierlog::store {
namespace {

constexpr int kStateVersion = 2;
constexpr std::int64_t kStateApplicationId = 0x546c7374;  // "Tlst"
constexpr const char* kNextIdKey = "next_rule_id";

// TRUNCATE and FULL: what was answered is on the disk, without a -wal that could be lost apart.
constexpr const char* kSettings = "PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = FULL;";

constexpr const char* kTables = R"sql(
CREATE TABLE rule_id(
  key TEXT PRIMARY KEY, id INTEGER NOT NULL UNIQUE, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE policy_revision(policy TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE endpoint(
  container_id TEXT NOT NULL, ifname TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  netns TEXT NOT NULL, host_interface TEXT NOT NULL, addresses TEXT NOT NULL, labels TEXT NOT NULL,
  PRIMARY KEY(container_id, ifname)) STRICT, WITHOUT ROWID;
CREATE TABLE value(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
)sql";

constexpr const char* kSinceVersion2 = "ALTER TABLE endpoint ADD COLUMN mac TEXT NOT NULL DEFAULT '';";

Result<void> make_schema(sqlite::Database& database, const std::string& path) {
  const auto application = database.integer("PRAGMA application_id");
  if (!application) return fail(application.error().in("open registry of rule ids"));
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_ASSIGN(const std::int64_t version, database.integer("PRAGMA user_version"));
  TL_ASSIGN(const std::int64_t objects, database.integer("SELECT count(*) FROM sqlite_schema"));
  if (*application != kStateApplicationId && (*application != 0 || objects != 0))
    return fail(ErrorCode::Corrupt, path + " is the SQLite database of another program (application id " +
                                        std::to_string(*application) + "); expected Tierlog's state.db");
  if (version > kStateVersion)
    return fail(ErrorCode::Corrupt, path + " has schema version " + std::to_string(version) +
                                        "; this program knows versions up to " +
                                        std::to_string(kStateVersion) +
                                        ": use the newer Tierlog that wrote it");
  if (version == kStateVersion) return {};
  if (version < 1) TL_TRY(database.execute(kTables));
  TL_TRY(database.execute(kSinceVersion2));
  TL_TRY(database.execute("PRAGMA application_id = " + std::to_string(kStateApplicationId)));
  TL_TRY(database.execute("PRAGMA user_version = " + std::to_string(kStateVersion)));
  return transaction.commit();
}

// A policy keeps counting its revisions when it moves to another tier.
std::string policy_text(const policy::PolicyKey& key) {
  return std::string(policy::name(key.kind)) + "/" + key.policy_namespace + "/" + key.name;
}

}  // namespace

struct StateDb::Impl {
  sqlite::Database database;  // first: statements below must be gone before it closes
  sqlite::Statement find_id, insert_id, find_revision, put_revision, find_value, put_value;
  std::mutex mutex;

  Result<void> prepare();
  Result<std::optional<std::string>> value(const std::string& key);
  Result<void> set_value(const std::string& key, const std::string& text);
  Result<std::uint64_t> next_id();
  Result<std::optional<policy::RuleIdentity>> known(const std::string& key_text);
  // The revision that new keys of `policy` get.
  Result<std::uint32_t> next_revision(const std::string& policy);
  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys);
};

Result<void> StateDb::Impl::prepare() {
  TL_ASSIGN(find_id, database.prepare("SELECT id, revision FROM rule_id WHERE key = ?1"));
  TL_ASSIGN(insert_id, database.prepare("INSERT INTO rule_id(key, id, revision) VALUES (?1, ?2, ?3)"));
  TL_ASSIGN(find_revision, database.prepare("SELECT revision FROM policy_revision WHERE policy = ?1"));
  TL_ASSIGN(put_revision,
            database.prepare("INSERT INTO policy_revision(policy, revision) VALUES (?1, ?2)"
                             " ON CONFLICT(policy) DO UPDATE SET revision = excluded.revision"));
  TL_ASSIGN(find_value, database.prepare("SELECT value FROM value WHERE key = ?1"));
  TL_ASSIGN(put_value, database.prepare("INSERT INTO value(key, value) VALUES (?1, ?2)"
                                        " ON CONFLICT(key) DO UPDATE SET value = excluded.value"));
  return {};
}

Result<std::optional<std::string>> StateDb::Impl::value(const std::string& key) {
  TL_ASSIGN(const bool row, find_value.bind(key).step());
  std::optional<std::string> text;
  if (row) text = find_value.text(0);
  find_value.reset();
  return text;
}

Result<void> StateDb::Impl::set_value(const std::string& key, const std::string& text) {
  return put_value.bind(key, text).run();
}

Result<std::uint64_t> StateDb::Impl::next_id() {
  TL_ASSIGN(const auto text, value(kNextIdKey));
  return text ? std::stoull(*text) : kFirstPolicyRuleId;
}

Result<std::optional<policy::RuleIdentity>> StateDb::Impl::known(const std::string& key_text) {
  TL_ASSIGN(const bool row, find_id.bind(key_text).step());
  std::optional<policy::RuleIdentity> identity;
  if (row)
    identity = policy::RuleIdentity{RuleId{static_cast<std::uint32_t>(find_id.integer(0))},
                                    static_cast<std::uint32_t>(find_id.integer(1))};
  find_id.reset();
  return identity;
}

Result<std::uint32_t> StateDb::Impl::next_revision(const std::string& policy) {
  TL_ASSIGN(const bool row, find_revision.bind(policy).step());
  const std::uint32_t revision = row ? static_cast<std::uint32_t>(find_revision.integer(0)) + 1 : 1;
  find_revision.reset();
  TL_TRY(put_revision.bind(policy, revision).run());
  return revision;
}

Result<std::vector<policy::RuleIdentity>> StateDb::Impl::identify(const std::vector<policy::RuleKey>& keys) {
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_ASSIGN(const std::uint64_t first, next_id());
  std::uint64_t next = first;
  std::unordered_map<std::string, std::uint32_t> grown;  // by policy: one step for all its new keys
  std::vector<policy::RuleIdentity> identities;
  identities.reserve(keys.size());
  for (const policy::RuleKey& key : keys) {
    const std::string text = key.text();
    TL_ASSIGN(const auto identity, known(text));
    if (identity) {
      identities.push_back(*identity);
      continue;
    }
    if (next > std::numeric_limits<std::uint32_t>::max())
      return fail(ErrorCode::Refused, "no rule ids are left: all 2^32 were given out");
    policy::RuleIdentity made{RuleId{static_cast<std::uint32_t>(next++)}, 1};
    if (key.kind == policy::RuleKey::Kind::Rule) {
      const std::string policy = policy_text(key.policy);
      if (!grown.contains(policy)) {
        TL_ASSIGN(grown[policy], next_revision(policy));
      }
      made.revision = grown[policy];
    }
    TL_TRY(insert_id.bind(text, number(made.id), made.revision).run());
    identities.push_back(made);
  }
  if (next != first) TL_TRY(set_value(kNextIdKey, std::to_string(next)));
  TL_TRY(transaction.commit());
  return identities;
}

Result<std::unique_ptr<StateDb>> StateDb::open(const std::string& path) {
  TL_TRY(create_private_file(path));
  auto impl = std::make_unique<Impl>();
  TL_ASSIGN(impl->database, sqlite::Database::open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  TL_TRY(make_schema(impl->database, path));
  TL_TRY(impl->database.execute(kSettings));
  TL_TRY(impl->prepare());
  return std::unique_ptr<StateDb>(new StateDb(std::move(impl)));
}

StateDb::StateDb(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StateDb::~StateDb() = default;

Result<std::vector<policy::RuleIdentity>> StateDb::identify(const std::vector<policy::RuleKey>& keys) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->identify(keys);
}

Result<bool> StateDb::raise_floor(RuleId floor) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(const std::uint64_t next, impl_->next_id());
  if (number(floor) <= next) return false;
  TL_TRY(impl_->set_value(kNextIdKey, std::to_string(number(floor))));
  return true;
}

Result<void> StateDb::put_endpoint(const RegisteredEndpoint& endpoint) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto put, impl_->database.prepare(
                          "INSERT OR REPLACE INTO endpoint(container_id, ifname, namespace, name, netns,"
                          " host_interface, addresses, labels, mac)"
                          " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"));
  return put
      .bind(endpoint.container_id, endpoint.ifname, endpoint.endpoint_namespace, endpoint.name,
            endpoint.netns, endpoint.host_interface, strings_text(endpoint.addresses),
            labels_text(endpoint.labels), endpoint.mac)
      .run();
}

Result<void> StateDb::remove_endpoint(const std::string& container_id, const std::string& ifname) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto remove,
            impl_->database.prepare("DELETE FROM endpoint WHERE container_id = ?1 AND ifname = ?2"));
  return remove.bind(container_id, ifname).run();
}

Result<std::vector<RegisteredEndpoint>> StateDb::endpoints() {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto list, impl_->database.prepare("SELECT container_id, ifname, namespace, name, netns,"
                                               " host_interface, addresses, labels, mac FROM endpoint"
                                               " ORDER BY container_id, ifname"));
  std::vector<RegisteredEndpoint> found;
  for (;;) {
    TL_ASSIGN(const bool row, list.step());
    if (!row) return found;
    TL_ASSIGN(auto addresses, parse_strings(list.view(6)));
    TL_ASSIGN(auto labels, parse_labels(list.view(7)));
    found.push_back({list.text(0), list.text(1), list.text(2), list.text(3), list.text(4), list.text(5),
                     std::move(addresses), std::move(labels), list.text(8)});
  }
}

Result<void> StateDb::put(const std::string& key, const std::string& value) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->set_value("user." + key, value);
}

Result<std::optional<std::string>> StateDb::get(const std::string& key) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->value("user." + key);
}

}  // namespace tierlog::store
