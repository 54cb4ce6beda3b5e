#include "tests/dataplane/shapes.h"

#include <algorithm>
#include <utility>

namespace tierlog::dataplane::test {
namespace {

using policy::Action;
using policy::Match;
using policy::Program;
using policy::ProgramRule;

constexpr std::size_t kPods = 2000;
constexpr std::uint32_t kSets = 200;

class Builder {
 public:
  Builder(Shape shape, std::size_t rules, unsigned seed) : shape_(shape), engine_(seed) {
    auto cluster = std::make_shared<policy::Cluster>();
    policy::Endpoint pod;
    pod.endpoint_namespace = "a";
    pod.name = "p";
    pod.addresses = {IpAddr::v4(0x0a000001)};
    pod.local = true;
    cluster->endpoints = {pod};
    program().cluster = cluster;
    program().endpoints = {{0, 0, 0, false}};
    for (std::uint32_t i = 0; i < kPods; ++i) shaped_.addresses.push_back(IpAddr::v4(0x0a100000 + i * 3));
    for (std::uint32_t i = 0; i < kPods / 8; ++i) {
      std::array<std::uint8_t, 16> bytes{0xfd, 0, 0, 0, 0, 0, 0, 1};
      bytes[14] = static_cast<std::uint8_t>(i >> 8);
      bytes[15] = static_cast<std::uint8_t>(i);
      shaped_.addresses.push_back(IpAddr::v6(bytes));
    }
    make_sets();
    const std::size_t tiers = shape == Shape::S4 ? 3 : 1;
    for (std::size_t tier = 0; tier < tiers; ++tier) make_tier(rules / tiers, tier + 1 == tiers);
    policy::EndpointClass& endpoint_class = program().classes.emplace_back(class_);
    endpoint_class.fallback = reserved::kProfileIngress;
  }
  ShapedProgram take() { return std::move(shaped_); }

 private:
  Program& program() { return shaped_.program; }
  std::uint32_t below(std::size_t n) { return static_cast<std::uint32_t>(engine_() % n); }
  bool one_in(std::size_t n) { return below(n) == 0; }

  std::uint32_t add_set(std::vector<Cidr> members) {
    std::sort(members.begin(), members.end());
    members.erase(std::unique(members.begin(), members.end()), members.end());
    const std::string key = "set" + std::to_string(program().sets.size());
    program().sets.push_back({key, key, std::move(members)});
    return static_cast<std::uint32_t>(program().sets.size() - 1);
  }

  void make_sets() {
    if (shape_ == Shape::S1) return;
    const std::size_t memberships = shape_ == Shape::S5 ? 8 : 4;
    std::vector<std::vector<Cidr>> members(kSets);
    for (const IpAddr& address : shaped_.addresses)
      for (std::size_t i = 0; i < memberships; ++i) members[below(kSets)].push_back(Cidr::host(address));
    for (auto& of_set : members) add_set(std::move(of_set));
  }

  std::uint16_t port() {
    const auto number = static_cast<std::uint16_t>(1000 + below(500));
    return number;
  }
  void at_port(policy::PeerMatch& peer, std::uint16_t first, std::uint16_t last) {
    peer.ports.push_back({first, last});
    shaped_.ports.push_back(first);
    shaped_.ports.push_back(last);
  }

  Match match(std::size_t index);
  void realistic(Match& match, std::size_t index);
  Action action(std::size_t index, bool last_tier);
  void make_tier(std::size_t rules, bool last_tier);

