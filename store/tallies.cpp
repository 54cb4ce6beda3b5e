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
  return made;
}

void Tallies::count(const FlowRecord& record) {
  const bool closed = record.ct_state == name(FlowState::Closed);
  add(record, record.verdict_packets, record.connections.value_or(0), record.bytes_out.value_or(0),
      to_ns(closed ? record.start : record.end));
  for (const LoggedBy& entry : record.logged_by)
    if (entry.suppressed > 0) rules_[entry.rule].suppressed += entry.suppressed;
}

void Tallies::count(const FlowEntry& entry) {
  const FlowRecord& like = *entry.like;
  // The kernel forgets a connection minutes after its last packet, so the end of its last record is no hit.
  add(like, entry.verdict_packets, entry.connections.value_or(0), entry.bytes_out,
      to_ns(entry.state == FlowState::Closed ? entry.start : entry.end));
  if (!entry.suppressed) return;
  for (std::size_t i = 0; i < std::min(like.logged_by.size(), entry.suppressed->size()); ++i)
    rules_[like.logged_by[i].rule].suppressed += (*entry.suppressed)[i];
}

void Tallies::add(const FlowRecord& like, std::uint64_t packets, std::uint64_t connections,
                  std::uint64_t bytes, std::int64_t hit_ns) {
  Rule& rule = rules_[like.rule];
  rule.packets += packets;
  rule.connections += connections;
  rule.last_ns = std::max(rule.last_ns.value_or(0), hit_ns);
  if (like.action == Verdict::Deny) {
    rule.denied_packets += packets;
    rule.bytes += bytes;
  }
  for (const StagedVerdict& verdict : like.staged) {
    Staged& staged = staged_[verdict.policy];
    if (verdict.action == Verdict::Deny) staged.denied_packets += packets;
    staged.last_ns = std::max(staged.last_ns, hit_ns);
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

Result<std::vector<RuleCount>> read_recorded(sqlite::Database& database) {
  TL_ASSIGN(auto select, database.prepare("SELECT rule_id, packets, bytes FROM recorded ORDER BY rule_id"));
  std::vector<RuleCount> counts;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return counts;
    counts.push_back(
        {RuleId{static_cast<std::uint32_t>(select.integer(0))}, select.count(1), select.count(2)});
  }
}

}  // namespace tierlog::store
