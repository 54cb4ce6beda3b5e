// Beside another engine that really drops: audit says which policy would have denied what, and touches
// nothing.
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>

#include "base/handle.h"
#include "lab/socket_address.h"
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

// One namespace is watched on a node that enforces the rest.
constexpr const char* kMixedTopology = R"(
namespaces: [{name: a}, {name: w}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], ports: [{name: sql, protocol: TCP, port: 5432}, {name: http, protocol: TCP, port: 8080}]}
- {name: new, namespace: w, ips: [10.1.0.7, "fd01::7"], ports: [{name: sql, protocol: TCP, port: 5432}, {name: http, protocol: TCP, port: 8080}]}
)";
std::string mixed_policies(const char* annotation) {
  return std::string("apiVersion: v1\nkind: Namespace\nmetadata: {name: w, annotations: {tierlog.io/enforcement: ") +
         annotation + "}}\n" + R"(---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: servers}
spec:
  selector: projectcalico.org/name in {'db', 'new'}
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
  - {action: Deny}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: alone, namespace: w}
spec:
  selector: all()
  types: [Egress]
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: [5432]}}
  - {action: Allow}
)";
}

int ask_for_ever(const IpAddr& to, std::atomic<int>& answered) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM, 0));
  const lab::SocketAddress address(to, 5432);
  if (::connect(socket.get(), address.get(), address.size()) != 0) return 1;
  char byte = 'x';
  while (::send(socket.get(), &byte, 1, MSG_NOSIGNAL) == 1 && ::recv(socket.get(), &byte, 1, 0) == 1) {
    ++answered;
    std::this_thread::sleep_for(20ms);
  }
  return 0;
}

class AuditedNamespace : public LiveNode {
 protected:
  void SetUp() override { start(kMixedTopology, mixed_policies("audit"), {{"deny_interval", "1s"}}); }

  lab::Attempt connect(const std::string& from, const std::string& to, std::uint16_t port, Family family) const {
    const IpAddr address = *lab_->address(to, family);
    const auto result =
        lab_->run_in(from, [&] { return static_cast<int>(lab::try_tcp(address, port, 700ms)); });
    return static_cast<lab::Attempt>(result.value_or(-1));
  }
  std::vector<store::FlowRecord> told(const std::string& to, std::uint16_t port, Direction direction) const {
    std::vector<store::FlowRecord> found;
    const Index index = Index::read(lab_->database());
    for (const store::FlowRecord& record : index.records())
      if (record.dst_port == port && record.direction == direction && record.dst.name == to) found.push_back(record);
    return found;
  }
};

