#include "policy/lint.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace tierlog::policy {
namespace {

const Tier* find_tier(const PolicySet& set, const std::string& name) {
  for (const Tier& tier : set.tiers)
    if (tier.name == name) return &tier;
  return nullptr;
}

std::string rule_name(Direction direction, const PolicyRule& rule) {
  return std::string(name(direction)) + "[" + std::to_string(rule.index) + "]";
}

// ---- whether one conjunction matches everything that another one matches --------------------------------

bool has_family(const std::vector<Cidr>& nets, Family family) {
  return std::any_of(nets.begin(), nets.end(),
                     [family](const Cidr& net) { return net.address.family == family; });
}

// A list of one family only makes the rule one of that family, even when it is negated.
bool admits(const PeerSpec& peer, Family family) {
  return (peer.nets.empty() || has_family(peer.nets, family)) &&
         (peer.not_nets.empty() || has_family(peer.not_nets, family));
}

template <typename T>
bool covers_optional(const std::optional<T>& wide, const std::optional<T>& narrow) {
  return !wide || (narrow && *wide == *narrow);
}

bool inside_any(const Cidr& net, const std::vector<Cidr>& nets) {
  return std::any_of(nets.begin(), nets.end(), [&](const Cidr& other) { return other.contains(net); });
}

bool covers_nets(const std::vector<Cidr>& wide, const std::vector<Cidr>& narrow) {
  if (wide.empty()) return true;
  return !narrow.empty() &&
         std::all_of(narrow.begin(), narrow.end(), [&](const Cidr& net) { return inside_any(net, wide); });
}

// What the wide side leaves out, the narrow one must leave out too.
bool covers_not_nets(const std::vector<Cidr>& wide, const std::vector<Cidr>& narrow) {
  return std::all_of(wide.begin(), wide.end(), [&](const Cidr& net) { return inside_any(net, narrow); });
}

bool inside_any(const PortSpec& port, const std::vector<PortSpec>& ports) {
  return std::any_of(ports.begin(), ports.end(), [&](const PortSpec& other) {
    if (!port.named.empty() || !other.named.empty()) return port.named == other.named;
    return other.range.first <= port.range.first && port.range.last <= other.range.last;
  });
}

bool covers_ports(const std::vector<PortSpec>& wide, const std::vector<PortSpec>& narrow) {
  if (wide.empty()) return true;
  return !narrow.empty() && std::all_of(narrow.begin(), narrow.end(),
                                        [&](const PortSpec& port) { return inside_any(port, wide); });
}

bool covers_not_ports(const std::vector<PortSpec>& wide, const std::vector<PortSpec>& narrow) {
  return std::all_of(wide.begin(), wide.end(),
                     [&](const PortSpec& port) { return inside_any(port, narrow); });
}

bool covers(const PeerSpec& wide, const PeerSpec& narrow) {
  for (const Family family : {Family::V4, Family::V6})
    if (admits(narrow, family) && !admits(wide, family)) return false;
  return covers_nets(wide.nets, narrow.nets) && covers_not_nets(wide.not_nets, narrow.not_nets) &&
         covers_ports(wide.ports, narrow.ports) && covers_not_ports(wide.not_ports, narrow.not_ports) &&
         covers_optional(wide.selector, narrow.selector) &&
         covers_optional(wide.not_selector, narrow.not_selector) &&
         covers_optional(wide.service, narrow.service);
}

bool covers_icmp(const std::optional<IcmpSpec>& wide, const std::optional<IcmpSpec>& narrow) {
  return !wide ||
         (narrow && covers_optional(wide->type, narrow->type) && covers_optional(wide->code, narrow->code));
}

bool covers(const MatchSpec& wide, const MatchSpec& narrow) {
  const bool not_protocol = covers_optional(wide.not_protocol, narrow.not_protocol) ||
                            (narrow.protocol && narrow.protocol != wide.not_protocol);
  return covers_optional(wide.protocol, narrow.protocol) && not_protocol &&
         covers_optional(wide.family, narrow.family) && covers_icmp(wide.icmp, narrow.icmp) &&
         covers_optional(wide.not_icmp, narrow.not_icmp) && covers(wide.source, narrow.source) &&
         covers(wide.destination, narrow.destination);
}

bool covers(const PolicyRule& wide, const PolicyRule& narrow) {
  return std::all_of(narrow.any_of.begin(), narrow.any_of.end(), [&](const MatchSpec& match) {
    return std::any_of(wide.any_of.begin(), wide.any_of.end(),
                       [&](const MatchSpec& other) { return covers(other, match); });
  });
}

// ---- whether a conjunction can match at all --------------------------------------------------------------

bool leaves_addresses(const PeerSpec& peer, Family family) {
  if (!admits(peer, family)) return false;
  std::vector<Cidr> nets = peer.nets;
  if (nets.empty()) nets = {*Cidr::parse(family == Family::V4 ? "0.0.0.0/0" : "::/0")};
  return std::any_of(nets.begin(), nets.end(), [&](const Cidr& net) {
    return net.address.family == family && !inside_any(net, peer.not_nets);
  });
}

bool can_match(const MatchSpec& match) {
  if (match.protocol && match.protocol == match.not_protocol) return false;
  return std::ranges::any_of(std::array{Family::V4, Family::V6}, [&](Family family) {
    if (match.family && *match.family != family) return false;
    if (match.protocol == protocol::kIcmp && family == Family::V6) return false;
    if (match.protocol == protocol::kIcmpV6 && family == Family::V4) return false;
    return leaves_addresses(match.source, family) && leaves_addresses(match.destination, family);
  });
}

// ---- the findings ----------------------------------------------------------------------------------------

class Linter {
 public:
  Linter(const PolicySet& set, Diagnostics& findings) : set_(set), findings_(findings) {}

