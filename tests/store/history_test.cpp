// What was in force earlier: kept by interval, read back as it was.
#include "store/history.h"

#include <gtest/gtest.h>

#include "store/query.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

policy::Endpoint pod(const std::string& name, const std::string& address) {
  policy::Endpoint endpoint;
  endpoint.endpoint_namespace = "tenant-01";
  endpoint.name = name;
  endpoint.labels = {{"role", name}};
  endpoint.addresses = {*IpAddr::parse(address)};
  endpoint.ports = {{"http", protocol::kTcp, 8080}};
  endpoint.service_account = "robot";
  endpoint.workload = name;
  endpoint.node = "node-1";
  endpoint.local = true;
  return endpoint;
}

policy::Cluster cluster() {
  policy::Cluster made;
  made.namespaces["tenant-01"] = {"tenant-01", {{"tenant", "01"}}, policy::LogDecisions::Deny};
  made.service_accounts = {{"tenant-01", "robot", {{"trusted", "yes"}}}};
  made.nodes = {{"node-1", {{"zone", "a"}}, {*IpAddr::parse("192.0.2.1")}}};
  made.services = {
      {"tenant-01", "web", {*IpAddr::parse("10.0.0.1")}, {{*IpAddr::parse("10.0.0.1"), 6, 8080}}}};
  made.endpoints = {pod("web", "10.0.0.1"), pod("db", "fd00::2")};
  made.network_sets = {{"", "partners", {{"kind", "partner"}}, {*Cidr::parse("198.51.100.0/24")}, {}}};
  return made;
}

class History : public testing::Test {
 protected:
  std::string path() const { return folder_.file("flows.db"); }
  FlowReader reader() const {
    auto opened = FlowReader::open(path());
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
  static Moment moment(int seconds, const std::string& text) {
    return {sample::at(seconds), static_cast<std::uint64_t>(seconds), true, {{"a.yaml", text}}, {}};
  }

  sample::Folder folder_;
  FlowStore store_ = sample::open_store(folder_.file("flows.db"));
};

TEST_F(History, GivesBackEveryObjectAsItWas) {
  ASSERT_TRUE(store_.put_moment(moment(0, "x"), cluster(), {}));
  const auto versions = reader().object_versions(sample::at(0), sample::at(0));
  ASSERT_TRUE(versions) << versions.error().message;
  policy::Cluster back;
  for (const ObjectVersion& version : *versions) ASSERT_TRUE(add_object(back, version));
  const policy::Cluster was = cluster();
  EXPECT_EQ(back.endpoints, was.endpoints);
  EXPECT_EQ(back.nodes, was.nodes);
  EXPECT_EQ(back.services, was.services);
  EXPECT_EQ(back.service_accounts, was.service_accounts);
  EXPECT_EQ(back.namespaces.at("tenant-01").labels, was.namespaces.at("tenant-01").labels);
  EXPECT_EQ(back.namespaces.at("tenant-01").log_decisions, policy::LogDecisions::Deny);
  ASSERT_EQ(back.network_sets.size(), 1u);
  EXPECT_EQ(back.network_sets[0].nets, was.network_sets[0].nets);
}

// The names of the pods that were there between two times.
std::string pods_of(FlowReader reader, int from, int until) {
  std::string names;
  const auto versions = reader.object_versions(sample::at(from), sample::at(until));
  for (const ObjectVersion& version : *versions)
    if (version.kind == ObjectKind::Endpoint) names += version.name.substr(10) + " ";
  return names;
}

TEST_F(History, KnowsWhoWasThereWhen) {
  policy::Cluster changing = cluster();
  ASSERT_TRUE(store_.put_moment(moment(0, "x"), changing, {}));
  changing.endpoints.pop_back();
  ASSERT_TRUE(store_.put_moment(moment(10, "x"), changing, {}));
  changing.endpoints.push_back(pod("api", "fd00::2"));
  ASSERT_TRUE(store_.put_moment(moment(20, "x"), changing, {}));
  EXPECT_EQ(pods_of(reader(), 5, 5), "web db ");
  EXPECT_EQ(pods_of(reader(), 15, 15), "web ");
  EXPECT_EQ(pods_of(reader(), 20, 30), "web api ");
  EXPECT_EQ(pods_of(reader(), 0, 30), "web db api ");
}

TEST_F(History, GoesOnWhereAnEarlierWriterEnded) {
  ASSERT_TRUE(store_.put_moment(moment(0, "x"), cluster(), {}));
  auto later = sample::open_store(path());
  policy::Cluster without = cluster();
  without.endpoints.pop_back();
  ASSERT_TRUE(later.put_moment(moment(10, "x"), without, {}));
  EXPECT_EQ(pods_of(reader(), 20, 30), "web ");
  EXPECT_EQ(pods_of(reader(), 0, 30), "web db ");
}

TEST_F(History, KeepsASetOncePerChange) {
  ASSERT_TRUE(store_.put_moment(moment(0, "one"), cluster(), {}));
  ASSERT_TRUE(store_.put_moment(moment(10, "one"), cluster(), {}));
  ASSERT_TRUE(store_.put_moment(moment(20, "two"), cluster(), {}));
  ASSERT_TRUE(store_.put_moment(moment(30, "one"), cluster(), {}));
  auto reading = reader();
  const auto sets = reading.policy_sets();
  ASSERT_TRUE(sets);
  ASSERT_EQ(sets->size(), 3u);
  EXPECT_EQ((*sets)[1].since, sample::at(20));
  EXPECT_EQ(reading.policy_texts((*sets)[1].id)->front(), (policy::SourceText{"a.yaml", "two"}));
  EXPECT_EQ(reading.policy_texts((*sets)[2].id)->front(), (policy::SourceText{"a.yaml", "one"}));
}

TEST_F(History, KnowsTheIdsOfRules) {
  const KnownRule rule{key_hash("rule|a"), {RuleId{0x123}, 4}};
  ASSERT_TRUE(store_.put_moment(moment(0, "x"), cluster(), std::vector{rule}));
  const auto keys = reader().rule_keys();
  ASSERT_TRUE(keys && keys->contains(rule.hash));
  EXPECT_EQ(keys->at(rule.hash).id, RuleId{0x123});
  EXPECT_EQ(keys->at(rule.hash).revision, 4u);
}

}  // namespace
}  // namespace tierlog::store
