// What one rule matches: a table of criteria, packets and the reasons given when they do not match.
#include <functional>

#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

// default/client 10.0.0.1 fd00::1 role=client; default/server 10.0.0.2 fd00::2 role=server, ports http
// tcp 8080, dns udp 53; other/client 10.0.1.1 role=client; the node 192.168.0.1 with a host-network pod;
// sets: global "lan" 10.0.1.0/24 and 10.77.0.0/16 zone=lan, default/"db" 172.16.0.0/12 zone=db.
World cluster() {
  World world;
  world.pod("default", "client", {"10.0.0.1", "fd00::1"}, {{"role", "client"}}).ports = {
      {"http", protocol::kTcp, 9090}};
  world.pod("default", "server", {"10.0.0.2", "fd00::2"}, {{"role", "server"}}).ports = {
      {"http", protocol::kTcp, 8080}, {"dns", protocol::kUdp, 53}};
  world.pod("other", "client", {"10.0.1.1"}, {{"role", "client"}});
  world.pod("other", "agent", {"192.168.0.1"}, {{"role", "client"}, {"agent", "yes"}}).host_network = true;
  world.cluster.network_sets = {
      {"", "lan", {{"zone", "lan"}}, nets({"10.0.1.0/24", "10.77.0.0/16", "10.77.1.0/24"}), {}},
      {"default", "db", {{"zone", "db"}}, nets({"172.16.0.0/12"}), {}}};
  return world;
}

Packet udp(std::string_view source, std::string_view destination, std::uint16_t destination_port,
           std::uint16_t source_port = 50000) {
  Packet packet = tcp(source, destination, destination_port, source_port);
  packet.protocol = protocol::kUdp;
  return packet;
}

Packet icmp(std::uint8_t type, std::uint8_t code) {
  return {ip("10.0.0.1"), ip("10.0.0.2"), protocol::kIcmp, 0, 0, type, code};
}

Packet bare(std::uint8_t proto) {
  return {ip("10.0.0.1"), ip("10.0.0.2"), proto, 0, 0, 0, 0};
}

struct RuleCase {
  const char* name;
  std::function<void(MatchSpec&)> criteria;
  Packet packet;
  const char* why;  // "matched" or the reason
};

const Packet kTcp80 = tcp("10.0.0.1", "10.0.0.2", 80);
const Packet kTcp80V6 = tcp("fd00::1", "fd00::2", 80);

void source_is(MatchSpec& match, const char* text) {
  match.source.selector = selector(text);
  match.source.selector_text = text;
}

void source_is_not(MatchSpec& match, const char* text) {
  match.source.not_selector = selector(text);
  match.source.not_selector_text = text;
}

