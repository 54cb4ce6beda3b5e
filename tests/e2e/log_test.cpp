// Log rules on the way: the record says which of them logged and who decided, whatever comes behind them, and a
// limit on messages changes nothing but the messages.
#include <algorithm>

#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], labels: {role: db}}
)";

constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: first}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: watch, annotations: {tierlog.io/log-label: watched}}
spec:
  tier: first
  selector: role == 'db'
  ingress:
  - {action: Log, protocol: TCP, destination: {ports: [7040:7043]}}
  - {action: Log, protocol: TCP, destination: {ports: [7041]}, metadata: {annotations: {tierlog.io/log-label: twice}}}
  - {action: Pass, protocol: TCP, destination: {ports: [7040]}}
  - {action: Deny, protocol: TCP, destination: {ports: [7041]}}
  - {action: Allow, protocol: TCP, destination: {ports: [7042]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: last}
spec:
  selector: role == 'db'
  ingress:
  - {action: Log, protocol: TCP, destination: {ports: [7043]}}
  - {action: Allow, protocol: TCP, destination: {ports: [7043, 7044]}}
)";

struct Case {
  const char* name;
  std::uint16_t port;
  const char* logged;   // "policy[index] label", joined by ", "
  const char* decided;  // "action policy index"
};
constexpr Case kCases[] = {
    {"LogPassThenEndOfAnotherTier", 7040, "first//watch[0] watched", "deny default//last -1"},
    {"TwoLogsThenDeny", 7041, "first//watch[0] watched, first//watch[1] twice", "deny first//watch 3"},
    {"LogThenAllow", 7042, "first//watch[0] watched", "allow first//watch 4"},
    {"LogInTwoTiers", 7043, "first//watch[0] watched, default//last[0] ", "allow default//last 1"},
    {"NoLog", 7044, "", "allow default//last 1"},
};

class Logging : public LiveNode {
 protected:
  void call(Family family, std::uint16_t port) const {
    const IpAddr to = *lab_->address("a/db", family);
    ASSERT_TRUE(lab_->run_in("a/web", [&] { return static_cast<int>(lab::try_tcp(to, port, 300ms)); }));
  }
  std::vector<store::FlowRecord> ingress_records() const {
    flush(*lab_);
    auto records = Index::read(lab_->database()).records();
    std::erase_if(records, [](const store::FlowRecord& record) { return record.direction != Direction::Ingress; });
    return records;
  }
};

std::string logged_by(const store::FlowRecord& record) {
  std::string text;
  for (const store::LoggedBy& entry : record.logged_by)
    text += (text.empty() ? "" : ", ") + entry.policy + "[" + std::to_string(entry.rule_index) + "] " + entry.label;
  return text;
}

TEST_F(Logging, RecordsSayWhoLoggedAndWhoDecided) {
  start(kTopology, kPolicies);
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6})
    for (const Case& c : kCases) call(family, c.port);
  const auto records = ingress_records();
  for (const Case& c : kCases) {
    std::size_t found = 0;
    for (const store::FlowRecord& record : records) {
      if (record.dst_port != c.port) continue;
      ++found;
      EXPECT_EQ(logged_by(record), c.logged) << c.name;
      EXPECT_EQ(std::string(name(record.action)) + " " + record.policy + " " + std::to_string(record.rule_index.value_or(-9)),
                c.decided)
          << c.name;
    }
    EXPECT_GE(found, 2u) << c.name;
  }
}

TEST_F(Logging, ALimitKeepsMessagesBackAndSaysHowMany) {
  start(kTopology,
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\n"
        "metadata: {name: slow, annotations: {tierlog.io/log-rate: 2/h}}\n"
        "spec:\n  selector: role == 'db'\n  ingress:\n  - {action: Log}\n  - {action: Allow}\n");
  if (!lab_) return;
  constexpr std::uint16_t kFlows = 10;
  for (std::uint16_t i = 0; i < kFlows; ++i) call(Family::V4, static_cast<std::uint16_t>(7100 + i));
  static_cast<void>(ingress_records());  // the counters are read
  call(Family::V4, 7200);
  const auto records = ingress_records();
  std::uint64_t suppressed = 0, flows = 0;
  for (const store::FlowRecord& record : records) {
    flows += record.verdict_packets;
    for (const store::LoggedBy& entry : record.logged_by) suppressed += entry.suppressed;
  }
  EXPECT_EQ(flows, kFlows + 1u) << "records are not affected";
  EXPECT_GE(suppressed, kFlows - 2u) << "two went out";
  EXPECT_LE(suppressed, kFlows - 1u) << "the eleventh is told by its own record or by the next one";
  for (const store::RuleActivity& rule : rules())
    if (rule.rule.action == "Log") {
      EXPECT_EQ(rule.kernel_packets, kFlows + 1u) << "every match is counted";
      EXPECT_EQ(rule.suppressed, suppressed);
    }
}

}  // namespace
}  // namespace tierlog::testing
