#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "policy/load_kinds.h"

// policy.networking.k8s.io: AdminNetworkPolicy and BaselineAdminNetworkPolicy (v1alpha1),
// ClusterNetworkPolicy (v1alpha2, v1beta1).
namespace tierlog::policy {
namespace {

using yaml::Fields;
using yaml::Node;

// How one kind differs from the others.
struct Family {
  PolicyKind kind{};
  std::vector<std::string> words;  // of a rule's action
  std::vector<Action> actions;

  bool is_cluster() const { return kind == PolicyKind::ClusterNetworkPolicy; }
};

// What cannot be expressed by addresses and ports; the rule then fails closed.
struct Inexpressible {
  SourceRef place;
  std::string what;
};

struct RuleReader {
  Diagnostics& findings;
  const Family& family;
  std::optional<Inexpressible> inexpressible;

  void cannot(const SourceRef& place, std::string what) {
    if (!inexpressible) inexpressible = {place, std::move(what)};
  }
};

Selector in_pods(std::vector<Selector> parts) {
  parts.insert(parts.begin(), Selector::equals(label::kOrchestrator, "k8s"));
  return Selector::all_of(parts);
}

std::string pods_text(const ReadSelector* pod, const ReadSelector& namespaces) {
  std::string text = pod != nullptr && !pod->text.empty() ? pod->text : "any pod";
  if (!namespaces.text.empty()) text += " in namespaces " + namespaces.text;
  return text;
}

// "namespaces" or "pods" of a subject or peer, as a selector over effective labels.
std::optional<ReadSelector> read_pods(Fields& fields, const Family& family) {
  Diagnostics& findings = fields.findings();
  if (const Node* node = fields.get("namespaces")) {
    const auto selector = read_label_selector(*node, "namespaces", findings);
    if (!selector) return std::nullopt;
    return ReadSelector{in_pods({selector->selector.over_namespaces()}), pods_text(nullptr, *selector)};
  }
  const Node* node = fields.map("pods");
  if (node == nullptr) return std::nullopt;
  Fields pods(*node, "pods", findings);
  std::optional<ReadSelector> pod, namespaces;
  if (const Node* child = pods.require("podSelector"))
    pod = read_label_selector(*child, "podSelector", findings);
  // A ClusterNetworkPolicy may leave it out.
  const bool any_namespace = family.is_cluster() && pods.get("namespaceSelector") == nullptr;
  if (any_namespace)
    namespaces = ReadSelector{Selector::all(), ""};
  else if (const Node* child = pods.require("namespaceSelector"))
    namespaces = read_label_selector(*child, "namespaceSelector", findings);
  if (!pod || !namespaces) return std::nullopt;
  return ReadSelector{in_pods({namespaces->selector.over_namespaces(), pod->selector}),
                      pods_text(&*pod, *namespaces)};
}

void check_exactly_one(Fields& fields, const std::vector<std::string>& keys) {
  std::size_t given = 0;
  for (const std::string& key : keys) {
    fields.accept({key});
    if (fields.has(key) && ++given == 2)
      fields.findings().error(fields.place_of(key),
                              key + " beside another one; expected one of " + yaml::one_of(keys));
  }
  if (given == 0 && fields.is_map())
    fields.findings().error(fields.node().place, fields.what() + " is empty; expected " + yaml::one_of(keys));
}

// The nodes whose labels are selected.
std::optional<PeerSpec> read_nodes(Fields& fields) {
  const Node* node = fields.get("nodes");
  if (node == nullptr) return std::nullopt;
  auto selector = read_label_selector(*node, "nodes", fields.findings());
  if (!selector) return std::nullopt;
  PeerSpec peer;
  peer.nodes = std::move(selector->selector);
  peer.selector_text = selector->text.empty() ? "any node" : "nodes with " + selector->text;
  return peer;
}

// The namespaces of a peer as the first versions of the API had them: related, sameLabels, notSameLabels or
// namespaceSelector.
std::optional<PeerSpec> read_early_namespaces(const Node& node, Diagnostics& findings) {
  Fields fields(node, "namespaces", findings);
  check_exactly_one(fields, {"sameLabels", "notSameLabels", "namespaceSelector", "related"});
  PeerSpec peer;
  if (const Node* child = fields.get("namespaceSelector")) {
    const auto selector = read_label_selector(*child, "namespaceSelector", findings);
    if (!selector) return std::nullopt;
    peer.selector = in_pods({selector->selector.over_namespaces()});
    peer.selector_text = pods_text(nullptr, *selector);
    return peer;
  }
  std::vector<std::string> labels;
  bool same = true;
  std::string in;
  if (fields.has("related")) {
    const auto choice = fields.choice("related", {"Self", "NotSelf"});
    same = choice == std::size_t{0};
    labels = {label::kKubernetesNamespaceName};
    in = same ? "the same namespace" : "another namespace";
  } else {
    same = fields.has("sameLabels");
    const char* key = same ? "sameLabels" : "notSameLabels";
    labels = fields.strings(key);
    if (labels.empty() && fields.has(key))
      findings.error(fields.place_of(key),
                     std::string(key) + " is empty and selects nothing; expected at least one label");
    in = std::string("namespaces with ") + (same ? "the same " : "another ") + yaml::one_of(labels);
  }
  std::vector<Selector> parts;
  for (const std::string& name : labels) parts.push_back(Selector::has(label::kNamespacePrefix + name));
  peer.selector = in_pods(std::move(parts));
  peer.selector_text = "any pod in " + in;
  peer.relation = NamespaceRelation{labels, !same};
  return peer;
}

// Whether a peer has the form of the first versions of the API.
bool is_early_peer(const Node& peer) {
  const Node* pods = peer.find("pods");
  if (pods != nullptr && pods->find("namespaces") != nullptr) return true;
  const Node* spaces = peer.find("namespaces");
  if (spaces == nullptr) return false;
  for (const char* key : {"sameLabels", "notSameLabels", "namespaceSelector", "related"})
    if (spaces->find(key) != nullptr) return true;
  return false;
}

std::optional<PeerSpec> read_early_peer(Fields& fields) {
  Diagnostics& findings = fields.findings();
  const Node* pods_node = fields.get("pods");
  if (pods_node == nullptr) return read_early_namespaces(*fields.get("namespaces"), findings);
  Fields pods(*pods_node, "pods", findings);
  std::optional<PeerSpec> peer;
  std::optional<ReadSelector> pod;
  if (const Node* child = pods.require("namespaces")) peer = read_early_namespaces(*child, findings);
  if (const Node* child = pods.require("podSelector"))
    pod = read_label_selector(*child, "podSelector", findings);
  if (!peer || !pod) return std::nullopt;
  constexpr std::string_view kAnyPod = "any pod";
  peer->selector = Selector::all_of({*peer->selector, pod->selector});
  if (!pod->text.empty()) peer->selector_text.replace(0, kAnyPod.size(), pod->text);
  return peer;
}

// Letters, digits, "-" and "_", the last two not at its ends.
bool is_domain_label(std::string_view text) {
  const auto alphanumeric = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  return !text.empty() && alphanumeric(text.front()) && alphanumeric(text.back()) &&
         std::all_of(text.begin(), text.end(),
                     [&](char c) { return alphanumeric(c) || c == '-' || c == '_'; });
}

// Two labels at least; "*." may stand in front, "." behind.
bool is_domain_name(std::string_view name) {
  if (name.starts_with("*.")) name.remove_prefix(2);
  if (name.ends_with('.')) name.remove_suffix(1);
  if (name.find('.') == std::string_view::npos) return false;
  for (;;) {
    const auto dot = name.find('.');
    if (!is_domain_label(name.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    name.remove_prefix(dot + 1);
  }
}

// Only whether they are names: nothing looks them up.
void check_domain_names(Fields& fields) {
  for (const std::string& name : fields.strings("domainNames")) {
    if (!is_domain_name(name))
      fields.findings().error(
          fields.place_of("domainNames"),
          "\"" + name + "\" is no domain name; expected one like example.com or *.example.com");
  }
}

std::vector<Cidr> read_networks(Fields& fields) {
  std::vector<Cidr> nets;
  const auto items = fields.list("networks");
  if (items.empty())
    fields.findings().error(fields.place_of("networks"), "networks is empty; expected at least one prefix");
  for (const Node* item : items)
    if (const auto cidr = read_cidr(*item, fields.findings(), true)) nets.push_back(*cidr);
  return nets;
}

std::optional<PeerSpec> read_peer(const Node& node, Direction direction, RuleReader& reader) {
  Fields fields(node, "a peer", reader.findings);
  std::vector<std::string> keys = {"namespaces", "pods"};
  if (direction == Direction::Egress) keys.insert(keys.end(), {"networks", "nodes", "domainNames"});
  check_exactly_one(fields, keys);
  if (direction == Direction::Egress && fields.has("domainNames")) {
    check_domain_names(fields);
    reader.cannot(fields.place_of("domainNames"), "domainNames as a peer");
    return std::nullopt;
  }
  if (direction == Direction::Egress && fields.has("networks")) {
    PeerSpec peer;
    peer.nets = read_networks(fields);
    if (peer.nets.empty()) return std::nullopt;
    return peer;
  }
  if (direction == Direction::Egress && fields.has("nodes")) return read_nodes(fields);
  if (!reader.family.is_cluster() && is_early_peer(node)) return read_early_peer(fields);
  PeerSpec peer;
  auto selected = read_pods(fields, reader.family);
  if (!selected) return std::nullopt;
  peer.selector = std::move(selected->selector);
  peer.selector_text = std::move(selected->text);
  return peer;
}

std::optional<PortRange> read_range(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a port range", findings);
  fields.require("start");
  fields.require("end");
  const auto start = fields.integer("start", 1, 65535);
  const auto end = fields.integer("end", 1, 65535);
  if (!start || !end) return std::nullopt;
  if (*end < *start) {
    findings.error(fields.place_of("end"),
                   "the port range ends before it starts; expected at least " + std::to_string(*start));
    return std::nullopt;
  }
  return PortRange{static_cast<std::uint16_t>(*start), static_cast<std::uint16_t>(*end)};
}

// One way in which a rule's ports may match.
struct Service {
  std::optional<std::uint8_t> protocol;
  std::vector<PortSpec> ports;

  bool operator==(const Service&) const = default;
};

std::optional<PortSpec> single_port(Fields& fields, std::string_view key) {
  fields.require(key);
  const auto number = fields.integer(key, 1, 65535);
  if (!number) return std::nullopt;
  const auto port = static_cast<std::uint16_t>(*number);
  return PortSpec{{port, port}, {}};
}

// v1alpha1: portNumber, portRange or namedPort.
std::optional<Service> read_alpha1_port(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a ports item", findings);
  check_exactly_one(fields, {"portNumber", "portRange", "namedPort"});
  Service service;
  if (const Node* child = fields.map("portNumber")) {
    Fields number(*child, "portNumber", findings);
    service.protocol = read_port_protocol(number, "protocol");
    if (const auto port = single_port(number, "port")) service.ports.push_back(*port);
  } else if (const Node* range_node = fields.map("portRange")) {
    Node range_only = *range_node;
    std::erase_if(range_only.entries, [](const auto& entry) { return entry.first.text == "protocol"; });
    const auto range = read_range(range_only, findings);
    Fields protocol_only(*range_node, "portRange", findings);
    protocol_only.accept({"start", "end"});
    service.protocol = read_port_protocol(protocol_only, "protocol");
    if (range) service.ports.push_back({*range, {}});
  } else if (const auto named = fields.string("namedPort")) {
    service.ports.push_back({{}, *named});
  }
  if (service.ports.empty()) return std::nullopt;
  return service;
}

// {destinationPort: {number | range}} of one protocol; without it all its ports.
std::vector<PortSpec> read_destination_port(const Node& node, const std::string& protocol_name,
                                            Diagnostics& findings) {
  Fields fields(node, protocol_name, findings);
  std::vector<PortSpec> ports;
  const Node* port_node = fields.map("destinationPort");
  if (port_node == nullptr) return ports;
  Fields port(*port_node, "destinationPort", findings);
  check_exactly_one(port, {"number", "range"});
  if (port.has("number")) {
    if (const auto number = single_port(port, "number")) ports.push_back(*number);
  } else if (const Node* range_node = port.map("range")) {
    if (const auto range = read_range(*range_node, findings)) ports.push_back({*range, {}});
  }
  return ports;
}

// v1alpha2: tcp, udp, sctp or destinationNamedPort.
std::optional<Service> read_alpha2_protocol(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a protocols item", findings);
  check_exactly_one(fields, {"tcp", "udp", "sctp", "destinationNamedPort"});
  if (const auto named = fields.string("destinationNamedPort")) return Service{{}, {{{}, *named}}};
  for (const char* key : {"tcp", "udp", "sctp"})
    if (const Node* child = fields.map(key))
      return Service{protocol::parse(key), read_destination_port(*child, key, findings)};
  return std::nullopt;
}

std::vector<Service> read_services(Fields& rule, bool alpha2) {
  std::vector<Service> services;
  for (const Node* item : rule.list(alpha2 ? "protocols" : "ports"))
    if (auto service =
            alpha2 ? read_alpha2_protocol(*item, rule.findings()) : read_alpha1_port(*item, rule.findings()))
      services.push_back(std::move(*service));
  return services;
}

std::vector<MatchSpec> cross(const std::vector<PeerSpec>& peers, const std::vector<Service>& services,
                             Direction direction) {
  std::vector<MatchSpec> matches;
  for (const PeerSpec& peer : peers) {
    MatchSpec match;
    (direction == Direction::Ingress ? match.source : match.destination) = peer;
    if (services.empty()) matches.push_back(match);
    for (const Service& service : services) {
      match.protocol = service.protocol;
      match.destination.ports = service.ports;
      matches.push_back(match);
    }
  }
  return matches;
}

// An inexpressible Deny or Pass denies everything, an inexpressible Allow nothing: both are reported.
void fail_closed(PolicyRule& rule, const Inexpressible& why, Diagnostics& findings) {
  if (rule.action == Action::Allow) {
    findings.warning(why.place, why.what + " cannot be enforced; this rule allows nothing");
    rule.any_of.clear();
    return;
  }
  findings.warning(why.place, why.what + " cannot be enforced; this rule denies everything instead");
  rule.action = Action::Deny;
  rule.any_of = {MatchSpec{}};
  rule.text = "Deny everything: " + why.what + " cannot be enforced";
}

PolicyRule read_rule(const Node& node, const Family& family, Direction direction, Diagnostics& findings) {
  Fields fields(node, "the rule", findings);
  RuleReader reader{findings, family, std::nullopt};
  PolicyRule rule;
  fields.string("name");
  fields.require("action");
  if (const auto choice = fields.choice("action", family.words)) rule.action = family.actions[*choice];
  const char* peers_key = direction == Direction::Ingress ? "from" : "to";
  fields.require(peers_key);
  const auto items = fields.list(peers_key);
  std::vector<PeerSpec> peers;
  for (const Node* item : items)
    if (auto peer = read_peer(*item, direction, reader)) peers.push_back(std::move(*peer));
  if (items.empty() && fields.has(peers_key))
    findings.error(fields.place_of(peers_key),
                   std::string(peers_key) + " is empty; expected at least one peer");
  const auto services = read_services(fields, family.is_cluster());
  rule.any_of = cross(peers, services, direction);
  rule.text = rule_text(rule.action, rule.any_of);
  if (reader.inexpressible) fail_closed(rule, *reader.inexpressible, findings);
  return rule;
}

void read_place(Fields& spec, Policy& policy) {
  if (policy.key.kind == PolicyKind::BaselineAdminNetworkPolicy) {
    policy.tier = "kube-baseline";
    return;
  }
  policy.tier = "kube-admin";
  if (policy.key.kind == PolicyKind::ClusterNetworkPolicy) {
    spec.require("tier");
    if (spec.choice("tier", {"Admin", "Baseline"}) == std::size_t{1}) policy.tier = "kube-baseline";
  }
  spec.require("priority");
  if (const auto priority = spec.integer("priority", 0, 1000)) policy.order = static_cast<double>(*priority);
}

void read_subject(Fields& spec, Policy& policy, const Family& family) {
  if (spec.require("subject") == nullptr) return;
  const Node* node = spec.map("subject");
  if (node == nullptr) return;
  Fields subject(*node, "subject", spec.findings());
  check_exactly_one(subject, {"namespaces", "pods"});
  if (auto pods = read_pods(subject, family)) {
    policy.subject = std::move(pods->selector);
    policy.subject_text = std::move(pods->text);
  }
}

void read_policy(const Node& node, const Family& family, LoadContext& context) {
  const std::string kind(name(family.kind));
  Fields object(node, "a " + kind, context.findings);
  const Meta meta = read_meta(object, {.kind = kind, .has_log = true, .has_log_label = true}, context);
  Policy policy = start_policy(family.kind, meta);
  if (family.kind == PolicyKind::BaselineAdminNetworkPolicy && meta.valid && meta.name != "default")
    context.findings.error(
        object.node().find("metadata")->find("name")->place,
        "a BaselineAdminNetworkPolicy named \"" + meta.name + "\"; expected the name default");
  const Node* spec_node = require_spec(object);
  if (spec_node == nullptr) return;
  Fields spec(*spec_node, "the policy's spec", context.findings);
  read_place(spec, policy);
  read_subject(spec, policy, family);
  const auto rules = [&](Direction direction) {
    auto list = read_rules(spec, name(direction), [&](const Node& item) {
      PolicyRule rule = read_rule(item, family, direction, context.findings);
      rule.log_label = meta.log_label;
      return rule;
    });
    std::erase_if(list, [](const PolicyRule& rule) { return rule.any_of.empty(); });
    return list;
  };
  policy.ingress = rules(Direction::Ingress);
  policy.egress = rules(Direction::Egress);
  policy.applies_ingress = !policy.ingress.empty();
  policy.applies_egress = !policy.egress.empty();
  if (meta.valid) context.set.policies.push_back(std::move(policy));
}

void read_admin(const Node& node, LoadContext& context) {
  read_policy(node,
              {PolicyKind::AdminNetworkPolicy,
               {"Allow", "Deny", "Pass"},
               {Action::Allow, Action::Deny, Action::Pass}},
              context);
}

void read_baseline(const Node& node, LoadContext& context) {
  read_policy(node,
              {PolicyKind::BaselineAdminNetworkPolicy, {"Allow", "Deny"}, {Action::Allow, Action::Deny}},
              context);
}

void read_cluster(const Node& node, LoadContext& context) {
  read_policy(node,
              {PolicyKind::ClusterNetworkPolicy,
               {"Accept", "Deny", "Pass"},
               {Action::Allow, Action::Deny, Action::Pass}},
              context);
}

}  // namespace

std::vector<KindRow> admin_kinds() {
  return {{{"policy.networking.k8s.io/v1alpha1"}, "AdminNetworkPolicy", read_admin},
          {{"policy.networking.k8s.io/v1alpha1"}, "BaselineAdminNetworkPolicy", read_baseline},
          {{"policy.networking.k8s.io/v1alpha2", "policy.networking.k8s.io/v1beta1"},
           "ClusterNetworkPolicy",
           read_cluster}};
}

}  // namespace tierlog::policy
