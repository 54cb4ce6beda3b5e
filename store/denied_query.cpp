#include "store/denied_query.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace tierlog::store {
namespace {

std::int64_t begin_of(const DeniedRange& range) {
  return range.since ? to_ns(*range.since) : std::numeric_limits<std::int64_t>::min();
}
std::int64_t end_of(const DeniedRange& range) {
  return range.until ? to_ns(*range.until) : std::numeric_limits<std::int64_t>::max();
}

// The condition of a range, and the numbers of its own parameters behind it.
struct Conditions {
  explicit Conditions(const DeniedRange& range)
      : where(range.where), own(where == nullptr ? 0 : where->parameters()) {}
  std::string also() const { return where == nullptr ? "" : " AND " + where->sql(); }
  std::string parameter(int number) const { return "?" + std::to_string(own + number); }
  void bind(sqlite::Statement& statement, std::initializer_list<std::int64_t> values) const {
    statement.reset();
    if (where != nullptr) where->bind(statement);
    int number = own;
    for (const std::int64_t value : values) statement.bind_at(++number, value);
  }
  const WhereClause* where;
  int own;
};

std::string newest_sql(const Conditions& conditions) {
  return "SELECT f.end_ns, f.seq FROM flow AS f INDEXED BY flow_denied_rule WHERE f.action = 1 AND f.rule "
         "= " +
         conditions.parameter(1) + " AND f.end_ns BETWEEN " + conditions.parameter(2) + " AND " +
         conditions.parameter(3) + conditions.also() + " ORDER BY f.end_ns DESC, f.seq DESC LIMIT " +
         conditions.parameter(4);
}

std::string rows_sql(const Conditions& conditions) {
  return "SELECT f.seq, f.end_ns, f.span_ns, f.verdict_packets, f.bytes_out, f.src, f.dst, f.reporter, f.direction, f.proto,"
         " coalesce(f.dst_port, -1), coalesce(f.icmp_type, -1), coalesce(f.icmp_code, -1)"
         " FROM flow AS f INDEXED BY flow_denied_rule WHERE f.action = 1 AND f.rule = " +
         conditions.parameter(1) + " AND f.end_ns BETWEEN " + conditions.parameter(2) + " AND " +
         conditions.parameter(3) + conditions.also();
}

// What tells flows apart, by reference.
struct FlowKey {
  std::int64_t src = 0, dst = 0;
  std::uint64_t rest = 0;  // reporter, direction, protocol, port, ICMP type and code
  bool operator==(const FlowKey&) const = default;
};
struct FlowKeyHash {
  std::size_t operator()(const FlowKey& key) const noexcept {
    std::uint64_t hash = static_cast<std::uint64_t>(key.src) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ hash >> 32 ^ static_cast<std::uint64_t>(key.dst)) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ hash >> 32 ^ key.rest) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 32;
  }
};

FlowKey key_of(const sqlite::Statement& row) {
  const auto bits = [&row](int column) { return static_cast<std::uint64_t>(row.integer(column)); };
  // 17 bits for a port and 9 for each of type and code: -1 is none.
  return {row.integer(5), row.integer(6),
          bits(7) << 63 | bits(8) << 62 | (bits(9) & 0xff) << 54 | (bits(10) & 0x1ffff) << 36 | (bits(11) & 0x1ff) << 18 |
              (bits(12) & 0x1ff)};
}

void merge(DeniedGroup& into, const DeniedGroup& more) {
  const bool is_first = into.records == 0;
  into.newest = std::max(into.newest, more.newest);
  into.first_ns = is_first ? more.first_ns : std::min(into.first_ns, more.first_ns);
  into.last_ns = is_first ? more.last_ns : std::max(into.last_ns, more.last_ns);
  into.records += more.records;
  into.packets += more.packets;
  into.bytes += more.bytes;
}

using FlowSumsByKey = std::unordered_map<FlowKey, DeniedGroup, FlowKeyHash>;

Result<void> sum_rows(sqlite::Statement& rows, FlowSumsByKey& flows) {
  for (;;) {
    TL_ASSIGN(const bool row, rows.step());
    if (!row) return {};
    const std::int64_t end = rows.integer(1);
    merge(flows[key_of(rows)], {rows.integer(0), end - rows.integer(2), end, 1, rows.integer(3), rows.integer(4)});
  }
}

// A text or number of a dictionary's row, looked up once.
class Looked {
 public:
  static Result<Looked> open(sqlite::Database& database, const char* sql) {
    Looked made;
    TL_ASSIGN(made.select_, database.prepare(sql));
    return made;
  }
  // By pointer, for as long as this lives; nullptr: there is none.
  Result<const std::string*> up(std::int64_t reference) {
    auto known = known_.find(reference);
    if (known == known_.end()) {
      TL_ASSIGN(const bool row, select_.bind(reference).step());
      known = known_.emplace(reference, row ? std::optional(select_.text(0)) : std::nullopt).first;
      select_.reset();
    }
    return known->second ? &*known->second : nullptr;
  }

