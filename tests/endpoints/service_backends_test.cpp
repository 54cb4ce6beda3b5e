#include "endpoints/service_backends.h"

#include <gtest/gtest.h>

#include "endpoints/topology.h"
#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::endpoints {
namespace {

using policy::Action;

constexpr const char* kTopology = R"(
namespaces: [{name: shop}]
pods:
- {name: web, namespace: shop, ips: [10.1.0.5, "fd01::5"]}
- {name: db-0, namespace: shop, ips: [10.1.0.6, "fd01::6"], labels: {app: db, role: reader}, ports: [{name: sql, port: 5432}]}
- {name: db-1, namespace: shop, ips: [10.1.0.7], labels: {app: db, role: writer}, ports: [{name: sql, port: 6432}]}
- {name: db-2, namespace: shop, ips: [10.1.0.8], labels: {app: db}}
services:
- {name: db, namespace: shop, selector: {app: db}, clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: sql}]}
- {name: far, namespace: shop, ports: [{port: 443}], backends: [203.0.113.9]}
- {name: nobody, namespace: shop, selector: {app: none}, ports: [{port: 80}]}
- {name: web, namespace: shop, selector: {app: web}, ports: [{port: 80}]}
- {name: door, namespace: shop, selector: {app: web}, clusterIP: 10.96.0.9, type: NodePort, ports: [{name: a, port: 80, nodePort: 30080}, {name: b, port: 81, nodePort: 30081, protocol: UDP}]}
- {name: headless, namespace: shop, selector: {app: db}, clusterIP: None, ports: [{port: 80}]}
)";

constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: role == 'writer'
  ingress:
  - {action: Deny}
)";

class ServiceBackends : public ::testing::Test {
 protected:
  void SetUp() override {
    const LoadedTopology loaded = load_topology_text(kTopology, "topology.yaml");
    ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
    topology_ = loaded.topology;
    for (policy::Endpoint& pod : topology_.cluster.endpoints) pod.local = true;
    assign_cluster_ips(topology_);
    const policy::Loaded policies = policy::load_text(kPolicies, "policies.yaml");
    ASSERT_FALSE(policies.findings.has_errors()) << policies.findings.to_string();
    policy::MemoryRuleIds ids;
    auto program =
        policy::compile(policies.set, std::make_shared<const policy::Cluster>(topology_.cluster), ids);
    ASSERT_TRUE(program) << program.error().message;
    program_ = std::move(*program);
  }
  policy::Explanation ask(const std::string& to, std::uint16_t port, std::uint8_t proto = protocol::kTcp) const {
    policy::Packet packet;
    packet.source = *IpAddr::parse("10.1.0.5");
    packet.destination = *resolve_who(topology_.cluster, topology_.services, to);
    packet.protocol = proto;
    packet.destination_port = port;
    return explain(program_, packet, topology_.services);
  }

  Topology topology_;
  policy::Program program_;
};

TEST_F(ServiceBackends, AreOneAddressAPodWithItsOwnNumberOfANamedPort) {
  const auto found = [&](std::size_t service, Family family) {
    std::string text;
    for (const auto& [address, port] : backends_of(topology_.services[service], 0, family, topology_.cluster))
      text += address.to_string() + " " + std::to_string(port) + "\n";
    return text;
  };
  EXPECT_EQ(found(0, Family::V4), "10.1.0.6 5432\n10.1.0.7 6432\n") << "db-2 has no port of that name";
  EXPECT_EQ(found(0, Family::V6), "fd01::6 5432\n");
  EXPECT_EQ(found(1, Family::V4), "203.0.113.9 443\n");
  EXPECT_EQ(found(2, Family::V4), "");
}

