#include "endpoints/topology.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tierlog::endpoints {
namespace {

LoadedTopology read(std::string_view text) {
  const yaml::Documents documents = yaml::parse(text, "t");
  EXPECT_EQ(documents.findings.to_string(), "");
  EXPECT_EQ(documents.documents.size(), 1u);
  return read_topology(documents.documents.at(0));
}

Topology good(std::string_view text) {
  LoadedTopology loaded = read(text);
  EXPECT_EQ(loaded.findings.to_string(), "") << text;
  return std::move(loaded.topology);
}

TEST(Topology, PodsAndNamespaces) {
  const Topology topology = good(R"(
namespaces:
- {name: shop, labels: {team: blue}}
pods:
- name: web-7c9f8b6d5-x2x1z
  namespace: shop
  labels: {role: web}
  ips: ["10.0.0.5", "fd00::5"]
  ip: 10.0.0.5
  ports: [{name: http, port: 80}, {name: dns, protocol: UDP, port: 53}]
  serviceAccount: shopper
  node: n1
- {name: bare, namespace: shop}
- {name: proxy, namespace: shop, ip: 192.168.0.1, hostNetwork: true}
- {name: proxy2, namespace: shop, ip: 192.168.0.1, hostNetwork: true}
)");
  const policy::Cluster& cluster = topology.cluster;
  EXPECT_EQ(cluster.namespaces.at("shop").labels,
            (policy::Labels{{"kubernetes.io/metadata.name", "shop"}, {"team", "blue"}}));
  ASSERT_EQ(cluster.endpoints.size(), 4u);
  const policy::Endpoint& pod = cluster.endpoints[0];
  EXPECT_EQ(pod.display(), "shop/web-7c9f8b6d5-x2x1z");
  EXPECT_EQ(pod.addresses.size(), 2u);
  EXPECT_EQ(pod.addresses[1].to_string(), "fd00::5");
  EXPECT_EQ(pod.ports, (std::vector<policy::NamedPort>{{"http", 6, 80}, {"dns", 17, 53}}));
  EXPECT_EQ(pod.service_account, "shopper");
  EXPECT_EQ(pod.workload, "web");
  EXPECT_FALSE(pod.local);
  EXPECT_TRUE(cluster.endpoints[1].addresses.empty());
  EXPECT_TRUE(cluster.endpoints[2].host_network);
}

TEST(Topology, TheRest) {
  const Topology topology = good(R"(
nodes: [{name: n1, labels: {zone: a}, ip: 192.168.0.1}]
serviceAccounts: [{name: sa, namespace: shop, labels: {team: x}}]
networksets:
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: s, labels: {a: b}}, spec: {nets: [10.0.0.0/8]}}
lab: {cni: bridge, dataplane: ebpf, pod_cidrs: [10.9.0.0/24], outside: [192.0.2.1]}
)");
  EXPECT_EQ(topology.cluster.nodes.at(0).addresses.at(0).to_string(), "192.168.0.1");
  EXPECT_EQ(topology.cluster.service_accounts.at(0).labels, (policy::Labels{{"team", "x"}}));
  EXPECT_EQ(topology.cluster.network_sets.at(0).nets.at(0).to_string(), "10.0.0.0/8");
  EXPECT_EQ(topology.lab.cni, LabOptions::Cni::Bridge);
  EXPECT_EQ(topology.lab.dataplane, "ebpf");
  EXPECT_EQ(topology.lab.pod_cidrs.size(), 1u);
  EXPECT_EQ(topology.lab.outside.at(0).to_string(), "192.0.2.1");
}

TEST(Topology, LabDefaults) {
  const LabOptions lab = good("pods: []\n").lab;
  EXPECT_EQ(lab.cni, LabOptions::Cni::Ptp);
  EXPECT_EQ(lab.dataplane, "nftables");
  ASSERT_EQ(lab.pod_cidrs.size(), 2u);
  EXPECT_EQ(lab.pod_cidrs[0].to_string(), "10.244.0.0/24");
  ASSERT_EQ(lab.outside.size(), 2u);
  EXPECT_EQ(lab.outside[1].to_string(), "2001:db8:113::9");
}

