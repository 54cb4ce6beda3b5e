// What is enforced, read back: the board, rules, endpoints, losses.
#include <charconv>
#include <map>

#include "store/patterns.h"
#include "store/query.h"
#include "store/reader.h"
#include "store/record_json.h"

namespace tierlog::store {
namespace {

// "100", "200.5", "-": never in the exponent form.
std::string print_order(const std::optional<double>& order) {
  if (!order) return "-";
  char text[400];
  const auto [end, error] = std::to_chars(text, text + sizeof text, *order, std::chars_format::fixed);
  return error == std::errc() ? std::string(text, end) : "-";
}

PolicyActivity read_policy(const sqlite::Statement& row) {
  PolicyActivity activity;
  PolicyRow& policy = activity.policy;
  policy.position = static_cast<int>(row.integer(0));
  policy.tier = row.text(1);
  activity.tier_order = print_order(row.optional<double>(2));
  policy.display = row.text(3);
  policy.kind = row.text(4);
  policy.short_kind = row.text(5);
  policy.policy_namespace = row.text(6);
  policy.name = row.text(7);
  policy.order = row.optional<double>(8);
  policy.revision = static_cast<std::uint32_t>(row.integer(9));
  policy.staged = row.integer(10) != 0;
  policy.selector = row.text(11);
  policy.source = row.text(12);
  policy.endpoints_selected = static_cast<std::uint32_t>(row.integer(13));
  activity.allowed = row.count(14);
  activity.denied = row.count(15);
  activity.passed = row.count(16);
  activity.logged = row.count(17);
  activity.staged_denied = row.count(18);
  if (!row.is_null(19)) activity.last_hit = from_ns(row.integer(19));
  return activity;
}

Result<RuleActivity> read_rule(const sqlite::Statement& row) {
  RuleActivity activity;
  RuleRow& rule = activity.rule;
  rule.id = RuleId{static_cast<std::uint32_t>(row.integer(0))};
  rule.tier = row.text(1);
  rule.policy = row.text(2);
  rule.policy_kind = row.text(3);
  rule.policy_namespace = row.text(4);
  rule.policy_name = row.text(5);
  TL_ASSIGN(rule.also_policies, parse_strings(row.view(6)));
  rule.direction = row.view(7) == name(Direction::Ingress) ? Direction::Ingress : Direction::Egress;
  rule.rule_index = row.optional<int>(8);
  rule.action = row.text(9);
  rule.reason = row.text(10);
  rule.revision = static_cast<std::uint32_t>(row.integer(11));
  rule.text = row.text(12);
  rule.source = row.text(13);
  activity.live = row.integer(14) != 0;
  activity.kernel_packets = row.count(15);
  activity.kernel_bytes = row.count(16);
  activity.recorded_packets = row.count(17);
  activity.unattributed = row.count(18);
  activity.suppressed = row.count(19);
  if (!row.is_null(20)) activity.last_hit = from_ns(row.integer(20));
  return activity;
}

// In the order of evaluation; what is not enforced now after it, reserved ids last.
constexpr const char* kRules =
    "SELECT rules.rule_id, rules.tier, rules.policy, rules.policy_kind, rules.policy_namespace, "
    "rules.policy_name,"
    " also_policies, direction, rule_index, action, reason, rules.policy_revision, text, rules.source, live,"
    " kernel_packets, kernel_bytes, recorded_packets, coalesce(declared.packets, 0), suppressed,"
    " nullif(max(coalesce((SELECT last_ns FROM recorded WHERE recorded.rule_id = rules.rule_id), 0),"
    " coalesce((SELECT grown_ns FROM counter WHERE counter.rule_id = rules.rule_id"
    " AND rules.action IN ('Pass', 'Log')), 0)), 0)"
    " FROM rules LEFT JOIN policy ON policy.display = rules.policy AND policy.kind = rules.policy_kind"
    // Table lost is by cause: to look there for each rule is to read it all for each rule.
    " LEFT JOIN (SELECT rule_id, sum(now_packets + before_packets) AS packets FROM lost GROUP BY rule_id) AS declared"
    " ON declared.rule_id = rules.rule_id"
    " WHERE live OR ?1 ORDER BY rules.policy IS NULL, NOT live, policy.position IS NULL, policy.position,"
    " rules.policy, direction DESC, rule_index = -1, rule_index, rules.rule_id";

constexpr const char* kPolicyNames =
    "SELECT display FROM policy UNION SELECT policy FROM rule_revision WHERE policy <> ''"
    " UNION SELECT policy FROM rule WHERE policy <> '' UNION SELECT policy FROM rule_also"
    " UNION SELECT policy FROM staged_recorded ORDER BY 1";

}  // namespace

Result<std::vector<PolicyActivity>> FlowReader::policies() {
  TL_ASSIGN(auto select,
            impl_->database.prepare(
                "SELECT position, tier, tier_order, policy, policy_kind, short_kind, policy_namespace,"
                " policy_name, policy_order, policy_revision, staged, selector, source,"
                " endpoints_selected, allowed, denied, passed, logged, staged_denied, last_hit_ns"
                " FROM policy_activity ORDER BY position"));
  std::vector<PolicyActivity> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    found.push_back(read_policy(select));
  }
}