TEST_F(ServiceBackends, AServiceIsDialledByItsAddressesAndByPortsOfTheNode) {
  const auto entries = [&](std::size_t service, const std::vector<IpAddr>& node) {
    std::string text;
    for (const ServiceEntry& entry : entries_of(topology_.services[service], node))
      text += entry.address.to_string() + " " + std::to_string(entry.number) + " " + std::to_string(entry.port) + "\n";
    return text;
  };
  const std::vector<IpAddr> node{*IpAddr::parse("192.0.2.1")};
  EXPECT_EQ(entries(0, node), "10.96.0.1 80 0\n");
  EXPECT_EQ(entries(4, node), "10.96.0.9 80 0\n192.0.2.1 30080 0\n10.96.0.9 81 1\n192.0.2.1 30081 1\n");
  EXPECT_EQ(entries(4, {}), "10.96.0.9 80 0\n10.96.0.9 81 1\n");
  EXPECT_EQ(entries(5, node), "") << "headless";
}

TEST_F(ServiceBackends, ServicesWithoutAnAddressGetTheNextFreeOne) {
  std::string text;
  for (const Service& service : topology_.services) {
    text += service.name + ":";
    for (const IpAddr& address : service.cluster_ips) text += " " + address.to_string();
    text += "\n";
  }
  EXPECT_EQ(text,
            "db: 10.96.0.1\nfar: 10.96.0.2 fd00:96::1\nnobody: 10.96.0.3 fd00:96::2\n"
            "web: 10.96.0.4 fd00:96::3\ndoor: 10.96.0.9\nheadless:\n");
}

TEST_F(ServiceBackends, EachIsJudgedBehindTheTranslationAndTheDeniedOneIsShown) {
  const policy::Explanation denied = ask("10.96.0.1", 80);
  ASSERT_TRUE(denied.service);
  EXPECT_EQ(denied.service->name, "shop/db");
  ASSERT_EQ(denied.service->backends.size(), 2u);
  EXPECT_EQ(denied.service->backends[0].name, "shop/db-0");
  EXPECT_EQ(denied.service->backends[0].action, Action::Allow);
  EXPECT_EQ(denied.service->backends[1].action, Action::Deny);
  EXPECT_EQ(denied.action, Action::Deny);
  EXPECT_EQ(denied.destination_name, "shop/db-1");
  EXPECT_EQ(denied.packet.destination_port, 6432);
  ASSERT_TRUE(denied.ingress);
  EXPECT_EQ(denied.ingress->steps.back().policy, "default/shop/db");
  EXPECT_EQ(ask("shop/db", 80).destination_name, "shop/db-1") << "by its name as well";

  EXPECT_EQ(ask("shop/far", 443).action, Action::Allow);
  EXPECT_TRUE(ask("shop/nobody", 80).service->backends.empty());
  EXPECT_TRUE(ask("shop/nobody", 80).service->has_port);
  for (const auto& other : {ask("10.96.0.1", 81), ask("10.96.0.1", 80, protocol::kUdp)}) {
    ASSERT_TRUE(other.service);
    EXPECT_FALSE(other.service->has_port);
    EXPECT_TRUE(other.service->backends.empty());
    EXPECT_EQ(other.packet.destination, *IpAddr::parse("10.96.0.1"));
  }
  EXPECT_FALSE(ask("10.1.0.7", 6432).service);
}

TEST_F(ServiceBackends, APodsNameComesBeforeAServices) {
  const auto resolve = [&](std::string_view who, Family family) {
    const auto found = resolve_who(topology_.cluster, topology_.services, who, family);
    return found ? found->to_string() : "";
  };
  EXPECT_EQ(resolve("shop/web", Family::V4), "10.1.0.5");
  EXPECT_EQ(resolve("shop/far", Family::V6), "fd00:96::1");
  EXPECT_EQ(resolve("shop/db", Family::V6), "10.96.0.1") << "it has no other";
  EXPECT_EQ(resolve("shop/headless", Family::V4), "");
  EXPECT_EQ(resolve("shop/nothing", Family::V4), "");
}

}  // namespace
}  // namespace tierlog::endpoints
