// Which tiers and policies are asked, in which order, and what their ends do.
#include <functional>

#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

struct OrderCase {
  const char* name;
  std::function<void(World&)> build;
  const char* expected;  // of a packet from default/client to default/server, port 80
};

// Allows when `allows`, else denies.
void verdict(Policy& policy, bool allows) {
  policy.ingress = rules({rule(allows ? Action::Allow : Action::Deny)});
}

const OrderCase kCases[] = {
    {"TiersByOrder",
     [](World& w) {
       w.tier("late", 20);
       w.tier("early", 10);
       verdict(w.policy("late", "", "a", 1), false);
       verdict(w.policy("early", "", "b", 1), true);
     },
     "allow early//b ingress[0]"},
    {"TiersWithEqualOrderByNameInBytes",
     [](World& w) {
       w.tier("b", 10);
       w.tier("B", 10);
       verdict(w.policy("b", "", "lower", 1), false);
       verdict(w.policy("B", "", "upper", 1), true);
     },
     "allow B//upper ingress[0]"},
    {"TierWithoutOrderAfterAllOrders",
     [](World& w) {
       w.tier("a", kNoOrder);
       verdict(w.policy("a", "", "x", 1), true);
       verdict(w.policy("kube-baseline", "", "y", 1), false);
     },
     "deny kube-baseline//y ingress[0]"},
    {"TierWithoutObjectAfterAllOthers",
     [](World& w) {
       w.tier("zz", kNoOrder);
       verdict(w.policy("aa", "", "x", 1), true);
       verdict(w.policy("zz", "", "y", 1), false);
     },
     "deny zz//y ingress[0]"},
    {"TierWithoutObjectIsEnforcedAndEndsWithDeny", [](World& w) { w.policy("ghost", "", "x", 1); },
     "deny end of ghost after ghost//x"},
    {"PoliciesByOrder",
     [](World& w) {
       verdict(w.policy("default", "", "a", 2), false);
       verdict(w.policy("default", "", "b", 1.5), true);
     },
     "allow default//b ingress[0]"},
    {"PolicyWithoutOrderIsLast",
     [](World& w) {
       verdict(w.policy("default", "", "a", kNoOrder), false);
       verdict(w.policy("default", "", "b", 1e12), true);
     },
     "allow default//b ingress[0]"},
    {"PoliciesWithEqualOrderByName",
     [](World& w) {
       verdict(w.policy("default", "", "b", 1), false);
       verdict(w.policy("default", "", "a", 1), true);
     },
     "allow default//a ingress[0]"},
    {"PoliciesWithEqualOrderAndNameByNamespace",
     [](World& w) {
       // "a//GlobalNetworkPolicy" sorts before "a/default/NetworkPolicy".
       verdict(w.policy("default", "default", "a", 1), false);
       verdict(w.policy("default", "", "a", 1), true);
     },
     "allow default//a ingress[0]"},
    {"NamespacedAndGlobalPoliciesShareOneOrder",
     [](World& w) {
       verdict(w.policy("default", "", "a", 3), true);
       verdict(w.policy("default", "default", "b", 2), false);
     },
     "deny default/default/b ingress[0]"},
    {"RulesInOrder",
     [](World& w) {
       w.policy("default", "", "a", 1).ingress =
           rules({rule(Action::Deny, to_port(port(81))), rule(Action::Allow), rule(Action::Deny)});
     },
     "allow default//a ingress[1]"},
    {"NoPolicySelects", [](World& w) { verdict(w.policy("default", "", "a", 1, "role == 'other'"), false); },
     "allow no-policy"},
    {"PolicyOfAnotherNamespaceSelectsNothingHere",
     [](World& w) { verdict(w.policy("default", "other", "a", 1), false); }, "allow no-policy"},
    {"NothingMatchesEndsWithTheDefaultAction",
     [](World& w) {
       w.policy("default", "", "a", 1).ingress = rules({rule(Action::Allow, to_port(port(81)))});
     },
     "deny end of default after default//a"},
    {"EndOfTierNamesTheLastPolicyAsked",
     [](World& w) {
       w.policy("default", "", "a", 1);
       w.policy("default", "", "b", 2);
       w.policy("default", "", "c", 3, "role == 'other'");
     },
     "deny end of default after default//b"},
    {"TierThatSelectsNothingIsSkipped",
     [](World& w) {
       w.tier("early", 1);
       w.policy("early", "", "a", 1, "role == 'other'");
       verdict(w.policy("default", "", "b", 1), true);
     },
     "allow default//b ingress[0]"},
    {"EgressPolicyDoesNotMakeItsTierApplyToIngress",
     [](World& w) {
       w.tier("early", 1);
       Policy& egress = w.policy("early", "", "a", 1);
       egress.applies_ingress = false;
       egress.applies_egress = true;
       egress.egress = rules({rule(Action::Allow)});
       verdict(w.policy("default", "", "b", 1), true);
     },
     "allow default//b ingress[0]"},
    {"EgressPolicyAloneLeavesIngressOpen",
     [](World& w) {
       Policy& egress = w.policy("default", "", "a", 1, "role == 'server'");
       egress.applies_ingress = false;
       egress.applies_egress = true;
     },
     "allow no-policy"},
    {"RulesOfADirectionThatDoesNotApplyAreIgnored",
     [](World& w) {
       Policy& policy = w.policy("default", "", "a", 1);
       policy.ingress = rules({rule(Action::Allow)});
       policy.egress = rules({rule(Action::Deny)});
     },
     "allow default//a ingress[0]"},
    {"PassGoesToTheNextTier",
     [](World& w) {
       w.tier("early", 1);
       w.policy("early", "", "a", 1).ingress = rules({rule(Action::Pass)});
       verdict(w.policy("early", "", "b", 2), false);
       verdict(w.policy("default", "", "c", 1), true);
     },
     "allow default//c ingress[0]"},
    {"PassSkipsTheEndOfItsTierButNotTheNextOnes",
     [](World& w) {
       w.tier("early", 1);
       w.policy("early", "", "a", 1).ingress = rules({rule(Action::Pass)});
       w.policy("default", "", "b", 1);
     },
     "deny end of default after default//b"},
    {"PassInTheLastTierGoesToTheProfile",
     [](World& w) { w.policy("default", "", "a", 1).ingress = rules({rule(Action::Pass)}); },
     "allow profile"},
    {"DefaultActionPassGoesOn",
     [](World& w) {
       w.tier("early", 1, Action::Pass);
       w.policy("early", "", "a", 1);
       verdict(w.policy("default", "", "b", 1), false);
     },
     "deny default//b ingress[0]"},
    {"DefaultActionPassOfTheLastTierGoesToTheProfile",
     [](World& w) { w.policy("kube-baseline", "", "a", 1); }, "allow profile"},
    {"KubeAdminIsBeforeDefaultAndPasses",
     [](World& w) {
       w.policy("kube-admin", "", "a", 1);
       verdict(w.policy("default", "", "b", 1), false);
     },
     "deny default//b ingress[0]"},
    {"BaselineIsAfterDefault",
     [](World& w) {
       verdict(w.policy("kube-baseline", "", "a", 1), true);
       w.policy("default", "", "b", 1);
     },
     "deny end of default after default//b"},
    {"LogGoesOnInTheSamePolicy",
     [](World& w) {
       w.policy("default", "", "a", 1).ingress = rules({rule(Action::Log), rule(Action::Allow)});
     },
     "allow default//a ingress[1]"},
    {"OnlyLogRulesDropAtTheEndOfTheTier",
     [](World& w) { w.policy("default", "", "a", 1).ingress = rules({rule(Action::Log)}); },
     "deny end of default after default//a"},
    {"LogGoesOnToTheNextPolicy",
     [](World& w) {
       w.policy("default", "", "a", 1).ingress = rules({rule(Action::Log)});
       verdict(w.policy("default", "", "b", 2), true);
     },
     "allow default//b ingress[0]"},
    {"StagedPolicyNeverDecides",
     [](World& w) {
       Policy& staged = w.policy("default", "", "a", 1);
       staged.key.kind = PolicyKind::StagedGlobalNetworkPolicy;
       verdict(staged, false);
       verdict(w.policy("default", "", "b", 2), true);
     },
     "allow default//b ingress[0]"},
    {"TierWithOnlyStagedPoliciesIsSkipped",
     [](World& w) {
       w.tier("early", 1);
       Policy& staged = w.policy("early", "", "a", 1);
       staged.key.kind = PolicyKind::StagedGlobalNetworkPolicy;
     },
     "allow no-policy"},
    {"StagedPolicyDoesNotChangeWhoTheEndNames",
     [](World& w) {
       w.policy("default", "", "a", 1);
       Policy& staged = w.policy("default", "", "b", 2);
       staged.key.kind = PolicyKind::StagedGlobalNetworkPolicy;
     },
     "deny end of default after default//a"},
    {"StagedPolicyMayShareItsNameWithAnEnforcedOne",
     [](World& w) {
       Policy& staged = w.policy("default", "default", "a", 1);
       staged.key.kind = PolicyKind::StagedNetworkPolicy;
       verdict(staged, false);
       verdict(w.policy("default", "default", "a", 1), true);
     },
     "allow default/default/a ingress[0]"},
    {"GlobalPolicyInKubeAdminBeforeAClusterPolicy",
     [](World& w) {
       Policy& cluster_policy = w.policy("kube-admin", "", "a", 1);
       cluster_policy.key.kind = PolicyKind::ClusterNetworkPolicy;
       verdict(cluster_policy, false);
       verdict(w.policy("kube-admin", "", "b", 0.5), true);
     },
     "allow kube-admin//b ingress[0]"},
    {"EgressOfTheSourceIsAskedFirst",
     [](World& w) {
       Policy& egress = w.policy("default", "", "a", 1, "role == 'client'");
       egress.applies_ingress = false;
       egress.applies_egress = true;
       egress.egress = rules({rule(Action::Deny)});
       verdict(w.policy("default", "", "b", 1, "role == 'server'"), false);
     },
     "deny default//a egress[0]"},
    {"IngressOfTheDestinationIsAskedAfterAnAllow",
     [](World& w) {
       Policy& egress = w.policy("default", "", "a", 1, "role == 'client'");
       egress.applies_ingress = false;
       egress.applies_egress = true;
       egress.egress = rules({rule(Action::Allow)});
       verdict(w.policy("default", "", "b", 1, "role == 'server'"), false);
     },
     "deny default//b ingress[0]"},
};

