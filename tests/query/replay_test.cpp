// What other policies would have done with recorded flows.
#include "query/replay.h"

#include <gtest/gtest.h>

#include "tests/query/node.h"

namespace tierlog::query {
namespace {

using testing_node::Node;
using testing_node::pod;

policy::Cluster cluster() {
  policy::Cluster made;
  made.namespaces["shop"] = {"shop", {}, policy::LogDecisions::None};
  made.namespaces["ops"] = {"ops", {{"purpose", "ops"}}, policy::LogDecisions::None};
  made.endpoints = {pod("shop", "web", "10.0.0.1", {{"role", "web"}}),
                    pod("shop", "db", "10.0.0.2", {{"role", "db"}}),
                    pod("shop", "cache", "10.0.0.3", {{"role", "cache"}}),
                    pod("ops", "scraper", "10.0.0.4", {{"app", "scraper"}})};
  return made;
}

std::string db_policy(const std::string& rules) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: "
         "shop}\nspec:\n"
         "  selector: role == 'db'\n  ingress:\n" +
         rules;
}
const char* const kFromWeb = "  - {action: Allow, protocol: TCP, source: {selector: role == 'web'}}\n";
const char* const kFromAll = "  - {action: Allow}\n";

// "now-denied ops/scraper > shop/db 5432/tcp: allow by … -> deny by … (2)"
std::vector<std::string> told(const Replay& replay) {
  std::vector<std::string> lines;
  for (const Change& change : replay.changes)
    lines.push_back(std::string(name(change.kind)) + " " + change.from + " > " + change.to + " " +
                    change.port + ": " + to_text(change.was) + " -> " + to_text(change.now) + " (" +
                    std::to_string(std::max(change.connections, change.flows)) + ")");
  return lines;
}

Replay replayed(const Node& node, const std::string& policies) {
  auto reader = node.reader();
  auto result = replay(reader, testing_node::load(policies), {});
  EXPECT_TRUE(result) << result.error().message;
  return std::move(*result);
}

class ReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    node_.in_force(0, db_policy(kFromAll), cluster());
    node_.connect(10, "shop/web", "shop/db", 5432);
    node_.connect(11, "ops/scraper", "shop/db", 5432);
    node_.connect(12, "ops/scraper", "shop/db", 5432);
    node_.connect(13, "203.0.113.9", "shop/db", 5432);
    node_.connect(14, "shop/web", "198.51.100.7", 443);
  }
  Node node_;
};

TEST_F(ReplayTest, TheSamePoliciesChangeNothing) {
  const Replay same = replayed(node_, db_policy(kFromAll));
  EXPECT_EQ(told(same), std::vector<std::string>());
  EXPECT_FALSE(same.changes_a_verdict());
  EXPECT_EQ(same.coverage.records, 8u);
  EXPECT_EQ(same.coverage.replayed, 8u);
}

TEST_F(ReplayTest, NamesWhatWouldBeDeniedWorstFirst) {
  const Replay replay = replayed(node_, db_policy(kFromWeb));
  EXPECT_EQ(
      told(replay),
      (std::vector<std::string>{
          "now-denied ops/scraper > shop/db 5432/tcp: allow by default/shop/db ingress[0] -> deny by "
          "default/shop/db end-of-tier (2)",
          "now-denied outside 203.0.113.9 > shop/db 5432/tcp: allow by default/shop/db ingress[0] -> deny by "
          "default/shop/db end-of-tier (1)"}));
  EXPECT_TRUE(replay.changes_a_verdict());
}

TEST_F(ReplayTest, NamesWhatWouldBeAllowedAndWhatAnotherPolicyDecides) {
  node_.in_force(20, db_policy(kFromWeb), cluster());
  node_.connect(30, "ops/scraper", "shop/db", 9100);
  const Replay replay = replayed(node_, "");
  EXPECT_EQ(told(replay).front(),
            "now-allowed ops/scraper > shop/db 9100/tcp: deny by default/shop/db end-of-tier -> allow (no "
            "policy) (1)");
  EXPECT_EQ(told(replay).back().substr(0, 12), "other-policy");
}

