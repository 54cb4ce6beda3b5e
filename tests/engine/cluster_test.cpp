// Labels as selectors see them, owners by name.
#include "policy/cluster.h"

#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

TEST(EffectiveLabels, OfAnEndpoint) {
  World world;
  world.cluster.namespaces["ns"] = {"ns", {{"team", "a"}}, LogDecisions::None};
  world.cluster.service_accounts = {{"ns", "robot", {{"level", "3"}}}, {"other", "robot", {{"level", "9"}}}};
  Endpoint& pod = world.pod("ns", "db-0", {"10.0.0.1"}, {{"app", "db"}});
  pod.service_account = "robot";
  const Labels expected{{"app", "db"},
                        {"projectcalico.org/name", "db-0"},
                        {"projectcalico.org/namespace", "ns"},
                        {"projectcalico.org/orchestrator", "k8s"},
                        {"projectcalico.org/serviceaccount", "robot"},
                        {"pcns.team", "a"},
                        {"pcns.projectcalico.org/name", "ns"},
                        {"pcns.kubernetes.io/metadata.name", "ns"},
                        {"pcsa.level", "3"},
                        {"pcsa.projectcalico.org/name", "robot"}};
  EXPECT_EQ(effective_labels(world.cluster, pod), expected);
}

TEST(EffectiveLabels, OfAnEndpointWhoseNamespaceNobodyDeclared) {
  World world;
  const Labels labels = effective_labels(world.cluster, world.pod("ghost", "p", {"10.0.0.1"}));
  EXPECT_EQ(labels.at("pcns.kubernetes.io/metadata.name"), "ghost");
  EXPECT_EQ(labels.at("projectcalico.org/serviceaccount"), "default");
  EXPECT_EQ(labels.at("pcsa.projectcalico.org/name"), "default");
}

TEST(EffectiveLabels, OwnLabelsDoNotOverrideWhoAPodIs) {
  World world;
  const Labels labels = effective_labels(
      world.cluster, world.pod("ns", "p", {"10.0.0.1"}, {{"projectcalico.org/namespace", "kube-system"}}));
  EXPECT_EQ(labels.at("projectcalico.org/namespace"), "ns");
}

TEST(EffectiveLabels, OfNetworkSets) {
  World world;
  world.cluster.namespaces["ns"] = {"ns", {{"team", "a"}}, LogDecisions::None};
  const Labels global = effective_labels(world.cluster, NetworkSet{"", "lan", {{"zone", "x"}}, {}, {}});
  EXPECT_EQ(global, (Labels{{"zone", "x"}, {"projectcalico.org/name", "lan"}}));
  const Labels namespaced = effective_labels(world.cluster, NetworkSet{"ns", "lan", {}, {}, {}});
  EXPECT_EQ(namespaced.at("projectcalico.org/namespace"), "ns");
  EXPECT_EQ(namespaced.at("pcns.team"), "a");
}

TEST(ClusterFind, ByNamespaceAndName) {
  World world;
  world.pod("a", "p", {"10.0.0.1"});
  world.pod("b", "p", {"10.0.0.2"});
  ASSERT_NE(world.cluster.find("b", "p"), nullptr);
  EXPECT_EQ(world.cluster.find("b", "p")->addresses[0], ip("10.0.0.2"));
  EXPECT_EQ(world.cluster.find("c", "p"), nullptr);
}

struct OwnerCase {
  const char* name;
  const char* pod;
  const char* workload;
};

const OwnerCase kOwners[] = {
    {"Deployment", "web-7c9f8b6d5-x2x1z", "web"},
    {"DeploymentWithDashes", "my-web-app-5d4c8f9b7-k8zmn", "my-web-app"},
    {"StatefulSet", "db-0", "db"},
    {"StatefulSetHighNumber", "my-db-12", "my-db"},
    {"DaemonSet", "node-agent-k8zmn", "node-agent"},
    {"CronJob", "backup-28394850-x2bcd", "backup"},
    {"Plain", "web", "web"},
    {"PlainWithDash", "my-nginx", "my-nginx"},
    {"DeploymentOfPlainName", "my-nginx-x2bcd", "my-nginx"},
    {"OnlyADash", "-0", "-0"},
    {"Empty", "", ""},
};

void PrintTo(const OwnerCase& tested, std::ostream* out) {
  *out << tested.name;
}

class WorkloadOf : public testing::TestWithParam<OwnerCase> {};

TEST_P(WorkloadOf, IsTheOwner) {
  EXPECT_EQ(workload_of(GetParam().pod), GetParam().workload);
}

INSTANTIATE_TEST_SUITE_P(Names, WorkloadOf, testing::ValuesIn(kOwners),
                         [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace tierlog::policy::test
