// Classes as chains and maps say what the evaluator says: random lists x random packets, every form of look-up.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "dataplane/nftables/build_rules.h"
#include "tests/dataplane/interpreter.h"
#include "tests/engine/world.h"

namespace tierlog::dataplane::nftables {
namespace {

using namespace policy;
using namespace policy::test;

constexpr int kPackets = 150;

class Dice {
 public:
  explicit Dice(unsigned seed) : engine_(seed) {}
  int below(int n) { return static_cast<int>(engine_() % static_cast<unsigned>(n)); }
  bool one_in(int n) { return below(n) == 0; }
  template <typename T>
  const T& of(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(below(static_cast<int>(values.size())))];
  }

 private:
  std::mt19937 engine_;
};

const std::vector<std::string> kSelectors{"all()",          "role == 'r0'",           "role == 'r1'",
                                          "role == 'r2'",   "role in {'r0', 'r3'}",   "role != 'r1'",
                                          "zone == 'net0'", "zone == 'net1'",         "has(zone)",
                                          "role == 'none'", "projectcalico.org/name == 'p1'"};
const std::vector<std::string> kNets{"10.0.0.0/8",   "10.0.1.0/24",  "10.0.0.4/30",     "10.0.0.2", "0.0.0.0/0",
                                     "192.0.2.0/25", "198.51.0.0/9", "255.255.255.0/24", "fd00::/64", "fd00::2",
                                     "2001:db8::/33", "::/0"};
const std::vector<std::string> kOutside{"192.0.2.1",   "192.0.2.200", "198.51.100.9", "255.255.255.255",
                                        "10.0.1.77",   "2001:db8::9", "2001:db8:ffff::1", "fd00::77", "0.0.0.1"};
const std::vector<std::uint8_t> kProtocols{protocol::kTcp,  protocol::kTcp,    protocol::kUdp, protocol::kSctp,
                                           protocol::kUdpLite, protocol::kIcmp, protocol::kIcmpV6, 47, 253};
const std::vector<std::uint16_t> kPorts{0, 53, 80, 81, 443, 1024, 8080, 9090, 65535};

// What a list is made of: everything, or only what groups and segments resolve.
enum class Mix { Everything, Addresses };

class Generator {
 public:
  Generator(unsigned seed, Mix mix) : dice_(seed), mix_(mix) {}

  World world() {
    World world;
    for (int i = 0; i < 10; ++i) {
      const std::string number = std::to_string(i);
      std::vector<std::string> addresses{"10.0." + std::to_string(i % 2) + "." + number};
      if (!dice_.one_in(3)) addresses.push_back("fd00::" + number);
      Endpoint& pod = world.pod("n" + std::to_string(i % 2), "p" + number, addresses,
                                {{"role", "r" + std::to_string(dice_.below(4))}});
      pod.ports = {{"web", protocol::kTcp, dice_.of(kPorts)}, {"dns", protocol::kUdp, 53}};
    }
    for (const char* name : {"net0", "net1"}) {
      NetworkSet set;
      set.name = name;
      set.labels = {{"zone", name}};
      set.nets = some_nets();
      world.cluster.network_sets.push_back(set);
    }
    const int tiers = dice_.below(4);
    for (int i = 0; i < tiers; ++i)
      world.tier("t" + std::to_string(i), i, dice_.one_in(2) ? Action::Pass : Action::Deny);
    const int policies = 1 + dice_.below(6);
    for (int i = 0; i < policies; ++i) {
      const int tier = dice_.below(tiers + 1);
      Policy& policy = world.policy(tier == tiers ? "default" : "t" + std::to_string(tier), "",
                                    "policy-" + std::to_string(i), i, dice_.one_in(3) ? "role != 'r1'" : "all()");
      policy.applies_egress = dice_.one_in(2);
      policy.ingress = some_rules();
      policy.egress = some_rules();
    }
    return world;
  }

  Packet packet(const World& world) {
    Packet packet;
    packet.source = address(world);
    do packet.destination = address(world);
    while (packet.destination.family != packet.source.family || packet.destination == packet.source);
    packet.protocol = dice_.of(kProtocols);
    if (protocol::has_ports(packet.protocol)) {
      packet.source_port = dice_.of(kPorts);
      packet.destination_port = dice_.one_in(4) ? static_cast<std::uint16_t>(dice_.below(65536)) : dice_.of(kPorts);
    }
    if (protocol::is_icmp(packet.protocol)) {
      packet.icmp_type = static_cast<std::uint8_t>(dice_.of(std::vector<int>{0, 8, 255}));
      packet.icmp_code = static_cast<std::uint8_t>(dice_.below(2));
    }
    return packet;
  }

