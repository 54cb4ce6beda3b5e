// Random policies and packets: the engine and a second, naive evaluator agree on verdict, decider, logged
// rules and staged would-be verdicts. Seeds are fixed, so a failure can be run again by its number.
#include <random>

#include "tests/engine/naive.h"
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

constexpr int kPacketsPerWorld = 60;

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

const std::vector<std::string> kNamespaces{"n0", "n1", "n2"};
const std::vector<std::string> kRoles{"web", "db", "api"};
const std::vector<std::string> kSelectors{"all()",
                                          "role == 'web'",
                                          "role != 'web'",
                                          "!has(role)",
                                          "role in {'db', 'api'}",
                                          "role not in {'db'}",
                                          "zone == 'lan'",
                                          "zone == 'lan' || role == 'db'",
                                          "global()",
                                          "!global()",
                                          "pcns.team == 'a'",
                                          "pcns.team == 'a' && role == 'web'",
                                          "projectcalico.org/namespace == 'n0'",
                                          "projectcalico.org/namespace == 'n1' && zone == 'lan'",
                                          "projectcalico.org/name == 'p1'",
                                          "projectcalico.org/name in {'p2', 'lan'}",
                                          "pcsa.level == '3'",
                                          "projectcalico.org/serviceaccount == 'default'",
                                          "role starts with 'a'",
                                          "role contains 'b' && has(extra)"};
const std::vector<std::string> kNets{"10.0.0.0/8",   "10.0.1.0/24", "10.0.0.1", "10.0.0.0/31", "0.0.0.0/0",
                                     "192.0.2.0/24", "fd00::/64",   "fd00::1",  "::/0",        "10.0.0.4/30"};
const std::vector<std::string> kOutside{"192.0.2.1", "203.0.113.9", "2001:db8::9", "10.0.9.9"};
const std::vector<std::uint8_t> kProtocols{protocol::kTcp, protocol::kUdp, protocol::kSctp, protocol::kIcmp,
                                           253};
const std::vector<std::string> kPortNames{"http", "dns", "nope"};
const std::vector<std::uint16_t> kPorts{53, 80, 81, 8080, 65535};

class Generator {
 public:
  explicit Generator(unsigned seed) : dice_(seed) {}

  World world() {
    World world;
    cluster(world);
    tiers(world);
    const int policies = dice_.below(9);
    for (int i = 0; i < policies; ++i) policy(world, i);
    return world;
  }

  Packet packet(const World& world) {
    Packet packet;
    packet.source = address(world);
    do packet.destination = address(world);
    while (packet.destination.family != packet.source.family);
    packet.protocol = dice_.of(kProtocols);
    if (protocol::has_ports(packet.protocol)) {
      packet.source_port = dice_.of(kPorts);
      packet.destination_port = dice_.of(kPorts);
    }
    if (protocol::is_icmp(packet.protocol)) {
      packet.icmp_type = dice_.one_in(2) ? 8 : 0;
      packet.icmp_code = static_cast<std::uint8_t>(dice_.below(2));
    }
    return packet;
  }

 private:
  IpAddr address(const World& world) {
    if (dice_.one_in(5)) return ip(dice_.of(kOutside));
    return dice_.of(dice_.of(world.cluster.endpoints).addresses);
  }

  void cluster(World& world) {
    world.cluster.namespaces["n0"] = {"n0", {{"team", "a"}}, LogDecisions::None};
    world.cluster.namespaces["n1"] = {"n1", {{"team", "b"}}, LogDecisions::None};
    if (dice_.one_in(2)) world.set.namespaces = {{"n1", {{"team", "a"}}, LogDecisions::None}};
    world.cluster.service_accounts = {{"n0", "default", {{"level", "3"}}}, {"n1", "robot", {{"level", "3"}}}};
    for (int i = 0; i < 8; ++i) pod(world, i);
    for (const char* name : {"lan", "wan"}) world.cluster.network_sets.push_back(network_set(name));
    if (dice_.one_in(2)) world.set.network_sets.push_back(network_set("lan"));
  }

