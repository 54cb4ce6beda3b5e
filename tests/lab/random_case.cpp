#include "tests/lab/random_case.h"

namespace tierlog::lab::test {
namespace {

using Words = std::vector<std::string>;

const Words kNamespaces{"n0", "n1", "n2"};
const Words kRoles{"web", "db", "api"};
const Words kSelectors{"all()",
                       "role == 'web'",
                       "role != 'web'",
                       "!has(role)",
                       "role in {'db', 'api'}",
                       "role not in {'db'}",
                       "zone == 'lan' || role == 'db'",
                       "!role == 'api' && has(extra)",
                       "projectcalico.org/namespace == 'n0'",
                       "role starts with 'a'",
                       "role contains 'b'"};
const Words kNamespaceSelectors{"all()", "team == 'a'", "team != 'a'", "!has(team)",
                                "projectcalico.org/name in {'n1', 'n2'}"};
const Words kNets{"10.0.0.0/8",  "10.1.0.0/24", "10.1.0.1", "10.1.0.0/30",   "192.0.2.0/24", "0.0.0.0/1",
                  "10.1.1.2/31", "fd00::/64",   "fd00::1",  "2001:db8::/32", "fd00::2/127"};
const Words kNetsV4{"10.0.0.0/8", "10.1.0.0/24", "10.1.0.0/30", "192.0.2.0/24", "0.0.0.0/0", "10.1.0.2/32"};
const Words kNetsV6{"fd00::/64", "2001:db8::/32", "::/0", "fd00::2/127"};
const Words kOutside{"192.0.2.1", "203.0.113.9", "2001:db8::9", "10.1.9.9"};
const Words kPortNames{"http", "dns", "nope"};
const std::vector<int> kPorts{53, 80, 81, 8080, 65535};
const std::vector<Json> kProtocols{"TCP", "TCP", "TCP", "UDP", "UDP", "SCTP", "ICMP", 99, 253};
const std::vector<Json> kWithPorts{"TCP", "TCP", "UDP", "SCTP"};

Words some(Dice& dice, const Words& from, int at_most) {
  Words result;
  for (int n = dice.below(at_most); n >= 0; --n) result.push_back(dice.of(from));
  return result;
}

Json labels(const char* key, const std::string& value) {
  return Json{{key, value}};
}

// A labelSelector of Kubernetes over `key`, sometimes the empty one.
Json label_selector(Dice& dice, const char* key, const Words& values) {
  if (dice.one_in(4)) return Json::object();
  if (dice.one_in(2)) return {{"matchLabels", labels(key, dice.of(values))}};
  Json expression{{"key", key}, {"operator", dice.of(Words{"In", "NotIn", "Exists", "DoesNotExist"})}};
  const std::string name = expression["operator"];
  if (name == "In" || name == "NotIn") expression["values"] = some(dice, values, 2);
  return {{"matchExpressions", Json::array({expression})}};
}

Json pods_selector(Dice& dice) {
  return label_selector(dice, "role", kRoles);
}
Json namespaces_selector(Dice& dice) {
  return label_selector(dice, "team", {"a", "b"});
}

// ---- projectcalico.org/v3

Json calico_ports(Dice& dice) {
  Json ports = Json::array();
  for (int n = dice.below(3); n >= 0; --n) {
    const int first = dice.of(kPorts), last = dice.of(kPorts);
    if (dice.one_in(3))
      ports.push_back(dice.of(kPortNames));
    else if (dice.one_in(2) || last <= first)
      ports.push_back(first);
    else
      ports.push_back(std::to_string(first) + ":" + std::to_string(last));
  }
  return ports;
}

Json calico_peer(Dice& dice, bool has_ports) {
  Json peer = Json::object();
  if (dice.one_in(3)) peer["selector"] = dice.of(kSelectors);
  if (dice.one_in(5)) peer["namespaceSelector"] = dice.one_in(4) ? "global()" : dice.of(kNamespaceSelectors);
  if (dice.one_in(8)) peer["notSelector"] = dice.of(kSelectors);
  if (dice.one_in(8))
    peer["serviceAccounts"] = dice.one_in(2) ? Json{{"names", {"robot"}}}
                                             : Json{{"selector", dice.of(Words{"level == '3'", "all()"})}};
  if (dice.one_in(5)) peer["nets"] = some(dice, kNets, 2);
  if (dice.one_in(7)) peer["notNets"] = some(dice, kNets, 2);
  if (has_ports && dice.one_in(4)) peer["ports"] = calico_ports(dice);
  if (has_ports && dice.one_in(7)) peer["notPorts"] = calico_ports(dice);
  return peer;
}

Json icmp(Dice& dice) {
  Json spec{{"type", dice.of(std::vector<int>{8, 0, 128})}};
  if (dice.one_in(2)) spec["code"] = dice.below(2);
  return spec;
}

void calico_protocol(Dice& dice, Json& rule, bool& has_ports) {
  if (dice.one_in(2)) {
    rule["protocol"] = dice.one_in(8) ? Json("ICMPv6") : dice.of(kProtocols);
    const std::string name = rule["protocol"].is_string() ? rule["protocol"].get<std::string>() : "";
    has_ports = name == "TCP" || name == "UDP" || name == "SCTP";
    if (name.starts_with("ICMP")) {
      if (dice.one_in(2)) rule["icmp"] = icmp(dice);
      if (dice.one_in(3)) rule["notICMP"] = icmp(dice);
    }
  }
  if (dice.one_in(6)) rule["notProtocol"] = dice.of(kProtocols);
  if (dice.one_in(8) && !rule.contains("icmp") && !rule.contains("notICMP") && has_ports)
    rule["ipVersion"] = dice.one_in(2) ? 4 : 6;
}

Json calico_rule(Dice& dice, bool ingress) {
  Json rule{{"action", dice.of(Words{"Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log"})}};
  bool has_ports = true;
  calico_protocol(dice, rule, has_ports);
  const char *peer = ingress ? "source" : "destination", *own = ingress ? "destination" : "source";
  if (dice.one_in(12))
    rule[peer] = {{"services", {{"name", "shop"}, {"namespace", "n0"}}}};
  else if (!dice.one_in(4))
    rule[peer] = calico_peer(dice, has_ports);
  if (dice.one_in(3)) rule[own] = calico_peer(dice, has_ports);
  return rule;
}

Json rules(Dice& dice, Json (*rule)(Dice&, bool), bool ingress) {
  Json list = Json::array();
  for (int n = dice.below(4); n > 0; --n) list.push_back(rule(dice, ingress));
  return list;
}

void types(Dice& dice, Json& spec, const char* key) {
  switch (dice.below(4)) {
    case 0:
      spec[key] = {"Ingress"};
      break;
    case 1:
      spec[key] = {"Egress"};
      break;
    case 2:
      spec[key] = {"Ingress", "Egress"};
      break;
    default:
      break;
  }
}

Json calico_policy(Dice& dice, const std::string& name) {
  const bool global = dice.one_in(2), staged = dice.one_in(5);
  Json spec{{"tier", dice.of(Words{"default", "default", "t0", "t1", "t2", "kube-admin", "gone"})},
            {"selector", dice.of(kSelectors)}};
  if (!dice.one_in(3)) spec["order"] = dice.below(3);
  if (global && dice.one_in(3)) spec["namespaceSelector"] = dice.of(kNamespaceSelectors);
  if (dice.one_in(5)) spec["serviceAccountSelector"] = dice.of(Words{"level == '3'", "level != '3'"});
  spec["ingress"] = rules(dice, calico_rule, true);
  spec["egress"] = rules(dice, calico_rule, false);
  types(dice, spec, "types");
  Json metadata{{"name", name}};
  if (!global) metadata["namespace"] = dice.of(kNamespaces);
  return {{"apiVersion", "projectcalico.org/v3"},
          {"kind", std::string(staged ? "Staged" : "") + (global ? "GlobalNetworkPolicy" : "NetworkPolicy")},
          {"metadata", metadata},
          {"spec", spec}};
}

// ---- networking.k8s.io/v1

Json kubernetes_port(Dice& dice) {
  Json port = Json::object();
  if (!dice.one_in(3)) port["protocol"] = dice.of(kWithPorts);
  if (dice.one_in(4)) return port;
  if (dice.one_in(4)) {
    port["port"] = dice.of(kPortNames);
    return port;
  }
  port["port"] = dice.of(kPorts);
  if (dice.one_in(3)) port["endPort"] = 65535;
  return port;
}

Json kubernetes_peer(Dice& dice) {
  if (dice.one_in(4)) {
    Json block{{"cidr", dice.one_in(4) ? "::/0" : "0.0.0.0/0"}};
    if (dice.one_in(2)) block["except"] = some(dice, block["cidr"] == "::/0" ? kNetsV6 : kNetsV4, 2);
    return {{"ipBlock", block}};
  }
  Json peer = Json::object();
  if (dice.one_in(2)) peer["podSelector"] = pods_selector(dice);
  if (peer.empty() || dice.one_in(2)) peer["namespaceSelector"] = namespaces_selector(dice);
  return peer;
}

Json kubernetes_rule(Dice& dice, bool ingress) {
  Json rule = Json::object();
  for (int n = dice.below(3); n > 0; --n) rule[ingress ? "from" : "to"].push_back(kubernetes_peer(dice));
  for (int n = dice.below(3); n > 0; --n) rule["ports"].push_back(kubernetes_port(dice));
  return rule;
}

Json kubernetes_policy(Dice& dice, const std::string& name) {
  Json spec{{"podSelector", pods_selector(dice)}};
  if (!dice.one_in(3)) spec["ingress"] = rules(dice, kubernetes_rule, true);
  if (!dice.one_in(3)) spec["egress"] = rules(dice, kubernetes_rule, false);
  types(dice, spec, "policyTypes");
  return {{"apiVersion", "networking.k8s.io/v1"},
          {"kind", "NetworkPolicy"},
          {"metadata", {{"name", name}, {"namespace", dice.of(kNamespaces)}}},
          {"spec", spec}};
}

// ---- policy.networking.k8s.io

Json admin_pods(Dice& dice) {
  if (dice.one_in(2)) return {{"namespaces", namespaces_selector(dice)}};
  return {{"pods", {{"namespaceSelector", namespaces_selector(dice)}, {"podSelector", pods_selector(dice)}}}};
}

Json admin_peer(Dice& dice, bool ingress) {
  if (!ingress && dice.one_in(3)) return {{"networks", some(dice, dice.one_in(3) ? kNetsV6 : kNetsV4, 2)}};
  if (!ingress && dice.one_in(6)) return {{"nodes", label_selector(dice, "rack", {"1", "2"})}};
  return admin_pods(dice);
}

Json alpha1_port(Dice& dice) {
  switch (dice.below(3)) {
    case 0:
      return {{"portNumber", {{"protocol", dice.of(kWithPorts)}, {"port", dice.of(kPorts)}}}};
    case 1:
      return {{"portRange",
               {{"protocol", dice.of(kWithPorts)}, {"start", 60}, {"end", dice.one_in(2) ? 80 : 65535}}}};
    default:
      return {{"namedPort", dice.of(kPortNames)}};
  }
}

Json alpha2_protocol(Dice& dice) {
  if (dice.one_in(4)) return {{"destinationNamedPort", dice.of(kPortNames)}};
  const char* name = dice.of(std::vector<const char*>{"tcp", "udp", "sctp"});
  if (dice.one_in(3)) return Json{{name, Json::object()}};
  const Json port = dice.one_in(2) ? Json{{"number", dice.of(kPorts)}}
                                   : Json{{"range", {{"start", 80}, {"end", dice.one_in(2) ? 81 : 65535}}}};
  return Json{{name, {{"destinationPort", port}}}};
}

Json admin_rule(Dice& dice, bool ingress, const char* allow, bool passes, bool alpha2) {
  Json rule{{"action", dice.of(passes ? Words{allow, "Deny", "Pass"} : Words{allow, "Deny"})}};
  Json& peers = rule[ingress ? "from" : "to"];
  for (int n = dice.below(2); n >= 0; --n) peers.push_back(admin_peer(dice, ingress));
  for (int n = dice.below(3); n > 0; --n)
    rule[alpha2 ? "protocols" : "ports"].push_back(alpha2 ? alpha2_protocol(dice) : alpha1_port(dice));
  return rule;
}

Json admin_rules(Dice& dice, bool ingress, const char* allow, bool passes, bool alpha2) {
  Json list = Json::array();
  for (int n = dice.below(4); n > 0; --n) list.push_back(admin_rule(dice, ingress, allow, passes, alpha2));
  return list;
}

Json admin_policy(Dice& dice, const std::string& name, int priority) {
  const bool alpha2 = dice.one_in(2);
  Json spec{{"subject", admin_pods(dice)}, {"priority", priority}};
  if (alpha2) spec["tier"] = dice.one_in(3) ? "Baseline" : "Admin";
  for (const bool ingress : {true, false})
    spec[ingress ? "ingress" : "egress"] =
        admin_rules(dice, ingress, alpha2 ? "Accept" : "Allow", true, alpha2);
  return {{"apiVersion", std::string("policy.networking.k8s.io/v1alpha") + (alpha2 ? "2" : "1")},
          {"kind", alpha2 ? "ClusterNetworkPolicy" : "AdminNetworkPolicy"},
          {"metadata", {{"name", name}}},
          {"spec", spec}};
}

Json baseline_policy(Dice& dice) {
  return {{"apiVersion", "policy.networking.k8s.io/v1alpha1"},
          {"kind", "BaselineAdminNetworkPolicy"},
          {"metadata", {{"name", "default"}}},
          {"spec",
           {{"subject", admin_pods(dice)},
            {"ingress", admin_rules(dice, true, "Allow", false, false)},
            {"egress", admin_rules(dice, false, "Allow", false, false)}}}};
}

Json tier(Dice& dice, const char* name) {
  Json spec = Json::object();
  if (!dice.one_in(3)) spec["order"] = dice.of(std::vector<int>{10, 10, 20, 2'000'000});
  if (dice.one_in(2)) spec["defaultAction"] = dice.one_in(2) ? "Pass" : "Deny";
  return {{"apiVersion", "projectcalico.org/v3"},
          {"kind", "Tier"},
          {"metadata", {{"name", name}}},
          {"spec", spec}};
}

Json policies(Dice& dice) {
  Json list = Json::array();
  for (const char* name : {"t0", "t1", "t2"})
    if (!dice.one_in(3)) list.push_back(tier(dice, name));
  for (int n = dice.below(8); n >= 0; --n) {
    const std::string name = "policy-" + std::to_string(n);
    switch (dice.below(6)) {
      case 0:
        list.push_back(kubernetes_policy(dice, name));
        break;
      case 1:
        list.push_back(admin_policy(dice, name, n));
        break;
      default:
        list.push_back(calico_policy(dice, name));
    }
  }
  if (dice.one_in(4)) list.push_back(baseline_policy(dice));
  return list;
}

// ---- the world

Json pod(Dice& dice, int i) {
  const std::string number = std::to_string(i);
  Json pod{{"name", "p" + number}, {"namespace", dice.of(kNamespaces)}, {"labels", Json::object()}};
  if (!dice.one_in(4)) pod["labels"]["role"] = dice.of(kRoles);
  if (dice.one_in(3)) pod["labels"]["extra"] = "";
  Json addresses = Json::array();
  if (i != 1) addresses.push_back("10.1." + std::to_string(i % 2) + "." + number);
  if (i == 1 || dice.one_in(2)) addresses.push_back("fd00::" + number);
  pod["ips"] = addresses;
  Json ports = Json::array();
  if (dice.one_in(2)) ports.push_back({{"name", "http"}, {"protocol", "TCP"}, {"port", dice.of(kPorts)}});
  if (dice.one_in(3)) ports.push_back({{"name", "dns"}, {"protocol", "UDP"}, {"port", 53}});
  if (dice.one_in(4)) ports.push_back({{"name", "dns"}, {"protocol", "SCTP"}, {"port", 81}});
  pod["ports"] = ports;
  if (dice.one_in(3)) pod["serviceAccount"] = "robot";
  return pod;
}

Json network_set(Dice& dice, const char* name) {
  const bool global = dice.one_in(2);
  Json metadata{{"name", name}, {"labels", labels("zone", name)}};
  if (dice.one_in(3)) metadata["labels"]["role"] = dice.of(kRoles);
  if (!global) metadata["namespace"] = dice.of(kNamespaces);
  return {{"apiVersion", "projectcalico.org/v3"},
          {"kind", global ? "GlobalNetworkSet" : "NetworkSet"},
          {"metadata", metadata},
          {"spec", {{"nets", some(dice, kNets, 3)}}}};
}

Json end(Dice& dice, const Json& topology) {
  if (dice.one_in(5)) return {{"ip", dice.of(kOutside)}};
  const Json& pods = topology["pods"];
  const Json& pod = pods[static_cast<std::size_t>(dice.below(static_cast<int>(pods.size())))];
  return {{"pod", pod["namespace"].get<std::string>() + "/" + pod["name"].get<std::string>()}};
}

}  // namespace

Json random_topology(Dice& dice) {
  Json topology;
  topology["namespaces"] = Json::parse(
      R"([{"name": "n0", "labels": {"team": "a"}}, {"name": "n1", "labels": {"team": "b"}}, {"name": "n2"}])");
  for (int i = 1; i <= 6; ++i) topology["pods"].push_back(pod(dice, i));
  topology["nodes"].push_back({{"name", "node-1"}, {"labels", labels("rack", "1")}, {"ip", "192.0.2.1"}});
  for (const char* name : {"lan", "wan"}) topology["networksets"].push_back(network_set(dice, name));
  for (const auto& [space, name] : {std::pair{"n0", "robot"}, {"n1", "default"}})
    topology["serviceAccounts"].push_back(
        {{"name", name}, {"namespace", space}, {"labels", labels("level", "3")}});
  topology["endpointSlices"].push_back(Json::parse(R"({
    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
    "metadata": {"name": "shop-1", "namespace": "n0", "labels": {"kubernetes.io/service-name": "shop"}},
    "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.2"], "conditions": {"ready": true}}],
    "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]})"));
  return topology;
}

Json random_case(Dice& dice, const Json& topology, const std::string& id, int checks) {
  Json result{{"id", id}, {"topology", topology}, {"policies", policies(dice)}, {"checks", Json::array()}};
  for (int i = 0; i < checks; ++i) {
    const Json from = end(dice, topology), to = end(dice, topology);
    if (from == to) continue;
    Json check{{"from", from}, {"to", to}, {"protocol", dice.of(kProtocols)}, {"expect", "allow"}};
    const std::string name = check["protocol"].is_string() ? check["protocol"].get<std::string>() : "";
    if (name == "TCP" || name == "UDP" || name == "SCTP") {
      check["port"] = dice.of(kPorts);
      if (dice.one_in(4)) check["sourcePort"] = dice.of(kPorts);
    }
    result["checks"].push_back(check);
  }
  return result;
}

}  // namespace tierlog::lab::test