Result<std::vector<TierRow>> FlowReader::tiers() {
  TL_ASSIGN(auto select,
            impl_->database.prepare(
                "SELECT name, tier_order, default_action, position FROM tier ORDER BY position"));
  std::vector<TierRow> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    found.push_back(
        {select.text(0), select.optional<double>(1), select.text(2), static_cast<int>(select.integer(3))});
  }
}

Result<std::vector<RuleActivity>> FlowReader::rules(const std::string& pattern, bool all) {
  TextPredicate is_wanted = [](std::string_view) { return true; };
  if (!pattern.empty()) {
    TL_ASSIGN(is_wanted, parse_policy_pattern(pattern));
  }
  TL_ASSIGN(auto select, impl_->database.prepare(kRules));
  select.bind(all);
  std::vector<RuleActivity> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    TL_ASSIGN(RuleActivity activity, read_rule(select));
    bool wanted = is_wanted(activity.rule.policy);
    for (const std::string& policy : activity.rule.also_policies) wanted = wanted || is_wanted(policy);
    if (wanted) found.push_back(std::move(activity));
  }
}

Result<std::vector<EndpointRow>> FlowReader::endpoints() {
  TL_ASSIGN(auto select, impl_->database.prepare(
                             "SELECT namespace, name, node, interface, workload, labels, addresses, enforced,"
                             " ingress_policies, egress_policies FROM endpoint ORDER BY namespace, name"));
  std::vector<EndpointRow> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    EndpointRow endpoint;
    endpoint.endpoint_namespace = select.text(0);
    endpoint.name = select.text(1);
    endpoint.node = select.text(2);
    endpoint.interface = select.text(3);
    endpoint.workload = select.text(4);
    TL_ASSIGN(endpoint.labels, parse_labels(select.view(5)));
    TL_ASSIGN(endpoint.addresses, parse_strings(select.view(6)));
    endpoint.enforced = select.integer(7) != 0;
    TL_ASSIGN(endpoint.ingress_policies, parse_strings(select.view(8)));
    TL_ASSIGN(endpoint.egress_policies, parse_strings(select.view(9)));
    found.push_back(std::move(endpoint));
  }
}

Result<std::vector<LossCount>> FlowReader::losses() {
  TL_ASSIGN(auto select,
            impl_->database.prepare("SELECT cause, rule_id, packets FROM loss ORDER BY cause, rule_id"));
  std::vector<LossCount> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    found.push_back({select.text(0), RuleId{static_cast<std::uint32_t>(select.integer(1))}, select.count(2)});
  }
}

Result<WallTime> FlowReader::since() {
  // A set stays in force over a restart; the catalog is written anew.
  if (const auto sets = policy_sets(); sets && !sets->empty()) return sets->back().since;
  TL_ASSIGN(const auto text, impl_->meta("catalog_since_ns"));
  if (!text) return fail(ErrorCode::NotFound, "no policy set was enforced yet");
  std::int64_t ns = 0;
  std::from_chars(text->data(), text->data() + text->size(), ns);
  return from_ns(ns);
}

Result<std::vector<std::string>> FlowReader::policy_names() {
  return impl_->texts(kPolicyNames);
}

Result<std::vector<std::string>> FlowReader::match_policies(const std::string& pattern) {
  TL_ASSIGN(const TextPredicate is_wanted, parse_policy_pattern(pattern));
  TL_ASSIGN(const auto names, policy_names());
  std::vector<std::string> found;
  for (const std::string& display : names)
    if (is_wanted(display)) found.push_back(display);
  return found;
}

}  // namespace tierlog::store
