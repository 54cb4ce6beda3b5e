#include "store/tallies.h"

#include <algorithm>
#include <utility>

namespace tierlog::store {

Result<Tallies> Tallies::open(sqlite::Database& database) {
  Tallies made;
  TL_ASSIGN(
      made.add_rule_,
      database.prepare(
          "INSERT INTO recorded(rule_id, packets, bytes, connections, denied_packets, suppressed, last_ns)"
          " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT(rule_id) DO UPDATE SET"
          " packets = packets + excluded.packets, bytes = bytes + excluded.bytes,"
          " connections = connections + excluded.connections,"
          " denied_packets = denied_packets + excluded.denied_packets,"
          " suppressed = suppressed + excluded.suppressed,"
          " last_ns = coalesce(max(last_ns, excluded.last_ns), last_ns, excluded.last_ns)"));
  TL_ASSIGN(
      made.add_staged_,
      database.prepare("INSERT INTO staged_recorded(policy, denied_packets, last_ns) VALUES (?1, ?2, ?3)"
                       " ON CONFLICT(policy) DO UPDATE SET"
                       " denied_packets = denied_packets + excluded.denied_packets,"
                       " last_ns = max(last_ns, excluded.last_ns)"));
  TL_ASSIGN(made.list_, database.prepare("SELECT rule_id, packets, bytes FROM recorded ORDER BY rule_id"));
  return made;
}

void Tallies::count(const FlowRecord& record) {
  Rule& rule = rules_[record.rule];
  rule.packets += record.verdict_packets;
  rule.connections += record.connections.value_or(0);
  rule.last_ns = std::max(rule.last_ns.value_or(0), to_ns(record.end));
  if (record.action == Verdict::Deny) {
    rule.denied_packets += record.verdict_packets;
    rule.bytes += record.bytes_out.value_or(0);
  }
  for (const LoggedBy& entry : record.logged_by)
    if (entry.suppressed > 0) rules_[entry.rule].suppressed += entry.suppressed;
  for (const StagedVerdict& entry : record.staged) {
    Staged& staged = staged_[entry.policy];
    if (entry.action == Verdict::Deny) staged.denied_packets += record.verdict_packets;
    staged.last_ns = std::max(staged.last_ns, to_ns(record.end));
  }
}

Result<void> Tallies::flush() {
  for (const auto& [id, rule] : rules_)
    TL_TRY(add_rule_
               .bind(number(id), rule.packets, rule.bytes, rule.connections, rule.denied_packets,
                     rule.suppressed, rule.last_ns)
               .run());
  for (const auto& [policy, staged] : staged_)
    TL_TRY(add_staged_.bind(policy, staged.denied_packets, staged.last_ns).run());
  forget();
  return {};
}

void Tallies::forget() {
  rules_.clear();
  staged_.clear();
}

Result<std::vector<RuleCount>> Tallies::recorded() {
  std::vector<RuleCount> counts;
  list_.reset();
  for (;;) {
    TL_ASSIGN(const bool row, list_.step());
    if (!row) break;
    counts.push_back({RuleId{static_cast<std::uint32_t>(list_.integer(0))}, list_.count(1), list_.count(2)});
  }
  list_.reset();
  return counts;
}

}  // namespace tierlog::store
