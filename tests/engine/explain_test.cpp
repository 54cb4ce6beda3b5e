// Explanations: every name resolved, as JSON and back.
#include "policy/explain.h"

#include <nlohmann/json.hpp>

#include "policy/explain_json.h"
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

World tenants() {
  World world;
  world.pod("tenant-01", "db", {"10.0.0.2", "fd00::2"}, {{"role", "db"}});
  world.pod("tenant-02", "web", {"10.0.0.1"}, {{"role", "web"}});
  world.cluster.nodes = {{"n1", {}, {ip("192.168.0.1")}}};
  world.tier("security", 100, Action::Pass);
  world.tier("platform", 200);
  world.policy("security", "", "quarantine", 1).ingress = rules({rule(Action::Deny, from("state == 'bad'"))});
  Policy& restricted = world.policy("platform", "tenant-01", "restrict", 1);
  restricted.ingress = rules({rule(Action::Allow, from("role == 'api'")), rule(Action::Deny)});
  restricted.ingress[1].text = "Deny all";
  restricted.ingress[1].source = {"30.yaml", 18, 7};
  restricted.source = {"30.yaml", 5, 1};
  return world;
}

TEST(Explain, NamesEverything) {
  const Program program = tenants().compile();
  const Explanation explanation = explain(program, tcp("10.0.0.1", "10.0.0.2", 5432));
  EXPECT_EQ(explanation.source_name, "tenant-02/web");
  EXPECT_EQ(explanation.destination_name, "tenant-01/db");
  EXPECT_EQ(explanation.action, Action::Deny);
  ASSERT_TRUE(explanation.egress);
  EXPECT_EQ(explanation.egress->reason, Reason::NoPolicy);
  EXPECT_EQ(explanation.egress->skipped_tiers,
            (std::vector<std::string>{"security", "platform", "kube-admin", "default", "kube-baseline"}));
  ASSERT_TRUE(explanation.ingress);
  const ExplainedDirection& ingress = *explanation.ingress;
  EXPECT_EQ(ingress.endpoint, "tenant-01/db");
  EXPECT_EQ(ingress.reason, Reason::Policy);
  EXPECT_TRUE(ingress.skipped_tiers.empty());
  ASSERT_EQ(ingress.steps.size(), 4u);
  EXPECT_EQ(ingress.steps[0].policy, "security//quarantine");
  EXPECT_EQ(ingress.steps[0].policy_kind, "GNP");
  EXPECT_EQ(ingress.steps[0].why, "source is not state == 'bad'");
  EXPECT_EQ(ingress.steps[1].rule_index, -1);
  EXPECT_EQ(ingress.steps[1].action, "Pass");
  EXPECT_EQ(ingress.steps[1].policy, "");
  EXPECT_EQ(ingress.steps[2].why, "source is not role == 'api'");
  const ExplainedStep& decides = ingress.steps[3];
  EXPECT_TRUE(decides.decides);
  EXPECT_EQ(decides.policy, "platform/tenant-01/restrict");
  EXPECT_EQ(decides.action, "Deny");
  EXPECT_EQ(decides.text, "Deny all");
  EXPECT_EQ(decides.source, "30.yaml:18:7");
  EXPECT_EQ(decides.revision, 1u);
}

TEST(Explain, TiersBehindTheDecisionAreNotSkippedOnes) {
  World world = tenants();
  world.set.policies[1].tier = "security";
  const Program program = world.compile();
  const Explanation explanation = explain(program, tcp("10.0.0.1", "10.0.0.2", 5432));
  EXPECT_TRUE(explanation.ingress->skipped_tiers.empty());
}

// What a node sends to its own pods is allowed; the policies' own answer stands beside it.
TEST(Explain, ANodeReachesItsOwnPods) {
  World world = tenants();
  world.cluster.nodes.push_back({"n2", {}, {ip("192.168.0.2")}});
  for (Endpoint& pod : world.cluster.endpoints) pod.node = "n1";
  const Program program = world.compile();
  const Explanation own = explain(program, tcp("192.168.0.1", "10.0.0.2", 5432), NodesReach::OwnPods);
  EXPECT_EQ(own.action, Action::Allow);
  ASSERT_TRUE(own.ingress && own.by_policies_alone);
  EXPECT_EQ(own.ingress->reason, Reason::Host);
  EXPECT_EQ(own.ingress->steps.back().rule, reserved::kHostIngress);
  EXPECT_EQ(own.by_policies_alone->action, Action::Deny);
  EXPECT_EQ(own.by_policies_alone->steps.back().policy, "platform/tenant-01/restrict");
  const auto json = to_json(own);
  EXPECT_EQ(json["action"], "allow");
  EXPECT_EQ(json["decides"]["rule_id"], number(reserved::kHostIngress));
  EXPECT_EQ(json["by_policies_alone"]["action"], "deny");
  const auto back = explanation_from_json(json);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(to_json(*back), json);
  const Explanation other = explain(program, tcp("192.168.0.2", "10.0.0.2", 5432), NodesReach::OwnPods);
  EXPECT_EQ(other.action, Action::Deny) << "another node is judged by policy";
  EXPECT_FALSE(other.by_policies_alone);
  EXPECT_EQ(explain(program, tcp("192.168.0.1", "10.0.0.2", 5432)).action, Action::Deny)
      << "as the program says";
}

