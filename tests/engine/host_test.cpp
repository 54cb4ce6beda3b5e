// Host endpoints in the evaluator: which stage of whose policy decides, by the way a packet takes.
#include "policy/explain.h"
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

constexpr const char* kNode = "192.0.2.1";
constexpr const char* kOutside = "203.0.113.9";
constexpr const char* kPod = "10.1.0.5";

class HostPolicies : public ::testing::Test {
 protected:
  HostPolicies() {
    world.pod("a", "web", {kPod});
    world.cluster.nodes.push_back({"node-1", {}, {ip(kNode)}});
    HostEndpoint host;
    host.name = "uplink";
    host.node = "node-1";
    host.interface = "uplink";
    host.labels = {{"role", "node"}};
    world.cluster.host_endpoints.push_back(host);
  }
  HostEndpoint& host() { return world.cluster.host_endpoints.front(); }
  Policy& policy(const char* name, std::vector<PolicyRule> list) {
    Policy& made = world.policy("default", "", name, 10, "role == 'node'");
    made.ingress = rules(std::move(list));
    return made;
  }
  std::string decides(std::string_view source, std::string_view destination, std::uint16_t port,
                      const std::string& in = {}, const std::string& out = {}) {
    const Program program = world.compile();
    Packet packet = tcp(source, destination, port);
    packet.in_interface = in;
    packet.out_interface = out;
    return decision(program, packet);
  }
  World world;
};

TEST_F(HostPolicies, WithoutProfileDenyWhatNobodyDecides) {
  EXPECT_EQ(decides(kOutside, kNode, 80), "deny host");
  EXPECT_EQ(decides(kNode, kOutside, 80), "deny host");
  EXPECT_EQ(decides(kOutside, kNode, 22), "allow failsafe");
  EXPECT_EQ(decides(kNode, kOutside, 6443), "allow failsafe");
  EXPECT_EQ(decides(kNode, kOutside, 22), "deny host") << "a failsafe of the other direction";
  host().open = true;
  EXPECT_EQ(decides(kOutside, kNode, 80), "allow profile");
}

TEST_F(HostPolicies, FirstMatchingRuleDecidesForTheNode) {
  policy("host", {rule(Action::Allow, to_port(port(80)))});
  EXPECT_EQ(decides(kOutside, kNode, 80), "allow default//host ingress[0]");
  EXPECT_EQ(decides(kOutside, kNode, 81), "deny end of default after default//host");
  EXPECT_EQ(decides(kOutside, kPod, 81), "allow no-policy") << "forwarded";
  EXPECT_EQ(decides(kPod, kNode, 81), "allow no-policy") << "through the pod's interface";
  EXPECT_EQ(decides(kOutside, kNode, 81, "eth9"), "nobody") << "through another interface";
}

TEST_F(HostPolicies, ForwardedTrafficIsAskedOnlyWithApplyOnForward) {
  Policy& forward = policy("forward", {rule(Action::Deny, to_port(port(81))), rule(Action::Allow)});
  EXPECT_EQ(decides(kOutside, kPod, 81), "allow no-policy");
  forward.apply_on_forward = true;
  EXPECT_EQ(decides(kOutside, kPod, 81), "deny default//forward ingress[0]");
  EXPECT_EQ(decides(kOutside, kPod, 82), "allow no-policy");
  EXPECT_EQ(decides(kPod, kOutside, 81), "allow no-policy") << "no egress rules";
  EXPECT_EQ(decides(kOutside, kPod, 81, "eth9"), "allow no-policy");
  EXPECT_EQ(decides(kOutside, "198.51.100.7", 81), "deny default//forward ingress[0]") << "through the node";
}

TEST_F(HostPolicies, AllowedBeforeRewritingIsNotAskedAgain) {
  Policy& early = policy("early", {rule(Action::Allow, to_port(port(80))), rule(Action::Deny, to_port(port(81)))});
  early.apply_on_forward = early.pre_dnat = true;
  EXPECT_EQ(decides(kOutside, kNode, 80), "allow default//early ingress[0]");
  EXPECT_EQ(decides(kOutside, kNode, 81), "deny default//early ingress[1]");
  EXPECT_EQ(decides(kOutside, kNode, 82), "deny host") << "no end of a tier: the next stage decides";
  EXPECT_EQ(decides(kOutside, kPod, 81), "deny default//early ingress[1]");
  EXPECT_EQ(decides(kOutside, kPod, 82), "allow no-policy");
  EXPECT_EQ(decides(kOutside, kNode, 22), "allow failsafe");
}

TEST_F(HostPolicies, UntrackedPoliciesComeFirst) {
  Policy& raw = policy("raw", {rule(Action::Deny, to_port(port(80)))});
  raw.apply_on_forward = raw.do_not_track = true;
  policy("host", {rule(Action::Allow)});
  EXPECT_EQ(decides(kOutside, kNode, 80), "deny default//raw ingress[0]");
  EXPECT_EQ(decides(kOutside, kNode, 81), "allow default//host ingress[0]");
}

TEST_F(HostPolicies, AllInterfacesStandBehindNamedOnes) {
  HostEndpoint all = host();
  all.name = "all";
  all.interface = "*";
  all.open = true;
  world.cluster.host_endpoints.push_back(all);
  EXPECT_EQ(decides(kOutside, kNode, 80, "uplink"), "deny host");
  EXPECT_EQ(decides(kOutside, kNode, 80, "eth9"), "allow profile");
}

TEST_F(HostPolicies, AreSeenBySelectorsUnderTheirAddresses) {
  host().addresses = {ip(kNode)};
  Policy& at_pod = world.policy("default", "a", "web", 10);
  at_pod.ingress = rules({rule(Action::Allow, from("role == 'node'"))});
  EXPECT_EQ(decides(kNode, kPod, 80), "allow default/a/web ingress[0]");
  EXPECT_EQ(decides(kOutside, kPod, 80), "deny end of default after default/a/web");
}

TEST_F(HostPolicies, ExplanationNamesTheHostEndpoint) {
  policy("forward", {rule(Action::Deny)}).apply_on_forward = true;
  const Explanation explanation = explain(world.compile(), tcp(kOutside, kPod, 80));
  ASSERT_TRUE(explanation.host_ingress);
  EXPECT_EQ(explanation.host_ingress->endpoint, "host uplink");
  EXPECT_EQ(explanation.action, Action::Deny);
  EXPECT_FALSE(explanation.ingress) << "denied before";
}

struct FailsafeCase {
  const char* text;
  bool valid;
};
TEST(Failsafe, Text) {
  for (const FailsafeCase& c : {FailsafeCase{"tcp:22", true}, {"udp:10.0.0.0/8:68", true}, {"tcp:[fd00::/8]:22", true},
                                {"tcp:fd00::/8:22", true}, {"tcp", false}, {"icmp:1", false}, {"tcp:0", false},
                                {"tcp:70000", false}, {"tcp:x:22", false}, {"", false}})
    EXPECT_EQ(Failsafe::parse(c.text).has_value(), c.valid) << c.text;
  const Failsafe limited = *Failsafe::parse("tcp:10.0.0.0/8:22");
  EXPECT_TRUE(limited.admits(protocol::kTcp, 22, ip("10.1.2.3")));
  EXPECT_FALSE(limited.admits(protocol::kTcp, 22, ip("11.1.2.3")));
}

}  // namespace
}  // namespace tierlog::policy::test
