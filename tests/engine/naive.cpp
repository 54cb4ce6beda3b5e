#include "tests/engine/naive.h"

#include <algorithm>
#include <optional>

namespace tierlog::policy::test {
namespace {

struct World {
  const PolicySet& set;
  const Cluster& cluster;
  const Packet& packet;
};

void add_namespace(const World& world, const std::string& name, Labels& labels) {
  Labels own;
  const auto known = world.cluster.namespaces.find(name);
  if (known != world.cluster.namespaces.end()) own = known->second.labels;
  for (const NamespaceObject& object : world.set.namespaces)
    if (object.name == name)
      for (const auto& [key, value] : object.labels) own[key] = value;
  own["kubernetes.io/metadata.name"] = name;
  own["projectcalico.org/name"] = name;
  for (const auto& [key, value] : own) labels["pcns." + key] = value;
  labels["projectcalico.org/namespace"] = name;
}

Labels labels_of(const World& world, const Endpoint& pod) {
  Labels labels = pod.labels;
  add_namespace(world, pod.endpoint_namespace, labels);
  const std::string account = pod.service_account.empty() ? "default" : pod.service_account;
  labels["projectcalico.org/serviceaccount"] = account;
  labels["pcsa.projectcalico.org/name"] = account;
  for (const ServiceAccountObject& object : world.cluster.service_accounts)
    if (object.name == account && object.account_namespace == pod.endpoint_namespace)
      for (const auto& [key, value] : object.labels) labels["pcsa." + key] = value;
  labels["projectcalico.org/name"] = pod.name;
  labels["projectcalico.org/orchestrator"] = "k8s";
  return labels;
}

Labels labels_of(const World& world, const NetworkSet& network_set) {
  Labels labels = network_set.labels;
  if (!network_set.set_namespace.empty()) add_namespace(world, network_set.set_namespace, labels);
  labels["projectcalico.org/name"] = network_set.name;
  return labels;
}

std::vector<NetworkSet> network_sets(const World& world) {
  std::vector<NetworkSet> sets = world.set.network_sets;
  for (const NetworkSet& candidate : world.cluster.network_sets) {
    const bool replaced =
        std::any_of(world.set.network_sets.begin(), world.set.network_sets.end(), [&](const auto& s) {
          return s.name == candidate.name && s.set_namespace == candidate.set_namespace;
        });
    if (!replaced) sets.push_back(candidate);
  }
  return sets;
}

bool has(const Endpoint& pod, const IpAddr& address) {
  return std::find(pod.addresses.begin(), pod.addresses.end(), address) != pod.addresses.end();
}

// Whether some known item that covers the address satisfies the selector.
bool selects(const World& world, const Selector& selector, const IpAddr& address) {
  for (const Endpoint& pod : world.cluster.endpoints)
    if (!pod.host_network && has(pod, address) && selector.matches(labels_of(world, pod))) return true;
  for (const NetworkSet& network_set : network_sets(world))
    for (const Cidr& cidr : network_set.nets)
      if (cidr.contains(address) && selector.matches(labels_of(world, network_set))) return true;
  return false;
}

bool in_nets(const std::vector<Cidr>& nets, const IpAddr& address) {
  for (const Cidr& cidr : nets)
    if (cidr.contains(address)) return true;
  return false;
}

bool speaks_of(const std::vector<Cidr>& nets, Family family) {
  for (const Cidr& cidr : nets)
    if (cidr.address.family == family) return true;
  return false;
}

bool port_in(const World& world, const std::vector<PortSpec>& ports, const PeerSpec& peer,
             const IpAddr& address, std::uint16_t port) {
  if (!protocol::has_ports(world.packet.protocol)) return false;
  for (const PortSpec& spec : ports) {
    if (spec.named.empty()) {
      if (port >= spec.range.first && port <= spec.range.last) return true;
      continue;
    }
    for (const Endpoint& pod : world.cluster.endpoints) {
      if (pod.host_network || !has(pod, address)) continue;
      if (peer.selector && !peer.selector->matches(labels_of(world, pod))) continue;
      for (const NamedPort& named : pod.ports)
        if (named.name == spec.named && named.protocol == world.packet.protocol && named.port == port)
          return true;
    }
  }
  return false;
}

bool behind(const World& world, const ServiceSpec& wanted, const IpAddr& address, std::uint16_t port,
            bool is_destination) {
  for (const ServiceObject& service : world.cluster.services) {
    if (service.name != wanted.name || service.service_namespace != wanted.service_namespace) continue;
    for (const EndpointPort& one : service.ports)
      if (is_destination && one.address == address && one.protocol == world.packet.protocol &&
          one.port == port)
        return true;
    for (const IpAddr& one : service.addresses)
      if (!is_destination && one == address) return true;
  }
  return false;
}

bool is_node(const World& world, const Selector& selector, const IpAddr& address) {
  for (const NodeObject& node : world.cluster.nodes)
    if (selector.matches(node.labels) &&
        std::find(node.addresses.begin(), node.addresses.end(), address) != node.addresses.end())
      return true;
  return false;
}

bool peer_matches(const World& world, const PeerSpec& peer, const IpAddr& address, std::uint16_t port,
                  bool is_destination) {
  if (peer.service && !behind(world, *peer.service, address, port, is_destination)) return false;
  if (peer.nodes && !is_node(world, *peer.nodes, address)) return false;
  if (!peer.nets.empty() && !in_nets(peer.nets, address)) return false;
  if (!peer.not_nets.empty() &&
      (!speaks_of(peer.not_nets, address.family) || in_nets(peer.not_nets, address)))
    return false;
  if (peer.selector && !selects(world, *peer.selector, address)) return false;
  if (peer.not_selector && selects(world, *peer.not_selector, address)) return false;
  if (!peer.ports.empty() && !port_in(world, peer.ports, peer, address, port)) return false;
  return !port_in(world, peer.not_ports, peer, address, port);
}

bool is_icmp(const IcmpSpec& icmp, const Packet& packet) {
  if (packet.protocol != protocol::kIcmp && packet.protocol != protocol::kIcmpV6) return false;
  if (icmp.type && *icmp.type != packet.icmp_type) return false;
  return !icmp.code || *icmp.code == packet.icmp_code;
}

bool match_holds(const World& world, const MatchSpec& match) {
  const Packet& packet = world.packet;
  if (match.protocol && *match.protocol != packet.protocol) return false;
  if (match.not_protocol && *match.not_protocol == packet.protocol) return false;
  if (match.family && *match.family != packet.source.family) return false;
  if (match.icmp && !is_icmp(*match.icmp, packet)) return false;
  if (match.not_icmp && is_icmp(*match.not_icmp, packet)) return false;
  return peer_matches(world, match.source, packet.source, packet.source_port, false) &&
         peer_matches(world, match.destination, packet.destination, packet.destination_port, true);
}

bool rule_matches(const World& world, const PolicyRule& rule) {
  for (const MatchSpec& match : rule.any_of)
    if (match_holds(world, match)) return true;
  return false;
}

std::vector<Tier> tiers_in_order(const PolicySet& set) {
  std::vector<Tier> tiers = set.tiers;
  for (const Policy& policy : set.policies)
    if (std::none_of(tiers.begin(), tiers.end(), [&](const Tier& tier) { return tier.name == policy.tier; }))
      tiers.push_back({policy.tier, kNoOrder, Action::Deny, false, {}});
  std::sort(tiers.begin(), tiers.end(), [](const Tier& a, const Tier& b) {
    if (a.exists != b.exists) return a.exists;
    if (a.order != b.order) return a.order < b.order;
    return a.name < b.name;
  });
  return tiers;
}

std::vector<const Policy*> asked(const World& world, const Tier& tier, const Endpoint& pod,
                                 Direction direction) {
  std::vector<const Policy*> policies;
  const Labels labels = labels_of(world, pod);
  for (const Policy& policy : world.set.policies) {
    const bool applies = direction == Direction::Ingress ? policy.applies_ingress : policy.applies_egress;
    if (policy.tier == tier.name && applies && policy.subject.matches(labels)) policies.push_back(&policy);
  }
  const auto key = [](const Policy& p) {
    return p.key.name + "/" + p.key.policy_namespace + "/" + std::string(name(p.key.kind));
  };
  std::sort(policies.begin(), policies.end(), [&](const Policy* a, const Policy* b) {
    return a->order != b->order ? a->order < b->order : key(*a) < key(*b);
  });
  return policies;
}

std::string text(const Policy& policy, int index) {
  return std::string(name(policy.key.kind)) + " " + policy.tier + "/" + policy.key.policy_namespace + "/" +
         policy.key.name + " " + std::to_string(index);
}

std::string lower(Action action) {
  switch (action) {
    case Action::Allow:
      return "allow";
    case Action::Deny:
      return "deny";
    case Action::Pass:
      return "pass";
    case Action::Log:
      break;
  }
  return "log";
}

enum class Outcome { Nothing, Passed, Decided };

Outcome ask(const World& world, const Policy& policy, Direction direction, NaiveVerdict& verdict) {
  for (const PolicyRule& rule : direction == Direction::Ingress ? policy.ingress : policy.egress) {
    if (!rule_matches(world, rule)) continue;
    const std::string who = text(policy, rule.index);
    if (is_staged(policy.key.kind)) {
      verdict.staged.push_back(who + " " + lower(rule.action));
      if (rule.action == Action::Log) continue;
      return Outcome::Nothing;
    }
    if (rule.action == Action::Log) {
      verdict.logged.push_back(who);
      continue;
    }
    if (rule.action == Action::Pass) return Outcome::Passed;
    verdict.action = rule.action;
    verdict.decider = who;
    return Outcome::Decided;
  }
  return Outcome::Nothing;
}

// Nothing decided by the tier's rules: its default action, if an enforced policy was asked.
bool end_of(const Tier& tier, bool any_enforced, NaiveVerdict& verdict) {
  if (!any_enforced || tier.default_action == Action::Pass) return false;
  verdict.action = Action::Deny;
  verdict.decider = "end " + tier.name;
  return true;
}

void judge(const World& world, const Endpoint& pod, Direction direction, NaiveVerdict& verdict) {
  bool selected = false;
  for (const Tier& tier : tiers_in_order(world.set)) {
    bool enforced = false, passed = false;
    for (const Policy* policy : asked(world, tier, pod, direction)) {
      enforced = enforced || !is_staged(policy->key.kind);
      const Outcome outcome = ask(world, *policy, direction, verdict);
      if (outcome == Outcome::Decided) return;
      passed = outcome == Outcome::Passed;
      if (passed) break;
    }
    // A Pass may come before other enforced policies of the tier were looked at; it came from one itself.
    selected = selected || enforced;
    if (!passed && end_of(tier, enforced, verdict)) return;
  }
  verdict.decider = selected ? "profile" : "no-policy";
}

}  // namespace

NaiveVerdict naive(const PolicySet& set, const Cluster& cluster, const Packet& packet, Direction direction) {
  const World world{set, cluster, packet};
  NaiveVerdict verdict;
  const Endpoint* source = nullptr;
  const Endpoint* destination = nullptr;
  for (const Endpoint& pod : cluster.endpoints) {
    if (pod.host_network) continue;
    if (has(pod, packet.source)) source = &pod;
    if (has(pod, packet.destination)) destination = &pod;
  }
  const Endpoint* judged = direction == Direction::Ingress ? destination : source;
  if (judged == nullptr) return verdict;
  verdict.judged = true;
  if (source == destination)
    verdict.decider = "self";
  else
    judge(world, *judged, direction, verdict);
  return verdict;
}

}  // namespace tierlog::policy::test
