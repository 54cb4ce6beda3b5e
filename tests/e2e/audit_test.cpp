// Beside another engine that really drops: audit says which policy would have denied what, and touches
// nothing.
#include <cstdlib>

#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], ports: [{name: sql, protocol: TCP, port: 5432}, {name: http, protocol: TCP, port: 8080}]}
)";
constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: projectcalico.org/name == 'db'
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
  - {action: Deny}
)";
// What the other engine does, at the priority where iptables filters.
constexpr const char* kForeign =
    "table inet other { chain f { type filter hook forward priority 0; tcp dport 5432 counter drop; "
    "meta mark != 0 counter accept; }; }";

class Audit : public LiveNode {
 protected:
  void SetUp() override { start(kTopology, kPolicies, {{"enforcement", "audit"}}); }

  lab::Attempt connect(std::uint16_t port, Family family = Family::V4) const {
    const IpAddr to = *lab_->address("a/db", family);
    const auto result = lab_->run_in("a/web", [&] { return static_cast<int>(lab::try_tcp(to, port, 700ms)); });
    EXPECT_TRUE(result);
    return static_cast<lab::Attempt>(*result);
  }

  // Records of that port: action, reason, policy.
  std::vector<store::FlowRecord> records(std::uint16_t port) const {
    flush(*lab_);
    std::vector<store::FlowRecord> found;
    const Index index = Index::read(lab_->database());
    for (const store::FlowRecord& record : index.records())
      if (record.dst_port == port && record.direction == Direction::Ingress) found.push_back(record);
    return found;
  }
};

TEST_F(Audit, DropsNothingAndTellsWhatWouldHaveBeen) {
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6}) {
    EXPECT_EQ(connect(5432, family), lab::Attempt::Connected) << "the policy denies it, audit does not";
    EXPECT_EQ(connect(8080, family), lab::Attempt::Connected);
  }
  const auto denied = records(5432);
  ASSERT_GE(denied.size(), 2u);
  for (const store::FlowRecord& record : denied) {
    EXPECT_EQ(record.action, store::Verdict::Deny);
    EXPECT_EQ(record.reason, Reason::Audit);
    EXPECT_EQ(record.policy, "default/a/db");
    EXPECT_EQ(record.rule_index, 1);
  }
  const auto allowed = records(8080);
  ASSERT_GE(allowed.size(), 2u);
  for (const store::FlowRecord& record : allowed) {
    EXPECT_EQ(record.action, store::Verdict::Allow);
    EXPECT_EQ(record.rule_index, 0);
  }
  EXPECT_EQ(status()["enforcement"], "audit");
}

TEST_F(Audit, BesideAForeignTableThatDropsItNamesThePolicy) {
  if (!lab_) return;
  ASSERT_EQ(lab_->exec("node", {"nft", kForeign}).value_or(1), 0);
  EXPECT_EQ(connect(5432), lab::Attempt::TimedOut) << "the other engine drops";
  EXPECT_EQ(connect(8080), lab::Attempt::Connected);
  const auto denied = records(5432);
  ASSERT_FALSE(denied.empty());
  std::uint64_t told = 0;
  for (const store::FlowRecord& record : denied) {
    EXPECT_EQ(record.policy, "default/a/db");
    told += record.verdict_packets;
  }
  std::uint64_t counted = 0;
  for (const store::RuleActivity& rule : rules())
    if (rule.rule.policy == "default/a/db" && rule.rule.action == "Deny") counted += rule.kernel_packets;
  EXPECT_EQ(told, counted) << "each try to open it, and nothing else";
  EXPECT_GE(told, 1u);
  // No packet that passed the other engine carried a mark of ours.
  const auto marked = lab_->exec("node", {"sh", "-c", "nft list table inet other | grep -q 'packets 0 bytes 0 accept'"});
  EXPECT_EQ(marked.value_or(1), 0);
}

}  // namespace
}  // namespace tierlog::testing