TEST(Explain, NamesOfEnds) {
  const Program program = tenants().compile();
  EXPECT_EQ(explain(program, tcp("203.0.113.9", "10.0.0.2", 1)).source_name, "outside 203.0.113.9");
  EXPECT_EQ(explain(program, tcp("192.168.0.1", "10.0.0.2", 1)).source_name, "node n1");
  EXPECT_FALSE(explain(program, tcp("192.168.0.1", "10.0.0.2", 1)).egress);
}

TEST(Explain, ReasonsOfReservedIdsAndEnds) {
  World world = tenants();
  world.set.policies[1].ingress.pop_back();
  const Program program = world.compile();
  const Explanation end = explain(program, tcp("10.0.0.1", "10.0.0.2", 1));
  EXPECT_EQ(end.ingress->reason, Reason::EndOfTier);
  EXPECT_EQ(end.ingress->steps.back().action, "Deny");
  const Explanation profile = explain(program, tcp("203.0.113.9", "10.0.0.1", 1));
  EXPECT_EQ(profile.ingress->reason, Reason::Profile);
  EXPECT_EQ(profile.ingress->steps.back().action, "Allow");
  const Explanation self = explain(program, tcp("10.0.0.2", "10.0.0.2", 1));
  EXPECT_EQ(self.ingress->reason, Reason::Self);
  EXPECT_TRUE(self.ingress->skipped_tiers.empty());
}

TEST(Explain, WhoByNameOrAddress) {
  const World world = tenants();
  EXPECT_EQ(resolve_who(world.cluster, "tenant-01/db"), ip("10.0.0.2"));
  EXPECT_EQ(resolve_who(world.cluster, "tenant-01/db", Family::V6), ip("fd00::2"));
  EXPECT_EQ(resolve_who(world.cluster, "tenant-02/web", Family::V6), ip("10.0.0.1"));
  EXPECT_EQ(resolve_who(world.cluster, "203.0.113.9"), ip("203.0.113.9"));
  for (const char* unknown : {"tenant-01/nope", "db", "", "/", "10.0.0.0/8"})
    EXPECT_FALSE(resolve_who(world.cluster, unknown)) << unknown;
}

TEST(ExplainJson, GoesThereAndBack) {
  World world = tenants();
  Policy& staged = world.policy("platform", "tenant-01", "tighten", 0);
  staged.key.kind = PolicyKind::StagedNetworkPolicy;
  staged.ingress = rules({rule(Action::Log), rule(Action::Deny)});
  const Program program = world.compile();
  Packet ping{ip("10.0.0.1"), ip("10.0.0.2"), protocol::kIcmp, 0, 0, 8, 1};
  for (const Packet& packet : {tcp("10.0.0.1", "10.0.0.2", 5432), ping, tcp("203.0.113.9", "10.0.0.1", 1),
                               tcp("203.0.113.9", "203.0.113.8", 1)}) {
    const nlohmann::ordered_json json = to_json(explain(program, packet));
    const auto back = explanation_from_json(nlohmann::json::parse(json.dump()));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(to_json(*back), json);
    EXPECT_EQ(back->packet.icmp_code, packet.icmp_code);
  }
}

TEST(ExplainJson, SaysWhoDecides) {
  const Program program = tenants().compile();
  const nlohmann::json json = to_json(explain(program, tcp("10.0.0.1", "10.0.0.2", 5432)));
  EXPECT_EQ(json["action"], "deny");
  EXPECT_EQ(json["decides"]["policy"], "platform/tenant-01/restrict");
  EXPECT_EQ(json["decides"]["rule"], 1);
  EXPECT_EQ(json["ingress"]["trace"][3]["result"], "deny");
  EXPECT_TRUE(json["egress"]["trace"][0]["policy"].is_null());
}

struct BrokenJson {
  const char* name;
  const char* path;
  nlohmann::json value;
};

const BrokenJson kBroken[] = {
    {"UnknownAction", "/action", "maybe"},
    {"NoAddress", "/src_ip", "here"},
    {"UnknownProtocol", "/proto", "tpc"},
    {"NumberForText", "/dst_name", 5},
    {"UnknownReason", "/ingress/reason", "x"},
    {"UnknownResult", "/ingress/trace/0/result", "x"},
    {"TextForNumber", "/ingress/trace/0/rule_id", "x"},
};

void PrintTo(const BrokenJson& tested, std::ostream* out) {
  *out << tested.name;
}

class BrokenExplanations : public testing::TestWithParam<BrokenJson> {};

TEST_P(BrokenExplanations, AreRefused) {
  const Program program = tenants().compile();
  nlohmann::json json = to_json(explain(program, tcp("10.0.0.1", "10.0.0.2", 5432)));
  json[nlohmann::json::json_pointer(GetParam().path)] = GetParam().value;
  const auto back = explanation_from_json(json);
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code, ErrorCode::InvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Json, BrokenExplanations, testing::ValuesIn(kBroken),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace tierlog::policy::test
