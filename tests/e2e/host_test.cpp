// Host endpoints: the node's own interface under policies, in each of the hooks they are asked in. Whatever is let
// through is refused by the node or pod itself (nobody listens), whatever is denied is silence.
#include <algorithm>

#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using lab::Attempt;
using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
services:
- {name: web, namespace: a, selector: {}, backends: [10.1.0.5], type: NodePort, ports: [{port: 80, targetPort: 7020, nodePort: 30080}]}
)";

constexpr const char* kHost = R"(
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink, labels: {role: node}}
spec: {node: node-1, interfaceName: uplink}
)";

std::string policy(const std::string& name, const std::string& spec) {
  return std::string(kHost) + "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " + name +
         "}\nspec:\n  selector: role == 'node'\n" + spec;
}

class Host : public LiveNode {
 protected:
  bool passes(const std::string& from, const std::string& to, Family family, std::uint16_t port) const {
    const auto address = lab_->address(to, family);
    EXPECT_TRUE(address) << to;
    const auto code = lab_->run_in(from, [&] { return static_cast<int>(lab::try_tcp(*address, port, 400ms)); });
    EXPECT_TRUE(code) << code.error().message;
    const auto attempt = static_cast<Attempt>(code.value_or(-1));
    EXPECT_TRUE(attempt == Attempt::Refused || attempt == Attempt::TimedOut) << from << " to " << to << ": " << name(attempt);
    return attempt == Attempt::Refused;
  }

  struct Told {
    std::uint64_t allowed = 0, denied = 0;
  };
  // Records of one destination port under this reason and policy.
  Told told(std::uint16_t port, const std::string& reason, const std::string& by) const {
    Told sum;
    const Index index = Index::read(lab_->database());
    for (const store::FlowRecord& record : index.records()) {
      if (record.dst_port != port || name(record.reason) != reason || record.policy != by) continue;
      (record.action == store::Verdict::Allow ? sum.allowed : sum.denied) += record.verdict_packets;
    }
    return sum;
  }
  void expect_balanced() const {
    for (const store::RuleActivity& rule : rules()) {
      if (rule.rule.action != "Allow" && rule.rule.action != "Deny") continue;
      EXPECT_EQ(rule.kernel_packets, rule.recorded_packets)
          << rule.rule.policy << " " << rule.rule.reason << " " << name(rule.rule.direction);
    }
  }
};

TEST_F(Host, PoliciesAndFailsafePortsGovernWhatTheNodeGetsAndSends) {
  start(kTopology, policy("host", "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [7001]}}\n"),
        {{"failsafe", "{inbound: [\"tcp:22\"], outbound: [\"tcp:6443\"]}"}});
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6}) {
    EXPECT_TRUE(passes("outside", "node", family, 7001)) << "allowed";
    EXPECT_FALSE(passes("outside", "node", family, 7002)) << "end of the tier";
    EXPECT_TRUE(passes("outside", "node", family, 22)) << "failsafe";
    EXPECT_FALSE(passes("outside", "node", family, 179)) << "a failsafe by default, not here";
    EXPECT_FALSE(passes("node", "outside", family, 7003)) << "no profile allows";
    EXPECT_TRUE(passes("node", "outside", family, 6443)) << "failsafe";
    EXPECT_TRUE(passes("a/web", "outside", family, 7003)) << "forwarded: no applyOnForward";
    EXPECT_TRUE(passes("outside", "a/web", family, 7002)) << "forwarded: no applyOnForward";
    EXPECT_TRUE(passes("node", "a/web", family, 7002)) << "not through this interface";
    EXPECT_TRUE(passes("a/web", "node", family, 7002)) << "not through this interface";
  }
  expect_balanced();
  EXPECT_EQ(told(7001, "policy", "default//host").allowed, 2u);
  EXPECT_GE(told(7002, "end-of-tier", "default//host").denied, 2u);
  EXPECT_EQ(told(22, "failsafe", "").allowed, 2u);
  EXPECT_EQ(told(6443, "failsafe", "").allowed, 2u);
  EXPECT_GE(told(7003, "host", "").denied, 2u);
  EXPECT_EQ(status()["mismatch_cases"].size(), 0u);
}