  void pod(World& world, int i) {
    const std::string number = std::to_string(i);
    std::vector<std::string> addresses{"10.0." + std::to_string(i % 2) + "." + number};
    if (dice_.one_in(2)) addresses.push_back("fd00::" + number);
    Labels labels;
    if (!dice_.one_in(4)) labels["role"] = dice_.of(kRoles);
    if (dice_.one_in(3)) labels["extra"] = "";
    Endpoint& pod = world.pod(dice_.of(kNamespaces), "p" + number, addresses, labels);
    pod.host_network = dice_.one_in(8);
    if (dice_.one_in(4)) pod.service_account = "robot";
    if (dice_.one_in(2)) pod.ports.push_back({"http", protocol::kTcp, dice_.of(kPorts)});
    if (dice_.one_in(3)) pod.ports.push_back({"dns", protocol::kUdp, 53});
  }

  NetworkSet network_set(const std::string& name) {
    NetworkSet result;
    result.name = name;
    if (dice_.one_in(2)) result.set_namespace = dice_.of(kNamespaces);
    result.labels = {{"zone", name}};
    if (dice_.one_in(3)) result.labels["role"] = dice_.of(kRoles);
    result.nets = some_nets();
    return result;
  }

  void tiers(World& world) {
    for (const char* name : {"t0", "T1", "t2"})
      if (dice_.one_in(2))
        world.tier(name, dice_.one_in(3) ? kNoOrder : dice_.below(3),
                   dice_.one_in(2) ? Action::Pass : Action::Deny);
  }

  void policy(World& world, int i) {
    static const std::vector<std::string> tier_names{"t0",      "T1",         "t2",
                                                     "default", "kube-admin", "kube-baseline"};
    const std::string ns = dice_.one_in(2) ? dice_.of(kNamespaces) : "";
    Policy& policy = world.policy(dice_.of(tier_names), ns, "policy-" + std::to_string(i % 4),
                                  dice_.one_in(4) ? kNoOrder : dice_.below(3), dice_.of(kSelectors));
    // Names come twice; the second one of a name and namespace is staged, or a kind of its own.
    if (i >= 4)
      policy.key.kind = ns.empty() ? PolicyKind::StagedGlobalNetworkPolicy : PolicyKind::StagedNetworkPolicy;
    policy.applies_ingress = !dice_.one_in(3);
    policy.applies_egress = !policy.applies_ingress || dice_.one_in(2);
    policy.ingress = some_rules();
    policy.egress = some_rules();
  }

  std::vector<PolicyRule> some_rules() {
    static const std::vector<Action> actions{Action::Allow, Action::Allow, Action::Deny, Action::Pass,
                                             Action::Log};
    std::vector<PolicyRule> result;
    for (int n = dice_.below(4); n > 0; --n) {
      PolicyRule next = rule(dice_.of(actions), match());
      if (dice_.one_in(3)) next.any_of.push_back(match());
      result.push_back(next);
    }
    return rules(result);
  }

  MatchSpec match() {
    MatchSpec match;
    if (dice_.one_in(3)) match.protocol = dice_.of(kProtocols);
    if (dice_.one_in(8)) match.not_protocol = dice_.of(kProtocols);
    if (dice_.one_in(8)) match.family = dice_.one_in(2) ? Family::V4 : Family::V6;
    if (dice_.one_in(10)) match.icmp = icmp();
    if (dice_.one_in(10)) match.not_icmp = icmp();
    peer(match.source);
    peer(match.destination);
    return match;
  }

  IcmpSpec icmp() {
    IcmpSpec spec{static_cast<std::uint8_t>(dice_.one_in(2) ? 8 : 0), {}};
    if (dice_.one_in(2)) spec.code = static_cast<std::uint8_t>(dice_.below(2));
    return spec;
  }

  void peer(PeerSpec& peer) {
    if (dice_.one_in(3)) peer.selector = selector(dice_.of(kSelectors));
    if (dice_.one_in(8)) peer.not_selector = selector(dice_.of(kSelectors));
    if (dice_.one_in(6)) peer.nets = some_nets();
    if (dice_.one_in(8)) peer.not_nets = some_nets();
    if (dice_.one_in(5)) peer.ports = some_ports();
    if (dice_.one_in(8)) peer.not_ports = some_ports();
  }

  std::vector<Cidr> some_nets() {
    std::vector<Cidr> result;
    for (int n = dice_.below(3); n >= 0; --n) result.push_back(net(dice_.of(kNets)));
    return result;
  }

  std::vector<PortSpec> some_ports() {
    std::vector<PortSpec> result;
    for (int n = dice_.below(2); n >= 0; --n) {
      const std::uint16_t first = dice_.of(kPorts), last = dice_.of(kPorts);
      result.push_back(
          dice_.one_in(3)
              ? port(dice_.of(kPortNames))
              : port(std::min(first, last), dice_.one_in(2) ? std::min(first, last) : std::max(first, last)));
    }
    return result;
  }

