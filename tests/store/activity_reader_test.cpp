// Who asks again and again is told what a fresh look tells, whatever changed in between.
#include <gtest/gtest.h>

#include "store/activity.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

std::int64_t ns_of(const std::optional<WallTime>& time) {
  return time ? to_ns(*time) : -1;
}

class Activities : public testing::Test {
 protected:
  void expect_the_same() {
    ASSERT_TRUE(reader_.read(told_));
    auto fresh = std::move(*FlowReader::open(folder_.file("flows.db")));
    const auto rules = *fresh.rules({}, true);
    ASSERT_EQ(told_.rules.size(), rules.size());
    for (std::size_t i = 0; i < rules.size(); ++i) {
      const RuleActivity &a = told_.rules[i], &b = rules[i];
      EXPECT_EQ(a.rule.id, b.rule.id);
      EXPECT_EQ(a.rule.text, b.rule.text);
      EXPECT_EQ(a.live, b.live);
      EXPECT_EQ(a.kernel_packets, b.kernel_packets);
      EXPECT_EQ(a.kernel_bytes, b.kernel_bytes);
      EXPECT_EQ(a.recorded_packets, b.recorded_packets);
      EXPECT_EQ(a.unattributed, b.unattributed);
      EXPECT_EQ(a.suppressed, b.suppressed);
      EXPECT_EQ(ns_of(a.last_hit), ns_of(b.last_hit)) << to_hex(a.rule.id);
    }
    const auto policies = *fresh.policies();
    ASSERT_EQ(told_.policies.size(), policies.size());
    for (std::size_t i = 0; i < policies.size(); ++i) {
      EXPECT_EQ(told_.policies[i].policy.display, policies[i].policy.display);
      EXPECT_EQ(told_.policies[i].policy.endpoints_selected, policies[i].policy.endpoints_selected);
      EXPECT_EQ(told_.policies[i].staged_denied, policies[i].staged_denied);
      EXPECT_EQ(ns_of(told_.policies[i].last_hit), ns_of(policies[i].last_hit)) << policies[i].policy.display;
    }
    EXPECT_EQ(told_.endpoints.size(), fresh.endpoints()->size());
    const auto losses = *fresh.losses();
    ASSERT_EQ(told_.losses.size(), losses.size());
    for (std::size_t i = 0; i < losses.size(); ++i) EXPECT_EQ(told_.losses[i].packets, losses[i].packets);
  }

  sample::Folder folder_;
  FlowStore store_ = sample::open_store(folder_.file("flows.db"));
  ActivityReader reader_ = std::move(*ActivityReader::open(folder_.file("flows.db")));
  Activity told_;
};

TEST_F(Activities, AreWhatAFreshLookTells) {
  expect_the_same();
  Catalog catalog = sample::catalog();
  ASSERT_TRUE(store_.put_catalog(catalog));
  expect_the_same();
  ASSERT_FALSE(told_.rules.empty());
  ASSERT_TRUE(
      store_.insert(std::vector<FlowRecord>{sample::denied(), sample::allowed(),
                                            sample::denied_at_end(), sample::without_policy()}));
  expect_the_same();
  const std::vector<RuleCount> counts = {
      {sample::kDenyRule, 5, 300}, {sample::kLogRule, 4, 240}, {sample::kPassRule, 3, 30}};
  ASSERT_TRUE(store_.put_counts(counts,
                                std::vector<LossCount>{{"nflog-gap", sample::kDenyRule, 1},
                                                       {"enobufs", sample::kDenyRule, 2},
                                                       {"enobufs", RuleId::None, 7}},
                                sample::at(20)));
  expect_the_same();
  ASSERT_TRUE(
      store_.put_counts(std::vector<RuleCount>{{sample::kDenyRule, 2, 120}, {sample::kLogRule, 9, 540}},
                        std::vector<LossCount>{{"nflog-gap", sample::kDenyRule, 4}}, sample::at(40)));
  expect_the_same();
  // Names that changed, a rule that went and one that came.
  catalog.rules.front().text = "another text";
  catalog.rules.pop_back();
  catalog.rules.push_back(catalog.rules.front());
  catalog.rules.back().id = RuleId{0x999};
  catalog.policies.front().endpoints_selected += 5;
  ASSERT_TRUE(store_.put_catalog(catalog));
  expect_the_same();
  ASSERT_TRUE(store_.put_counts(std::vector<RuleCount>{{RuleId{0x999}, 8, 80}}, {}, sample::at(60)));
  expect_the_same();
}

// A rule of which there are numbers before there is a name.
TEST_F(Activities, ANumberWithoutANameWaitsForIt) {
  ASSERT_TRUE(store_.put_counts(std::vector<RuleCount>{{sample::kDenyRule, 5, 300}}, {}, sample::at(20)));
  expect_the_same();
  ASSERT_TRUE(store_.put_catalog(sample::catalog()));
  expect_the_same();
}

}  // namespace
}  // namespace tierlog::store
