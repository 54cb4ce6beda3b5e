// Events under pressure, with packets: a scan that one rule denies hides no other rule's flows; a flow index
// that is blocked loses no count; a Service is named; and all of it under the daemon's filter of system
// calls.
#include <netinet/in.h>
#include <sqlite3.h>
#include <sys/socket.h>

#include <thread>

#include "base/handle.h"
#include "lab/socket_address.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5]}
- {name: scan, namespace: a, ips: [10.1.0.6]}
- {name: db, namespace: a, ips: [10.1.0.7], labels: {app: db}, ports: [{name: sql, protocol: TCP, port: 5432}]}
- {name: vault, namespace: a, ips: [10.1.0.8]}
services:
- {name: sql, namespace: a, clusterIP: 10.96.0.20, selector: {app: db}, ports: [{port: 443, protocol: TCP, targetPort: 5432}]}
)";

std::string policy(const std::string& pod, const std::string& rules) {
  return "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: " + pod +
         ", namespace: a}\nspec:\n  selector: projectcalico.org/name == '" + pod +
         "'\n  types: [Ingress]\n  ingress:\n" + rules;
}
const std::string kPolicies = policy("db", "  - {action: Allow, protocol: TCP}\n  - {action: Deny}\n") +
                              policy("vault", "  - {action: Deny}\n");

// One datagram to each of these ports.
int scan(const IpAddr& to, int first, int last) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM, 0));
  for (int port = first; port <= last; ++port) {
    const lab::SocketAddress peer(to, static_cast<std::uint16_t>(port));
    static_cast<void>(::sendto(socket.get(), "x", 1, MSG_DONTWAIT, peer.get(), peer.size()));
    // The way's queues hold some hundred packets.
    if (port % 256 == 0) std::this_thread::sleep_for(500us);
  }
  return 0;
}

class Events : public LiveNode {
 protected:
  void SetUp() override { start(kTopology, kPolicies); }

  std::uint64_t loss(const char* cause) const { return status()["losses"].value(cause, std::uint64_t{0}); }
  std::uint64_t told_of(const std::string& display) const {
    std::uint64_t told = 0;
    auto reader = store::FlowReader::open(lab_->database());
    const auto rules = reader->rules({}, true);
    for (const store::RuleActivity& rule : *rules)
      if (rule.rule.policy == display) told += rule.recorded_packets;
    return told;
  }
  bool balances() const {
    const nlohmann::json books = status()["books"];
    return books["undeclared"] == 0 && books["kernel"] == books["recorded"].get<std::uint64_t>() +
                                                              books["unattributed"].get<std::uint64_t>() +
                                                              books["waiting"].get<std::uint64_t>();
  }
};

TEST_F(Events, AScanThatOneRuleDeniesHidesNoOtherRulesFlows) {
  if (!lab_) return;
  EXPECT_EQ(status()["seccomp"], true);
  const IpAddr db = *lab_->address("a/db", Family::V4), vault = *lab_->address("a/vault", Family::V4);
  const auto storm = [&](const char* from) {
    return lab_->run_in(from, [&] { return scan(db, 1, 65'535); }).value_or(1);
  };
  ASSERT_EQ(storm("a/scan"), 0);
  ASSERT_EQ(storm("a/web"), 0);
  EXPECT_GT(loss("deny-set-overflow"), 10'000u) << "or the set was never full";
  EXPECT_EQ(told_of("default/a/vault"), 0u);
  ASSERT_EQ(lab_->run_in("a/web", [&] { return scan(vault, 7000, 7004); }).value_or(1), 0);
  EXPECT_TRUE(becomes([&] { return told_of("default/a/vault") == 5; }, 20s))
      << told_of("default/a/vault") << " of five packets were told";
  // What found no room is declared, by its cause, and nothing else is missing.
  const auto declared = [&] {
    flush(*lab_);
    return balances() && status()["books"]["causes"].value("deny-set-full", std::uint64_t{0}) > 10'000;
  };
  EXPECT_TRUE(becomes(declared, 60s)) << status()["books"].dump();
}

TEST_F(Events, ABlockedFlowIndexLosesNoCount) {
  if (!lab_) return;
  const IpAddr db = *lab_->address("a/db", Family::V4);
  const auto connect = [&](int times) {
    return lab_->run_in("a/web", [&] {
      int failed = 0;
      for (int i = 0; i < times; ++i) failed += lab::try_tcp(db, 5432, 1s) == lab::Attempt::Connected ? 0 : 1;
      return failed;
    });
  };
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(lab_->database().c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  EXPECT_EQ(connect(100).value_or(-1), 0) << "packets do not wait for a file";
  EXPECT_EQ(told_of("default/a/db"), 0u);
  EXPECT_TRUE(status().contains("backlog")) << "and questions are answered";
  ASSERT_EQ(sqlite3_exec(other, "ROLLBACK", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  EXPECT_TRUE(becomes([&] { return told_of("default/a/db") == 100; }, 20s)) << told_of("default/a/db");
  const auto balanced = [&] {
    flush(*lab_);
    return balances();
  };
  EXPECT_TRUE(becomes(balanced, 20s)) << status()["books"].dump();
  EXPECT_EQ(status()["books"]["unattributed"], 0);
}

}  // namespace
}  // namespace tierlog::testing
