#include "store/denied_query.h"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <limits>
#include <string>
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

// Sums by reference first, in the index; addresses only of what is left: one address may have had several
// identities.
std::string groups_sql(const DeniedRange& range, const Conditions& conditions) {
  std::string rules;
  for (const std::int64_t rule : range.rules) rules += (rules.empty() ? "" : ", ") + std::to_string(rule);
  return "SELECT max(g.newest), min(g.first_ns), max(g.last_ns) AS last_ns, sum(g.records), sum(g.packets),"
         " sum(g.bytes) FROM ("
         "SELECT max(f.seq) AS newest, min(f.end_ns - f.span_ns) AS first_ns, max(f.end_ns) AS last_ns,"
         " count(*) AS records, sum(f.verdict_packets) AS packets, coalesce(sum(f.bytes_out), 0) AS bytes,"
         " f.rule AS rule, f.src AS src, f.dst AS dst, f.reporter AS reporter, f.direction AS direction,"
         " f.proto AS proto, f.dst_port AS dst_port, f.icmp_type AS icmp_type, f.icmp_code AS icmp_code"
         " FROM flow AS f INDEXED BY flow_denied_rule WHERE f.action = 1 AND f.rule IN (" +
         rules + ") AND f.end_ns BETWEEN " + conditions.parameter(1) + " AND " + conditions.parameter(2) +
         conditions.also() +
         " GROUP BY f.rule, f.src, f.dst, f.reporter, f.direction, f.proto, f.dst_port, f.icmp_type, "
         "f.icmp_code"
         ") AS g CROSS JOIN peer AS s ON s.id = g.src CROSS JOIN peer AS d ON d.id = g.dst"
         " CROSS JOIN rule_revision AS r ON r.id = g.rule"
         " GROUP BY g.reporter, g.direction, s.ip, d.ip, g.dst_port, g.proto, g.icmp_type, g.icmp_code, "
         "r.rule_id"
         " ORDER BY last_ns DESC, max(g.newest) DESC LIMIT " +
         conditions.parameter(3);
}

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

Result<std::vector<DeniedGroup>> denied_groups(sqlite::Database& database, const DeniedRange& range) {
  if (range.rules.empty()) return std::vector<DeniedGroup>{};
  const Conditions conditions(range);
  TL_ASSIGN(auto select, database.prepare(groups_sql(range, conditions)));
  conditions.bind(select, {begin_of(range), end_of(range), limit_of(range)});
  std::vector<DeniedGroup> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    found.push_back({select.integer(0), select.integer(1), select.integer(2), select.integer(3),
                     select.integer(4), select.integer(5)});
  }
}

}  // namespace tierlog::store