 private:
  IpAddr address(const World& world) {
    if (dice_.one_in(3)) return ip(dice_.of(kOutside));
    return dice_.of(dice_.of(world.cluster.endpoints).addresses);
  }

  std::vector<PolicyRule> some_rules() {
    static const std::vector<Action> actions{Action::Allow, Action::Allow, Action::Deny,
                                             Action::Deny,  Action::Pass,  Action::Log};
    std::vector<PolicyRule> result;
    for (int n = dice_.below(dice_.one_in(3) ? 40 : 8); n > 0; --n) {
      PolicyRule next = rule(dice_.of(actions), match());
      if (dice_.one_in(4)) next.any_of.push_back(match());
      result.push_back(next);
    }
    return rules(result);
  }

  MatchSpec match() {
    MatchSpec match;
    if (dice_.one_in(2)) match.protocol = dice_.of(kProtocols);
    if (mix_ == Mix::Addresses) {
      for (PeerSpec* peer : {&match.source, &match.destination}) {
        if (dice_.one_in(3)) peer->nets = some_nets();
        if (dice_.one_in(2)) peer->selector = selector(dice_.of(kSelectors));
        if (dice_.one_in(2)) break;
      }
      if (dice_.one_in(2)) match.destination.ports = some_ports(false);
      return match;
    }
    if (dice_.one_in(10)) match.not_protocol = dice_.of(kProtocols);
    if (dice_.one_in(12)) match.family = dice_.one_in(2) ? Family::V4 : Family::V6;
    if (dice_.one_in(12)) match.icmp = icmp();
    if (dice_.one_in(12)) match.not_icmp = icmp();
    for (PeerSpec* peer : {&match.source, &match.destination}) {
      if (dice_.one_in(3)) peer->selector = selector(dice_.of(kSelectors));
      if (dice_.one_in(8)) peer->not_selector = selector(dice_.of(kSelectors));
      if (dice_.one_in(6)) peer->nets = some_nets();
      if (dice_.one_in(10)) peer->not_nets = some_nets();
      if (dice_.one_in(5)) peer->ports = some_ports(true);
      if (dice_.one_in(10)) peer->not_ports = some_ports(true);
    }
    return match;
  }

  IcmpSpec icmp() {
    IcmpSpec spec{static_cast<std::uint8_t>(dice_.of(std::vector<int>{0, 8, 255})), {}};
    if (dice_.one_in(2)) spec.code = static_cast<std::uint8_t>(dice_.below(2));
    return spec;
  }

  std::vector<Cidr> some_nets() {
    std::vector<Cidr> result;
    for (int n = dice_.below(3); n >= 0; --n) result.push_back(net(dice_.of(kNets)));
    return result;
  }

  std::vector<PortSpec> some_ports(bool names) {
    std::vector<PortSpec> result;
    for (int n = dice_.below(3); n >= 0; --n) {
      const std::uint16_t first = dice_.of(kPorts), last = dice_.one_in(2) ? first : dice_.of(kPorts);
      result.push_back(names && dice_.one_in(4) ? port(dice_.one_in(2) ? "web" : "dns")
                                                : port(std::min(first, last), std::max(first, last)));
    }
    return result;
  }

  Dice dice_;
  const Mix mix_;
};

struct Form {
  const char* title;
  ClassCosts costs;
};

ClassCosts costs(std::size_t plain, std::size_t short_list, std::size_t largest = 16'384) {
  ClassCosts result;
  result.plain_matches = plain;
  result.short_list = short_list;
  result.largest_set = largest;
  return result;
}

ClassCosts with_cells(std::size_t cells) {
  ClassCosts result = costs(0, 1);
  result.cells = cells;
  return result;
}

ClassCosts in_blocks(std::size_t cells, std::size_t smallest, std::size_t largest = 16'384) {
  ClassCosts result = costs(0, 1, largest);
  result.cells = 0;
  result.block_cells = cells;
  result.smallest_block = smallest;
  return result;
}

std::vector<RuleId> matched(const DirectionVerdict& verdict) {
  std::vector<RuleId> ids;
  for (const TraceStep& step : verdict.trace)
    if (!step.staged && step.result != StepResult::NoMatch && step.rule != RuleId::None) ids.push_back(step.rule);
  return ids;
}

std::string text(const std::vector<RuleId>& ids) {
  std::string all;
  for (const RuleId id : ids) all += to_hex(id) + " ";
  return all;
}

std::size_t port_maps(const TableObjects& objects) {
  return static_cast<std::size_t>(std::count_if(objects.sets.begin(), objects.sets.end(), [](const Set& set) {
    return set.name.rfind("p_", 0) == 0 && set.verdict_map;
  }));
}

std::size_t group_maps(const TableObjects& objects) {
  return static_cast<std::size_t>(
      std::count_if(objects.sets.begin(), objects.sets.end(), [](const Set& set) { return set.data_length != 0; }));
}

std::size_t block_maps(const TableObjects& objects) {
  return static_cast<std::size_t>(std::count_if(objects.sets.begin(), objects.sets.end(), [](const Set& set) {
    return set.name.rfind("bk_", 0) == 0;
  }));
}

class Classes : public ::testing::TestWithParam<Form> {};

void expect_as_evaluated(const Program& program, const Interpreter& interpreter, const Packet& packet) {
  for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
    const IpAddr& own = direction == Direction::Egress ? packet.source : packet.destination;
    const ProgramEndpoint* endpoint = program.enforced(own);
    if (endpoint == nullptr) continue;
    const DirectionVerdict expected = evaluate_direction(program, *endpoint, direction, packet);
    const std::string& shown = program.cluster->endpoints[endpoint->endpoint].display();
    const Walk walk = interpreter.walk(endpoint_chain_name(direction, shown), packet);
    EXPECT_EQ(walk.lost, "");
    EXPECT_EQ(text(walk.counted), text(matched(expected))) << name(direction);
    EXPECT_EQ(walk.denied, expected.action == Action::Deny);
    EXPECT_EQ(walk.allowed, expected.action == Action::Allow);
  }
}

