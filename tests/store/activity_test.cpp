// Sums: flows that come in several records, the board, rules, kernel counters that begin anew.
#include <gtest/gtest.h>

#include "store/query.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;

class Activity : public testing::Test {
 protected:
  Activity() : store_(sample::open_store(folder_.file("flows.db"))) {
    EXPECT_TRUE(store_.put_catalog(sample::catalog()));
  }
  void insert(const std::vector<FlowRecord>& records) { ASSERT_TRUE(store_.insert(records)); }
  FlowReader reader() {
    auto opened = FlowReader::open(folder_.file("flows.db"));
    if (!opened) throw std::runtime_error(opened.error().message);
    return std::move(*opened);
  }
  RuleActivity rule(RuleId id) {
    const auto rules = reader().rules({}, true);
    if (!rules) throw std::runtime_error(rules.error().message);
    for (const RuleActivity& activity : *rules)
      if (activity.rule.id == id) return activity;
    throw std::runtime_error("no such rule");
  }
  PolicyActivity policy(const std::string& display) {
    const auto policies = reader().policies();
    if (!policies) throw std::runtime_error(policies.error().message);
    for (const PolicyActivity& activity : *policies)
      if (activity.policy.display == display) return activity;
    throw std::runtime_error("no such policy");
  }

  sample::Folder folder_;
  FlowStore store_;
};

FlowRecord difference(FlowRecord record, int seconds, std::uint64_t packets) {
  record.id += std::to_string(seconds);
  record.start = sample::at(seconds - 10);
  record.end = sample::at(seconds);
  record.verdict_packets = packets;
  record.packets_out = packets;
  record.bytes_out = packets * 60;
  return record;
}

FlowQuery denied_by(const std::string& policy) {
  FlowQuery query;
  query.filters = {{Field::Action, {"deny"}, false}, {Field::Policy, {policy}, false}};
  return query;
}

TEST_F(Activity, RecordsOfOneFlowAreSummed) {
  const FlowRecord first = sample::denied();
  insert({first, sample::denied_at_end()});
  insert({difference(first, 10, 11), sample::allowed()});
  insert({difference(first, 20, 5)});
  const auto groups = reader().grouped_flows(denied_by("tenant-01-restrict"));
  ASSERT_TRUE(groups) << groups.error().message;
  ASSERT_EQ(groups->size(), 2u);
  const FlowGroup& summed = groups->front();
  EXPECT_EQ(summed.newest.rule, sample::kDenyRule);
  EXPECT_EQ(summed.newest.verdict_packets, 5u);
  EXPECT_EQ(summed.first, sample::at(0));
  EXPECT_EQ(summed.last, sample::at(20));
  EXPECT_EQ(summed.records, 3u);
  EXPECT_EQ(summed.packets, 17u);
  EXPECT_EQ(summed.bytes, 17u * 60);
  EXPECT_EQ(groups->back().newest.rule, sample::kEndOfTier);
  EXPECT_EQ(groups->back().packets, 1u);
}

TEST_F(Activity, AnEndOfTierIsFoundByEveryPolicyThatWasAsked) {
  insert({sample::denied(), sample::denied_at_end()});
  const auto groups = reader().grouped_flows(denied_by("isolate"));
  ASSERT_TRUE(groups);
  ASSERT_EQ(groups->size(), 1u);
  EXPECT_EQ(groups->front().newest.rule, sample::kEndOfTier);
  EXPECT_EQ(groups->front().newest.policy, sample::kRestrict);
}

struct Difference {
  const char* name;
  void (*change)(FlowRecord&);
  std::size_t groups;
};
void PrintTo(const Difference& test, std::ostream* out) {
  *out << test.name;
}

class GroupKey : public Activity, public testing::WithParamInterface<Difference> {};

TEST_P(GroupKey, SeparatesFlows) {
  FlowRecord other = sample::denied();
  GetParam().change(other);
  insert({sample::denied(), other});
  EXPECT_EQ(reader().grouped_flows({})->size(), GetParam().groups);
}

const Difference kDifferences[] = {
    {"Nothing", [](FlowRecord&) {}, 1},
    {"SourcePort", [](FlowRecord& r) { r.src_port = 1; }, 1},
    {"NameOfThePeer", [](FlowRecord& r) { r.src.name = "web-new"; }, 1},
    {"SourceAddress", [](FlowRecord& r) { r.src.ip = *IpAddr::parse("10.244.1.70"); }, 2},
    {"DestinationAddress", [](FlowRecord& r) { r.dst.ip = *IpAddr::parse("10.244.1.90"); }, 2},
    {"Port", [](FlowRecord& r) { r.dst_port = 5433; }, 2},
    {"Protocol", [](FlowRecord& r) { r.proto = protocol::kUdp; }, 2},
    {"Rule", [](FlowRecord& r) { r.rule = sample::kEndOfTier; }, 2},
    {"Reporter", [](FlowRecord& r) { r.reporter = Reporter::Source; }, 2},
    {"Direction", [](FlowRecord& r) { r.direction = Direction::Egress; }, 2},
    {"IcmpType", [](FlowRecord& r) { r.icmp_type = 8; }, 2},
};