TEST(Topology, ServicesAreTheirBackends) {
  const Topology topology = good(R"(
pods:
- {name: a, namespace: ns, labels: {app: x}, ips: [10.0.0.1, "fd00::1"], ports: [{name: http, port: 8080}]}
- {name: b, namespace: ns, labels: {app: x}, ip: 10.0.0.2}
- {name: c, namespace: other, labels: {app: x}, ip: 10.0.0.3}
services:
- {name: s, namespace: ns, selector: {app: x}, ports: [{port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]}
endpointSlices:
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: e, namespace: ns, labels: {kubernetes.io/service-name: t}}
  addressType: IPv4
  endpoints: [{addresses: [10.9.0.1]}, {addresses: [10.9.0.2], conditions: {ready: false}}]
  ports: [{port: 443, protocol: TCP}]
)");
  ASSERT_EQ(topology.cluster.services.size(), 2u);
  const policy::ServiceObject& service = topology.cluster.services[0];
  EXPECT_EQ(service.name, "s");
  EXPECT_EQ(service.addresses.size(), 3u) << "two of a, one of b";
  EXPECT_EQ(service.ports.size(), 5u) << "http on both addresses of a, dns on three";
  const policy::ServiceObject& slice = topology.cluster.services[1];
  EXPECT_EQ(slice.name, "t");
  ASSERT_EQ(slice.addresses.size(), 2u) << "ready or not, to a rule that names the Service";
  EXPECT_EQ(slice.ports.at(0).port, 443);
}

TEST(Topology, ServicesAreAlsoWhatTheySay) {
  const Topology topology = good(R"(
services:
- {name: s, namespace: ns, selector: {app: x}, type: NodePort, externalTrafficPolicy: Local, sessionAffinity: ClientIP,
   clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, "fd00::1"], ports: [{name: h, port: 80, targetPort: http, nodePort: 30080}]}
- {name: b, namespace: ns, clusterIP: None, backends: [10.0.0.9], ports: [{port: 53, targetPort: 5353, protocol: UDP}]}
- {name: t, namespace: ns, ports: [{name: https, port: 443}, {name: other, port: 1}]}
endpointSlices:
- metadata: {name: e, namespace: ns, labels: {kubernetes.io/service-name: t}}
  endpoints: [{addresses: [10.9.0.1]}, {addresses: [10.9.0.2], conditions: {ready: false}}]
  ports: [{name: https, port: 8443}]
)");
  ASSERT_EQ(topology.services.size(), 3u);
  const Service& s = topology.services[0];
  EXPECT_TRUE(s.node_port && s.local_only && s.affinity && !s.headless);
  ASSERT_EQ(s.cluster_ips.size(), 2u);
  EXPECT_EQ(s.ports.at(0), (ServicePort{"h", protocol::kTcp, 80, 0, "http", 30080}));
  EXPECT_TRUE(topology.services[1].headless);
  EXPECT_EQ(topology.services[1].backends,
            (std::vector<Service::Backend>{{*IpAddr::parse("10.0.0.9"), 0, 5353}}));
  EXPECT_EQ(topology.services[2].backends,
            (std::vector<Service::Backend>{{*IpAddr::parse("10.9.0.1"), 0, 8443}}));
  EXPECT_EQ(topology.cluster.services.at(1).ports.at(0).port, 5353) << "backends by address count too";
}

TEST(Topology, ALabOfOneFamilyHasNoOther) {
  const LabOptions lab = good("lab: {families: [ipv4], masquerade: true}\n").lab;
  EXPECT_EQ(lab.pod_cidrs.size(), 1u);
  EXPECT_EQ(lab.service_cidrs.size(), 1u);
  EXPECT_EQ(lab.outside.size(), 1u);
  EXPECT_TRUE(lab.masquerade);
  EXPECT_FALSE(lab.has(Family::V6));
}

struct Wrong {
  const char* name;
  const char* text;
  const char* findings;
};

class TopologyFindings : public testing::TestWithParam<Wrong> {};

TEST_P(TopologyFindings, AllAtOnce) {
  EXPECT_EQ(read(GetParam().text).findings.to_string(), GetParam().findings);
}

