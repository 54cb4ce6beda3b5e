#include "store/dictionary.h"

#include <utility>

#include "store/record_json.h"
#include "store/schema.h"

namespace tierlog::store {
namespace {

// Entries a cache may hold; it is emptied when full (a scan over many addresses must not eat memory).
constexpr std::size_t kCacheLimit = 65'536;

// 64-bit FNV-1a: part of the file (column text.hash), so it may never change.
std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return hash;
}

void mix(std::size_t& hash, std::size_t value) {
  hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
  hash ^= hash >> 29;
}

void mix(std::size_t& hash, const std::string& text) {
  mix(hash, std::hash<std::string>()(text));
}

void mix(std::size_t& hash, const std::optional<int>& value) {
  mix(hash, value ? static_cast<std::size_t>(*value) : 0x5555);
}

template <typename Cache, typename Key>
void remember(Cache& cache, const Key& key, std::int64_t reference) {
  if (cache.size() >= kCacheLimit) cache.clear();
  cache.emplace(key, reference);
}

Error missing(const char* table, std::int64_t reference) {
  return {ErrorCode::Corrupt,
          "flow index: table " + std::string(table) + " has no row " + std::to_string(reference), 0};
}

}  // namespace

std::size_t DictionaryHash::operator()(const RuleRevision& value) const {
  std::size_t hash = number(value.rule);
  mix(hash, value.policy);
  mix(hash, value.policy_revision);
  mix(hash, value.rule_index);
  return hash;
}

std::size_t DictionaryHash::operator()(const Peer& value) const {
  std::size_t hash = std::hash<IpAddr>()(value.ip);
  mix(hash, value.name);
  mix(hash, value.peer_namespace);
  return hash;
}

std::size_t DictionaryHash::operator()(const std::vector<LoggedBy>& value) const {
  std::size_t hash = value.size();
  for (const LoggedBy& entry : value) {
    mix(hash, number(entry.rule));
    mix(hash, entry.suppressed);
  }
  return hash;
}

std::size_t DictionaryHash::operator()(const std::vector<TraceEntry>& value) const {
  std::size_t hash = value.size();
  for (const TraceEntry& entry : value) {
    mix(hash, static_cast<std::size_t>(entry.direction));
    mix(hash, entry.tier);
    mix(hash, entry.policy);
    mix(hash, entry.rule_index);
    mix(hash, entry.result);
  }
  return hash;
}

std::size_t DictionaryHash::operator()(const std::vector<StagedVerdict>& value) const {
  std::size_t hash = value.size();
  for (const StagedVerdict& entry : value) {
    mix(hash, entry.policy);
    mix(hash, static_cast<std::size_t>(entry.action));
    mix(hash, entry.rule_index);
  }
  return hash;
}

Result<Dictionary> Dictionary::open(sqlite::Database& database) {
  Dictionary made;
  made.handle_ = database.handle();
  TL_ASSIGN(made.find_text_, database.prepare("SELECT id FROM text WHERE hash = ?1 AND value = ?2"));
  TL_ASSIGN(made.insert_text_, database.prepare("INSERT INTO text(hash, value) VALUES (?1, ?2)"));
  TL_ASSIGN(
      made.find_peer_,
      database.prepare("SELECT id FROM peer WHERE ip = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4"
                       " AND workload = ?5 AND labels = ?6 AND local = ?7"));
  TL_ASSIGN(made.insert_peer_,
            database.prepare("INSERT INTO peer(ip, kind, namespace, name, workload, labels, local)"
                             " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"));
  TL_ASSIGN(made.local_addresses_of_history_, database.prepare(kLocalAddresses));
  TL_ASSIGN(made.find_rule_,
            database.prepare("SELECT id FROM rule_revision WHERE rule_id = ?1 AND tier = ?2 AND policy = ?3"
                             " AND policy_kind = ?4 AND policy_namespace = ?5 AND policy_name = ?6"
                             " AND rule_index IS ?7 AND policy_revision = ?8"));
  TL_ASSIGN(
      made.insert_rule_,
      database.prepare("INSERT INTO rule_revision(rule_id, tier, policy, policy_kind, policy_namespace,"
                       " policy_name, rule_index, policy_revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"));
  return made;
}

