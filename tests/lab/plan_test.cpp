// Which nodes a lab will have, whose pods, which Service addresses; and the rules for its Services.
#include <gtest/gtest.h>

#include "base/yaml.h"
#include "lab/plan.h"
#include "lab/services.h"

namespace tierlog::lab {
namespace {

endpoints::Topology read(const std::string& text) {
  const auto parsed = yaml::parse(text, "t");
  EXPECT_FALSE(parsed.findings.has_errors()) << parsed.findings.to_string();
  const auto loaded = endpoints::read_topology(parsed.documents.at(0));
  EXPECT_EQ(loaded.findings.to_string(), "");
  return loaded.topology;
}

LabState plan(const std::string& text) {
  LabOptions options;
  options.folder = "/lab";
  return plan_state(read(text), "", options);
}

std::string names(const LabState& state) {
  std::string text;
  for (const auto& node : state.nodes) {
    text += node.name + ":";
    for (const auto& address : node.fixed) text += " " + address.to_string();
    text += ";";
  }
  return text;
}

struct Nodes {
  const char* name;
  const char* topology;
  const char* nodes;
};
class PlanNodes : public testing::TestWithParam<Nodes> {};
TEST_P(PlanNodes, AreThoseThatPodsName) {
  EXPECT_EQ(names(plan(GetParam().topology)), GetParam().nodes);
}
constexpr const char* kPodsOnTwo =
    "pods: [{name: a, namespace: n, ip: 10.0.0.1}, {name: b, namespace: n, ip: 10.0.1.1, node: node-2}, "
    "{name: c, namespace: n, ip: 10.0.2.1, node: node-3}]\n";
const std::string kListed =
    std::string(kPodsOnTwo) + "nodes: [{name: node-1}, {name: node-2}, {name: node-9}]\n";
const Nodes kNodes[] = {
    {"NoneListed", kPodsOnTwo, "node-1: 10.0.0.1;"},
    {"Listed", kListed.c_str(), "node-1: 10.0.0.1;node-2: 10.0.1.1;"},
    {"OnlyTheSecondHasPods",
     "nodes: [{name: a}, {name: b}]\npods: [{name: p, namespace: n, ip: 10.0.0.1, node: b}]\n",
     "b: 10.0.0.1;"},
    {"NoPods", "nodes: [{name: a}, {name: b}]\n", "a:;"},
    {"HostNetworkPodsHaveNoAddressOfTheirOwn",
     "nodes: [{name: a, ip: 10.9.0.1}]\npods: [{name: p, namespace: n, hostNetwork: true, ip: 10.9.0.1}]\n",
     "a:;"}};
INSTANTIATE_TEST_SUITE_P(All, PlanNodes, testing::ValuesIn(kNodes),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(Plan, EachNodeHasItsBlockOfPodAddresses) {
  const LabState state = plan(
      "nodes: [{name: a}, {name: b}]\n"
      "pods: [{name: p, namespace: n}, {name: q, namespace: n, node: b}]\n");
  EXPECT_EQ(state.nodes[0].pod_cidrs[0].to_string(), "10.244.0.0/24");
  EXPECT_EQ(state.nodes[1].pod_cidrs[0].to_string(), "10.244.1.0/24");
  EXPECT_EQ(state.nodes[1].pod_cidrs[1].to_string(), "fd00:244:0:1::/64");
  EXPECT_EQ(block(*Cidr::parse("10.0.255.0/24"), 2).to_string(), "10.1.1.0/24");
  EXPECT_EQ(block(*Cidr::parse("10.0.0.0/28"), 3).to_string(), "10.0.0.48/28");
}

TEST(Plan, AFlowIndexElsewhereIsOneOfEachNode) {
  LabOptions options;
  options.folder = "/lab";
  options.daemon_config["store.path"] = "/records/a.db";
  const auto topology = read(
      "nodes: [{name: n1}, {name: n2}]\npods: [{name: a, namespace: x, node: n1, ips: [10.0.0.1]}, "
      "{name: b, namespace: x, node: n2, ips: [10.0.0.2]}]");
  const LabState moved = plan_state(topology, "", options);
  ASSERT_EQ(moved.nodes.size(), 2u);
  EXPECT_EQ(moved.nodes[0].database, "/records/a.db");
  EXPECT_EQ(moved.nodes[1].database, "/records/n2/a.db");
  options.daemon_config.clear();
  EXPECT_EQ(plan_state(topology, "", options).nodes[1].database, "/lab/n2/flows.db");
}

TEST(Plan, OneFamilyAloneIsEverywhere) {
  const LabState state = plan(
      "lab: {families: [ipv6]}\npods: [{name: p, namespace: n}]\n"
      "services: [{name: s, namespace: n, selector: {a: b}, ports: [{port: 80}]}]\n");
  ASSERT_EQ(state.nodes[0].pod_cidrs.size(), 1u);
  EXPECT_EQ(state.outside.size(), 1u);
  ASSERT_EQ(state.services[0].cluster_ips.size(), 1u);
  EXPECT_EQ(state.services[0].cluster_ips[0].to_string(), "fd00:96::1");
}

TEST(Plan, RefusesWhatCannotWork) {
  const auto refusal = [](const std::string& text) {
    const auto topology = read(text);
    LabOptions options;
    options.folder = "/lab";
    const auto checked = check_plan(plan_state(topology, "", options), topology);
    return checked ? std::string() : checked.error().message;
  };
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root): without them only that is said";
  EXPECT_EQ(refusal("lab: {families: [ipv6]}\npods: [{name: p, namespace: n, ip: 10.0.0.1}]\n"),
            "pod n/p: 10.0.0.1 is of a family that is not in lab.families");
  EXPECT_EQ(
      refusal(
          "lab: {cni: bridge}\nnodes: [{name: a}, {name: b}]\n"
          "pods: [{name: p, namespace: n, ip: 10.0.0.1}, {name: q, namespace: n, ip: 10.0.0.2, node: b}]\n"),
      "10.0.0.2 of b is in the bridge's subnet 10.0.0.0/24 of a; expected subnets of their own, or "
      "lab.cni: ptp");
  EXPECT_EQ(refusal("nodes: [{name: outside}]\n"),
            "a node called \"outside\"; the lab calls another host that");
}

constexpr const char* kServices = R"(
nodes: [{name: a, ip: 192.0.2.10}, {name: b, ip: 192.0.2.11}]
services:
- {name: one, namespace: n, selector: {app: x}, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: http}]}
- {name: two, namespace: n, type: NodePort, sessionAffinity: ClientIP, externalTrafficPolicy: Local,
   backends: [10.9.0.1, 10.9.0.2], ports: [{port: 81, nodePort: 30081}, {name: b, port: 82, protocol: UDP}]}