const RuleCase kCases[] = {
    {"NothingGivenMatchesAll", [](MatchSpec&) {}, kTcp80, "matched"},
    {"Protocol", [](MatchSpec& m) { m.protocol = protocol::kTcp; }, kTcp80, "matched"},
    {"OtherProtocol", [](MatchSpec& m) { m.protocol = protocol::kUdp; }, kTcp80, "protocol is not udp"},
    {"SctpIsNotTcp", [](MatchSpec& m) { m.protocol = protocol::kTcp; }, bare(protocol::kSctp),
     "protocol is not tcp"},
    {"NotProtocol", [](MatchSpec& m) { m.not_protocol = protocol::kTcp; }, kTcp80, "protocol is tcp"},
    {"NotAnotherProtocol", [](MatchSpec& m) { m.not_protocol = protocol::kUdp; }, kTcp80, "matched"},
    {"ProtocolByNumber", [](MatchSpec& m) { m.protocol = 253; }, bare(253), "matched"},
    {"Version4", [](MatchSpec& m) { m.family = Family::V4; }, kTcp80, "matched"},
    {"Version4OnV6", [](MatchSpec& m) { m.family = Family::V4; }, kTcp80V6, "packet is not IPv4"},

    {"Nets", [](MatchSpec& m) { m.source.nets = nets({"10.0.0.0/24"}); }, kTcp80, "matched"},
    {"NetsElsewhere",
     [](MatchSpec& m) {
       m.source.nets = nets({"10.9.0.0/16", "10.8.0.0/16"});
     },
     kTcp80, "source is not in 10.8.0.0/16, 10.9.0.0/16"},
    {"NetsWithHostBits", [](MatchSpec& m) { m.source.nets = nets({"10.0.0.77/24"}); }, kTcp80, "matched"},
    {"NetsAreOred",
     [](MatchSpec& m) {
       m.source.nets = nets({"192.0.2.0/24", "10.0.0.1/32"});
     },
     kTcp80, "matched"},
    {"NetsOfTheOtherFamily", [](MatchSpec& m) { m.source.nets = nets({"10.0.0.0/8"}); }, kTcp80V6,
     "source is not in 10.0.0.0/8"},
    {"NetsOfBothFamilies",
     [](MatchSpec& m) {
       m.source.nets = nets({"10.0.0.0/8", "fd00::/16"});
     },
     kTcp80V6, "matched"},
    {"NotNets", [](MatchSpec& m) { m.source.not_nets = nets({"10.0.0.0/24"}); }, kTcp80,
     "source is in 10.0.0.0/24"},
    {"NotNetsElsewhere", [](MatchSpec& m) { m.source.not_nets = nets({"10.9.0.0/24"}); }, kTcp80, "matched"},
    {"NotNetsOfV4OnlyNeverMatchV6", [](MatchSpec& m) { m.source.not_nets = nets({"10.9.0.0/24"}); }, kTcp80V6,
     "packet is not IPv4"},
    {"NotNetsOfV6OnlyNeverMatchV4", [](MatchSpec& m) { m.destination.not_nets = nets({"fd99::/64"}); },
     kTcp80, "packet is not IPv6"},
    {"NotNetsOfBothFamilies",
     [](MatchSpec& m) {
       m.source.not_nets = nets({"10.9.0.0/24", "fd99::/64"});
     },
     kTcp80V6, "matched"},
    {"NetsWithoutASubnet",
     [](MatchSpec& m) {
       m.source.nets = nets({"10.0.0.0/8"});
       m.source.not_nets = nets({"10.0.0.0/31"});
     },
     kTcp80, "source is in 10.0.0.0/31"},
    {"NotNetsThatAreEverything", [](MatchSpec& m) { m.source.not_nets = nets({"0.0.0.0/0"}); }, kTcp80,
     "source is in 0.0.0.0/0"},
    {"NotNetsThatAreAllOfV4LeaveV6",
     [](MatchSpec& m) {
       m.source.not_nets = nets({"0.0.0.0/0", "fd99::/64"});
     },
     kTcp80V6, "matched"},
    {"NetsOfDifferentFamiliesOnBothSides",
     [](MatchSpec& m) {
       m.source.nets = nets({"10.0.0.0/8"});
       m.destination.not_nets = nets({"fd99::/64"});
     },
     kTcp80, "the rule can match no packet"},

    {"Ports", [](MatchSpec& m) { m.destination.ports = {port(80)}; }, kTcp80, "matched"},
    {"OtherPorts",
     [](MatchSpec& m) {
       m.destination.ports = {port(443), port(8000, 8100)};
     },
     kTcp80, "destination port is not 443, 8000:8100"},
    {"PortRangeIsInclusive", [](MatchSpec& m) { m.destination.ports = {port(70, 80)}; }, kTcp80, "matched"},
    {"PortRangeToTheTop", [](MatchSpec& m) { m.destination.ports = {port(60000, 65535)}; },
     tcp("10.0.0.1", "10.0.0.2", 65535), "matched"},
    {"PortRangesTouch",
     [](MatchSpec& m) {
       m.destination.ports = {port(81, 90), port(1, 80), port(65535)};
     },
     tcp("10.0.0.1", "10.0.0.2", 65534), "destination port is not 1:90, 65535"},
    {"SourcePorts", [](MatchSpec& m) { m.source.ports = {port(50000)}; }, kTcp80, "matched"},
    {"OtherSourcePorts", [](MatchSpec& m) { m.source.ports = {port(80)}; }, kTcp80, "source port is not 80"},
    {"NotPorts",
     [](MatchSpec& m) {
       m.destination.not_ports = {port(80), port(443)};
     },
     kTcp80, "destination port is 80, 443"},
    {"OtherNotPorts", [](MatchSpec& m) { m.destination.not_ports = {port(443)}; }, kTcp80, "matched"},
    {"PortsOfAProtocolWithoutPorts", [](MatchSpec& m) { m.destination.ports = {port(0, 65535)}; }, icmp(8, 0),
     "icmp has no ports"},
    {"NotPortsOfAProtocolWithoutPorts", [](MatchSpec& m) { m.destination.not_ports = {port(0, 65535)}; },
     icmp(8, 0), "matched"},

    {"NamedPort", [](MatchSpec& m) { m.destination.ports = {port("http")}; },
     tcp("10.0.0.1", "10.0.0.2", 8080), "matched"},
    {"NamedPortV6", [](MatchSpec& m) { m.destination.ports = {port("http")}; },
     tcp("fd00::1", "fd00::2", 8080), "matched"},
    {"NamedPortIsEachPodsOwn", [](MatchSpec& m) { m.destination.ports = {port("http")}; },
     tcp("10.0.0.1", "10.0.0.2", 9090), "destination port is not http"},
    {"NamedPortOfAnotherProtocol",
     [](MatchSpec& m) {
       m.protocol = protocol::kTcp;
       m.destination.ports = {port("dns")};
     },
     tcp("10.0.0.1", "10.0.0.2", 53), "destination port is not dns"},
    {"NamedPortWithoutAProtocol", [](MatchSpec& m) { m.destination.ports = {port("dns")}; },
     udp("10.0.0.1", "10.0.0.2", 53), "matched"},
    {"NamedPortWithoutAProtocolKeepsThePortsProtocol",
     [](MatchSpec& m) { m.destination.ports = {port("dns")}; }, tcp("10.0.0.1", "10.0.0.2", 53),
     "destination port is not dns"},
    {"UnknownNamedPort", [](MatchSpec& m) { m.destination.ports = {port("nope")}; }, kTcp80,
     "destination port is not nope"},
    {"UnknownNamedPortBesideNumbers",
     [](MatchSpec& m) {
       m.destination.ports = {port("nope"), port(80)};
     },
     kTcp80, "matched"},
    {"NamedPortBesideNumbers",
     [](MatchSpec& m) {
       m.destination.ports = {port("http"), port(1)};
     },
     tcp("10.0.0.1", "10.0.0.2", 8080), "matched"},
    {"NegatedNamedPort", [](MatchSpec& m) { m.destination.not_ports = {port("http")}; },
     tcp("10.0.0.1", "10.0.0.2", 8080), "destination port is http"},
    {"NegatedNamedPortElsewhere", [](MatchSpec& m) { m.destination.not_ports = {port("http")}; },
     tcp("10.0.0.1", "10.0.0.2", 9090), "matched"},
    {"NegatedUnknownNamedPort", [](MatchSpec& m) { m.destination.not_ports = {port("nope")}; }, kTcp80,
     "matched"},
    {"NamedSourcePort", [](MatchSpec& m) { m.source.ports = {port("http")}; },
     tcp("10.0.0.1", "10.0.0.2", 80, 9090), "matched"},
    {"NamedSourcePortIsTheSources", [](MatchSpec& m) { m.source.ports = {port("http")}; },
     tcp("10.0.0.1", "10.0.0.2", 80, 8080), "source port is not http"},
    {"NamedPortOfSelectedPodsOnly",
     [](MatchSpec& m) {
       m.destination.selector = selector("role == 'client'");
       m.destination.ports = {port("http")};
     },
     tcp("10.0.0.2", "10.0.0.1", 9090), "matched"},
    {"NamedPortOfPodsThatAreNotSelected",
     [](MatchSpec& m) {
       m.destination.selector = selector("role == 'client'");
       m.destination.selector_text = "role == 'client'";
       m.destination.ports = {port("http")};
     },
     tcp("10.0.0.1", "10.0.0.2", 8080), "destination is not role == 'client'"},

    {"IcmpType",
     [](MatchSpec& m) {
       m.icmp = IcmpSpec{8, {}};
     },
     icmp(8, 3), "matched"},
    {"OtherIcmpType",
     [](MatchSpec& m) {
       m.icmp = IcmpSpec{8, {}};
     },
     icmp(0, 0), "icmp type is not 8"},
    {"IcmpTypeAndCode",
     [](MatchSpec& m) {
       m.icmp = IcmpSpec{8, 1};
     },
     icmp(8, 0), "icmp type and code is not 8/1"},
    {"IcmpTypeOfATcpPacket",
     [](MatchSpec& m) {
       m.icmp = IcmpSpec{0, {}};
     },
     kTcp80, "icmp type is not 0"},
    {"NotIcmpTypeAndCodeExcludesThatPair",
     [](MatchSpec& m) {
       m.not_icmp = IcmpSpec{8, 1};
     },
     icmp(8, 1), "icmp type and code is 8/1"},
    {"NotIcmpTypeAndCodeExcludesOnlyThatPair",
     [](MatchSpec& m) {
       m.not_icmp = IcmpSpec{8, 1};
     },
     icmp(8, 0), "matched"},
    {"NotIcmpOfATcpPacket",
     [](MatchSpec& m) {
       m.not_icmp = IcmpSpec{0, {}};
     },
     kTcp80, "matched"},

    {"Selector", [](MatchSpec& m) { source_is(m, "role == 'client'"); }, kTcp80, "matched"},
    {"OtherSelector", [](MatchSpec& m) { source_is(m, "role == 'server'"); }, kTcp80,
     "source is not role == 'server'"},
    {"AllIsAnyKnownEndpointNotAnyPacket", [](MatchSpec& m) { source_is(m, "all()"); },
     tcp("203.0.113.9", "10.0.0.2", 80), "source is not all()"},
    {"AllMatchesNetworkSets", [](MatchSpec& m) { source_is(m, "all()"); }, tcp("172.16.5.5", "10.0.0.2", 80),
     "matched"},
    {"NotSelector", [](MatchSpec& m) { source_is_not(m, "role == 'client'"); }, kTcp80,
     "source is role == 'client'"},
    {"NotSelectorMatchesUnknownAddresses", [](MatchSpec& m) { source_is_not(m, "role == 'client'"); },
     tcp("203.0.113.9", "10.0.0.2", 80), "matched"},
    {"AbsentLabelIsNotEqual", [](MatchSpec& m) { source_is(m, "colour != 'red'"); }, kTcp80, "matched"},
    {"AbsentLabelIsNotIn", [](MatchSpec& m) { source_is(m, "colour not in {'red'}"); }, kTcp80, "matched"},
    {"NegationCoversTheComparison", [](MatchSpec& m) { source_is(m, "!role == 'client'"); }, kTcp80,
     "source is not !role == 'client'"},
    {"GlobalSetByLabel", [](MatchSpec& m) { source_is(m, "zone == 'lan'"); },
     tcp("10.77.0.1", "10.0.0.2", 80), "matched"},
    {"TwoLabelsMustHoldOnOneItem", [](MatchSpec& m) { source_is(m, "zone == 'lan' && role == 'client'"); },
     tcp("10.0.1.1", "10.0.0.2", 80), "source is not zone == 'lan' && role == 'client'"},
    {"GlobalIsWithoutANamespace", [](MatchSpec& m) { source_is(m, "global()"); },
     tcp("10.77.0.1", "10.0.0.2", 80), "matched"},
    {"GlobalIsNoNamespacedSet", [](MatchSpec& m) { source_is(m, "global()"); },
     tcp("172.16.5.5", "10.0.0.2", 80), "source is not global()"},
    {"NamespaceLimitKeepsGlobalSetsOut",
     [](MatchSpec& m) { source_is(m, "projectcalico.org/namespace == 'default' && zone == 'lan'"); },
     tcp("10.77.0.1", "10.0.0.2", 80),
     "source is not projectcalico.org/namespace == 'default' && zone == 'lan'"},
    {"NamespaceLabelsAreSeen",
     [](MatchSpec& m) { source_is(m, "pcns.kubernetes.io/metadata.name == 'other'"); },
     tcp("10.0.1.1", "10.0.0.2", 80), "matched"},
    {"OnePodByName", [](MatchSpec& m) { source_is(m, "projectcalico.org/name == 'client'"); },
     tcp("10.0.1.1", "10.0.0.2", 80), "matched"},
    {"AnotherPodByName", [](MatchSpec& m) { source_is(m, "projectcalico.org/name == 'server'"); }, kTcp80,
     "source is not projectcalico.org/name == 'server'"},
    {"HostNetworkPodIsNoEndpoint", [](MatchSpec& m) { source_is(m, "agent == 'yes'"); },
     tcp("192.168.0.1", "10.0.0.2", 80), "source is not agent == 'yes'"},
    {"SelectorAndNetsAreAnded",
     [](MatchSpec& m) {
       source_is(m, "role == 'client'");
       m.source.nets = nets({"10.0.1.0/24"});
     },
     kTcp80, "source is not in 10.0.1.0/24"},
    {"ServiceNobodyKnows",
     [](MatchSpec& m) {
       m.source.service = ServiceSpec{"default", "web"};
     },
     kTcp80, "source is not behind service default/web"},
};