TEST_F(Host, ApplyOnForwardJudgesWhatPassesThrough) {
  start(kTopology, policy("forward",
                          "  applyOnForward: true\n"
                          "  ingress:\n  - {action: Deny, protocol: TCP, destination: {ports: [7005]}}\n  - {action: Allow}\n"
                          "  egress:\n  - {action: Deny, protocol: TCP, destination: {ports: [7007]}}\n  - {action: Allow}\n"));
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6}) {
    EXPECT_FALSE(passes("outside", "a/web", family, 7005));
    EXPECT_TRUE(passes("outside", "a/web", family, 7006));
    EXPECT_FALSE(passes("a/web", "outside", family, 7007));
    EXPECT_TRUE(passes("a/web", "outside", family, 7005));
    EXPECT_FALSE(passes("outside", "node", family, 7005)) << "what the node gets itself, too";
    EXPECT_TRUE(passes("outside", "node", family, 7006));
  }
  EXPECT_TRUE(passes("outside", "node", Family::V4, 30080)) << "a Service's port, with the first packet";
  expect_balanced();
  EXPECT_GE(told(7005, "policy", "default//forward").denied, 4u);
  EXPECT_GE(told(7007, "policy", "default//forward").denied, 2u);
}

TEST_F(Host, PreDnatJudgesBeforeAddressesAreRewritten) {
  const std::string rules =
      "  applyOnForward: true\n  preDNAT: true\n  ingress:\n"
      "  - {action: Deny, protocol: TCP, destination: {ports: [7010, 30080]}}\n"
      "  - {action: Allow, protocol: TCP, destination: {ports: [7011]}}\n";
  start(kTopology, kHost);
  if (!lab_) return;
  EXPECT_TRUE(passes("outside", "node", Family::V4, 30080)) << "a Service's port leads to the pod";
  apply(policy("early", rules));
  EXPECT_FALSE(passes("outside", "node", Family::V4, 30080)) << "the port as the client named it";
  EXPECT_TRUE(passes("outside", "a/web", Family::V4, 7020)) << "the pod itself";
  for (const Family family : {Family::V4, Family::V6}) {
    EXPECT_FALSE(passes("outside", "node", family, 7010));
    EXPECT_TRUE(passes("outside", "node", family, 7011)) << "allowed early: no other policy is asked";
    EXPECT_FALSE(passes("outside", "node", family, 7012)) << "nobody allows it";
  }
  expect_balanced();
  EXPECT_GE(told(30080, "policy", "default//early").denied, 1u);
  EXPECT_GE(told(7010, "policy", "default//early").denied, 2u);
  EXPECT_EQ(told(7011, "policy", "default//early").allowed, 2u);
  EXPECT_GE(told(7012, "host", "").denied, 2u);
}

TEST_F(Host, DoNotTrackJudgesEveryPacketInBothDirections) {
  const std::string one_way =
      "  applyOnForward: true\n  doNotTrack: true\n  ingress:\n"
      "  - {action: Allow, protocol: TCP, destination: {ports: [7030]}}\n"
      "  - {action: Deny, protocol: TCP, destination: {ports: [7031]}}\n";
  start(kTopology, policy("raw", one_way));
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6})
    EXPECT_FALSE(passes("outside", "node", family, 7030)) << "the answer needs a rule of its own";
  apply(policy("raw", one_way + "  egress:\n  - {action: Allow, protocol: TCP, source: {ports: [7030]}}\n"));
  for (const Family family : {Family::V4, Family::V6}) {
    EXPECT_TRUE(passes("outside", "node", family, 7030));
    EXPECT_FALSE(passes("outside", "node", family, 7031));
    EXPECT_FALSE(passes("outside", "node", family, 7032)) << "tracked, and nobody allows it";
  }
  expect_balanced();
  EXPECT_GE(told(7030, "policy", "default//raw").allowed, 4u);
  EXPECT_GE(told(7031, "policy", "default//raw").denied, 2u);
  EXPECT_GE(told(7032, "host", "").denied, 2u);
  const auto records = Index::read(lab_->database()).records();
  EXPECT_TRUE(std::any_of(records.begin(), records.end(), [](const store::FlowRecord& record) {
    return record.ct_state == "untracked" && record.policy == "default//raw" && record.dst.kind == store::PeerKind::Node;
  }));
}

}  // namespace
}  // namespace tierlog::testing
