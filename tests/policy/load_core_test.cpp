// Core objects and host endpoints among policy files.
#include <gtest/gtest.h>

#include "policy/cluster.h"
#include "policy/load.h"

namespace tierlog::policy {
namespace {

constexpr const char* kObjects = R"(apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: a, labels: {role: web}}
spec:
  nodeName: node-1
  serviceAccountName: shop
  containers: [{name: c, image: x, ports: [{name: http, containerPort: 8080}, {containerPort: 9}]}]
status: {podIP: 10.1.0.5, podIPs: [{ip: 10.1.0.5}, {ip: "fd01::5"}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: done, namespace: a}
status: {podIP: 10.1.0.6, phase: Succeeded}
---
apiVersion: v1
kind: Node
metadata: {name: node-1, labels: {zone: z}}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: node-1}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: shop, namespace: a, labels: {team: blue}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {role: web}, ports: [{port: 80, targetPort: http}], type: ClusterIP}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: a}
spec: {selector: {role: web}, ports: [{port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: a, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{port: 5432, protocol: TCP}]
endpoints: [{addresses: [10.9.0.1]}, {addresses: [10.9.0.2], conditions: {ready: false}}]
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink, labels: {role: node}}
spec: {node: node-1, interfaceName: eth0, expectedIPs: [192.0.2.1], profiles: [projectcalico-default-allow]}
)";

TEST(CoreObjects, SayWhoThereIs) {
  const Loaded loaded = load_text(kObjects, "f");
  ASSERT_EQ(loaded.findings.to_string(), "");
  Cluster cluster;
  add_objects(cluster, loaded.set);
  ASSERT_EQ(cluster.endpoints.size(), 1u) << "a pod that has ended is nobody";
  const Endpoint& pod = cluster.endpoints.front();
  EXPECT_EQ(pod.display(), "a/web-1");
  EXPECT_EQ(pod.addresses.size(), 2u);
  EXPECT_EQ(pod.node, "node-1");
  EXPECT_EQ(pod.service_account, "shop");
  EXPECT_EQ(pod.ports, (std::vector<NamedPort>{{"http", protocol::kTcp, 8080}}));
  ASSERT_EQ(cluster.nodes.size(), 1u);
  EXPECT_EQ(cluster.nodes.front().addresses, std::vector<IpAddr>{*IpAddr::parse("192.0.2.1")});
  EXPECT_EQ(cluster.service_accounts.size(), 1u);
  ASSERT_EQ(cluster.services.size(), 2u);
  EXPECT_EQ(cluster.services[0].name, "db");
  EXPECT_EQ(cluster.services[0].addresses,
            (std::vector<IpAddr>{*IpAddr::parse("10.9.0.1"), *IpAddr::parse("10.9.0.2")}))
      << "slices say it better, and a backend that is not ready is one to rules";
  EXPECT_EQ(cluster.services[1].ports.size(), 2u) << "the pod's port by its name, in both families";
  ASSERT_EQ(cluster.host_endpoints.size(), 1u);
  EXPECT_TRUE(cluster.host_endpoints.front().open);
}

TEST(CoreObjects, JoinWhatTheTopologySays) {
  const Loaded loaded = load_text(
      "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: a, labels: {b: new}}\nstatus: {podIP: 10.1.0.9}\n", "f");
  Cluster cluster;
  Endpoint known;
  known.endpoint_namespace = "a";
  known.name = "web";
  known.labels = {{"a", "1"}, {"b", "old"}};
  known.addresses = {*IpAddr::parse("10.1.0.5")};
  cluster.endpoints = {known};
  add_objects(cluster, loaded.set);
  ASSERT_EQ(cluster.endpoints.size(), 1u);
  EXPECT_EQ(cluster.endpoints[0].labels, (Labels{{"a", "1"}, {"b", "new"}}));
  EXPECT_EQ(cluster.endpoints[0].addresses, known.addresses);
}

struct Wrong {
  const char* name;
  const char* text;
  const char* findings;
};
class WrongHost : public testing::TestWithParam<Wrong> {};
TEST_P(WrongHost, IsToldWithItsPlace) {
  EXPECT_EQ(load_text(GetParam().text, "f").findings.to_string(), GetParam().findings);
}
const Wrong kWrong[] = {
    {"NoInterface",
     "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: h}\nspec: {node: n1}\n",
     "f:4:7: neither interfaceName nor expectedIPs; expected one of them, to say which interface\n"},
    {"PreDnatForEgress",
     "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec:\n  preDNAT: "
     "true\n"
     "  applyOnForward: true\n  egress: [{action: Allow}]\n",
     "f:7:3: a preDNAT policy for egress; expected ingress rules only\n"},
    {"DoNotTrackAlone",
     "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec:\n  doNotTrack: "
     "true\n",
     "f:5:3: doNotTrack without applyOnForward; expected applyOnForward: true, for it is about forwarded "
     "packets too\n"},
    {"LogRate",
     "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n"
     "metadata: {name: p, annotations: {tierlog.io/log-rate: 10/x}}\nspec: {}\n",
     "f:3:56: tierlog.io/log-rate \"10/x\" is no rate; expected messages per second, minute, hour or day, "
     "such as 10/s "
     "or 100/m\n"},
};
INSTANTIATE_TEST_SUITE_P(Table, WrongHost, testing::ValuesIn(kWrong),
                         [](const auto& param) { return std::string(param.param.name); });

TEST(LogRates, OfPolicyAndRule) {
  const Loaded loaded = load_text(R"(apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: p, annotations: {tierlog.io/log-rate: 10/s, tierlog.io/log-label: whole}}
spec:
  ingress:
  - {action: Log}
  - {action: Log, metadata: {annotations: {tierlog.io/log-rate: 5/m, tierlog.io/log-label: own}}}
  - {action: Deny}
)",
                                  "f");
  ASSERT_EQ(loaded.findings.to_string(), "");
  const auto& rules = loaded.set.policies.front().ingress;
  EXPECT_EQ(rules[0].log_rate, (LogRate{10, 1}));
  EXPECT_EQ(rules[0].log_label, "whole");
  EXPECT_EQ(rules[1].log_rate, (LogRate{5, 60}));
  EXPECT_EQ(rules[1].log_label, "own");
}

}  // namespace
}  // namespace tierlog::policy