// Both statements take the same parameters, bound by the caller.
Result<std::int64_t> Dictionary::find_or_insert(sqlite::Statement& find, sqlite::Statement& insert) {
  TL_ASSIGN(const bool known, find.step());
  const std::int64_t reference = known ? find.integer(0) : 0;
  find.reset();
  if (known) return reference;
  TL_TRY(insert.run());
  return sqlite3_last_insert_rowid(handle_);
}

Result<std::int64_t> Dictionary::text_reference(const std::string& value) {
  const auto hash = static_cast<std::int64_t>(fnv1a(value));
  find_text_.bind(hash, value);
  insert_text_.bind(hash, value);
  return find_or_insert(find_text_, insert_text_);
}

Result<std::int64_t> Dictionary::reference(const RuleRevision& value) {
  if (const auto known = rules_.find(value); known != rules_.end()) return known->second;
  for (sqlite::Statement* statement : {&find_rule_, &insert_rule_})
    statement->bind(number(value.rule), value.tier, value.policy, value.policy_kind, value.policy_namespace,
                    value.policy_name, value.rule_index, value.policy_revision);
  TL_ASSIGN(const std::int64_t reference, find_or_insert(find_rule_, insert_rule_));
  remember(rules_, value, reference);
  return reference;
}

Result<std::int64_t> Dictionary::reference(const Peer& value) {
  if (const auto known = peers_.find(value); known != peers_.end()) return known->second;
  const std::string ip = value.ip.to_string();
  const std::string labels = labels_text(value.labels);
  bool local = false;
  if (value.kind == PeerKind::Pod) {
    TL_ASSIGN(local, has_local(ip));
  }
  for (sqlite::Statement* statement : {&find_peer_, &insert_peer_})
    statement->bind(ip, static_cast<int>(value.kind), value.peer_namespace, value.name, value.workload,
                    labels, local);
  TL_ASSIGN(const std::int64_t reference, find_or_insert(find_peer_, insert_peer_));
  if (local) local_peers_.insert(reference);
  remember(peers_, value, reference);
  return reference;
}

Result<std::int64_t> Dictionary::reference(const std::vector<LoggedBy>& value) {
  if (value.empty()) return kEmptyListText;
  if (const auto known = logged_by_.find(value); known != logged_by_.end()) return known->second;
  TL_ASSIGN(const std::int64_t reference, text_reference(logged_by_text(value)));
  remember(logged_by_, value, reference);
  return reference;
}

Result<std::int64_t> Dictionary::reference(const std::vector<TraceEntry>& value) {
  if (value.empty()) return kEmptyListText;
  if (const auto known = traces_.find(value); known != traces_.end()) return known->second;
  TL_ASSIGN(const std::int64_t reference, text_reference(trace_text(value)));
  remember(traces_, value, reference);
  return reference;
}

Result<std::int64_t> Dictionary::reference(const std::vector<StagedVerdict>& value) {
  if (value.empty()) return kEmptyListText;
  if (const auto known = staged_.find(value); known != staged_.end()) return known->second;
  TL_ASSIGN(const std::int64_t reference, text_reference(staged_text(value)));
  remember(staged_, value, reference);
  return reference;
}

Result<bool> Dictionary::has_local(const std::string& address) {
  if (!local_addresses_) {
    local_addresses_.emplace();
    for (;;) {
      TL_ASSIGN(const bool row, local_addresses_of_history_.step());
      if (!row) break;
      local_addresses_->insert(local_addresses_of_history_.text(0));
    }
    local_addresses_of_history_.reset();
  }
  return local_addresses_->contains(address);
}

bool Dictionary::add_local(const std::vector<std::string>& addresses) {
  if (!local_addresses_) return false;  // they are in the history by now
  bool any = false;
  for (const std::string& address : addresses) any = local_addresses_->insert(address).second || any;
  if (any) forget();
  return any;
}