// The egress record of a connection that ingress denied tells of no allowed connection.
TEST_F(ReplayTest, JudgesAConnectionAsAWhole) {
  const std::string deny = "---\n" + db_policy("  - {action: Deny}\n");
  Node node;
  node.in_force(0, deny, cluster());
  node.connect(10, "shop/web", "shop/db", 5432);
  const Replay replay = replayed(
      node,
      "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\nspec:\n"
      "  selector: role == 'web'\n  types: [Egress]\n");
  EXPECT_FALSE(replay.changes_a_verdict()) << told(replay).front();
  ASSERT_EQ(replay.changes.size(), 1u);
  EXPECT_EQ(replay.changes[0].kind, Change::Kind::OtherPolicy);
}

TEST_F(ReplayTest, SeveralWorkloadsOfANamespaceAreOneLine) {
  node_.connect(15, "ops/scraper", "shop/cache", 9100);
  node_.connect(16, "ops/scraper", "shop/web", 9100);
  const Replay replay =
      replayed(node_,
               "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: out}\nspec:\n"
               "  selector: app == 'scraper'\n  types: [Egress]\n  egress:\n"
               "  - {action: Allow, protocol: TCP, destination: {ports: [5432]}}\n");
  EXPECT_EQ(
      told(replay).front(),
      "now-denied ops/scraper > shop/* 9100/tcp: allow (no policy) -> deny by default//out end-of-tier (2)");
}

// 10.0.0.4 belongs to another pod later: each record is judged as who it was.
TEST_F(ReplayTest, AnAddressIsWhoItWasThen) {
  policy::Cluster later = cluster();
  later.endpoints[3] = pod("shop", "web-2", "10.0.0.4", {{"role", "web"}});
  node_.in_force(20, db_policy(kFromAll), later);
  node_.connect(30, "shop/web-2", "shop/db", 5432);
  const Replay replay = replayed(node_, db_policy(kFromWeb));
  ASSERT_EQ(replay.changes.size(), 2u);
  EXPECT_EQ(replay.changes[0].from, "ops/scraper");
  EXPECT_EQ(replay.changes[0].connections, 2u);
  EXPECT_EQ(replay.coverage.replayed, 10u);
}

TEST_F(ReplayTest, LabelsAreThoseOfThen) {
  policy::Cluster later = cluster();
  later.endpoints[3].labels = {{"role", "web"}};
  node_.in_force(20, db_policy(kFromAll), later);
  node_.connect(30, "ops/scraper", "shop/db", 7777);
  // Only in the namespace of the policy: web's label alone does not help the scraper.
  const std::string anywhere =
      "  - {action: Allow, protocol: TCP, source: {selector: role == 'web', namespaceSelector: all()}}\n";
  const Replay replay = replayed(node_, db_policy(anywhere));
  for (const Change& change : replay.changes) EXPECT_NE(change.port, "7777/tcp") << told(replay).front();
  ASSERT_EQ(replay.changes.size(), 2u);
  EXPECT_EQ(replay.changes[0].from, "ops/scraper");
  EXPECT_EQ(replay.changes[0].port, "5432/tcp");
}

TEST_F(ReplayTest, SaysWhatItCouldNotJudge) {
  auto writer = store::sample::open_store(node_.path());
  store::FlowRecord stray = store::sample::without_policy();
  stray.start = stray.end = store::sample::at(15);
  store::FlowRecord spoofed = store::sample::sparse_record();
  spoofed.reason = Reason::Spoofed;
  spoofed.start = spoofed.end = store::sample::at(16);
  store::FlowRecord early = store::sample::denied();
  early.start = early.end = store::sample::at(-100);
  ASSERT_TRUE(writer.insert(std::vector{stray, spoofed, early}));
  const Replay replay = replayed(node_, db_policy(kFromAll));
  EXPECT_EQ(replay.coverage.records, 11u);
  EXPECT_EQ(replay.coverage.replayed, 8u);
  EXPECT_EQ(replay.coverage.left_out.size(), 3u);
}

}  // namespace
}  // namespace tierlog::query