INSTANTIATE_TEST_SUITE_P(All, GroupKey, testing::ValuesIn(kDifferences),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_F(Activity, GroupsAreNewestFirstAndLimited) {
  insert({difference(sample::denied(), 30, 1), difference(sample::denied_at_end(), 20, 1)});
  FlowQuery query;
  query.limit = 1;
  EXPECT_EQ(reader().grouped_flows(query)->front().newest.rule, sample::kDenyRule);
  query.oldest_first = true;
  EXPECT_EQ(reader().grouped_flows(query)->front().newest.rule, sample::kEndOfTier);
  query.since = sample::at(25);
  EXPECT_EQ(reader().grouped_flows(query)->front().newest.rule, sample::kDenyRule);
}

TEST_F(Activity, TheBoardCountsWhatEachPolicyDid) {
  const FlowRecord first = sample::denied();
  FlowRecord later = sample::allowed();  // the same connection, an interval later
  later.connections = 0;
  later.verdict_packets = 0;
  later.end = sample::at(60);
  FlowRecord closed = later;  // the kernel forgets it minutes after its last packet
  closed.start = sample::at(60);
  closed.end = sample::at(180);
  closed.ct_state = "closed";
  insert({first, difference(first, 10, 11), sample::denied_at_end(), sample::allowed(), later, closed});
  ASSERT_TRUE(store_.put_counts(
      std::vector<RuleCount>{{sample::kPassRule, 7, 420}, {sample::kLogRule, 9, 540}}, {}, sample::at(30)));
  const PolicyActivity restrict = policy(sample::kRestrict);
  EXPECT_EQ(restrict.allowed, 1u);
  EXPECT_EQ(restrict.denied, 13u);
  EXPECT_EQ(restrict.logged, 9u);
  EXPECT_EQ(restrict.last_hit, sample::at(60));
  EXPECT_EQ(restrict.tier_order, "200.5");
  EXPECT_EQ(restrict.policy.order, 20);
  const PolicyActivity quarantine = policy(sample::kQuarantine);
  EXPECT_EQ(quarantine.passed, 7u);
  EXPECT_EQ(quarantine.last_hit, sample::at(30));
  EXPECT_EQ(policy(sample::kTighten).staged_denied, 12u);
  EXPECT_EQ(policy(sample::kTighten).policy.order, std::nullopt);
  EXPECT_EQ(policy(sample::kIsolate).last_hit, std::nullopt);
}

TEST_F(Activity, TheBoardIsInTheOrderOfEvaluation) {
  std::vector<std::string> displays;
  const auto policies = reader().policies();
  for (const PolicyActivity& activity : *policies) displays.push_back(activity.policy.display);
  EXPECT_EQ(displays, (std::vector<std::string>{sample::kQuarantine, sample::kIsolate, sample::kRestrict,
                                                sample::kTighten}));
  const auto tiers = reader().tiers();
  ASSERT_EQ(tiers->size(), 3u);
  EXPECT_EQ((*tiers)[1].name, "platform");
  EXPECT_EQ((*tiers)[2].order, std::nullopt);
}

TEST_F(Activity, ALastHitMovesOnlyWhenTheCounterGrew) {
  const auto count = [this](std::uint64_t packets, int seconds) {
    ASSERT_TRUE(
        store_.put_counts(std::vector<RuleCount>{{sample::kPassRule, packets, 1}}, {}, sample::at(seconds)));
  };
  count(0, 1);
  EXPECT_EQ(policy(sample::kQuarantine).last_hit, std::nullopt);
  count(3, 2);
  count(3, 3);
  EXPECT_EQ(policy(sample::kQuarantine).last_hit, sample::at(2));
}

TEST_F(Activity, ACounterThatBeginsAnewIsAddedToWhatItWas) {
  const auto put = [this](std::uint64_t packets) {
    ASSERT_TRUE(store_.put_counts(std::vector<RuleCount>{{sample::kDenyRule, packets, packets * 60}},
                                  std::vector<LossCount>{{"nflog-gap", sample::kDenyRule, packets}},
                                  sample::at(1)));
  };
  put(10);
  put(14);
  EXPECT_EQ(rule(sample::kDenyRule).kernel_packets, 14u);
  put(2);
  put(3);
  EXPECT_EQ(rule(sample::kDenyRule).kernel_packets, 17u);
  EXPECT_EQ(rule(sample::kDenyRule).kernel_bytes, 17u * 60);
  EXPECT_EQ(rule(sample::kDenyRule).unattributed, 17u);
  EXPECT_EQ(reader().losses()->front().packets, 17u);
}

TEST_F(Activity, ARuleShowsKernelAndRecordedSideBySide) {
  insert({sample::denied(), difference(sample::denied(), 10, 11)});
  ASSERT_TRUE(store_.put_counts(std::vector<RuleCount>{{sample::kDenyRule, 14, 840}},
                                std::vector<LossCount>{{"deny-set-full", sample::kDenyRule, 2}},
                                sample::at(11)));
  const RuleActivity activity = rule(sample::kDenyRule);
  EXPECT_EQ(activity.kernel_packets, activity.recorded_packets + activity.unattributed);
  EXPECT_EQ(activity.recorded_packets, 12u);
  EXPECT_EQ(activity.rule.text, "Deny rule");
  EXPECT_EQ(activity.rule.revision, 3u);
}

TEST_F(Activity, SuppressedMessagesAreCountedAtTheLogRule) {
  FlowRecord record = sample::denied();
  record.logged_by.front().suppressed = 5;
  insert({record, record});
  EXPECT_EQ(rule(sample::kLogRule).suppressed, 10u);
  EXPECT_EQ(rule(sample::kLogRule).recorded_packets, 0u);
}

TEST_F(Activity, RulesOfAPolicyInTheirOrder) {
  std::vector<RuleId> ids;
  const auto rules = reader().rules("tenant-01-restrict");
  for (const RuleActivity& activity : *rules) ids.push_back(activity.rule.id);
  EXPECT_EQ(ids, (std::vector<RuleId>{sample::kLogRule, sample::kAllowRule, sample::kDenyRule,
                                      sample::kEndOfTier}));
  EXPECT_EQ(reader().rules("isolate")->front().rule.id, sample::kEndOfTier);
  EXPECT_EQ(reader().rules()->back().rule.id, reserved::kNoPolicyIngress);
  EXPECT_EQ(reader().rules("/(/").error().code, ErrorCode::InvalidArgument);
}

TEST_F(Activity, RulesOfAnEarlierCatalogStayKnown) {
  insert({sample::denied()});
  Catalog next = sample::catalog();
  next.revision = 20;
  next.policies.pop_back();
  std::erase_if(next.rules, [](const RuleRow& row) { return row.id == sample::kDenyRule; });
  ASSERT_TRUE(store_.put_catalog(next));
  EXPECT_FALSE(rule(sample::kDenyRule).live);
  EXPECT_EQ(reader().rules()->size(), 5u);
  EXPECT_EQ(reader().rules({}, true)->size(), 6u);
  EXPECT_EQ(reader().policies()->size(), 3u);
  EXPECT_EQ(policy(sample::kRestrict).denied, 1u);
  RuleRow back = sample::catalog().rules[3];
  ASSERT_TRUE(store_.put_rules(std::vector{back}));
  EXPECT_TRUE(rule(sample::kDenyRule).live);
  EXPECT_TRUE(rule(sample::kAllowRule).live);
}

TEST_F(Activity, NamesOfTheTimeOfTheVerdictStay) {
  FlowRecord before = sample::denied();
  FlowRecord after = sample::denied();
  after.policy = "edge/tenant-01/tenant-01-restrict";
  after.tier = "edge";
  after.policy_revision = 4;
  after.dst.name = "db-1";
  insert({before, after});
  const auto flows = reader().flows({});
  ASSERT_EQ(flows->size(), 2u);
  EXPECT_TRUE((*flows)[1].record == before);
  EXPECT_TRUE((*flows)[0].record == after);
}

TEST_F(Activity, WhatIsEnforcedReadsBack) {
  const Catalog catalog = sample::catalog();
  EXPECT_EQ(reader().since().value(), catalog.since);
  EXPECT_EQ(reader().origin()->node, "node-1");
  const auto endpoints = reader().endpoints();
  ASSERT_EQ(endpoints->size(), 1u);
  EXPECT_EQ(endpoints->front().addresses, catalog.endpoints.front().addresses);
  EXPECT_EQ(endpoints->front().labels, catalog.endpoints.front().labels);
  EXPECT_EQ(endpoints->front().ingress_policies, catalog.endpoints.front().ingress_policies);
}

}  // namespace
}  // namespace tierlog::store
