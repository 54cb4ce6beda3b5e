// Back in time: policies, pods and rule ids as they were.
#include "query/moment.h"

#include <gtest/gtest.h>

#include "policy/explain.h"
#include "query/revisions.h"
#include "tests/query/node.h"

namespace tierlog::query {
namespace {

using testing_node::Node;
using testing_node::pod;
namespace sample = store::sample;

std::string policy(const std::string& action) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: "
         "shop}\nspec:\n"
         "  selector: role == 'db'\n  ingress:\n  - {action: " +
         action + ", protocol: TCP}\n";
}

class MomentTest : public testing::Test {
 protected:
  void SetUp() override {
    cluster_.endpoints = {pod("shop", "web", "10.0.0.1", {{"role", "web"}}),
                          pod("shop", "db", "10.0.0.2", {{"role", "db"}})};
    node_.in_force(0, policy("Allow"), cluster_);
    first_ = node_.program().rules.front().id;
    node_.connect(10, "shop/web", "shop/db", 5432);
    node_.in_force(100, policy("Deny"), cluster_);
    second_ = node_.program().rules.front().id;
    node_.connect(110, "shop/web", "shop/db", 5432);
    node_.connect(111, "shop/web", "shop/db", 5432);
  }
  policy::Explanation explained(int second) {
    auto reader = node_.reader();
    const auto past = past_at(reader, sample::at(second));
    EXPECT_TRUE(past) << past.error().message;
    const auto program = program_of(reader, *past);
    EXPECT_TRUE(program);
    return policy::explain(*program, {*IpAddr::parse("10.0.0.1"), *IpAddr::parse("10.0.0.2"), protocol::kTcp,
                                      40000, 5432, 0, 0});
  }

  policy::Cluster cluster_;
  Node node_;
  RuleId first_{}, second_{};
};

TEST_F(MomentTest, EachTimeHasItsVerdictAndItsRuleId) {
  const policy::Explanation before = explained(50), after = explained(200);
  EXPECT_EQ(before.action, policy::Action::Allow);
  EXPECT_EQ(before.ingress->steps.back().rule, first_);
  EXPECT_EQ(after.action, policy::Action::Deny);
  EXPECT_EQ(after.ingress->steps.back().rule, second_);
  EXPECT_NE(first_, second_);
}

TEST_F(MomentTest, BeforeTheHistoryNothingIsKnown) {
  auto reader = node_.reader();
  const auto past = past_at(reader, sample::at(-1));
  ASSERT_FALSE(past);
  EXPECT_EQ(past.error().code, ErrorCode::NotFound);
  EXPECT_NE(past.error().message.find("begins at"), std::string::npos);
}

TEST_F(MomentTest, ARevisionTellsItsChangeAndWhatItDecided) {
  auto reader = node_.reader();
  const auto revisions = revisions_of(reader, {"default/shop/db"});
  ASSERT_TRUE(revisions) << revisions.error().message;
  ASSERT_EQ(revisions->size(), 2u);
  const Revision& before = (*revisions)[0];
  const Revision& after = (*revisions)[1];
  EXPECT_EQ(before.number, 1u);
  EXPECT_EQ(before.until, after.since);
  EXPECT_EQ(before.allowed_connections, 1u);
  EXPECT_EQ(before.denied_packets, 0u);
  EXPECT_EQ(after.number, 2u);
  EXPECT_EQ(after.allowed_connections, 0u);
  EXPECT_EQ(after.denied_packets, 2u);
  std::string changes;
  for (const RuleLine& line : after.rules) changes += line.change;
  EXPECT_EQ(changes, " -+");
}

TEST_F(MomentTest, ARemovedPolicyEnds) {
  node_.in_force(300, "", cluster_);
  node_.in_force(400, policy("Deny"), cluster_);
  auto reader = node_.reader();
  const auto revisions = revisions_of(reader, {"default/shop/db"});
  ASSERT_TRUE(revisions);
  ASSERT_EQ(revisions->size(), 4u);
  EXPECT_TRUE((*revisions)[2].removed);
  EXPECT_EQ((*revisions)[3].number, 2u);  // the same rule again is the same revision
  EXPECT_TRUE((*revisions)[3].again);
}

// An undone change has the number that its records have, and says that it is not new.
TEST_F(MomentTest, AnUndoneChangeIsAnOldRevisionAgain) {
  node_.in_force(300, policy("Allow"), cluster_);
  node_.connect(310, "shop/web", "shop/db", 5432);
  auto reader = node_.reader();
  const auto revisions = revisions_of(reader, {"default/shop/db"});
  ASSERT_TRUE(revisions);
  ASSERT_EQ(revisions->size(), 3u);
  std::vector<std::pair<std::uint32_t, bool>> told;
  for (const Revision& revision : *revisions) told.emplace_back(revision.number, revision.again);
  EXPECT_EQ(told, (std::vector<std::pair<std::uint32_t, bool>>{{1, false}, {2, false}, {1, true}}));
  EXPECT_EQ((*revisions)[0].until, (*revisions)[1].since);
  store::FlowQuery query;
  query.filters = {{store::FieldFilter::Field::Revision, {"1"}, false}};
  EXPECT_EQ(reader.flows(query)->size(), 2u);
}

}  // namespace
}  // namespace tierlog::query
