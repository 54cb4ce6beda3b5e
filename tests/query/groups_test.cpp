// Sums by fields and by time, against what was written.
#include "store/groups.h"

#include <gtest/gtest.h>

#include "tests/query/node.h"

namespace tierlog::store {
namespace {

using query::testing_node::Node;
using query::testing_node::pod;

class GroupsTest : public testing::Test {
 protected:
  void SetUp() override {
    policy::Cluster cluster;
    cluster.endpoints = {pod("shop", "web-1", "10.0.0.1", {{"role", "web"}}),
                         pod("shop", "db-0", "10.0.0.2", {{"role", "db"}})};
    node_.in_force(
        0,
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n"
        "spec:\n  selector: role == 'db'\n  ingress:\n"
        "  - {action: Deny, protocol: TCP, destination: {ports: [22]}}\n  - {action: Allow}\n",
        cluster);
    for (const int second : {10, 11, 70}) node_.connect(second, "shop/web-1", "shop/db-0", 5432);
    node_.connect(71, "shop/web-1", "shop/db-0", 22);
    node_.connect(72, "203.0.113.9", "shop/db-0", 5432);
  }
  GroupResult groups(const std::string& fields, GroupQuery query = {}) {
    query.fields = *parse_group_fields(fields);
    auto reader = node_.reader();
    auto result = reader.groups(query);
    EXPECT_TRUE(result) << result.error().message;
    return std::move(*result);
  }
  Node node_;
};

TEST_F(GroupsTest, CountALocalConnectionOnce) {
  const GroupResult result = groups("from-workload,to-workload,port");
  ASSERT_EQ(result.groups.size(), 3u);
  EXPECT_EQ(result.groups[0].names, (std::vector<std::string>{"shop/web", "shop/db", "5432/tcp"}));
  EXPECT_EQ(result.groups[0].sums.connections, 3u);
  EXPECT_EQ(result.groups[0].sums.bytes_in, 3000u);
  EXPECT_EQ(result.total.sums.connections, 4u);
  EXPECT_EQ(result.total.sums.denied_packets, 1u);
}

TEST_F(GroupsTest, TellBothViewsWhereThatIsAskedFor) {
  const GroupResult result = groups("reporter");
  ASSERT_EQ(result.groups.size(), 2u);
  EXPECT_EQ(result.total.sums.connections, 8u);  // 4 egress views, of web, and 4 ingress views, of db
}

TEST_F(GroupsTest, BinsAddUpToTheWhole) {
  GroupQuery query;
  query.bin = std::chrono::minutes(1);
  const GroupResult result = groups("to", query);
  ASSERT_EQ(result.groups.size(), 1u);
  Sums sum;
  for (const Sums& bin : result.groups[0].bins) sum.add(bin);
  EXPECT_EQ(sum.connections, result.groups[0].sums.connections);
  EXPECT_GE(result.groups[0].bins.size(), 2u);
  EXPECT_EQ(to_ns(result.from) % 60'000'000'000, 0);
}

TEST_F(GroupsTest, TooManyBinsAreRefused) {
  GroupQuery query;
  query.bin = std::chrono::seconds(1);
  query.flows.since = sample::at(-1'000'000);
  auto reader = node_.reader();
  const auto result = reader.groups(query);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::InvalidArgument);
}

TEST_F(GroupsTest, TopCutsAfterSorting) {
  GroupQuery query;
  query.top = 1;
  query.order = GroupQuery::Order::Packets;
  const GroupResult result = groups("port", query);
  EXPECT_EQ(result.all, 2u);
  ASSERT_EQ(result.groups.size(), 1u);
  EXPECT_EQ(result.total.sums.connections, 4u);
}

TEST_F(GroupsTest, EveryFieldIsValidSql) {
  for (const std::string_view field : group_field_names())
    EXPECT_GE(groups(std::string(field)).groups.size(), 1u) << field;
}

}  // namespace
}  // namespace tierlog::store
