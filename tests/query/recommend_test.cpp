// Policies made from recorded flows keep exactly these, by diff.
#include "query/recommend.h"

#include <gtest/gtest.h>

#include "tests/query/node.h"

namespace tierlog::query {
namespace {

using testing_node::Node;
using testing_node::pod;

policy::Cluster cluster() {
  policy::Cluster made;
  for (const char* name : {"shop", "ops"})
    made.namespaces[name] = {name, {{"kubernetes.io/metadata.name", name}}, policy::LogDecisions::None};
  made.endpoints = {
      pod("shop", "web-7c9f8b6d5-ccccc", "10.0.0.1", {{"role", "web"}, {"pod-template-hash", "7c9f8b6d5"}}),
      pod("shop", "web-7c9f8b6d5-bbbbb", "10.0.0.5", {{"role", "web"}, {"pod-template-hash", "7c9f8b6d5"}}),
      pod("shop", "db-0", "10.0.0.2", {{"role", "db"}}),
      // Its labels include the db's: the db must be told from it by what it lacks.
      pod("shop", "backup", "10.0.0.3", {{"role", "db"}, {"job", "backup"}}),
      pod("ops", "scraper", "10.0.0.4", {{"app", "scraper"}})};
  return made;
}

// Denies some of what is tried, so that there is something that must stay denied.
constexpr const char* kInForce = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  selector: role == 'db'
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [22]}}
  - {action: Allow}
)";

class Recommend : public testing::TestWithParam<PolicyForm> {
 protected:
  void SetUp() override {
    node_.in_force(0, kInForce, cluster());
    node_.connect(10, "shop/web-7c9f8b6d5-ccccc", "shop/db-0", 5432);
    node_.connect(11, "shop/web-7c9f8b6d5-bbbbb", "shop/db-0", 5432);
    node_.connect(12, "ops/scraper", "shop/db-0", 9100);
    node_.connect(13, "shop/web-7c9f8b6d5-ccccc", "198.51.100.7", 443);
    node_.connect(14, "shop/web-7c9f8b6d5-ccccc", "198.51.100.8", 443);
    node_.connect(15, "203.0.113.9", "shop/web-7c9f8b6d5-bbbbb", 8080);
    node_.connect(16, "shop/backup", "shop/db-0", 5432);
    node_.connect(17, "shop/web-7c9f8b6d5-ccccc", "shop/db-0", 22);  // denied
    node_.connect(18, "ops/scraper", "shop/backup", 22);             // denied
    node_.connect(19, "shop/web-7c9f8b6d5-ccccc", "10.0.0.4", 53, protocol::kUdp);
  }
  Recommendation made() {
    auto reader = node_.reader();
    auto result = recommend(reader, "shop", GetParam(), {});
    EXPECT_TRUE(result) << result.error().message;
    return std::move(*result);
  }
  std::vector<std::string> verdict_changes(const std::string& yaml) {
    auto reader = node_.reader();
    const auto result = replay(reader, testing_node::load(yaml), {});
    EXPECT_TRUE(result) << result.error().message;
    std::vector<std::string> lines;
    for (const Change& change : result->changes)
      if (change.kind != Change::Kind::OtherPolicy)
        lines.push_back(std::string(name(change.kind)) + " " + change.from + " > " + change.to + " " +
                        change.port);
    return lines;
  }

  Node node_;
};

TEST_P(Recommend, KeepsExactlyWhatWasAllowed) {
  const Recommendation recommendation = made();
  EXPECT_EQ(recommendation.policies, 3u) << recommendation.yaml;
  EXPECT_EQ(verdict_changes(recommendation.yaml), std::vector<std::string>()) << recommendation.yaml;
}

// The control: without one of its ports a recorded connection would be denied, and diff says so.
TEST_P(Recommend, LessThanThatIsNoticed) {
  std::string yaml = made().yaml;
  const auto at = yaml.find("9100");
  ASSERT_NE(at, std::string::npos);
  yaml.replace(at, 4, "9101");
  EXPECT_EQ(verdict_changes(yaml), std::vector<std::string>{"now-denied ops/scraper > shop/db 9100/tcp"});
}

TEST_P(Recommend, AllowsNothingThatWasNotSeen) {
  const policy::PolicySet set = testing_node::load(made().yaml);
  policy::MemoryRuleIds ids;
  const auto program = policy::compile(set, std::make_shared<const policy::Cluster>(cluster()), ids,
                                       {.scope = policy::CompileOptions::Scope::Local});
  ASSERT_TRUE(program);
  const auto verdict = [&](const char* from, const char* to, std::uint16_t port) {
    const policy::Packet packet{*IpAddr::parse(from), *IpAddr::parse(to), protocol::kTcp, 40000, port, 0, 0};
    return policy::evaluate(*program, packet).action;
  };
  EXPECT_EQ(verdict("10.0.0.1", "10.0.0.2", 5432), policy::Action::Allow);
  EXPECT_EQ(verdict("10.0.0.1", "10.0.0.3", 5432), policy::Action::Deny);  // the backup is not the db
  EXPECT_EQ(verdict("10.0.0.1", "10.0.0.2", 5433), policy::Action::Deny);
  EXPECT_EQ(verdict("10.0.0.4", "10.0.0.2", 5432), policy::Action::Deny);
  EXPECT_EQ(verdict("10.0.0.1", "198.51.100.9", 443), policy::Action::Deny);
}

TEST_P(Recommend, NamesPodsByLabelsNotByAddresses) {
  const std::string yaml = made().yaml;
  for (const char* address : {"10.0.0.1", "10.0.0.2", "10.0.0.4", "10.0.0.5", "pod-template-hash"})
    EXPECT_EQ(yaml.find(address), std::string::npos) << address << "\n" << yaml;
  EXPECT_NE(yaml.find("198.51.100.7/32"), std::string::npos);
}

TEST_P(Recommend, AnUnknownNamespaceIsSaid) {
  auto reader = node_.reader();
  const auto result = recommend(reader, "shpo", GetParam(), {});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::NotFound);
  EXPECT_NE(result.error().message.find("did you mean shop?"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Forms, Recommend, testing::Values(PolicyForm::Calico, PolicyForm::Kubernetes),
                         [](const auto& test) {
                           return test.param == PolicyForm::Calico ? "Calico" : "Kubernetes";
                         });

}  // namespace
}  // namespace tierlog::query