void PrintTo(const RuleCase& tested, std::ostream* out) {
  *out << tested.name;
}

class RuleMatch : public testing::TestWithParam<RuleCase> {};

TEST_P(RuleMatch, Matches) {
  World world = cluster();
  MatchSpec match;
  GetParam().criteria(match);
  world.policy("default", "", "p", 1).ingress = rules({rule(Action::Allow, match)});
  const Program program = world.compile();
  const ProgramEndpoint* endpoint = program.enforced(GetParam().packet.destination);
  ASSERT_NE(endpoint, nullptr);
  const DirectionVerdict verdict =
      evaluate_direction(program, *endpoint, Direction::Ingress, GetParam().packet, Detail::Full);
  ASSERT_FALSE(verdict.trace.empty());
  EXPECT_EQ(verdict.trace[0].why, GetParam().why);
  const bool matched = verdict.trace[0].why == "matched";
  EXPECT_EQ(verdict.action == Action::Allow, matched);
  EXPECT_EQ(verdict.trace[0].result, matched ? StepResult::Allowed : StepResult::NoMatch);
}

INSTANTIATE_TEST_SUITE_P(Semantics, RuleMatch, testing::ValuesIn(kCases),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(RuleMatchSet, AlternativesAreOredAndEachReasonIsGivenOnce) {
  World world = cluster();
  PolicyRule any = rule(Action::Allow, from("role == 'server'"));
  any.any_of.push_back(to_port(port(443)));
  any.any_of.push_back(from("role == 'server'"));
  world.policy("default", "", "p", 1).ingress = rules({any});
  const Program program = world.compile();
  const auto verdict = [&](const Packet& packet) {
    return evaluate_direction(program, *program.enforced(packet.destination), Direction::Ingress, packet,
                              Detail::Full);
  };
  EXPECT_EQ(verdict(tcp("10.0.0.1", "10.0.0.2", 443)).action, Action::Allow);
  EXPECT_EQ(verdict(kTcp80).trace[0].why, "source is not role == 'server'; destination port is not 443");
}

TEST(RuleMatchSet, ManyReasonsAreCutShort) {
  World world = cluster();
  PolicyRule any = rule(Action::Allow, to_port(port(1)));
  for (std::uint16_t i = 2; i <= 5; ++i) any.any_of.push_back(to_port(port(i)));
  world.policy("default", "", "p", 1).ingress = rules({any});
  const Program program = world.compile();
  const auto verdict = evaluate_direction(program, *program.enforced(kTcp80.destination), Direction::Ingress,
                                          kTcp80, Detail::Full);
  EXPECT_EQ(verdict.trace[0].why,
            "destination port is not 1; destination port is not 2; destination port is not 3; and 2 more");
}

TEST(RuleMatchSet, EgressNamedPortsAreTheDestinations) {
  World world = cluster();
  Policy& policy = world.policy("default", "", "p", 1, "role == 'client'");
  policy.applies_ingress = false;
  policy.applies_egress = true;
  policy.egress = rules({rule(Action::Allow, to_port(port("http")))});
  const Program program = world.compile();
  EXPECT_EQ(decision(program, tcp("10.0.0.1", "10.0.0.2", 8080)), "allow no-policy");
  EXPECT_EQ(decision(program, tcp("10.0.0.1", "10.0.0.2", 9090)), "deny end of default after default//p");
}

TEST(RuleMatchSet, ServicesByAddressAsSourceAndByPortAsDestination) {
  World world = cluster();
  world.cluster.services = {{"default", "web", {ip("10.0.0.2")}, {{ip("10.0.0.2"), protocol::kTcp, 8080}}}};
  MatchSpec source, destination;
  source.source.service = destination.destination.service = ServiceSpec{"default", "web"};
  world.policy("default", "", "p", 1).ingress =
      rules({rule(Action::Allow, source), rule(Action::Allow, destination)});
  const Program program = world.compile();
  EXPECT_EQ(decision(program, tcp("10.0.0.2", "10.0.0.1", 1)), "allow default//p ingress[0]");
  EXPECT_EQ(decision(program, tcp("10.0.0.1", "10.0.0.2", 8080)), "allow default//p ingress[1]");
  EXPECT_EQ(decision(program, tcp("10.0.0.1", "10.0.0.2", 8081)), "deny end of default after default//p");
  EXPECT_EQ(decision(program, udp("10.0.0.1", "10.0.0.2", 8080)), "deny end of default after default//p");
}

}  // namespace
}  // namespace tierlog::policy::test