void Dictionary::forget() {
  local_peers_.clear();
  rules_.clear();
  peers_.clear();
  logged_by_.clear();
  traces_.clear();
  staged_.clear();
}

Result<DictionaryReader> DictionaryReader::open(sqlite::Database& database) {
  DictionaryReader made;
  TL_ASSIGN(made.text_, database.prepare("SELECT value FROM text WHERE id = ?1"));
  TL_ASSIGN(made.peer_,
            database.prepare("SELECT ip, kind, namespace, name, workload, labels FROM peer WHERE id = ?1"));
  TL_ASSIGN(
      made.rule_,
      database.prepare("SELECT rule_id, tier, policy, policy_kind, policy_namespace, policy_name, rule_index,"
                       " policy_revision FROM rule_revision WHERE id = ?1"));
  return made;
}

Result<const RuleRevision*> DictionaryReader::rule(std::int64_t reference) {
  if (const auto known = rules_.find(reference); known != rules_.end()) return &known->second;
  TL_ASSIGN(const bool row, rule_.bind(reference).step());
  if (!row) return fail(missing("rule_revision", reference));
  RuleRevision value{RuleId{static_cast<std::uint32_t>(rule_.integer(0))},
                     rule_.text(1),
                     rule_.text(2),
                     rule_.text(3),
                     rule_.text(4),
                     rule_.text(5),
                     rule_.optional<int>(6),
                     static_cast<std::uint32_t>(rule_.integer(7))};
  rule_.reset();
  if (rules_.size() >= kCacheLimit) rules_.clear();
  return &rules_.emplace(reference, std::move(value)).first->second;
}

Result<const Peer*> DictionaryReader::peer(std::int64_t reference) {
  if (const auto known = peers_.find(reference); known != peers_.end()) return &known->second;
  TL_ASSIGN(const bool row, peer_.bind(reference).step());
  if (!row) return fail(missing("peer", reference));
  const auto ip = IpAddr::parse(peer_.view(0));
  if (!ip) return fail(ErrorCode::Corrupt, "flow index: peer with address \"" + peer_.text(0) + "\"");
  TL_ASSIGN(policy::Labels labels, parse_labels(peer_.view(5)));
  Peer value{*ip,           static_cast<PeerKind>(peer_.integer(1)),
             peer_.text(2), peer_.text(3),
             peer_.text(4), std::move(labels)};
  peer_.reset();
  if (peers_.size() >= kCacheLimit) peers_.clear();
  return &peers_.emplace(reference, std::move(value)).first->second;
}

Result<std::string> DictionaryReader::text(std::int64_t reference) {
  TL_ASSIGN(const bool row, text_.bind(reference).step());
  if (!row) return fail(missing("text", reference));
  std::string value = text_.text(0);
  text_.reset();
  return value;
}

template <typename T>
Result<const std::vector<T>*> DictionaryReader::list(std::unordered_map<std::int64_t, std::vector<T>>& cache,
                                                     std::int64_t reference,
                                                     Result<std::vector<T>> (*parse)(std::string_view)) {
  if (const auto known = cache.find(reference); known != cache.end()) return &known->second;
  TL_ASSIGN(const std::string value, text(reference));
  TL_ASSIGN(std::vector<T> entries, parse(value));
  if (cache.size() >= kCacheLimit) cache.clear();
  return &cache.emplace(reference, std::move(entries)).first->second;
}

Result<const std::vector<LoggedBy>*> DictionaryReader::logged_by(std::int64_t reference) {
  return list(logged_by_, reference, parse_logged_by);
}

Result<const std::vector<TraceEntry>*> DictionaryReader::trace(std::int64_t reference) {
  return list(traces_, reference, parse_trace);
}

Result<const std::vector<StagedVerdict>*> DictionaryReader::staged(std::int64_t reference) {
  return list(staged_, reference, parse_staged);
}

}  // namespace tierlog::store
