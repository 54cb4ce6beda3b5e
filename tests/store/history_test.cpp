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

TEST_F(History, ASetIsInForceSinceItCameAlsoOverARestart) {
  ASSERT_TRUE(store_.put_moment(moment(5, "x"), cluster(), {}));
  for (const int later : {30, 60}) {
    Catalog catalog = sample::catalog();
    catalog.since = sample::at(later);
    ASSERT_TRUE(store_.put_catalog(catalog));
    ASSERT_TRUE(store_.put_moment(moment(later, "x"), cluster(), {}));
    EXPECT_EQ(reader().since().value(), sample::at(5));
  }
  ASSERT_TRUE(store_.put_moment(moment(90, "y"), cluster(), {}));
  EXPECT_EQ(reader().since().value(), sample::at(90));
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

// A record of one second that ended then.
FlowRecord record_at(int seconds) {
  FlowRecord record = sample::denied();
  record.end = sample::at(seconds);
  record.start = sample::at(seconds - 1);
  return record;
}

Catalog catalog_at(int seconds, std::vector<RuleRow> rules) {
  Catalog catalog = sample::catalog();
  catalog.since = sample::at(seconds);
  catalog.rules = std::move(rules);
  return catalog;
}

// What the kept records refer to stays, to the second; what came before their time goes.
TEST(HistoryRetention, FollowsTheOldestRecord) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  StoreOptions options;
  options.limits.max_rows = 1;
  options.clean_every = Nanoseconds(0);
  auto opened = FlowStore::open_writer(path, {"c1", "node-1"}, options);
  ASSERT_TRUE(opened) << opened.error().message;
  FlowStore& store = *opened;
  const auto rules = sample::catalog().rules;
  ASSERT_GE(rules.size(), 2u);
  const KnownRule kept{key_hash("kept"), {rules[0].id, 1}};
  const KnownRule gone{key_hash("gone"), {rules[1].id, 1}};
  policy::Cluster with_db = cluster();
  policy::Cluster without = cluster();
  without.endpoints.pop_back();
  ASSERT_TRUE(store.put_catalog(catalog_at(0, rules)));
  ASSERT_TRUE(
      store.put_moment({sample::at(0), 1, true, {{"a.yaml", "one"}}, {}}, with_db, std::vector{kept, gone}));
  ASSERT_TRUE(store.insert(std::vector{record_at(5)}));
  ASSERT_TRUE(store.put_catalog(catalog_at(10, {rules[0]})));
  ASSERT_TRUE(store.put_moment({sample::at(10), 2, true, {{"a.yaml", "two"}}, {}}, without, {}));
  const auto sets = [&path] { return FlowReader::open(path)->policy_sets()->size(); };
  const auto maintain = [&store] {
    const auto more = store.maintain(sample::at(1000), std::chrono::seconds(10));
    ASSERT_TRUE(more) << more.error().message;
  };
  maintain();
  EXPECT_EQ(sets(), 2u) << "the record of the first set is kept";
  EXPECT_EQ(pods_of(std::move(*FlowReader::open(path)), 0, 100), "web db ");
  // It began just before the change.
  ASSERT_TRUE(store.insert(std::vector{record_at(10)}));
  maintain();
  EXPECT_EQ(sets(), 2u);
  EXPECT_TRUE(FlowReader::open(path)->rule_keys()->contains(gone.hash));
  ASSERT_TRUE(store.insert(std::vector{record_at(11)}));
  maintain();
  auto reading = FlowReader::open(path);
  const auto left = reading->policy_sets();
  ASSERT_EQ(left->size(), 1u);
  EXPECT_EQ(reading->policy_texts(left->front().id)->front().text, "two");
  EXPECT_FALSE(reading->rule_keys()->contains(gone.hash));
  EXPECT_TRUE(reading->rule_keys()->contains(kept.hash));
  EXPECT_EQ(pods_of(std::move(*reading), 0, 100), "web ");
}

}  // namespace
}  // namespace tierlog::store
