// What the books must say of every path.
#include <algorithm>

#include "tests/e2e/paths.h"

namespace tierlog::testing {
namespace {

using Counts = std::map<std::string, std::uint64_t>;  // node and rule -> packets

bool holds(const std::vector<IpAddr>& addresses, const IpAddr& one) {
  return std::find(addresses.begin(), addresses.end(), one) != addresses.end();
}

bool is_of(const store::FlowRecord& record, const Shot& shot, const Side& side) {
  const bool icmp = shot.path->protocol == protocol::kIcmp;
  const std::uint8_t wanted = icmp && shot.family == Family::V6 ? protocol::kIcmpV6 : shot.path->protocol;
  if (record.direction != side.direction || record.proto != wanted || record.dst.ip != shot.reached)
    return false;
  return icmp ? record.icmp_code == shot.number : record.dst_port == shot.number;
}

std::string rule_text(Direction direction, std::optional<int> rule, std::string_view reason) {
  return std::string(name(direction)) + "[" + (rule ? std::to_string(*rule) : "-") + "] " +
         std::string(reason);
}

std::string key(const std::string& node, Direction direction, std::optional<int> rule,
                std::string_view reason) {
  return node + " " + rule_text(direction, rule, reason);
}

std::string said(bool allows, const std::string& text) {
  return (allows ? "allow by " : "deny by ") + text;
}

// Empty when the side's record is there, says the right thing, and its id is the rule's.
std::string wrong_record(const Shot& shot, const Side& side, const Books& books) {
  std::vector<const store::FlowRecord*> found;
  for (const store::FlowRecord& record : books.records)
    if (record.verdict_packets > 0 && is_of(record, shot, side)) found.push_back(&record);
  if (found.size() != 1) return std::to_string(found.size()) + " records instead of one";
  const store::FlowRecord& record = *found.front();
  const std::string expected = said(side.allows, rule_text(side.direction, side.rule, name(side.reason)));
  const std::string recorded = said(record.action == store::Verdict::Allow,
                                    rule_text(record.direction, record.rule_index, name(record.reason)));
  if (recorded != expected) return "recorded " + recorded;
  if (record.verdict_packets != 1) return std::to_string(record.verdict_packets) + " packets in the record";
  const auto& allowed = side.direction == Direction::Egress ? shot.sources : shot.observed;
  if (!holds(allowed, record.src.ip)) return "recorded source " + record.src.ip.to_string();
  const auto rule = std::ranges::find_if(
      books.rules, [&](const store::RuleActivity& known) { return known.rule.id == record.rule; });
  if (rule == books.rules.end()) return "rule id " + to_hex(record.rule) + " is unknown";
  const std::string policy = side.rule ? kPathsPolicy : "";
  if (rule->rule.policy != policy || rule->rule.rule_index != side.rule ||
      rule->rule.direction != side.direction || rule->rule.reason != name(side.reason))
    return "rule id " + to_hex(record.rule) + " is " + rule->rule.policy + " " +
           rule_text(rule->rule.direction, rule->rule.rule_index, rule->rule.reason);
  return {};
}

// Every rule of the policy and every reserved id that lets a connection pass counted what is expected of
// it, also when that is nothing.
void compare_counts(const Counts& expected, const AllBooks& books, std::vector<std::string>& wrong) {
  Counts left = expected;
  for (const auto& [node, of_node] : books)
    for (const store::RuleActivity& rule : of_node.rules) {
      if (!rule.live || (rule.rule.policy.empty() && number(rule.rule.id) >= kFirstPolicyRuleId)) continue;
      const bool passing = rule.rule.reason == name(Reason::Self) || rule.rule.reason == name(Reason::Host) ||
                           rule.rule.reason == name(Reason::NoPolicy) ||
                           rule.rule.reason == name(Reason::NoVerdict);
      if (rule.rule.policy.empty() && !passing) continue;
      const std::string what = key(node, rule.rule.direction, rule.rule.rule_index, rule.rule.reason);
      const std::uint64_t wanted = left.count(what) > 0 ? left.at(what) : 0;
      left.erase(what);
      if (rule.kernel_packets != wanted)
        wrong.push_back(what + " counted " + std::to_string(rule.kernel_packets) + " instead of " +
                        std::to_string(wanted));
    }
  for (const auto& [what, count] : left)
    wrong.push_back(what + " is no rule; expected " + std::to_string(count) + " packets there");
}

}  // namespace

std::vector<std::string> disagreements(const std::vector<Shot>& shots, const AllBooks& books) {
  std::vector<std::string> wrong;
  Counts counts;
  for (const Shot& shot : shots) {
    const bool passed = shot.outcome != lab::Attempt::TimedOut && shot.outcome != lab::Attempt::Unreachable;
    if (passed != shot.allowed()) wrong.push_back(shot.title() + ": " + std::string(lab::name(shot.outcome)));
    for (const Side& side : shot.sides) {
      ++counts[key(side.node, side.direction, side.rule, name(side.reason))];
      const auto of_node = books.find(side.node);
      const std::string problem =
          of_node == books.end() ? "no books of " + side.node : wrong_record(shot, side, of_node->second);
      if (!problem.empty())
        wrong.push_back(shot.title() + ", " + key(side.node, side.direction, side.rule, name(side.reason)) +
                        ": " + problem);
    }
  }
  compare_counts(counts, books, wrong);
  return wrong;
}

}  // namespace tierlog::testing
