#include "query/board.h"

#include <map>
#include <nlohmann/json.hpp>

#include "policy/lint.h"
#include "query/items.h"
#include "query/moment.h"

namespace tierlog::query {
namespace {

// What each policy decided in the last minute, by its display.
Result<std::map<std::string, store::Sums>> recent(store::FlowReader& reader, WallTime now) {
  store::GroupQuery query;
  query.flows.since = now - kRateOver;
  TL_ASSIGN(query.fields, store::parse_group_fields("policy,reporter"));
  TL_ASSIGN(const auto result, reader.groups(query));
  std::map<std::string, store::Sums> rates;
  for (const store::FlowSums& group : result.groups) rates[group.names.front()].add(group.sums);
  return rates;
}

// Rules that can never match, as lint finds them in the policies in force.
std::vector<std::string> shadowed(store::FlowReader& reader) {
  const auto sets = reader.policy_sets();
  if (!sets || sets->empty()) return {};
  const auto policies = policies_of(reader, sets->back());
  if (!policies) return {};
  std::vector<std::string> found;
  const Diagnostics findings = policy::lint(*policies);
  for (const Diagnostic& finding : findings.all())
    if (finding.message.find("can never match") != std::string::npos) found.push_back(finding.to_string());
  return found;
}

// Leaves what nothing has hit since then.
Result<void> keep_unused(const std::string& unused, store::FlowReader& reader, WallTime now, Board& board) {
  const auto when = parse_when(unused, now);
  if (!when)
    return fail(ErrorCode::InvalidArgument,
                "--unused \"" + unused + "\" is not understood; expected 30d, 12h or a time");
  std::erase_if(board.rows, [&](const BoardRow& row) {
    return row.activity.last_hit && *row.activity.last_hit >= *when;
  });
  const auto sets = reader.policy_sets();
  if (sets && !sets->empty() && sets->front().since > *when)
    board.notes.push_back("counting began " + format_for_people(sets->front().since) +
                          " UTC: what was used before that is not known");
  if (board.rows.empty()) board.empty = "every policy was hit since " + format_for_people(*when) + " UTC";
  return {};
}

}  // namespace

std::string item_of(const BoardRow& row) {
  auto item = nlohmann::ordered_json::parse(item_of(row.activity));
  const auto seconds = static_cast<double>(kRateOver.count());
  item["allowed_per_second"] = static_cast<double>(row.rate.connections) / seconds;
  item["denied_per_second"] = static_cast<double>(row.rate.denied_packets) / seconds;
  return item.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<Board> board(store::FlowReader& reader, const std::optional<std::string>& unused, WallTime now) {
  Board board;
  TL_ASSIGN(const auto activities, reader.policies());
  TL_ASSIGN(auto rates, recent(reader, now));
  for (const store::PolicyActivity& activity : activities)
    board.rows.push_back({activity, rates[activity.policy.display]});
  if (unused) TL_TRY(keep_unused(*unused, reader, now, board));
  if (activities.empty())
    board.empty =
        "no policy is loaded: put policy files into a folder that tierlogd reads, or start a lab with "
        "`tierlog lab up TOPOLOGY -f POLICIES`";
  for (const std::string& finding : shadowed(reader)) board.notes.push_back(finding);
  return board;
}

}  // namespace tierlog::query
