// What the compiled Program is made of: sets, classes, ids, and what keeps them the same.
#include <functional>
#include <set>

#include "policy/set_table.h"
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

World two_pods() {
  World world;
  world.pod("default", "a-0", {"10.0.0.1"}, {{"role", "client"}});
  world.pod("default", "a-1", {"10.0.0.2"}, {{"role", "client"}});
  return world;
}

RuleId only_rule(const Program& program) {
  return program.rules.at(0).id;
}

// ---- sets

struct MinimalCase {
  const char* name;
  std::vector<std::string> nets;
  std::vector<std::string> expected;
};

const MinimalCase kMinimal[] = {
    {"Empty", {}, {}},
    {"Sorted", {"10.2.0.0/16", "10.1.0.0/16"}, {"10.1.0.0/16", "10.2.0.0/16"}},
    {"Duplicates", {"10.1.0.0/16", "10.1.0.0/16"}, {"10.1.0.0/16"}},
    {"Inside", {"10.1.2.3", "10.1.0.0/16", "10.0.0.0/8", "11.0.0.0/8"}, {"10.0.0.0/8", "11.0.0.0/8"}},
    {"SameStart", {"10.0.0.0/24", "10.0.0.0/8", "10.0.0.0/32"}, {"10.0.0.0/8"}},
    {"BothFamilies", {"::/0", "fd00::/8", "0.0.0.0/1", "1.2.3.4"}, {"0.0.0.0/1", "::/0"}},
    {"HostBits", {"10.1.2.3/8"}, {"10.0.0.0/8"}},
};

void PrintTo(const MinimalCase& tested, std::ostream* out) {
  *out << tested.name;
}

class Minimal : public testing::TestWithParam<MinimalCase> {};

TEST_P(Minimal, KeepsWhatLiesInNoOther) {
  std::vector<std::string> kept;
  for (const Cidr& cidr : minimal(nets(GetParam().nets))) {
    std::string text = cidr.to_string();
    kept.push_back(text);
  }
  std::vector<std::string> expected;
  for (const Cidr& cidr : nets(GetParam().expected)) expected.push_back(cidr.to_string());
  EXPECT_EQ(kept, expected);
}