TEST_F(AuditedNamespace, LosesNothingWhileTheOthersAreEnforced) {
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6}) {
    EXPECT_EQ(connect("a/web", "w/new", 5432, family), lab::Attempt::Connected) << "denied by policy, audited";
    EXPECT_EQ(connect("a/web", "w/new", 8080, family), lab::Attempt::Connected);
    EXPECT_EQ(connect("a/web", "a/db", 5432, family), lab::Attempt::TimedOut) << "denied and enforced";
    EXPECT_EQ(connect("a/web", "a/db", 8080, family), lab::Attempt::Connected);
    EXPECT_EQ(connect("w/new", "a/db", 8080, family), lab::Attempt::Connected);
    EXPECT_EQ(connect("w/new", "a/db", 5432, family), lab::Attempt::TimedOut) << "db is enforced, whoever asks";
  }
  std::vector<store::RuleActivity> books;
  EXPECT_TRUE(becomes([&] {
    books = rules();
    return std::all_of(books.begin(), books.end(), [](const store::RuleActivity& rule) {
      const bool decides = rule.rule.action == "Allow" || rule.rule.action == "Deny";
      return !decides || (rule.kernel_packets == rule.recorded_packets && rule.unattributed == 0);
    });
  }, 8s));
  for (const store::RuleActivity& rule : books) {
    if (rule.rule.action != "Allow" && rule.rule.action != "Deny") continue;
    EXPECT_EQ(rule.kernel_packets, rule.recorded_packets) << rule.rule.policy << " " << rule.rule.reason << " "
                                                          << name(rule.rule.direction);
    EXPECT_EQ(rule.unattributed, 0u) << rule.rule.policy << " " << rule.rule.reason;
  }
  const auto would = told("new", 5432, Direction::Ingress);
  ASSERT_EQ(would.size(), 2u);
  for (const store::FlowRecord& record : would) {
    EXPECT_EQ(record.action, store::Verdict::Deny);
    EXPECT_EQ(record.reason, Reason::Audit);
    EXPECT_EQ(record.policy, "default//servers");
    EXPECT_EQ(record.verdict_packets, 1u) << "nothing was sent again";
  }
  for (const store::FlowRecord& record : told("new", 8080, Direction::Ingress)) {
    EXPECT_EQ(record.action, store::Verdict::Allow);
    EXPECT_EQ(record.reason, Reason::Audit);
  }
  std::size_t dropped = 0;
  for (const store::FlowRecord& record : told("db", 5432, Direction::Ingress)) {
    EXPECT_EQ(record.action, store::Verdict::Deny);
    EXPECT_EQ(record.reason, Reason::Policy);
    ++dropped;
  }
  EXPECT_GE(dropped, 4u) << "by the same rule, in earnest";
  std::size_t would_not_leave = 0;
  for (const store::FlowRecord& record : told("db", 5432, Direction::Egress))
    if (record.src.name == "new" && record.action == store::Verdict::Deny) {
      EXPECT_EQ(record.reason, Reason::Audit);
      EXPECT_EQ(record.policy, "default/w/alone");
      ++would_not_leave;
    }
  EXPECT_GE(would_not_leave, 2u);
  EXPECT_EQ(status()["enforcement"], "enforce");
  EXPECT_EQ(status()["audited_namespaces"], nlohmann::json::array({"w"}));
}

TEST_F(AuditedNamespace, IsToldBesideAnEngineThatDropsAndMarksNothing) {
  if (!lab_) return;
  ASSERT_EQ(lab_->exec("node", {"nft", kForeign}).value_or(1), 0);
  EXPECT_EQ(connect("a/web", "w/new", 5432, Family::V4), lab::Attempt::TimedOut) << "the other engine drops";
  EXPECT_EQ(connect("a/web", "w/new", 8080, Family::V4), lab::Attempt::Connected);
  flush(*lab_);
  const auto would = told("new", 5432, Direction::Ingress);
  ASSERT_FALSE(would.empty());
  EXPECT_EQ(would.front().policy, "default//servers");
  const auto marked = lab_->exec("node", {"sh", "-c", "nft list table inet other | grep -q 'packets 0 bytes 0 accept'"});
  EXPECT_EQ(marked.value_or(1), 0);
}

// The week of watching ends: what lives and is denied is cut.
TEST_F(AuditedNamespace, IsEnforcedOnceTheAnnotationIsGone) {
  if (!lab_) return;
  const IpAddr to = *lab_->address("w/new", Family::V4);
  Shared<std::atomic<int>> answered;
  // Asks again and again on one connection, which audit lets be.
  const auto asking = lab_->start_in("a/web", [&] { return ask_for_ever(to, *answered); });
  ASSERT_TRUE(asking) << asking.error().message;
  EXPECT_TRUE(becomes([&] { return answered->load() > 3; }));
  apply(mixed_policies("enforce"));
  // Programs cut with the connection's next packet and count none.
  if (status()["dataplane"] == "nftables") {
    EXPECT_TRUE(becomes([&] { return status()["kernel"]["connections"]["cut_now"].get<int>() > 0; }));
  } else {
    std::this_thread::sleep_for(300ms);
  }
  const int then = answered->load();
  std::this_thread::sleep_for(300ms);
  EXPECT_LE(answered->load(), then + 1) << "the connection is cut";
  EXPECT_EQ(connect("a/web", "w/new", 5432, Family::V6), lab::Attempt::TimedOut);
  ::kill(*asking, SIGKILL);
  ::waitpid(*asking, nullptr, 0);
}

}  // namespace
}  // namespace tierlog::testing
