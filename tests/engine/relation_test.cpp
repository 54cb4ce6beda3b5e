// Rules about nodes, and rules that compare the peer's namespace with the subject's.
#include "policy/load.h"
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

// Namespaces a1 and a2 have team=a, b has team=b and zone=1, none has no label; one pod each, and a node.
World cluster() {
  World world;
  const auto ns = [&](const std::string& name, Labels labels) {
    labels[label::kKubernetesNamespaceName] = name;
    world.cluster.namespaces[name] = {name, std::move(labels), {}};
  };
  ns("a1", {{"team", "a"}});
  ns("a2", {{"team", "a"}, {"zone", "1"}});
  ns("b", {{"team", "b"}, {"zone", "1"}});
  ns("none", {});
  world.pod("a1", "p", {"10.0.0.1"});
  world.pod("a2", "p", {"10.0.0.2"});
  world.pod("b", "p", {"10.0.0.3"});
  world.pod("none", "p", {"10.0.0.4"});
  world.cluster.nodes = {{"n1", {{"os", "linux"}}, {ip("192.168.0.1"), ip("fd00:1::1")}},
                         {"n2", {}, {ip("192.168.0.2")}}};
  return world;
}

std::string admin(const std::string& rules) {
  return "{apiVersion: policy.networking.k8s.io/v1alpha1, kind: AdminNetworkPolicy, metadata: {name: p}, "
         "spec: {priority: 1, subject: {namespaces: {}}, " +
         rules + "}}";
}

constexpr const char* kSame = "ingress: [{action: Deny, from: [{namespaces: {sameLabels: [team]}}]}]";
constexpr const char* kOther = "ingress: [{action: Deny, from: [{namespaces: {notSameLabels: [team]}}]}]";
constexpr const char* kBoth =
    "ingress: [{action: Deny, from: [{namespaces: {notSameLabels: [team, zone]}}]}]";
constexpr const char* kOut = "egress: [{action: Deny, to: [{namespaces: {sameLabels: [team]}}]}]";
constexpr const char* kLinux = "egress: [{action: Deny, to: [{nodes: {matchLabels: {os: linux}}}]}]";
constexpr const char* kNodes = "egress: [{action: Deny, to: [{nodes: {}}]}]";
constexpr const char* kNotLinux =
    "egress: [{action: Deny, to: [{nodes: {matchExpressions: [{key: os, operator: NotIn, values: "
    "[linux]}]}}]}]";

struct Case {
  const char* name;
  const char* rules;
  const char* from;
  const char* to;
  Action verdict;
};

class Relation : public testing::TestWithParam<Case> {};

TEST_P(Relation, Decides) {
  World world = cluster();
  const Loaded loaded = load_text(admin(GetParam().rules), "p.yaml");
  ASSERT_EQ(loaded.findings.to_string(), "");
  world.set = loaded.set;
  const Program program = world.compile();
  EXPECT_EQ(evaluate(program, tcp(GetParam().from, GetParam().to, 80)).action, GetParam().verdict);
}

const Case kCases[] = {
    {"SameValue", kSame, "10.0.0.1", "10.0.0.2", Action::Deny},
    {"AnotherValue", kSame, "10.0.0.1", "10.0.0.3", Action::Allow},
    {"SubjectWithoutLabel", kSame, "10.0.0.1", "10.0.0.4", Action::Allow},
    {"PeerWithoutLabel", kSame, "10.0.0.4", "10.0.0.1", Action::Allow},
    {"BothWithout", kSame, "10.0.0.4", "10.0.0.4", Action::Allow},
    {"UnknownAddress", kSame, "203.0.113.9", "10.0.0.1", Action::Allow},
    {"NotSameValue", kOther, "10.0.0.1", "10.0.0.3", Action::Deny},
    {"NotSameButSame", kOther, "10.0.0.1", "10.0.0.2", Action::Allow},
    {"NotSameNeedsTheLabel", kOther, "10.0.0.4", "10.0.0.1", Action::Allow},
    {"NotSameNeedsItOfTheSubject", kOther, "10.0.0.1", "10.0.0.4", Action::Allow},
    {"OneOfTwoDiffers", kBoth, "10.0.0.2", "10.0.0.3", Action::Deny},
    {"OneOfTwoIsMissing", kBoth, "10.0.0.1", "10.0.0.3", Action::Allow},
    {"Egress", kOut, "10.0.0.1", "10.0.0.2", Action::Deny},
    {"EgressToAnother", kOut, "10.0.0.1", "10.0.0.3", Action::Allow},
    {"Node", kLinux, "10.0.0.1", "192.168.0.1", Action::Deny},
    {"NodeByItsOtherAddress", kNodes, "10.0.0.1", "192.168.0.2", Action::Deny},
    {"AnotherNode", kLinux, "10.0.0.1", "192.168.0.2", Action::Allow},
    {"NodeWithoutTheLabel", kNotLinux, "10.0.0.1", "192.168.0.2", Action::Deny},
    {"PodsAreNoNodes", kNodes, "10.0.0.1", "10.0.0.3", Action::Allow},
    {"NorIsAnybody", kNodes, "10.0.0.1", "203.0.113.9", Action::Allow},
};

INSTANTIATE_TEST_SUITE_P(All, Relation, testing::ValuesIn(kCases),
                         [](const auto& param) { return param.param.name; });

TEST(Relations, IdsDoNotDependOnTheNamespacesThatAreThere) {
  World world = cluster();
  world.set = load_text(admin(kSame), "p.yaml").set;
  const RuleId before = world.compile().rules.at(0).id;
  world.cluster.namespaces["b"].labels["team"] = "c";
  EXPECT_EQ(world.compile().rules.at(0).id, before);
}

}  // namespace
}  // namespace tierlog::policy::test
