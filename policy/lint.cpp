#include "policy/lint.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/fields.h"
#include "policy/containment.h"

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

// ---- the findings ----------------------------------------------------------------------------------------

class Linter {
 public:
  // `known`: labels of everybody in the topology; empty: unknown.
  Linter(const PolicySet& set, const std::vector<Labels>& known, Diagnostics& findings)
      : set_(set), known_(known), findings_(findings) {}

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

  // Rules of which each alternative asks for somebody who is not there.
  void check_peers(const Policy& policy) {
    for (const auto* rules : {&policy.ingress, &policy.egress})
      for (const PolicyRule& rule : *rules) {
        if (never(rule)) continue;
        std::vector<std::string> missing;
        bool matches = rule.any_of.empty();  // that is said elsewhere
        for (const MatchSpec& match : rule.any_of) {
          auto text = nobody(match);
          if (!text)
            matches = true;
          else if (std::find(missing.begin(), missing.end(), *text) == missing.end())
            missing.push_back(std::move(*text));
        }
        if (!matches)
          findings_.warning(rule.source, "nobody in this topology is " + yaml::one_of(missing) +
                                             ": this rule matches nothing");
      }
  }

  // Names of ports that none of `declared` (ascending) is.
  void check_port_names(const Policy& policy, const std::vector<std::string>& declared) {
    for (const auto* rules : {&policy.ingress, &policy.egress})
      for (const PolicyRule& rule : *rules) {
        std::set<std::string> unknown;
        for (const MatchSpec& match : rule.any_of)
          for (const PeerSpec* peer : {&match.source, &match.destination})
            for (const PortSpec& port : peer->ports)
              if (!port.named.empty() && !std::binary_search(declared.begin(), declared.end(), port.named))
                unknown.insert(port.named);
        for (const std::string& name : unknown) {
          const std::string near = nearest(name, declared);
          findings_.warning(rule.source, "no pod of this topology has a port named " + name +
                                             ": it matches nothing" + (near.empty() ? "" : " (did you mean " + near + "?)"));
        }
      }
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
      if (const auto reason = never(rules[i]))
        findings_.warning(rules[i].source, "this rule can never match: " + *reason);
      else
        check_shadowed(direction, rules, i);
    }
  }

  // Why none of its alternatives can match: the first one's reason.
  static std::optional<std::string> never(const PolicyRule& rule) {
    std::optional<std::string> first;
    for (const MatchSpec& match : rule.any_of) {
      const auto reason = why_never(match);
      if (!reason) return std::nullopt;
      if (!first) first = reason;
    }
    return first;
  }

  // What one end must be that nobody in the topology is.
  std::optional<std::string> nobody(const MatchSpec& match) const {
    for (const PeerSpec* peer : {&match.source, &match.destination})
      if (peer->selector && std::none_of(known_.begin(), known_.end(), [&](const Labels& labels) {
            return peer->selector->matches(labels);
          }))
        return peer->selector_text;
    return std::nullopt;
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
    const SelectsMore in_topology = [this](const Selector& wide, const Selector& narrow) {
      bool any = false;
      for (const Labels& labels : known_) {
        if (!narrow.matches(labels)) continue;
        any = true;
        if (!wide.matches(labels)) return false;
      }
      return any;
    };
    for (std::size_t i = 0; i < at; ++i) {
      if (rules[i].action == Action::Log) continue;
      const bool always = covers(rules[i], rules[at]);
      if (!always && (known_.empty() || !covers(rules[i], rules[at], in_topology))) continue;
      const char* does = rules[i].action == Action::Allow  ? "allows"
                         : rules[i].action == Action::Deny ? "denies"
                                                           : "passes";
      findings_.warning(rules[at].source,
                        std::string("this rule can never match") + (always ? "" : " in this topology") + ": " +
                            rule_name(direction, rules[i]) + " above " + does + " the same traffic");
      return;
    }
  }

  const PolicySet& set_;
  const std::vector<Labels>& known_;
  Diagnostics& findings_;
};

}  // namespace

Diagnostics lint(const PolicySet& policies, const Cluster* cluster) {
  Diagnostics findings;
  std::vector<Labels> endpoints, known;
  std::set<std::string> ports;
  if (cluster != nullptr) {
    for (const Endpoint& endpoint : cluster->endpoints)
      for (const NamedPort& port : endpoint.ports) ports.insert(port.name);
    for (const HostEndpoint& host : cluster->host_endpoints)
      for (const NamedPort& port : host.ports) ports.insert(port.name);
    for (const Endpoint& endpoint : cluster->endpoints) endpoints.push_back(effective_labels(*cluster, endpoint));
    for (const HostEndpoint& host : cluster->host_endpoints) endpoints.push_back(effective_labels(host));
    known = endpoints;
    for (const auto* sets : {&cluster->network_sets, &policies.network_sets})
      for (const NetworkSet& set : *sets) known.push_back(effective_labels(*cluster, set));
  }
  Linter linter(policies, known, findings);
  for (const Policy& policy : policies.policies) {
    linter.check(policy);
    if (cluster == nullptr) continue;
    linter.check_subject(policy, endpoints);
    linter.check_peers(policy);
    linter.check_port_names(policy, {ports.begin(), ports.end()});
  }
  findings.sort();
  return findings;
}

}  // namespace tierlog::policy
