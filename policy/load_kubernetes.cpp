#include <algorithm>
#include <map>
#include <utility>

#include "policy/load_kinds.h"

// networking.k8s.io/v1 NetworkPolicy, its staged form, and core Namespace.
namespace tierlog::policy {
namespace {

using yaml::Fields;
using yaml::Node;

constexpr double kKubernetesOrder = 1000;

Selector pods() {
  return Selector::equals(label::kOrchestrator, "k8s");
}

// The ports of a rule, by protocol; an empty list of a protocol stands for all of its ports.
using PortsByProtocol = std::map<std::uint8_t, std::vector<PortSpec>>;

std::optional<PortSpec> read_port_range(Fields& fields) {
  const Node* node = fields.get("port");
  std::optional<PortSpec> port;
  constexpr std::string_view kPort = "a number from 1 to 65535 or a port's name (a range ends with endPort)";
  if (node != nullptr) port = read_port(*node, fields.findings(), kPort);
  if (port && port->named.empty() && (port->range.first != port->range.last || port->range.first == 0)) {
    fields.findings().error(node->place, "\"" + node->text + "\" is no port; expected " + std::string(kPort));
    port.reset();
  }
  if (!fields.has("endPort")) {
    fields.accept({"endPort"});
    return port;
  }
  const auto end = fields.integer("endPort", 1, 65535);
  if (node == nullptr || (port && !port->named.empty())) {
    fields.findings().error(fields.place_of("endPort"),
                            "endPort without a numeric port; expected both as numbers");
  } else if (end && port) {
    if (*end < port->range.first)
      fields.findings().error(fields.place_of("endPort"), "endPort is below port; expected at least " +
                                                              std::to_string(port->range.first));
    else
      port->range.last = static_cast<std::uint16_t>(*end);
  }
  return port;
}

PortsByProtocol read_rule_ports(Fields& rule) {
  PortsByProtocol ports;
  std::vector<std::uint8_t> whole;
  for (const Node* item : rule.list("ports")) {
    Fields fields(*item, "a ports item", rule.findings());
    const auto number = read_port_protocol(fields, "protocol");
    const bool all_ports = !fields.has("port");
    auto port = read_port_range(fields);
    if (!number) continue;
    auto& list = ports[*number];
    if (port) list.push_back(std::move(*port));
    if (all_ports) whole.push_back(*number);
  }
  for (const std::uint8_t number : whole) ports[number].clear();
  return ports;
}

std::optional<PeerSpec> read_ip_block(Fields& peer) {
  const Node* node = peer.map("ipBlock");
  if (node == nullptr) return std::nullopt;
  Fields block(*node, "ipBlock", peer.findings());
  PeerSpec spec;
  std::optional<Cidr> cidr;
  if (const Node* text = block.require("cidr")) cidr = read_cidr(*text, peer.findings(), true);
  if (cidr) spec.nets.push_back(*cidr);
  for (const Node* item : block.list("except")) {
    const auto except = read_cidr(*item, peer.findings(), true);
    if (!except) continue;
    if (cidr && !cidr->contains(*except))
      peer.findings().error(item->place, except->to_string() + " is not inside " + cidr->to_string() +
                                             "; expected a part of the block");
    spec.not_nets.push_back(*except);
  }
  return spec;
}

PeerSpec read_pod_peer(Fields& peer, const std::string& policy_namespace) {
  std::optional<ReadSelector> pod, namespaces;
  if (const Node* node = peer.get("podSelector"))
    pod = read_label_selector(*node, "podSelector", peer.findings());
  if (const Node* node = peer.get("namespaceSelector"))
    namespaces = read_label_selector(*node, "namespaceSelector", peer.findings());
  PeerSpec spec;
  std::vector<Selector> parts = {pods()};
  parts.push_back(namespaces ? namespaces->selector.over_namespaces()
                             : Selector::equals(label::kNamespace, policy_namespace));
  if (pod) parts.push_back(pod->selector);
  spec.selector = Selector::all_of(parts);
  spec.selector_text = pod && !pod->text.empty() ? pod->text : "any pod";
  if (!namespaces)
    spec.selector_text += " in namespace " + policy_namespace;
  else if (!namespaces->text.empty())
    spec.selector_text += " in namespaces " + namespaces->text;
  return spec;
}

std::optional<PeerSpec> read_peer(const Node& node, const std::string& policy_namespace,
                                  Diagnostics& findings) {
  Fields fields(node, "a peer", findings);
  if (!fields.is_map()) return std::nullopt;
  const bool has_selector = fields.has("podSelector") || fields.has("namespaceSelector");
  auto block = read_ip_block(fields);
  PeerSpec selected = read_pod_peer(fields, policy_namespace);
  if (fields.has("ipBlock") && has_selector)
    findings.error(fields.place_of("ipBlock"),
                   "ipBlock beside a selector; expected one of the two in a peer");
  else if (!fields.has("ipBlock") && !has_selector)
    findings.error(node.place, "an empty peer; expected podSelector, namespaceSelector or ipBlock");
  return block ? std::move(*block) : std::move(selected);
}

PolicyRule read_rule(const Node& node, const std::string& policy_namespace, Direction direction,
                     Diagnostics& findings) {
  Fields fields(node, "the rule", findings);
  std::vector<PeerSpec> peers;
  for (const Node* item : fields.list(direction == Direction::Ingress ? "from" : "to"))
    if (auto peer = read_peer(*item, policy_namespace, findings)) peers.push_back(std::move(*peer));
  if (peers.empty()) peers.emplace_back();
  const PortsByProtocol ports = read_rule_ports(fields);
  PolicyRule rule;
  for (const PeerSpec& peer : peers) {
    MatchSpec match;
    (direction == Direction::Ingress ? match.source : match.destination) = peer;
    if (ports.empty()) rule.any_of.push_back(match);
    for (const auto& [number, list] : ports) {
      match.protocol = number;
      match.destination.ports = list;
      rule.any_of.push_back(match);
    }
  }
  rule.text = rule_text(rule.action, rule.any_of);
  return rule;
}

template <PolicyKind kind>
void read_policy(const Node& node, LoadContext& context) {
  constexpr bool staged = kind == PolicyKind::StagedKubernetesNetworkPolicy;
  const std::string called = staged ? "StagedKubernetesNetworkPolicy" : "NetworkPolicy";
  Fields object(node, "a " + called, context.findings);
  const Meta meta = read_meta(object,
                              {.kind = staged ? called : "Kubernetes NetworkPolicy",
                               .namespaced = true,
                               .has_log = true,
                               .has_log_label = true},
                              context);
  Policy policy = start_policy(kind, meta);
  policy.order = kKubernetesOrder;
  const Node* spec_node = require_spec(object);
  if (spec_node == nullptr) return;
  Fields spec(*spec_node, "the policy's spec", context.findings);
  if (staged) {
    constexpr StagedAction actions[] = {StagedAction::Set, StagedAction::Delete, StagedAction::Learn,
                                        StagedAction::Ignore};
    if (const auto choice = spec.choice("stagedAction", {"Set", "Delete", "Learn", "Ignore"}))
      policy.staged_action = actions[*choice];
  }
  read_kubernetes_spec(spec, policy);
  for (auto* rules : {&policy.ingress, &policy.egress})
    for (PolicyRule& rule : *rules) rule.log_label = meta.log_label;
  if (meta.valid) context.set.policies.push_back(std::move(policy));
}

void read_namespace(const Node& node, LoadContext& context) {
  Fields object(node, "a Namespace", context.findings);
  const Meta meta =
      read_meta(object, {.kind = "Namespace", .has_log = true, .has_enforcement = true, .name_has_dots = false}, context);
  object.accept({"spec"});
  if (!meta.valid) return;
  NamespaceObject result{meta.name, meta.labels, meta.log_decisions, meta.audited};
  result.labels[label::kKubernetesNamespaceName] = meta.name;
  context.set.namespaces.push_back(std::move(result));
}

}  // namespace

void read_kubernetes_spec(Fields& spec, Policy& policy) {
  const std::string& own = policy.key.policy_namespace;
  std::optional<ReadSelector> subject;
  if (const Node* node = spec.get("podSelector"))
    subject = read_label_selector(*node, "podSelector", spec.findings());
  std::vector<Selector> parts = {Selector::equals(label::kNamespace, own), pods()};
  if (subject) parts.push_back(subject->selector);
  policy.subject = Selector::all_of(parts);
  policy.subject_text = subject && !subject->text.empty() ? subject->text : "all()";
  const auto rules = [&](Direction direction) {
    return read_rules(spec, name(direction),
                      [&](const Node& item) { return read_rule(item, own, direction, spec.findings()); });
  };
  policy.ingress = rules(Direction::Ingress);
  policy.egress = rules(Direction::Egress);
  const ReadTypes types = read_types(spec, "policyTypes");
  policy.applies_ingress = types.given ? types.ingress : true;
  policy.applies_egress = types.given ? types.egress : !policy.egress.empty();
}

std::vector<KindRow> kubernetes_kinds() {
  return {{{"networking.k8s.io/v1"}, "NetworkPolicy", read_policy<PolicyKind::KubernetesNetworkPolicy>},
          {{"projectcalico.org/v3", "crd.projectcalico.org/v1"},
           "StagedKubernetesNetworkPolicy",
           read_policy<PolicyKind::StagedKubernetesNetworkPolicy>},
          {{"v1"}, "Namespace", read_namespace}};
}

}  // namespace tierlog::policy
