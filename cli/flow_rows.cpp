#include "cli/flow_rows.h"

#include <map>

#include "cli/format.h"

namespace tierlog::cli {
namespace {

constexpr std::size_t kLeastName = 14;

Column named(const char* title, std::size_t typical) {
  return {title, Align::Left, kLeastName, Cut::Middle, 0, false, typical, 0};
}
Column fixed(const char* title, std::size_t typical, std::size_t brief = 0) {
  return {title, Align::Left, 0, Cut::End, 0, false, typical, brief};
}
Column numeric(const char* title, bool wide_only = false) {
  return {title, Align::Right, 0, Cut::End, 0, wide_only, 0, 0};
}
Column extra(const char* title) {
  return {title, Align::Left, 0, Cut::End, 0, true, 0, 0};
}

std::string policy_text(const store::FlowRecord& record, const SharedNames& shared) {
  if (record.policy.empty()) return "-";
  const std::string text = under_tier(record.policy);
  return shared.contains(record.policy) ? text + " (" + record.policy_kind + ")" : text;
}

std::string optional_count(const std::optional<std::uint64_t>& value) {
  return value ? with_commas(*value) : "-";
}

std::string logged_text(const store::FlowRecord& record) {
  std::string text;
  for (const store::LoggedBy& log : record.logged_by)
    text += (text.empty() ? "" : ", ") + log.policy + "[" + std::to_string(log.rule_index) + "]";
  return or_dash(text);
}

std::string staged_text(const store::FlowRecord& record) {
  std::string text;
  for (const store::StagedVerdict& staged : record.staged)
    text += (text.empty() ? "" : ", ") + staged.policy + " would " + std::string(name(staged.action));
  return or_dash(text);
}

// What -o wide adds to both listings.
std::vector<Column> extra_columns() {
  return {extra("KIND"),    extra("RULE ID"), numeric("REV", true), extra("REASON"), extra("REPORTER"),
          extra("FROM IP"), extra("TO IP"),   extra("LOGGED BY"),   extra("STAGED"), extra("ID")};
}

void add_extras(std::vector<Cell>& cells, const store::FlowRecord& record) {
  const std::string revision = record.policy_revision == 0 ? "-" : std::to_string(record.policy_revision);
  for (const std::string& text :
       {or_dash(record.policy_kind), id_text(record.rule), revision, std::string(name(record.reason)),
        std::string(name(record.reporter)), record.src.ip.to_string(), record.dst.ip.to_string(),
        logged_text(record), staged_text(record), record.id})
    cells.emplace_back(text);
}

template <typename Items, typename RecordOf>
SharedNames find_shared(const Items& items, RecordOf record_of) {
  std::map<std::string, std::set<std::string>> kinds;
  for (const auto& item : items) kinds[record_of(item).policy].insert(record_of(item).policy_kind);
  SharedNames shared;
  for (const auto& [policy, found] : kinds)
    if (!policy.empty() && found.size() > 1) shared.insert(policy);
  return shared;
}

std::uint64_t packets_of(const store::FlowRecord& record) {
  if (record.action == store::Verdict::Deny) return record.verdict_packets;
  return record.packets_out.value_or(record.verdict_packets) + record.packets_in.value_or(0);
}

}  // namespace

std::vector<Column> flow_columns() {
  std::vector<Column> columns = {fixed("TIME (UTC)", 19, 14), named("FROM", 22),        named("TO", 22),
                                 fixed("PORT", 11),           fixed("VERDICT", 0),      fixed("TIER", 8),
                                 named("POLICY", 28),         fixed("RULE", 11),        numeric("PACKETS"),
                                 numeric("BYTES OUT", true),  numeric("BYTES IN", true)};
  for (Column& column : extra_columns()) columns.push_back(std::move(column));
  return columns;
}

std::vector<Cell> flow_cells(const store::FlowRecord& record, const SharedNames& shared) {
  std::vector<Cell> cells = {time_cell(record.end),
                             peer_cell(record.src),
                             peer_cell(record.dst),
                             port_cell(record),
                             Cell(std::string(name(record.action)), style_of(record.action)),
                             or_dash(record.tier),
                             policy_text(record, shared),
                             rule_text(record),
                             with_commas(packets_of(record)),
                             optional_count(record.bytes_out),
                             optional_count(record.bytes_in)};
  add_extras(cells, record);
  return cells;
}

std::vector<Column> denied_columns() {
  std::vector<Column> columns = {fixed("TIME (UTC)", 19, 14), named("FROM", 22),  named("TO", 22),
                                 fixed("PORT", 11),           fixed("TIER", 8),   named("POLICY", 28),
                                 fixed("RULE", 15, 11),       numeric("PACKETS"), numeric("BYTES", true),
                                 numeric("RECORDS", true),    extra("FIRST SEEN")};
  for (Column& column : extra_columns()) columns.push_back(std::move(column));
  return columns;
}

std::vector<Cell> denied_cells(const store::FlowGroup& group, const SharedNames& shared) {
  const store::FlowRecord& record = group.newest;
  const std::string rule = rule_text(record);
  const bool by_rule = record.rule_index && *record.rule_index >= 0;
  std::vector<Cell> cells = {time_cell(group.last),
                             peer_cell(record.src),
                             peer_cell(record.dst),
                             port_cell(record),
                             or_dash(record.tier),
                             policy_text(record, shared),
                             Cell(by_rule ? rule + " Deny" : rule, Style::Deny, rule),
                             with_commas(group.packets),
                             with_commas(group.bytes),
                             with_commas(group.records),
                             format_for_people(group.first)};
  add_extras(cells, record);
  return cells;
}

store::FlowGroup group_of(const store::FlowRecord& record) {
  store::FlowGroup group;
  group.newest = record;
  group.first = record.start;
  group.last = record.end;
  group.records = 1;
  group.packets = record.verdict_packets;
  group.bytes = record.bytes_out.value_or(0);
  group.connections = record.connections.value_or(0);
  return group;
}

SharedNames shared_names(const std::vector<store::FlowRecord>& records) {
  return find_shared(records, [](const store::FlowRecord& r) -> const store::FlowRecord& { return r; });
}

SharedNames shared_names(const std::vector<store::FlowGroup>& groups) {
  return find_shared(groups, [](const store::FlowGroup& g) -> const store::FlowRecord& { return g.newest; });
}

}  // namespace tierlog::cli