const Wrong kWrong[] = {
    {"UnknownField", "pod: []\n",
     "t:1:1: unknown field \"pod\" in the topology; expected endpointSlices, hostEndpoints, lab, namespaces, networksets, "
     "nodes, pods, "
     "serviceAccounts or services (did you mean pods?)\n"},
    {"Pods",
     "pods:\n- {name: a, namespace: ns, ip: 10.0.0.1, lables: {}}\n- {name: a, namespace: ns, ip: "
     "10.0.0.300}\n- "
     "{name: b, namespace: ns, ip: 10.0.0.1}\n- {namespace: ns}\n- {name: c}\n",
     "t:2:42: unknown field \"lables\" in a pod; expected hostNetwork, ip, ips, labels, name, namespace, "
     "node, ports or "
     "serviceAccount (did you mean labels?)\n"
     "t:3:10: duplicate pod ns/a; expected it once (first in t:2:10)\n"
     "t:3:32: \"10.0.0.300\" is no address; expected one like 10.244.1.7 or fd00:244:1::7\n"
     "t:4:28: 10.0.0.1 is the address of ns/a already; expected one that is free\n"
     "t:5:3: missing field \"name\" in a pod; it is required\n"
     "t:6:3: missing field \"namespace\" in a pod; it is required\n"},
    {"Ports",
     "pods:\n- {name: a, namespace: ns, ports: [{port: 0}, {name: x}, {port: 5, protocol: ICMP}, {port: 5, "
     "protocol: x}]}\n",
     "t:2:43: port: 0 is out of range; expected a whole number from 1 to 65535\n"
     "t:2:47: missing field \"port\" in a port; it is required\n"
     "t:2:68: protocol icmp has no ports; expected TCP, UDP, SCTP or UDPLite\n"
     "t:2:105: unknown protocol \"x\"; expected TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to "
     "255\n"},
    {"Addresses", "pods:\n- {name: a, namespace: ns, ip: 10.0.0.1, ips: [10.0.0.2, 10.0.0.2]}\n",
     "t:2:32: ip is not among ips; expected one of them, or ips alone\n"
     "t:2:58: 10.0.0.2 a second time; expected each address once\n"},
    {"Services",
     "services:\n- {name: a, namespace: n, clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, "
     "nodePort: "
     "30080}]}\n- {name: a, namespace: n, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30080}]}\n"
     "- {name: b, namespace: n, backends: [10.0.0.1], ports: [{port: 80, targetPort: http}]}\n"
     "lab: {families: [ip4]}\n",
     "t:3:10: duplicate service n/a; expected it once (first in t:2:10)\n"
     "t:3:38: 10.96.0.1 is the clusterIP of n/a already; expected one that is free\n"
     "t:3:57: nodePort 30080 is that of n/a already; expected one that is free\n"
     "t:3:57: nodePort of a Service that is no NodePort; expected type: NodePort, or no nodePort\n"
     "t:4:38: a backend by address has no named ports; expected a number as targetPort\n"
     "t:5:18: unknown family \"ip4\"; expected ipv4 or ipv6 (did you mean ipv4?)\n"},
    {"UnknownNamespace", "namespaces: [{name: tenant-01}]\npods:\n- {name: a, namespace: tenant-10}\n",
     "t:3:24: warning: namespace \"tenant-10\" is not among namespaces, so it has no labels (did you mean "
     "tenant-01?)\n"},
    {"Lab", "lab: {cni: calico, dataplane: nft, pod_cidrs: [10.0.0.1], outside: [x]}\n",
     "t:1:12: unknown cni \"calico\"; expected ptp or bridge\n"
     "t:1:31: unknown dataplane \"nft\"; expected nftables or ebpf\n"
     "t:1:48: \"10.0.0.1\" is no CIDR; expected a prefix like 10.0.0.0/8 or fd00::/64\n"
     "t:1:69: \"x\" is no address; expected one like 10.244.1.7 or fd00:244:1::7\n"},
    {"NetworkSets",
     "networksets:\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}, spec: {}}\n",
     "t:2:44: kind \"Tier\" among networksets; expected NetworkSet or GlobalNetworkSet\n"},
};
INSTANTIATE_TEST_SUITE_P(Table, TopologyFindings, testing::ValuesIn(kWrong),
                         [](const auto& param) { return param.param.name; });

TEST(Topology, FilesThatAreNone) {
  EXPECT_EQ(load_topology("/nowhere.yaml").findings.to_string(),
            "/nowhere.yaml: cannot be read: No such file or directory; expected a YAML or JSON file\n");
}

}  // namespace
}  // namespace tierlog::endpoints