- {name: empty, namespace: n, selector: {app: y}, ports: [{port: 83}]}
- {name: headless, namespace: n, clusterIP: None, selector: {app: x}, ports: [{port: 84}]}
)";

TEST(Services, GetAddressesAndNodePorts) {
  const auto services = assign_services(read(kServices));
  ASSERT_EQ(services.size(), 4u);
  EXPECT_EQ(services[0].cluster_ips.size(), 1u);
  EXPECT_EQ(services[1].cluster_ips[0].to_string(), "10.96.0.2") << "the first one is taken";
  EXPECT_EQ(services[2].cluster_ips[1].to_string(), "fd00:96::2");
  EXPECT_TRUE(services[3].cluster_ips.empty());
  EXPECT_EQ(services[1].ports[0].node_port, 30081);
  EXPECT_EQ(services[1].ports[1].node_port, 30000);
}

TEST(Services, RulesAreAsKubeProxyMakesThem) {
  LabState state = plan(kServices);
  PodState pod{"n/p", state.nodes.front().name, {}, {}, {{"app", "x"}}, {{"http", protocol::kTcp, 8080}}};
  pod.cni.container_id = "n_p";
  pod.cni.addresses = {*IpAddr::parse("10.1.0.5")};
  state.pods = {pod};
  const std::string rules = nat_rules(state, state.nodes[0], Family::V4);
  for (const char* expected :
       {"10.96.0.1 . tcp . 80 : goto svc-0-0", "ip saddr 10.1.0.5 jump mark-for-masquerade",
        "meta l4proto tcp dnat ip to 10.1.0.5:8080", "tcp . 30081 : goto ext-1-0",
        "udp . 30000 : goto ext-1-1", "jhash ip saddr mod 2 vmap", "10.96.0.3 . tcp . 83 : goto refuse",
        "meta l4proto udp dnat ip to 10.9.0.2:82", "type nat hook prerouting priority -100"})
    EXPECT_NE(rules.find(expected), std::string::npos) << expected << "\n" << rules;
  EXPECT_EQ(rules.find("saddr @pods ip daddr != @pods"), std::string::npos) << "masquerade is an option";
  state.masquerade = true;
  EXPECT_NE(nat_rules(state, state.nodes[0], Family::V4).find("saddr @pods ip daddr != @pods"),
            std::string::npos);
  EXPECT_NE(nat_rules(state, state.nodes[0], Family::V6).find("table ip6 lab-services"), std::string::npos);
}

}  // namespace
}  // namespace tierlog::lab