void PrintTo(const OrderCase& tested, std::ostream* out) {
  *out << tested.name;
}

class TierOrder : public testing::TestWithParam<OrderCase> {};

TEST_P(TierOrder, Decides) {
  World world;
  world.pod("default", "client", {"10.0.0.1"}, {{"role", "client"}});
  world.pod("default", "server", {"10.0.0.2"}, {{"role", "server"}});
  GetParam().build(world);
  EXPECT_EQ(decision(world.compile(), tcp("10.0.0.1", "10.0.0.2", 80)), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Semantics, TierOrder, testing::ValuesIn(kCases),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(TierOrderSet, TheOrderInTheFilesMeansNothing) {
  World world;
  world.pod("default", "server", {"10.0.0.2"});
  world.policy("default", "", "b", 1).ingress = rules({rule(Action::Deny)});
  world.policy("default", "", "a", 1).ingress = rules({rule(Action::Allow)});
  const std::string before = world.compile().dump();
  std::reverse(world.set.policies.begin(), world.set.policies.end());
  std::reverse(world.set.tiers.begin(), world.set.tiers.end());
  EXPECT_EQ(world.compile().dump(), before);
}

TEST(TierOrderSet, ClassOfATierWithOnlyStagedPoliciesHasNoEnd) {
  World world;
  world.pod("default", "server", {"10.0.0.2"});
  world.policy("default", "", "a", 1).key.kind = PolicyKind::StagedGlobalNetworkPolicy;
  const Program program = world.compile();
  const EndpointClass& ingress = program.classes[program.endpoints[0].ingress_class];
  ASSERT_EQ(ingress.tiers.size(), 1u);
  EXPECT_EQ(ingress.tiers[0].end, kNone);
  EXPECT_EQ(ingress.fallback, reserved::kNoPolicyIngress);
  EXPECT_TRUE(program.ends.empty());
}

TEST(TierOrderSet, FallbackIsPerDirection) {
  World world;
  world.pod("default", "server", {"10.0.0.2"});
  world.policy("default", "", "a", 1);
  const Program program = world.compile();
  EXPECT_EQ(program.classes[program.endpoints[0].ingress_class].fallback, reserved::kProfileIngress);
  EXPECT_EQ(program.classes[program.endpoints[0].egress_class].fallback, reserved::kNoPolicyEgress);
}

}  // namespace
}  // namespace tierlog::policy::test