INSTANTIATE_TEST_SUITE_P(Sets, Minimal, testing::ValuesIn(kMinimal),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(AddressSetTest, ContainsByMember) {
  const AddressSet set{"", "", minimal(nets({"10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "fd00::/64"}))};
  for (const char* inside :
       {"10.0.0.0", "10.255.255.255", "192.0.2.7", "fd00::", "fd00::ffff:ffff:ffff:ffff"})
    EXPECT_TRUE(set.contains(ip(inside))) << inside;
  for (const char* outside :
       {"9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "fd00:0:0:1::", "::", "255.255.255.255"})
    EXPECT_FALSE(set.contains(ip(outside))) << outside;
  EXPECT_FALSE(AddressSet{}.contains(ip("10.0.0.0")));
}

TEST(Sets, EqualMeaningIsOneSet) {
  World world = two_pods();
  MatchSpec listed, reordered;
  listed.source.nets = nets({"10.0.0.0/8", "192.0.2.0/24"});
  reordered.source.nets = nets({"192.0.2.0/24", "10.0.0.0/8", "10.3.0.0/16"});
  world.policy("default", "", "p", 1).ingress =
      rules({rule(Action::Allow, from("role == 'client'")), rule(Action::Deny, from("role==\"client\"")),
             rule(Action::Allow, listed), rule(Action::Deny, reordered)});
  const Program program = world.compile();
  ASSERT_EQ(program.sets.size(), 2u);
  EXPECT_EQ(program.sets[0].text, "role == 'client'");
  EXPECT_EQ(program.sets[0].members, nets({"10.0.0.1", "10.0.0.2"}));
  EXPECT_EQ(program.sets[1].members, nets({"10.0.0.0/8", "192.0.2.0/24"}));
}

TEST(Sets, NetworkSetsOfPolicyFilesComeOnTopOfTheTopologys) {
  World world = two_pods();
  world.cluster.network_sets = {{"", "lan", {{"zone", "lan"}}, nets({"10.1.0.0/16"}), {}},
                                {"", "wan", {{"zone", "lan"}}, nets({"10.2.0.0/16"}), {}}};
  world.set.network_sets = {{"", "lan", {{"zone", "lan"}}, nets({"10.3.0.0/16"}), {}}};
  world.policy("default", "", "p", 1).ingress = rules({rule(Action::Allow, from("zone == 'lan'"))});
  EXPECT_EQ(world.compile().sets[0].members, nets({"10.2.0.0/16", "10.3.0.0/16"}));
}

TEST(Sets, NamespacesOfPolicyFilesAddTheirLabels) {
  World world = two_pods();
  world.cluster.namespaces["default"] = {"default", {{"env", "test"}, {"team", "a"}}, LogDecisions::None};
  world.set.namespaces = {{"default", {{"env", "prod"}}, LogDecisions::None}};
  world.policy("default", "", "p", 1).ingress =
      rules({rule(Action::Allow, from("pcns.env == 'prod' && pcns.team == 'a'"))});
  EXPECT_EQ(world.compile().sets[0].members.size(), 2u);
}

TEST(Sets, NeverIsSetOnWhatIsImpossible) {
  World world = two_pods();
  world.cluster.endpoints[0].ports = {{"dns", protocol::kUdp, 53}};
  MatchSpec families;
  families.source.nets = nets({"10.0.0.0/8"});
  families.destination.nets = nets({"fd00::/8"});
  world.policy("default", "", "p", 1).ingress = rules(
      {rule(Action::Allow, families), rule(Action::Allow, to_port(port("nope"))),
       rule(Action::Allow, to_port(port("dns"))), rule(Action::Allow, to_port(port(80), protocol::kIcmp)),
       rule(Action::Allow, to_port(port("dns"), protocol::kUdp)), rule(Action::Allow)});
  const Program program = world.compile();
  std::vector<bool> never;
  for (const ProgramRule& compiled : program.rules) never.push_back(compiled.any_of[0].never);
  EXPECT_EQ(never, (std::vector{true, true, true, true, false, false}));
}

// ---- classes and scope

TEST(Classes, EqualResolutionsShareOnePerDirection) {
  World world = two_pods();
  world.pod("default", "b-0", {"10.0.0.3"}, {{"role", "server"}});
  world.policy("default", "", "all", 1);
  world.policy("default", "", "servers", 2, "role == 'server'");
  const Program program = world.compile();
  ASSERT_EQ(program.endpoints.size(), 3u);
  EXPECT_EQ(program.endpoints[0].ingress_class, program.endpoints[1].ingress_class);
  EXPECT_NE(program.endpoints[0].ingress_class, program.endpoints[2].ingress_class);
  EXPECT_EQ(program.endpoints[0].egress_class, program.endpoints[2].egress_class);
  EXPECT_EQ(program.classes.size(), 3u);
}

TEST(Classes, APolicyThatNamesAPodTellsItApart) {
  World world = two_pods();
  world.policy("default", "", "one", 1, "projectcalico.org/name == 'a-1'");
  const Program program = world.compile();
  EXPECT_NE(program.endpoints[0].ingress_class, program.endpoints[1].ingress_class);
  EXPECT_EQ(program.policies[0].endpoints_selected, 1u);
}

TEST(Classes, LocalScopeEnforcesLocalEndpointsOnly) {
  World world = two_pods();
  world.cluster.endpoints[1].local = true;
  world.pod("kube-system", "agent", {"192.168.0.1"}).host_network = true;
  world.cluster.endpoints[2].local = true;
  world.policy("default", "", "p", 1).ingress = rules({rule(Action::Allow, from("role == 'client'"))});
  const Program program = world.compile({CompileOptions::Scope::Local, 7});
  ASSERT_EQ(program.endpoints.size(), 1u);
  EXPECT_EQ(program.revision, 7u);
  EXPECT_EQ(program.enforced(ip("10.0.0.1")), nullptr);
  ASSERT_NE(program.enforced(ip("10.0.0.2")), nullptr);
  EXPECT_EQ(program.known(ip("10.0.0.1"))->name, "a-0");
  EXPECT_EQ(program.known(ip("192.168.0.1")), nullptr) << "a host-network pod has the node's address";
  EXPECT_EQ(program.sets[0].members.size(), 2u) << "peers are those of the whole cluster";
  EXPECT_EQ(program.policies[0].endpoints_selected, 2u);
}

TEST(Classes, WhoseAddressIsTakenTwiceIsTheEnforcedOne) {
  World world = two_pods();
  world.pod("default", "new", {"10.0.0.1"}).local = true;
  const Program program = world.compile({CompileOptions::Scope::Local, 1});
  EXPECT_EQ(program.known(ip("10.0.0.1"))->name, "new");
}

// ---- ids

struct IdCase {
  const char* name;
  std::function<void(World&)> change;
  bool keeps_id;
};

const IdCase kIds[] = {
    {"Nothing", [](World&) {}, true},
    {"OrderOfThePolicy", [](World& w) { w.set.policies[0].order = 99; }, true},
    {"SetMembership",
     [](World& w) {
       w.pod("default", "a-2", {"10.0.0.9"}, {{"role", "client"}});
     },
     true},
    {"TextOfTheRule", [](World& w) { w.set.policies[0].ingress[0].text = "other"; }, true},
    {"PlaceInTheFile",
     [](World& w) {
       w.set.policies[0].ingress[0].source = {"x.yaml", 3, 4};
     },
     true},
    {"OrderOfPorts",
     [](World& w) {
       auto& ports = w.set.policies[0].ingress[0].any_of[0].destination.ports;
       std::swap(ports[0], ports[1]);
     },
     true},
    {"OrderOfAlternatives",
     [](World& w) {
       auto& any_of = w.set.policies[0].ingress[0].any_of;
       std::swap(any_of[0], any_of[1]);
     },
     true},
    {"Name", [](World& w) { w.set.policies[0].key.name = "q"; }, false},
    {"Namespace", [](World& w) { w.set.policies[0].key.policy_namespace = "default"; }, false},
    {"Kind", [](World& w) { w.set.policies[0].key.kind = PolicyKind::StagedGlobalNetworkPolicy; }, false},
    {"Tier", [](World& w) { w.set.policies[0].tier = "kube-admin"; }, false},
    {"Index", [](World& w) { w.set.policies[0].ingress[0].index = 1; }, false},
    {"Action", [](World& w) { w.set.policies[0].ingress[0].action = Action::Deny; }, false},
    {"Matches", [](World& w) { w.set.policies[0].ingress[0].any_of[0].not_protocol = 7; }, false},
    {"OneAlternativeLess", [](World& w) { w.set.policies[0].ingress[0].any_of.pop_back(); }, false},
    {"SelectorOfThePolicy", [](World& w) { w.set.policies[0].subject = selector("has(role)"); }, false},
    {"TypesOfThePolicy", [](World& w) { w.set.policies[0].applies_egress = true; }, false},
};

void PrintTo(const IdCase& tested, std::ostream* out) {
  *out << tested.name;
}

class RuleIds : public testing::TestWithParam<IdCase> {};

TEST_P(RuleIds, StayWithTheirKey) {
  World world = two_pods();
  PolicyRule any = rule(Action::Allow, to_port(port(80)));
  any.any_of[0].destination.ports.push_back(port("http"));
  any.any_of.push_back(from("role == 'client'"));
  world.policy("default", "", "p", 1).ingress = {any};
  const RuleId before = only_rule(world.compile());
  GetParam().change(world);
  const Program changed = world.compile();
  EXPECT_EQ(only_rule(changed) == before, GetParam().keeps_id);
  EXPECT_GE(number(only_rule(changed)), kFirstPolicyRuleId);
}

INSTANTIATE_TEST_SUITE_P(Changes, RuleIds, testing::ValuesIn(kIds),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(RuleIdsSet, DirectionIsPartOfTheKey) {
  World world = two_pods();
  Policy& policy = world.policy("default", "", "p", 1);
  policy.applies_egress = true;
  policy.ingress = policy.egress = rules({rule(Action::Allow)});
  const Program program = world.compile();
  ASSERT_EQ(program.rules.size(), 2u);
  EXPECT_NE(program.rules[0].id, program.rules[1].id);
}

TEST(RuleIdsSet, RevisionGrowsOnceForAllNewRulesOfAPolicyAndNeverForOthers) {
  World world = two_pods();
  world.policy("default", "", "p", 1).ingress = rules({rule(Action::Allow), rule(Action::Deny)});
  world.policy("default", "", "q", 2).ingress = rules({rule(Action::Allow)});
  const auto revisions = [&] {
    const Program program = world.compile();
    return std::pair(program.policies[0].revision, program.policies[1].revision);
  };
  EXPECT_EQ(revisions(), std::pair(1u, 1u));
  world.set.policies[0].ingress =
      rules({rule(Action::Allow, to_port(port(1))), rule(Action::Deny, to_port(port(2)))});
  EXPECT_EQ(revisions(), std::pair(2u, 1u));
  world.set.policies[0].order = 3;
  world.set.policies[1].order = 4;
  EXPECT_EQ(revisions(), std::pair(2u, 1u));
}

TEST(RuleIdsSet, AnEndOfTierBelongsToItsListOfPolicies) {
  World world = two_pods();
  world.policy("default", "", "p", 1);
  const RuleId alone = world.compile().ends.at(0).id;
  EXPECT_EQ(world.compile().ends.at(0).id, alone);
  world.policy("default", "", "q", 2);
  const RuleId both = world.compile().ends.at(0).id;
  EXPECT_NE(both, alone);
  world.set.policies[1].order = 0;
  EXPECT_NE(world.compile().ends.at(0).id, both) << "another order is another list";
  world.set.policies.pop_back();
  EXPECT_EQ(world.compile().ends.at(0).id, alone) << "the same list again has its id again";
}

TEST(RuleIdsSet, AnEndOfTierChangesWithItsAction) {
  World world = two_pods();
  world.tier("t", 5, Action::Deny);
  world.policy("t", "", "p", 1);
  const RuleId denies = world.compile().ends.at(0).id;
  for (Tier& tier : world.set.tiers)
    if (tier.name == "t") tier.default_action = Action::Pass;
  EXPECT_NE(world.compile().ends.at(0).id, denies);
}

TEST(RuleIdsSet, EveryIdIsFound) {
  World world = two_pods();
  world.policy("default", "", "p", 1).ingress = rules({rule(Action::Allow)});
  const Program program = world.compile();
  EXPECT_EQ(program.by_id.at(program.rules[0].id).kind, RuleRef::Kind::Rule);
  EXPECT_EQ(program.by_id.at(program.ends[0].id).kind, RuleRef::Kind::EndOfTier);
  for (const ReservedRule& reserved : reserved_rules())
    EXPECT_EQ(program.by_id.at(reserved.id).kind, RuleRef::Kind::Reserved);
}

TEST(RuleKeyText, NoTwoKeysReadTheSame) {
  const auto key = [](std::string ns, std::string name, std::string tier, std::string canonical) {
    return RuleKey{RuleKey::Kind::Rule,
                   {PolicyKind::NetworkPolicy, std::move(ns), std::move(name)},
                   std::move(tier),
                   Direction::Ingress,
                   0,
                   std::move(canonical)}
        .text();
  };
  const std::set<std::string> texts{key("a", "b", "c", "d"),   key("a|b", "", "c", "d"),
                                    key("a", "b|c", "", "d"),  key("a\\", "b", "c", "d"),
                                    key("a", "\\b", "c", "d"), key("a", "b", "c", "d|")};
  EXPECT_EQ(texts.size(), 6u);
}

// The registry keeps these texts: another form would give every rule a new id.
TEST(RuleKeyText, HasItsForm) {
  const RuleKey key{
      RuleKey::Kind::Rule, {PolicyKind::NetworkPolicy, "a|b", "c\\"}, "t", Direction::Egress, 3, "x|y"};
  EXPECT_EQ(key.text(), R"(rule|NetworkPolicy|a\|b|c\\|t|egress|3|x\|y)");
  const RuleKey end{
      RuleKey::Kind::EndOfTier, {PolicyKind::GlobalNetworkPolicy, "", "p"}, "t", Direction::Ingress, -1, ""};
  EXPECT_EQ(end.text(), "end|GlobalNetworkPolicy||p|t|ingress|-1|");
}

TEST(RuleIdsSet, ARegistryThatFailsIsTheError) {
  struct Failing final : RuleIdRegistry {
    Result<std::vector<RuleIdentity>> identify(const std::vector<RuleKey>&) override {
      return fail(ErrorCode::Unavailable, "state.db: busy");
    }
  } failing;
  World world = two_pods();
  const auto program = tierlog::policy::compile(world.set, std::make_shared<Cluster>(world.cluster), failing);
  ASSERT_FALSE(program);
  EXPECT_EQ(program.error().message, "rule ids: state.db: busy");
}

// ---- logged decisions

struct LogCase {
  const char* name;
  LogDecisions of_policy, of_namespace;
  bool allow_is_logged, denied_end_is_logged;
};

const LogCase kLogs[] = {
    {"None", LogDecisions::None, LogDecisions::None, false, false},
    {"Deny", LogDecisions::Deny, LogDecisions::None, false, true},
    {"Allow", LogDecisions::Allow, LogDecisions::None, true, false},
    {"All", LogDecisions::All, LogDecisions::None, true, true},
    {"NamespaceDeny", LogDecisions::None, LogDecisions::Deny, false, true},
    {"NamespaceAll", LogDecisions::None, LogDecisions::All, true, true},
    {"BothJoined", LogDecisions::Allow, LogDecisions::Deny, true, true},
};

void PrintTo(const LogCase& tested, std::ostream* out) {
  *out << tested.name;
}

class LoggedDecisions : public testing::TestWithParam<LogCase> {};

TEST_P(LoggedDecisions, OfAKubernetesPolicyAndItsNamespace) {
  World world = two_pods();
  world.set.namespaces = {{"default", {}, GetParam().of_namespace}};
  Policy& policy = world.policy("default", "default", "p", 1000);
  policy.key.kind = PolicyKind::KubernetesNetworkPolicy;
  policy.log_decisions = GetParam().of_policy;
  policy.ingress = rules({rule(Action::Allow, to_port(port(80)))});
  const Program program = world.compile();
  const auto logged = [&](std::uint16_t destination_port) {
    return !evaluate(program, tcp("10.0.0.1", "10.0.0.2", destination_port)).deciding()->logged_by.empty();
  };
  EXPECT_EQ(logged(80), GetParam().allow_is_logged);
  EXPECT_EQ(logged(81), GetParam().denied_end_is_logged);
}

INSTANTIATE_TEST_SUITE_P(Annotation, LoggedDecisions, testing::ValuesIn(kLogs),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(LoggedDecisionsSet, TheNamespaceOfTheTopologyCountsAndCalicoPoliciesDoNot) {
  World world = two_pods();
  world.cluster.namespaces["default"] = {"default", {}, LogDecisions::All};
  world.policy("default", "default", "calico", 1).ingress = rules({rule(Action::Allow)});
  EXPECT_FALSE(world.compile().rules[0].log_decision);
  world.set.policies[0].key.kind = PolicyKind::KubernetesNetworkPolicy;
  EXPECT_TRUE(world.compile().rules[0].log_decision);
}

TEST(LoggedDecisionsSet, AnEndIsLoggedWhenOneOfItsPoliciesSaysSo) {
  World world = two_pods();
  world.policy("default", "", "quiet", 1);
  Policy& loud = world.policy("default", "default", "loud", 0);
  loud.key.kind = PolicyKind::KubernetesNetworkPolicy;
  loud.log_decisions = LogDecisions::Deny;
  const Program program = world.compile();
  const Evaluation evaluation = evaluate(program, tcp("10.0.0.1", "10.0.0.2", 1));
  EXPECT_EQ(evaluation.deciding()->logged_by, std::vector{program.ends[0].id});
}

}  // namespace
}  // namespace tierlog::policy::test