  Shape shape_;
  std::mt19937 engine_;
  ShapedProgram shaped_;
  policy::EndpointClass class_;
  std::uint32_t next_id_ = kFirstPolicyRuleId;
};

Match Builder::match(std::size_t index) {
  Match match;
  match.protocol = protocol::kTcp;
  switch (shape_) {
    case Shape::S1: {
      const auto net = static_cast<std::uint32_t>(0x0a100000 + (index % 32) * 256 + (index / 32) * 0x10000);
      match.source.in_sets = {add_set({{IpAddr::v4(net), 24}})};
      at_port(match.destination, static_cast<std::uint16_t>(1000 + index),
              static_cast<std::uint16_t>(1000 + index));
      break;
    }
    case Shape::S2:
    case Shape::S5: {
      match.source.in_sets = {below(kSets)};
      match.destination.in_sets = {below(kSets)};
      const std::uint16_t number = port();
      at_port(match.destination, number, number);
      break;
    }
    case Shape::S3:
      match.source.in_sets = {below(kSets)};
      match.destination.in_sets = {below(kSets)};
      at_port(match.destination, 443, 443);
      break;
    case Shape::S6:
      // Each condition holds for many, all of them together for nobody: two sets that share no address.
      match.source.in_sets = {static_cast<std::uint32_t>(index % kSets)};
      match.destination.in_sets = {static_cast<std::uint32_t>((index * 7 + 1) % kSets)};
      at_port(match.destination, static_cast<std::uint16_t>(index % 2 == 0 ? 1000 : 2000),
              static_cast<std::uint16_t>(index % 2 == 0 ? 1999 : 2999));
      at_port(match.source, static_cast<std::uint16_t>(index % 2 == 0 ? 2000 : 1000),
              static_cast<std::uint16_t>(index % 2 == 0 ? 2999 : 1999));
      break;
    case Shape::S4:
      realistic(match, index);
  }
  return match;
}

void Builder::realistic(Match& match, std::size_t index) {
  if (one_in(4)) match.protocol = protocol::kUdp;
  if (one_in(20)) match.protocol.reset();
  if (!one_in(5)) match.source.in_sets = {below(kSets)};
  if (one_in(6)) match.source.in_sets.push_back(below(kSets));
  if (one_in(3)) match.destination.in_sets = {below(kSets)};
  if (one_in(10)) match.source.not_in_sets = {below(kSets)};
  if (one_in(10)) match.destination.not_in_sets = {below(kSets), below(kSets)};
  const std::uint16_t number = port();
  if (one_in(5))
    at_port(match.destination, number, static_cast<std::uint16_t>(number + below(100)));
  else if (!one_in(8))
    at_port(match.destination, number, number);
  else
    match.destination.not_ports = {{number, static_cast<std::uint16_t>(number + 10)}};
  if (one_in(12)) at_port(match.source, number, static_cast<std::uint16_t>(number + 300));
  if (one_in(15)) match.family = one_in(2) ? Family::V4 : Family::V6;
  if (index % 40 == 7) {
    match = {};
    match.icmp = policy::IcmpSpec{8, {}};
  }
  if (index % 40 == 9) {
    match.not_icmp = policy::IcmpSpec{8, 0};
    match.protocol.reset();
    match.destination.ports.clear();
  }
}

Action Builder::action(std::size_t index, bool last_tier) {
  if (shape_ != Shape::S4) return index % 3 == 0 ? Action::Deny : Action::Allow;
  if (one_in(10)) return Action::Log;
  if (!last_tier && one_in(4)) return Action::Pass;
  return one_in(3) ? Action::Deny : Action::Allow;
}

void Builder::make_tier(std::size_t rules, bool last_tier) {
  const auto tier = static_cast<std::uint32_t>(program().tiers.size());
  program().tiers.push_back({"tier" + std::to_string(tier), static_cast<double>(tier), Action::Deny, true});
  const auto policy = static_cast<std::uint32_t>(program().policies.size());
  policy::ProgramPolicy& added = program().policies.emplace_back();
  added.display = "tier" + std::to_string(tier) + "/a/p";
  added.tier = tier;
  added.applies_ingress = true;
  for (std::size_t i = 0; i < rules; ++i) {
    ProgramRule rule;
    rule.id = RuleId{next_id_++};
    rule.direction = Direction::Ingress;
    rule.action = action(i, last_tier);
    rule.index = static_cast<int>(i);
    rule.policy = policy;
    rule.any_of = {match(i)};
    if (shape_ == Shape::S4 && one_in(8)) rule.any_of.push_back(match(i + 1));
    added.ingress.push_back(static_cast<std::uint32_t>(program().rules.size()));
    program().rules.push_back(std::move(rule));
  }
  const Action end = last_tier ? Action::Deny : Action::Pass;
  program().ends.push_back({RuleId{next_id_++}, tier, Direction::Ingress, end, {policy}});
  class_.tiers.push_back({tier, {policy}, static_cast<std::uint32_t>(program().ends.size() - 1)});
}

}  // namespace

std::string name(Shape shape) {
  return "S" + std::to_string(static_cast<int>(shape) + 1);
}

ShapedProgram shaped_program(Shape shape, std::size_t rules, unsigned seed) {
  return Builder(shape, rules, seed).take();
}

policy::Packet shaped_packet(const ShapedProgram& shaped, std::mt19937& engine) {
  const auto any_address = [&] { return shaped.addresses[engine() % shaped.addresses.size()]; };
  const auto any_port = [&] {
    if (shaped.ports.empty() || engine() % 8 == 0) return static_cast<std::uint16_t>(engine() % 65536);
    return shaped.ports[engine() % shaped.ports.size()];
  };
  constexpr std::uint8_t kOthers[] = {protocol::kUdp,  protocol::kUdp,    protocol::kSctp,
                                      protocol::kIcmp, protocol::kIcmpV6, 47};
  policy::Packet packet;
  packet.source = any_address();
  do packet.destination = any_address();
  while (packet.destination.family != packet.source.family);
  // Now and then nobody that is known.
  if (engine() % 16 == 0 && packet.source.family == Family::V4)
    packet.source = IpAddr::v4(static_cast<std::uint32_t>(engine()) | 0x80000000u);
  packet.protocol = engine() % 4 != 0 ? protocol::kTcp : kOthers[engine() % std::size(kOthers)];
  if (protocol::has_ports(packet.protocol)) {
    packet.source_port = any_port();
    packet.destination_port = any_port();
  }
  if (protocol::is_icmp(packet.protocol)) {
    packet.icmp_type = engine() % 2 == 0 ? 8 : static_cast<std::uint8_t>(engine() % 20);
    packet.icmp_code = static_cast<std::uint8_t>(engine() % 2);
  }
  return packet;
}

}  // namespace tierlog::dataplane::test