TEST_P(Classes, SayWhatTheEvaluatorSays) {
  std::size_t ports = 0, groups = 0, blocks = 0;
  for (unsigned seed = 1; seed <= 60 && !HasFailure(); ++seed) {
    Generator generator(seed, seed % 2 == 0 ? Mix::Everything : Mix::Addresses);
    World world = generator.world();
    const Program program = world.compile();
    const TableObjects objects = build_program(program, {}, {.classes = GetParam().costs}, {});
    const Interpreter interpreter(objects);
    ports += port_maps(objects);
    groups += group_maps(objects);
    blocks += block_maps(objects);
    for (int i = 0; i < kPackets && !HasFailure(); ++i) {
      const Packet packet = generator.packet(world);
      SCOPED_TRACE("seed " + std::to_string(seed) + " packet " + std::to_string(i) + " " +
                   packet.source.to_string() + " -> " + packet.destination.to_string() + " " +
                   protocol::name(packet.protocol) + " " + std::to_string(packet.source_port) + " " +
                   std::to_string(packet.destination_port) + " icmp " + std::to_string(packet.icmp_type) + "/" +
                   std::to_string(packet.icmp_code));
      expect_as_evaluated(program, interpreter, packet);
    }
    EXPECT_LE(interpreter.depth("forward"), 16u) << "seed " << seed;
    if (HasFailure()) ADD_FAILURE() << program.dump();
  }
  EXPECT_GT(ports, 0u);
  EXPECT_TRUE(groups > 0 || GetParam().costs.short_list >= 8);
  EXPECT_TRUE(blocks > 10 || GetParam().costs.cells != 0);
}

