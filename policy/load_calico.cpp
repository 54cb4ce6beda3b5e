#include <algorithm>
#include <utility>

#include "policy/load_host.h"
#include "policy/load_kinds.h"

// projectcalico.org/v3: tiers, policies, network sets.
namespace tierlog::policy {
namespace {

using yaml::Fields;
using yaml::Node;

// What the readers of one policy's rules need to know about it.
struct RuleScope {
  std::string policy_namespace;  // empty: a global policy
  Direction direction{};
};

Selector in_namespace(const std::string& name) {
  return Selector::equals(label::kNamespace, name);
}

// "in namespaces X" behind the selector people wrote.
std::string with_namespaces(const std::string& selector, const std::optional<ReadSelector>& namespaces) {
  if (!namespaces) return selector;
  const std::string what = selector.empty() ? "anything" : selector;
  if (namespaces->selector.is_all()) return what + " in any namespace";
  if (namespaces->selector.is_global()) return what + " without a namespace";
  return what + " in namespaces " + namespaces->text;
}

struct ServiceAccounts {
  std::vector<Selector> limits;
  std::string text;
};

ServiceAccounts read_service_accounts(Fields& peer) {
  ServiceAccounts accounts;
  const Node* node = peer.map("serviceAccounts");
  if (node == nullptr) return accounts;
  Fields fields(*node, "serviceAccounts", peer.findings());
  const std::vector<std::string> names = fields.strings("names");
  if (const auto selector = read_selector(fields, "selector")) {
    accounts.limits.push_back(selector->selector.with_prefix(label::kServiceAccountPrefix));
    accounts.text = "service accounts " + selector->text;
  }
  if (names.empty()) return accounts;
  accounts.limits.push_back(Selector::in(label::kServiceAccount, names));
  accounts.text += (accounts.text.empty() ? "service account " : " named ") + yaml::one_of(names);
  return accounts;
}

// Selector, namespaceSelector and serviceAccounts as one selector over effective labels. Any of them, or
// notSelector, limits a namespaced policy's rule to its own namespace unless it names others.
void read_peer_selectors(Fields& fields, const RuleScope& scope, PeerSpec& peer) {
  const auto selector = read_selector(fields, "selector");
  const auto namespaces = read_selector(fields, "namespaceSelector", Global::Alone);
  const auto not_selector = read_selector(fields, "notSelector");
  const ServiceAccounts accounts = read_service_accounts(fields);
  std::vector<Selector> parts;
  const bool limits = selector || namespaces || not_selector || !accounts.limits.empty();
  if (namespaces)
    parts.push_back(namespaces->selector.over_namespaces());
  else if (limits && !scope.policy_namespace.empty())
    parts.push_back(in_namespace(scope.policy_namespace));
  parts.insert(parts.end(), accounts.limits.begin(), accounts.limits.end());
  if (selector) parts.push_back(selector->selector);
  // all() alone still is a selector: it means known endpoints and sets, not every packet.
  if (!parts.empty()) peer.selector = Selector::all_of(parts);
  if (not_selector) {
    peer.not_selector = not_selector->selector;
    peer.not_selector_text = not_selector->text;
  }
  if (!peer.selector) return;
  std::string text = selector ? selector->text : "";
  if (!accounts.text.empty()) text += (text.empty() ? "" : " and ") + accounts.text;
  if (text.empty() && !namespaces) text = "anything in namespace " + scope.policy_namespace;
  peer.selector_text = with_namespaces(text, namespaces);
}

void read_service(Fields& fields, const RuleScope& scope, bool allowed_here, PeerSpec& peer) {
  const Node* node = fields.map("services");
  if (node == nullptr) return;
  Fields service(*node, "services", fields.findings());
  const auto name = service.require_string("name");
  const auto of = service.string("namespace");
  const SourceRef place = fields.place_of("services");
  if (!allowed_here)
    fields.findings().error(place,
                            "services is out of place here; expected it in an ingress rule's source or an "
                            "egress rule's destination");
  for (const char* other :
       {"selector", "notSelector", "namespaceSelector", "serviceAccounts", "nets", "notNets"})
    if (fields.has(other))
      fields.findings().error(fields.place_of(other),
                              std::string(other) + " beside services; expected one of the two");
  if (scope.direction == Direction::Egress)
    for (const char* other : {"ports", "notPorts"})
      if (fields.has(other))
        fields.findings().error(
            fields.place_of(other),
            std::string(other) + " beside services; expected none, the Service has its own");
  if (scope.policy_namespace.empty() && (!of || of->empty()))
    fields.findings().error(place, "services without a namespace in a global policy; expected one");
  if (name) peer.service = ServiceSpec{of && !of->empty() ? *of : scope.policy_namespace, *name};
}

PeerSpec read_peer(Fields& rule, const std::string& side, const RuleScope& scope) {
  PeerSpec peer;
  const Node* node = rule.map(side);
  if (node == nullptr) return peer;
  Fields fields(*node, "the rule's " + side, rule.findings());
  read_peer_selectors(fields, scope, peer);
  peer.nets = read_nets(fields, "nets", limit::kNets);
  peer.not_nets = read_nets(fields, "notNets", limit::kNets);
  peer.ports = read_ports(fields, "ports");
  peer.not_ports = read_ports(fields, "notPorts");
  const bool is_source = side == "source";
  read_service(fields, scope, is_source == (scope.direction == Direction::Ingress), peer);
  return peer;
}

std::optional<IcmpSpec> read_icmp(Fields& rule, std::string_view key) {
  const Node* node = rule.map(key);
  if (node == nullptr) return std::nullopt;
  Fields fields(*node, std::string(key), rule.findings());
  const auto type = fields.integer("type", 0, 254);
  const auto code = fields.integer("code", 0, 255);
  if (code && !fields.has("type"))
    rule.findings().error(fields.place_of("code"), "an ICMP code without a type; expected both");
  IcmpSpec icmp;
  if (type) icmp.type = static_cast<std::uint8_t>(*type);
  if (type && code) icmp.code = static_cast<std::uint8_t>(*code);
  if (!icmp.type) return std::nullopt;
  return icmp;
}

void check_icmp(Fields& rule, const MatchSpec& match) {
  for (const char* key : {"icmp", "notICMP"})
    if (rule.has(key) && !(match.protocol && protocol::is_icmp(*match.protocol)) &&
        (!rule.has("protocol") || match.protocol))
      rule.findings().error(
          rule.place_of(key),
          std::string(key) + " without an ICMP protocol; expected protocol: ICMP or ICMPv6");
  if (!match.family || !match.protocol) return;
  if ((*match.protocol == protocol::kIcmp && *match.family == Family::V6) ||
      (*match.protocol == protocol::kIcmpV6 && *match.family == Family::V4))
    rule.findings().error(rule.place_of("ipVersion"),
                          "ipVersion contradicts the protocol; expected ICMP with 4 or ICMPv6 with 6");
}

void check_ports(Fields& rule, const MatchSpec& match) {
  if (!match.protocol || protocol::has_ports(*match.protocol)) return;
  for (const char* side : {"source", "destination"}) {
    const Node* peer = rule.node().find(side);
    if (peer == nullptr) continue;
    for (const auto& entry : peer->entries)
      if ((entry.first.text == "ports" || entry.first.text == "notPorts") && !entry.second.is_null())
        rule.findings().error(entry.first.place, entry.first.text + " with protocol " +
                                                     protocol::name(*match.protocol) +
                                                     ", which has none; expected TCP, UDP, SCTP or UDPLite");
  }
}

void read_rule_metadata(Fields& rule, PolicyRule& into) {
  if (const Node* node = rule.map("metadata")) {
    Fields metadata(*node, "the rule's metadata", rule.findings());
    Meta meta;
    read_annotations(metadata, {.kind = "rule", .has_log_label = true}, meta);
    into.log_label = meta.log_label;
    into.log_rate = meta.log_rate;
    if (into.action != Action::Log && into.log_rate)
      metadata.findings().error(node->place, "tierlog.io/log-rate on a rule that is no Log; expected action: Log");
  }
  if (rule.get("http") != nullptr)
    rule.findings().error(
        rule.place_of("http"),
        "http matches need a proxy in the data path; expected addresses, ports and protocols");
}

PolicyRule read_rule(const Node& node, const RuleScope& scope, Diagnostics& findings) {
  Fields fields(node, "the rule", findings);
  PolicyRule rule;
  MatchSpec match;
  constexpr Action actions[] = {Action::Allow, Action::Deny, Action::Log, Action::Pass};
  fields.require("action");
  if (const auto choice = fields.choice("action", {"Allow", "Deny", "Log", "Pass"}))
    rule.action = actions[*choice];
  match.protocol = read_protocol(fields, "protocol");
  match.not_protocol = read_protocol(fields, "notProtocol");
  if (const Node* version = fields.get("ipVersion")) {
    const auto number = version->as_int();
    if (number == 4 || number == 6)
      match.family = number == 4 ? Family::V4 : Family::V6;
    else
      findings.error(version->place, "unknown ipVersion \"" + version->text + "\"; expected 4 or 6");
  }
  match.icmp = read_icmp(fields, "icmp");
  match.not_icmp = read_icmp(fields, "notICMP");
  match.source = read_peer(fields, "source", scope);
  match.destination = read_peer(fields, "destination", scope);
  read_rule_metadata(fields, rule);
  check_icmp(fields, match);
  check_ports(fields, match);
  rule.any_of.push_back(std::move(match));
  rule.text = rule_text(rule.action, rule.any_of);
  return rule;
}

// The selector in which each all() means: whatever has that label.
Selector with_all_meaning(const Selector& selector, const char* label_name) {
  constexpr std::string_view kAll = "all()";
  std::string text;
  char quote = 0;  // of the value that we are in
  std::string_view rest = selector.canonical();
  while (!rest.empty()) {
    if (quote == 0 && rest.starts_with(kAll)) {
      text += "has(" + std::string(label_name) + ")";
      rest.remove_prefix(kAll.size());
      continue;
    }
    if (rest[0] == quote)
      quote = 0;
    else if (quote == 0 && (rest[0] == '"' || rest[0] == '\''))
      quote = rest[0];
    text += rest[0];
    rest.remove_prefix(1);
  }
  return *Selector::parse(text);  // a canonical form, of which one term became another
}

// Which endpoints: the policy's namespace or namespaceSelector, selector, serviceAccountSelector. As in
// Calico, all() beside a namespaceSelector means what has a namespace, and beside a serviceAccountSelector
// what runs as one; no host endpoint does.
void read_subject(Fields& spec, Policy& policy, bool global) {
  const auto selector = read_selector(spec, "selector");
  const auto accounts = read_selector(spec, "serviceAccountSelector");
  const auto namespaces = global ? read_selector(spec, "namespaceSelector") : std::nullopt;
  std::vector<Selector> parts;
  if (!global) parts.push_back(in_namespace(policy.key.policy_namespace));
  if (namespaces) parts.push_back(namespaces->selector.over_namespaces());
  if (selector) {
    Selector own = selector->selector;
    if (namespaces) own = with_all_meaning(own, label::kNamespace);
    if (accounts) own = with_all_meaning(own, label::kServiceAccount);
    parts.push_back(std::move(own));
  }
  if (accounts)
    parts.push_back(with_all_meaning(accounts->selector.with_prefix(label::kServiceAccountPrefix),
                                     label::kServiceAccount));
  policy.subject = Selector::all_of(parts);
  std::string text = selector ? selector->text : "all()";
  if (accounts) text += " and service accounts " + accounts->text;
  policy.subject_text = with_namespaces(text, namespaces);
}

void read_policy_spec(const Node& node, Policy& policy, const Meta& meta, bool global,
                      Diagnostics& findings) {
  Fields spec(node, "the policy's spec", findings);
  policy.tier = read_tier_name(spec);
  if (const auto order = spec.number("order")) policy.order = *order;
  read_subject(spec, policy, global);
  const auto rules = [&](Direction direction) {
    return read_rules(spec, name(direction), [&](const Node& item) {
      PolicyRule rule = read_rule(item, {policy.key.policy_namespace, direction}, findings);
      if (rule.log_label.empty()) rule.log_label = meta.log_label;
      if (!rule.log_rate) rule.log_rate = meta.log_rate;
      return rule;
    });
  };
  policy.ingress = rules(Direction::Ingress);
  policy.egress = rules(Direction::Egress);
  const ReadTypes types = read_types(spec, "types");
  policy.applies_ingress = types.given ? types.ingress : policy.egress.empty() || !policy.ingress.empty();
  policy.applies_egress = types.given ? types.egress : !policy.egress.empty();
  spec.accept({"performanceHints"});
  if (is_staged(policy.key.kind)) {
    constexpr StagedAction actions[] = {StagedAction::Set, StagedAction::Delete, StagedAction::Learn,
                                        StagedAction::Ignore};
    if (const auto choice = spec.choice("stagedAction", {"Set", "Delete", "Learn", "Ignore"}))
      policy.staged_action = actions[*choice];
  }
  if (global) read_host_stages(spec, policy);
}

template <PolicyKind kind>
void read_policy(const Node& node, LoadContext& context) {
  constexpr bool global =
      kind == PolicyKind::GlobalNetworkPolicy || kind == PolicyKind::StagedGlobalNetworkPolicy;
  Fields object(node, "a " + std::string(name(kind)), context.findings);
  const Meta meta = read_meta(
      object, {.kind = std::string(name(kind)), .namespaced = !global, .has_log_label = true}, context);
  Policy policy = start_policy(kind, meta);
  const Node* spec = require_spec(object);
  if (spec == nullptr) return;
  read_policy_spec(*spec, policy, meta, global, context.findings);
  if (meta.valid) context.set.policies.push_back(std::move(policy));
}

// The built-in tiers may be written down, but only as they are.
bool check_builtin(const Tier& tier, Fields& spec, LoadContext& context) {
  for (Tier& known : context.set.tiers) {
    if (known.name != tier.name) continue;
    if (spec.has("order") && tier.order != known.order)
      context.findings.error(spec.place_of("order"), "tier " + tier.name + " is built in; expected order " +
                                                         std::to_string(static_cast<long>(known.order)));
    if (spec.has("defaultAction") && tier.default_action != known.default_action)
      context.findings.error(spec.place_of("defaultAction"), "tier " + tier.name +
                                                                 " is built in; expected defaultAction " +
                                                                 std::string(name(known.default_action)));
    known.source = tier.source;
    return true;
  }
  return false;
}

void read_tier(const Node& node, LoadContext& context) {
  Fields object(node, "a Tier", context.findings);
  const Meta meta = read_meta(object, {.kind = "Tier", .name_has_dots = false}, context);
  const Node* spec_node = object.map("spec");
  Tier tier;
  tier.name = builtin_tier_name(meta.name);
  tier.source = meta.source;
  Node empty;
  empty.kind = yaml::Kind::Map;
  Fields spec(spec_node != nullptr ? *spec_node : empty, "the tier's spec", context.findings);
  if (const auto order = spec.number("order")) tier.order = *order;
  if (const auto choice = spec.choice("defaultAction", {"Deny", "Pass"}))
    tier.default_action = *choice == 0 ? Action::Deny : Action::Pass;
  if (meta.valid && !check_builtin(tier, spec, context)) context.set.tiers.push_back(std::move(tier));
}

template <bool global>
void read_network_set(const Node& node, LoadContext& context) {
  const std::string kind = global ? "GlobalNetworkSet" : "NetworkSet";
  Fields object(node, "a " + kind, context.findings);
  const Meta meta = read_meta(object, {.kind = kind, .namespaced = !global}, context);
  const Node* spec_node = require_spec(object);
  if (spec_node == nullptr) return;
  Fields spec(*spec_node, "the set's spec", context.findings);
  NetworkSet set{meta.object_namespace, meta.name, meta.labels, {}, meta.source};
  const Node* nets = spec.get("nets");
  // Some writers of JSON cannot tell an empty list from an empty map.
  const bool empty_map = nets != nullptr && nets->kind == yaml::Kind::Map && nets->entries.empty();
  if (!empty_map) set.nets = read_nets(spec, "nets", static_cast<std::size_t>(-1));
  if (meta.valid) context.set.network_sets.push_back(std::move(set));
}

}  // namespace

std::vector<KindRow> calico_kinds() {
  const std::vector<std::string> v3 = {"projectcalico.org/v3", "crd.projectcalico.org/v1"};
  return {{v3, "Tier", read_tier},
          {v3, "NetworkPolicy", read_policy<PolicyKind::NetworkPolicy>},
          {v3, "GlobalNetworkPolicy", read_policy<PolicyKind::GlobalNetworkPolicy>},
          {v3, "StagedNetworkPolicy", read_policy<PolicyKind::StagedNetworkPolicy>},
          {v3, "StagedGlobalNetworkPolicy", read_policy<PolicyKind::StagedGlobalNetworkPolicy>},
          {v3, "NetworkSet", read_network_set<false>},
          {v3, "GlobalNetworkSet", read_network_set<true>}};
}

}  // namespace tierlog::policy