  Dice dice_;
};

std::string text(const Program& program, std::uint32_t index, int rule_index) {
  const ProgramPolicy& policy = program.policies[index];
  return std::string(name(policy.key.kind)) + " " + policy.display + " " + std::to_string(rule_index);
}

std::string text(const Program& program, RuleId id) {
  const RuleRef ref = program.by_id.at(id);
  if (ref.kind == RuleRef::Kind::EndOfTier) return "end " + program.tiers[program.ends[ref.index].tier].name;
  if (ref.kind == RuleRef::Kind::Reserved) return std::string(tierlog::name(find_reserved(id)->reason));
  return text(program, program.rules[ref.index].policy, program.rules[ref.index].index);
}

void expect_equal(const Program& program, const NaiveVerdict& expected,
                  const std::optional<DirectionVerdict>& verdict, Detail detail) {
  ASSERT_EQ(verdict.has_value(), expected.judged);
  if (!verdict) return;
  EXPECT_EQ(verdict->action, expected.action);
  EXPECT_EQ(text(program, verdict->rule), expected.decider);
  std::vector<std::string> logged, staged;
  for (const RuleId id : verdict->logged_by) logged.push_back(text(program, id));
  int deciding = 0;
  for (const TraceStep& step : verdict->trace) {
    deciding += step.decides ? 1 : 0;
    if (step.staged && step.result != StepResult::NoMatch && *step.rule_index >= 0)
      staged.push_back(text(program, step.policy, *step.rule_index) + " " + std::string(name(step.result)));
    EXPECT_EQ(step.why.empty(), detail == Detail::Summary);
  }
  EXPECT_EQ(deciding, 1);
  EXPECT_TRUE(verdict->trace.back().decides);
  EXPECT_EQ(logged, expected.logged);
  EXPECT_EQ(staged, expected.staged);
}

class RandomPolicies : public testing::TestWithParam<unsigned> {};

TEST_P(RandomPolicies, BothEvaluatorsAgree) {
  Generator generator(GetParam());
  World world = generator.world();
  const Program program = world.compile();
  for (int i = 0; i < kPacketsPerWorld && !HasFailure(); ++i) {
    const Packet packet = generator.packet(world);
    SCOPED_TRACE("packet " + std::to_string(i) + " " + packet.source.to_string() + " -> " +
                 packet.destination.to_string() + " " + protocol::name(packet.protocol) + " " +
                 std::to_string(packet.destination_port));
    const Detail detail = i % 2 == 0 ? Detail::Full : Detail::Summary;
    const Evaluation evaluation = evaluate(program, packet, detail, Directions::Both);
    const NaiveVerdict egress = naive(world.set, world.cluster, packet, Direction::Egress);
    const NaiveVerdict ingress = naive(world.set, world.cluster, packet, Direction::Ingress);
    expect_equal(program, egress, evaluation.egress, detail);
    expect_equal(program, ingress, evaluation.ingress, detail);
    const bool denied = egress.action == Action::Deny || ingress.action == Action::Deny;
    EXPECT_EQ(evaluation.action == Action::Deny, denied);
  }
  if (HasFailure()) ADD_FAILURE() << program.dump();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomPolicies, testing::Range(1u, 201u));

// The generator must reach what it is meant to compare.
TEST(RandomPoliciesReach, EveryKindOfOutcome) {
  std::map<std::string, int> seen;
  for (unsigned seed = 1; seed <= 200; ++seed) {
    Generator generator(seed);
    World world = generator.world();
    for (int i = 0; i < kPacketsPerWorld; ++i) {
      const Packet packet = generator.packet(world);
      for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
        const NaiveVerdict verdict = naive(world.set, world.cluster, packet, direction);
        if (!verdict.judged) continue;
        ++seen[verdict.decider.starts_with("end ")              ? "end"
               : verdict.decider.find(' ') == std::string::npos ? verdict.decider
               : verdict.action == Action::Allow                ? "allow"
                                                                : "deny"];
        if (!verdict.logged.empty()) ++seen["logged"];
        if (!verdict.staged.empty()) ++seen["staged"];
      }
    }
  }
  for (const char* outcome : {"end", "self", "no-policy", "profile", "allow", "deny", "logged", "staged"})
    EXPECT_GE(seen[outcome], 100) << outcome;
}

}  // namespace
}  // namespace tierlog::policy::test