  void check(const Policy& policy) {
    check_tier(policy);
    check_direction(policy, Direction::Ingress, policy.ingress, policy.applies_ingress);
    check_direction(policy, Direction::Egress, policy.egress, policy.applies_egress);
  }

  void check_subject(const Policy& policy, const std::vector<Labels>& endpoints) {
    const bool selects = std::any_of(endpoints.begin(), endpoints.end(),
                                     [&](const Labels& labels) { return policy.subject.matches(labels); });
    if (!selects)
      findings_.warning(policy.source, policy.display() + " selects no pod: none has " + policy.subject_text);
  }

 private:
  void check_tier(const Policy& policy) {
    const Tier* tier = find_tier(set_, policy.tier);
    if (tier != nullptr && tier->exists) return;
    std::vector<std::string> known;
    for (const Tier& other : set_.tiers)
      if (other.exists) known.push_back(other.name);
    const std::string near = nearest(policy.tier, known);
    findings_.warning(policy.source,
                      "tier \"" + policy.tier +
                          "\" has no Tier object: it is asked after all others and denies at its end" +
                          (near.empty() ? "" : " (did you mean " + near + "?)"));
  }

  void check_direction(const Policy& policy, Direction direction, const std::vector<PolicyRule>& rules,
                       bool applies) {
    if (rules.empty()) return;
    if (!applies) {
      findings_.warning(rules.front().source, "these " + std::string(name(direction)) +
                                                  " rules are not applied: the policy's types leave " +
                                                  std::string(name(direction)) + " out");
      return;
    }
    check_log_only(policy, direction, rules);
    for (std::size_t i = 0; i < rules.size(); ++i) {
      if (std::none_of(rules[i].any_of.begin(), rules[i].any_of.end(), can_match))
        findings_.warning(
            rules[i].source,
            "this rule can never match: its protocol, nets and notNets leave no address of one family");
      else
        check_shadowed(direction, rules, i);
    }
  }

  void check_log_only(const Policy& policy, Direction direction, const std::vector<PolicyRule>& rules) {
    const bool log_only = std::all_of(rules.begin(), rules.end(),
                                      [](const PolicyRule& rule) { return rule.action == Action::Log; });
    const Tier* tier = find_tier(set_, policy.tier);
    if (!log_only || (tier != nullptr && tier->default_action == Action::Pass)) return;
    findings_.warning(rules.front().source,
                      "only Log rules for " + std::string(name(direction)) +
                          ": Log decides nothing, so the end of tier " + policy.tier +
                          " denies unless another policy of the tier decides (add Allow, Deny "
                          "or Pass)");
  }

  void check_shadowed(Direction direction, const std::vector<PolicyRule>& rules, std::size_t at) {
    for (std::size_t i = 0; i < at; ++i) {
      if (rules[i].action == Action::Log || !covers(rules[i], rules[at])) continue;
      const char* does = rules[i].action == Action::Allow  ? "allows"
                         : rules[i].action == Action::Deny ? "denies"
                                                           : "passes";
      findings_.warning(rules[at].source, "this rule can never match: " + rule_name(direction, rules[i]) +
                                              " above " + does + " the same traffic");
      return;
    }
  }

  const PolicySet& set_;
  Diagnostics& findings_;
};

}  // namespace

Diagnostics lint(const PolicySet& policies, const Cluster* cluster) {
  Diagnostics findings;
  Linter linter(policies, findings);
  std::vector<Labels> endpoints;
  if (cluster != nullptr)
    for (const Endpoint& endpoint : cluster->endpoints)
      endpoints.push_back(effective_labels(*cluster, endpoint));
  for (const Policy& policy : policies.policies) {
    linter.check(policy);
    if (cluster != nullptr) linter.check_subject(policy, endpoints);
  }
  findings.sort();
  return findings;
}

}  // namespace tierlog::policy
