#include "policy/explain.h"

#include <algorithm>

namespace tierlog::policy {
namespace {

std::string name_of(const Program& program, const IpAddr& address) {
  if (const Endpoint* endpoint = program.known(address)) return endpoint->display();
  for (const NodeObject& node : program.cluster->nodes)
    if (std::find(node.addresses.begin(), node.addresses.end(), address) != node.addresses.end())
      return "node " + node.name;
  return "outside " + address.to_string();
}

Reason reason_of(const Program& program, RuleId id) {
  const auto found = program.by_id.find(id);
  if (found == program.by_id.end()) return Reason::Other;
  switch (found->second.kind) {
    case RuleRef::Kind::Rule:
      return Reason::Policy;
    case RuleRef::Kind::EndOfTier:
      return Reason::EndOfTier;
    case RuleRef::Kind::Reserved:
      break;
  }
  const ReservedRule* rule = find_reserved(id);
  return rule == nullptr ? Reason::Other : rule->reason;
}

const ProgramRule* rule_of(const Program& program, RuleId id) {
  const auto found = program.by_id.find(id);
  if (found == program.by_id.end() || found->second.kind != RuleRef::Kind::Rule) return nullptr;
  return &program.rules[found->second.index];
}

void add_policy(const Program& program, const TraceStep& step, ExplainedStep& explained) {
  const ProgramPolicy& policy = program.policies[step.policy];
  explained.policy = policy.display;
  explained.policy_kind = short_name(policy.key.kind);
  explained.revision = policy.revision;
  explained.source = policy.source.to_string();
  if (const ProgramRule* rule = rule_of(program, step.rule)) {
    explained.action = name(rule->action);
    explained.text = rule->text;
    explained.source = rule->source.to_string();
  }
}

ExplainedStep explained_step(const Program& program, const TraceStep& step) {
  ExplainedStep explained;
  if (step.tier != kNone) explained.tier = program.tiers[step.tier].name;
  explained.rule_index = step.rule_index;
  explained.result = step.result;
  explained.staged = step.staged;
  explained.decides = step.decides;
  explained.rule = step.rule;
  explained.why = step.why;
  if (step.policy != kNone) add_policy(program, step, explained);
  if (step.rule_index == -1) explained.action = name(program.tiers[step.tier].default_action);
  if (step.tier == kNone) explained.action = name(Action::Allow);
  return explained;
}

// Tiers up to the deciding one, and those of them in which no policy selects the endpoint.
void add_tiers(const Program& program, const EndpointClass& endpoint_class, std::uint32_t deciding,
               ExplainedDirection& result) {
  std::vector<bool> applies(program.tiers.size(), false);
  for (const ClassTier& tier : endpoint_class.tiers) applies[tier.tier] = true;
  for (std::uint32_t i = 0; i < program.tiers.size() && i <= deciding; ++i) {
    result.tiers.push_back(program.tiers[i].name);
    if (!applies[i]) result.skipped_tiers.push_back(program.tiers[i].name);
  }
}

ExplainedDirection explained(const Program& program, const DirectionVerdict& verdict, const IpAddr& address) {
  const ProgramEndpoint& endpoint = *program.enforced(address);
  ExplainedDirection result;
  result.direction = verdict.direction;
  result.endpoint = program.cluster->endpoints[endpoint.endpoint].display();
  result.action = verdict.action;
  result.reason = reason_of(program, verdict.rule);
  if (result.reason != Reason::Self && result.reason != Reason::Host)
    add_tiers(program, program.classes[endpoint.class_of(verdict.direction)], verdict.trace.back().tier,
              result);
  for (const TraceStep& step : verdict.trace) result.steps.push_back(explained_step(program, step));
  return result;
}

}  // namespace

Explanation explain(const Program& program, const Packet& packet) {
  const Evaluation evaluation = evaluate(program, packet, Detail::Full);
  Explanation result;
  result.packet = packet;
  result.source_name = name_of(program, packet.source);
  result.destination_name = name_of(program, packet.destination);
  result.action = evaluation.action;
  if (evaluation.egress) result.egress = explained(program, *evaluation.egress, packet.source);
  if (evaluation.ingress) result.ingress = explained(program, *evaluation.ingress, packet.destination);
  return result;
}

std::optional<IpAddr> resolve_who(const Cluster& cluster, std::string_view who, Family wanted) {
  if (const auto address = IpAddr::parse(who)) return address;
  const auto slash = who.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const Endpoint* endpoint = cluster.find(who.substr(0, slash), who.substr(slash + 1));
  if (endpoint == nullptr || endpoint->addresses.empty()) return std::nullopt;
  for (const IpAddr& address : endpoint->addresses)
    if (address.family == wanted) return address;
  return endpoint->addresses.front();
}

}  // namespace tierlog::policy
