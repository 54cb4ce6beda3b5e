// tests/engine/world.h - a small cluster and its policies in a few lines, without files.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "policy/compile.h"
#include "policy/evaluate.h"

namespace tierlog::policy::test {

inline IpAddr ip(std::string_view text) {
  const auto address = IpAddr::parse(text);
  EXPECT_TRUE(address) << text;
  return address.value_or(IpAddr{});
}

inline Cidr net(std::string_view text) {
  const auto cidr = Cidr::parse(text);
  EXPECT_TRUE(cidr) << text;
  return cidr.value_or(Cidr{});
}

inline Selector selector(std::string_view text) {
  const auto parsed = Selector::parse(text);
  EXPECT_TRUE(parsed) << text;
  return parsed ? *parsed : Selector::all();
}

inline std::vector<Cidr> nets(const std::vector<std::string>& texts) {
  std::vector<Cidr> result;
  for (const std::string& text : texts) result.push_back(net(text));
  return result;
}

inline PortSpec port(std::uint16_t number) {
  return {{number, number}, {}};
}
inline PortSpec port(std::uint16_t first, std::uint16_t last) {
  return {{first, last}, {}};
}
inline PortSpec port(std::string name) {
  return {{}, std::move(name)};
}

inline PolicyRule rule(Action action, MatchSpec match = {}) {
  return {0, action, {std::move(match)}, {}, {}, {}, {}};
}

inline MatchSpec from(std::string_view selector_text) {
  MatchSpec match;
  match.source.selector = selector(selector_text);
  match.source.selector_text = selector_text;
  return match;
}

inline MatchSpec to_port(PortSpec spec, std::uint8_t proto = protocol::kTcp) {
  MatchSpec match;
  match.protocol = proto;
  match.destination.ports = {std::move(spec)};
  return match;
}

class World {
 public:
  World() { set.tiers = builtin_tiers(); }

  Endpoint& pod(const std::string& ns, const std::string& name, const std::vector<std::string>& addresses,
                Labels labels = {}) {
    Endpoint endpoint;
    endpoint.endpoint_namespace = ns;
    endpoint.name = name;
    endpoint.labels = std::move(labels);
    for (const std::string& address : addresses) endpoint.addresses.push_back(ip(address));
    cluster.endpoints.push_back(std::move(endpoint));
    return cluster.endpoints.back();
  }

  void tier(const std::string& name, double order, Action default_action = Action::Deny) {
    set.tiers.push_back({name, order, default_action, true, {}});
    sort_tiers(set.tiers);
  }

  // A policy that selects by `subject` for both directions; the kind follows from the namespace.
  Policy& policy(const std::string& tier_name, const std::string& ns, const std::string& name, double order,
                 std::string_view subject = "all()") {
    Policy result;
    result.key = {ns.empty() ? PolicyKind::GlobalNetworkPolicy : PolicyKind::NetworkPolicy, ns, name};
    result.tier = tier_name;
    result.order = order;
    result.subject = selector(subject);
    if (!ns.empty())
      result.subject = Selector::all_of({Selector::equals(label::kNamespace, ns), result.subject});
    result.subject_text = subject;
    result.applies_egress = false;
    set.policies.push_back(std::move(result));
    return set.policies.back();
  }

  Program compile(const CompileOptions& options = {}) {
    auto program = tierlog::policy::compile(set, std::make_shared<Cluster>(cluster), ids, options);
    EXPECT_TRUE(program);
    return program ? std::move(*program) : Program{};
  }

  Cluster cluster;
  PolicySet set;
  MemoryRuleIds ids;
};

// Rules numbered as the user counts.
inline std::vector<PolicyRule> rules(std::vector<PolicyRule> list) {
  for (std::size_t i = 0; i < list.size(); ++i) list[i].index = static_cast<int>(i);
  return list;
}

inline Packet tcp(std::string_view source, std::string_view destination, std::uint16_t destination_port,
                  std::uint16_t source_port = 50000) {
  return {ip(source), ip(destination), protocol::kTcp, source_port, destination_port, 0, 0};
}

// "allow default//open ingress[0]", "deny end of default after default//a", "allow no-policy".
inline std::string decision(const Program& program, const DirectionVerdict& verdict) {
  const std::string action = verdict.action == Action::Allow ? "allow " : "deny ";
  const RuleRef ref = program.by_id.at(verdict.rule);
  if (ref.kind == RuleRef::Kind::Rule) {
    const ProgramRule& decided = program.rules[ref.index];
    return action + program.policies[decided.policy].display + " " +
           std::string(tierlog::name(decided.direction)) + "[" + std::to_string(decided.index) + "]";
  }
  if (ref.kind == RuleRef::Kind::Reserved)
    return action + std::string(tierlog::name(find_reserved(verdict.rule)->reason));
  const EndOfTier& end = program.ends[ref.index];
  return action + "end of " + program.tiers[end.tier].name + " after " +
         program.policies[end.policies.back()].display;
}

inline std::string decision(const Program& program, const Packet& packet) {
  const Evaluation evaluation = evaluate(program, packet);
  const DirectionVerdict* verdict = evaluation.deciding();
  return verdict == nullptr ? "nobody" : decision(program, *verdict);
}

}  // namespace tierlog::policy::test