INSTANTIATE_TEST_SUITE_P(Forms, Classes,
                         ::testing::Values(Form{"as_they_are", {}}, Form{"no_plain_chains", costs(0, 8)},
                                           Form{"groups_for_all", costs(0, 0)}, Form{"groups_for_most", costs(0, 2)},
                                           Form{"large_sets_apart", costs(0, 1, 3)},
                                           Form{"over_budget", with_cells(60)},
                                           Form{"one_block_a_run", in_blocks(1'000'000, 0)},
                                           Form{"small_blocks", in_blocks(2'000, 2)},
                                           Form{"blocks_beside_large_sets", in_blocks(400, 1, 3)}),
                         [](const auto& form) { return std::string(form.param.title); });

// Rules about all ports stand in the list of every port; their outcomes are made once, not once a port.
TEST(Classes, APortIsMadeAsWhatItChanges) {
  constexpr int kBlocked = 60, kOpened = 40;
  World world;
  world.pod("n", "own", {"10.9.0.1"}, {{"role", "own"}});
  for (int i = 0; i < 10; ++i)
    world.pod("n", "peer-" + std::to_string(i), {"10.8.0." + std::to_string(i + 1)},
              {{"app", "app-" + std::to_string(i)}});
  std::vector<PolicyRule> ingress;
  for (int i = 0; i < kBlocked; ++i) {
    MatchSpec blocked;
    blocked.source.nets = {net("172.16." + std::to_string(i) + ".0/24")};
    ingress.push_back(rule(Action::Deny, blocked));
  }
  for (int i = 0; i < kOpened; ++i) {
    MatchSpec opened = from("app == 'app-" + std::to_string(i % 10) + "'");
    opened.protocol = protocol::kTcp;
    opened.destination.ports = {port(static_cast<std::uint16_t>(1000 + i))};
    ingress.push_back(rule(Action::Allow, opened));
  }
  world.policy("default", "", "all", 1, "role == 'own'").ingress = rules(ingress);
  const Program program = world.compile();
  const TableObjects objects = build_program(program, {}, {.classes = costs(0, 8)}, {});
  std::size_t cells = 0;
  for (const Set& set : objects.sets)
    if (set.name.starts_with("k4_")) cells += set.elements.size();
  EXPECT_EQ(cells, static_cast<std::size_t>(kBlocked + kOpened));
  const Interpreter interpreter(objects);
  for (const char* source : {"172.16.5.9", "172.16.60.9", "10.8.0.3", "10.8.0.7"})
    for (const int number : {999, 1002, 1006, 1012, 1040})
      expect_as_evaluated(program, interpreter, tcp(source, "10.9.0.1", static_cast<std::uint16_t>(number)));
  EXPECT_LE(interpreter.depth("forward"), 16u);
}

// Nets and port ranges nested in one another: n rules have n*n outcomes. No class is ever one list of n rules.
TEST(Classes, TheWorstIsBlocksOfRules) {
  constexpr int kRules = 600;
  World world;
  world.pod("n", "own", {"10.9.0.1"}, {{"role", "own"}});
  std::vector<PolicyRule> ingress;
  const auto inner = [](int i) { return std::to_string(172 - i / 256) + "." + std::to_string(i % 256); };
  for (int i = 0; i < kRules; ++i) {
    MatchSpec match;
    match.protocol = protocol::kTcp;
    for (int j = 0; j <= i; j += 1 + i / 8) match.source.nets.push_back(net(inner(j) + ".0.0/16"));
    match.destination.ports = {port(static_cast<std::uint16_t>(1000 + i), static_cast<std::uint16_t>(60000 - (i * 7919) % 20000))};
    ingress.push_back(rule(i % 2 == 0 ? Action::Allow : Action::Deny, match));
  }
  world.policy("default", "", "nested", 1, "role == 'own'").ingress = rules(ingress);
  const Program program = world.compile();
  ClassCosts limited;
  limited.cells = 8'000;
  limited.block_cells = 8'000;
  const TableObjects objects = build_program(program, {}, {.classes = limited}, {});
  std::size_t cells = 0, longest = 0;
  for (const Set& set : objects.sets)
    if (set.name.rfind("bk_", 0) == 0) cells += set.elements.size();
  for (const Chain& chain : objects.chains)
    if (chain.name[0] == 'c') longest = std::max(longest, chain.rules.size());
  EXPECT_GT(block_maps(objects), 3u);
  EXPECT_LE(cells, limited.block_cells);
  EXPECT_LT(longest, static_cast<std::size_t>(kRules) / 4);
  const Interpreter interpreter(objects);
  Dice dice(1);
  for (int i = 0; i < 2000 && !HasFailure(); ++i)
    expect_as_evaluated(program, interpreter,
                        tcp(inner(dice.below(kRules)) + ".3.4", "10.9.0.1", static_cast<std::uint16_t>(900 + dice.below(64000))));
}

// A planted error is found: the comparison above can fail.
TEST(Classes, AWrongCellIsNoticed) {
  Generator generator(1, Mix::Addresses);
  World world = generator.world();
  const Program program = world.compile();
  TableObjects objects = build_program(program, {}, {.classes = costs(0, 0)}, {});
  std::size_t wrong = 0;
  for (Set& set : objects.sets)
    if (set.name[0] == 'k' && versioned_name(set.name))
      for (Element& element : set.elements.edit()) {
        element.verdict->chain = rule_chain_name(reserved::kNoPolicyIngress);
        ++wrong;
      }
  ASSERT_GT(wrong, 0u);
  const Interpreter interpreter(objects);
  std::size_t differ = 0;
  for (int i = 0; i < kPackets; ++i) {
    const Packet packet = generator.packet(world);
    const ProgramEndpoint* endpoint = program.enforced(packet.destination);
    if (endpoint == nullptr) continue;
    const auto expected = evaluate_direction(program, *endpoint, Direction::Ingress, packet);
    const std::string shown = program.cluster->endpoints[endpoint->endpoint].display();
    const Walk walk = interpreter.walk(endpoint_chain_name(Direction::Ingress, shown), packet);
    differ += text(walk.counted) != text(matched(expected)) ? 1 : 0;
  }
  EXPECT_GT(differ, 0u);
}

}  // namespace
}  // namespace tierlog::dataplane::nftables
