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
  if (step.tier == kNone) explained.action = name(step.result == StepResult::Denied ? Action::Deny : Action::Allow);
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
  ExplainedDirection result;
  result.direction = verdict.direction;
  result.endpoint =
      verdict.host != kNone
          ? program.cluster->host_endpoints[program.hosts[verdict.host].endpoint].display()
          : program.cluster->endpoints[program.enforced(address)->endpoint].display();
  result.action = verdict.action;
  result.reason = reason_of(program, verdict.rule);
  if (verdict.asked != kNone)
    add_tiers(program, program.classes[verdict.asked], verdict.trace.back().tier, result);
  for (const TraceStep& step : verdict.trace) result.steps.push_back(explained_step(program, step));
  return result;
}

// Whether the packet comes from the node that its destination, a pod, runs on.
bool is_of_own_node(const Program& program, const Packet& packet) {
  const ProgramEndpoint* destination = program.enforced(packet.destination);
  if (destination == nullptr) return false;
  const std::string& own = program.cluster->endpoints[destination->endpoint].node;
  return !own.empty() && std::ranges::any_of(program.cluster->nodes, [&](const NodeObject& node) {
    return node.name == own &&
           std::find(node.addresses.begin(), node.addresses.end(), packet.source) != node.addresses.end();
  });
}

// A node, or a host endpoint, by its name.
std::optional<IpAddr> address_of_node(const Cluster& cluster, std::string_view who, Family wanted) {
  std::vector<IpAddr> addresses;
  std::string node_name(who);
  for (const HostEndpoint& host : cluster.host_endpoints) {
    if (host.name != who && host.display() != who) continue;
    addresses = host.addresses;
    node_name = host.node;
  }
  for (const NodeObject& node : cluster.nodes)
    if (addresses.empty() && node.name == node_name) addresses = node.addresses;
  for (const IpAddr& address : addresses)
    if (address.family == wanted) return address;
  return addresses.empty() ? std::nullopt : std::optional(addresses.front());
}

}  // namespace

Explanation explain(const Program& program, const Packet& packet, NodesReach nodes) {
  if (nodes == NodesReach::OwnPods && !program.host_addresses.contains(packet.source) &&
      is_of_own_node(program, packet)) {
    Program of_node = program;
    of_node.host_addresses.insert(packet.source);
    return explain(of_node, packet);
  }
  const Evaluation evaluation = evaluate(program, packet, Detail::Full);
  Explanation result;
  result.packet = packet;
  result.source_name = name_of(program, packet.source);
  result.destination_name = name_of(program, packet.destination);
  result.action = evaluation.action;
  const auto show = [&](const std::optional<DirectionVerdict>& verdict, const IpAddr& address) {
    return verdict ? std::optional(explained(program, *verdict, address)) : std::nullopt;
  };
  result.egress = show(evaluation.egress, packet.source);
  result.ingress = show(evaluation.ingress, packet.destination);
  result.host_ingress = show(evaluation.host_ingress, packet.destination);
  result.host_egress = show(evaluation.host_egress, packet.source);
  if (evaluation.ingress && evaluation.ingress->rule == reserved::kHostIngress)
    result.by_policies_alone =
        show(walk_class(program, program.enforced(packet.destination)->ingress_class, packet, Detail::Full),
             packet.destination);
  return result;
}

std::optional<IpAddr> resolve_who(const Cluster& cluster, std::string_view who, Family wanted) {
  if (const auto address = IpAddr::parse(who)) return address;
  if (const auto address = address_of_node(cluster, who, wanted)) return address;
  const auto slash = who.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const Endpoint* endpoint = cluster.find(who.substr(0, slash), who.substr(slash + 1));
  if (endpoint == nullptr || endpoint->addresses.empty()) return std::nullopt;
  for (const IpAddr& address : endpoint->addresses)
    if (address.family == wanted) return address;
  return endpoint->addresses.front();
}

}  // namespace tierlog::policy