 private:
  sqlite::Statement select_;
  std::unordered_map<std::int64_t, std::optional<std::string>> known_;
};

std::int64_t limit_of(const DeniedRange& range) {
  return range.limit == 0 ? -1 : static_cast<std::int64_t>(range.limit);
}

}  // namespace

std::optional<DeniedQuery> as_denied_query(const FlowQuery& query) {
  using Field = FieldFilter::Field;
  if (query.oldest_first || query.after_sequence > 0 || only_action(query) != Verdict::Deny)
    return std::nullopt;
  DeniedQuery split;
  split.others.since = query.since;
  split.others.until = query.until;
  split.others.behind = query.behind;
  for (const FieldFilter& filter : query.filters) {
    switch (filter.field) {
      case Field::Node:
      case Field::Cluster:
        return std::nullopt;  // constants: SQLite refuses to keep to an index where nothing can match
      case Field::Policy:
      case Field::Tier:
      case Field::PolicyKind:
      case Field::Revision:
        split.rules.filters.push_back(filter);
        continue;
      case Field::Service:
      case Field::Logged:
      case Field::Unanswered:
      case Field::StagedAction:
      case Field::Reason:
        split.indexed = false;
        break;
      default:
        break;
    }
    split.others.filters.push_back(filter);
  }
  return split;
}

Result<std::vector<std::int64_t>> chosen_rules(sqlite::Database& database, const DeniedQuery& query,
                                               const Origin& origin) {
  TL_ASSIGN(const WhereClause where, WhereClause::of(query.rules, origin));
  TL_ASSIGN(auto select,
            database.prepare("SELECT f.rule FROM (SELECT id AS rule FROM rule_revision) AS f WHERE " +
                             where.sql()));
  where.bind(select);
  std::vector<std::int64_t> rules;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return rules;
    rules.push_back(select.integer(0));
  }
}

Result<std::vector<std::int64_t>> newest_denied(sqlite::Database& database, const DeniedRange& range) {
  const Conditions conditions(range);
  TL_ASSIGN(auto select, database.prepare(newest_sql(conditions)));
  std::vector<std::pair<std::int64_t, std::int64_t>> found;  // end, sequence
  for (const std::int64_t rule : range.rules) {
    conditions.bind(select, {rule, begin_of(range), end_of(range), limit_of(range)});
    for (;;) {
      TL_ASSIGN(const bool row, select.step());
      if (!row) break;
      found.emplace_back(select.integer(0), select.integer(1));
    }
  }
  std::sort(found.begin(), found.end(), std::greater<>());
  if (range.limit > 0 && found.size() > range.limit) found.resize(range.limit);
  std::vector<std::int64_t> sequences;
  sequences.reserve(found.size());
  for (const auto& [end, sequence] : found) sequences.push_back(sequence);
  return sequences;
}

// Sums by reference first, in the index; addresses only of what is left: one address may have had several
// identities, one rule several revisions.
Result<std::vector<DeniedGroup>> denied_groups(sqlite::Database& database, const DeniedRange& range) {
  const Conditions conditions(range);
  TL_ASSIGN(auto rows, database.prepare(rows_sql(conditions)));
  TL_ASSIGN(auto addresses, Looked::open(database, "SELECT ip FROM peer WHERE id = ?1"));
  TL_ASSIGN(auto ids, Looked::open(database, "SELECT rule_id FROM rule_revision WHERE id = ?1"));
  std::map<std::tuple<std::string, std::string, std::string, std::uint64_t>, DeniedGroup> merged;
  for (const std::int64_t rule : range.rules) {
    FlowSumsByKey flows;
    conditions.bind(rows, {rule, begin_of(range), end_of(range)});
    TL_TRY(sum_rows(rows, flows));
    TL_ASSIGN(const std::string* id, ids.up(rule));
    if (id == nullptr) continue;
    for (const auto& [key, sums] : flows) {
      TL_ASSIGN(const std::string* src, addresses.up(key.src));
      TL_ASSIGN(const std::string* dst, addresses.up(key.dst));
      if (src != nullptr && dst != nullptr) merge(merged[{*id, *src, *dst, key.rest}], sums);
    }
  }
  std::vector<DeniedGroup> found;
  found.reserve(merged.size());
  for (const auto& [key, sums] : merged) found.push_back(sums);
  const auto is_newer = [](const DeniedGroup& a, const DeniedGroup& b) {
    return std::tie(a.last_ns, a.newest) > std::tie(b.last_ns, b.newest);
  };
  const std::size_t page = range.limit == 0 ? found.size() : std::min(range.limit, found.size());
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(page), found.end(), is_newer);
  found.resize(page);
  return found;
}

}  // namespace tierlog::store
