// Counts of denied flows in, records out: differences that add up, entries that expire and come again. No kernel.
#include "tests/logger/flow_logger_pods.h"

namespace tierlog::logger {
namespace {

TEST_F(FlowLoggerTest, LaterPacketsComeAsDifferencesAndAddUp) {
  const RuleId rule = rule_of(2);
  std::uint64_t sum = 0;
  const auto add = [&](const std::vector<FlowRecord>& records) {
    for (const FlowRecord& r : records)
      if (r.reporter == store::Reporter::Destination) sum += r.verdict_packets;
  };
  add(give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1)));
  EXPECT_EQ(sum, 1u);
  add(read({count(rule, 10)}, 10));
  EXPECT_EQ(sum, 10u);
  // The message of the next interval is not another packet.
  add(give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 11)));
  EXPECT_EQ(sum, 10u);
  EXPECT_TRUE(read({count(rule, 10)}, 20).empty()) << "nothing new, no record";
  const auto records = read({count(rule, 12)}, 30);
  add(records);
  EXPECT_EQ(sum, 12u);
  ASSERT_FALSE(records.empty());
  EXPECT_EQ(records[0].start, at(10));
  EXPECT_EQ(records[0].end, at(30));
  EXPECT_EQ(records[0].bytes_out, 120u);
}

TEST_F(FlowLoggerTest, AnEntryThatExpiredAndCameBackStartsAnew) {
  const RuleId rule = rule_of(2);
  give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1));
  read({count(rule, 5)}, 10);
  EXPECT_TRUE(read({}, 80).empty());
  const auto again = give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 90));
  ASSERT_EQ(again.size(), 2u) << "recorded at once, both views";
  EXPECT_EQ(again[0].verdict_packets, 1u);
  const auto rest = read({count(rule, 3)}, 100);
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0].verdict_packets, 2u);
}

// Else what the store keeps of denied flows, and this process, would grow with every flow there ever was.
TEST_F(FlowLoggerTest, WhatTheKernelForgotIsForgottenHereAndInTheStore) {
  give(event(EventKind::Denied, rule_of(2), "10.0.0.3", "10.0.0.1", 5432, 1));
  read({count(rule_of(2), 5)}, 10);
  const store::ToldChanges told = logger_.take_changes();
  ASSERT_EQ(told.denied.size(), 1u);
  read({}, 20);
  EXPECT_TRUE(logger_.take_changes().forgotten.empty()) << "not before its time";
  read({}, 200);
  EXPECT_EQ(logger_.take_changes().forgotten, std::vector{told.denied.front().handle});
  read({}, 400);
  EXPECT_TRUE(logger_.take_changes().forgotten.empty()) << "once";
}

TEST_F(FlowLoggerTest, AnEntryThatADumpLeftOutIsNotForgotten) {
  const RuleId rule = rule_of(2);
  give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1));
  read({count(rule, 5)}, 10);
  EXPECT_TRUE(read({}, 20).empty()) << "the kernel's table grew under the dump";
  const auto rest = read({count(rule, 7)}, 30);
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0].verdict_packets, 2u);
}

// Expired and made again between two readings: nobody saw it missing.
TEST_F(FlowLoggerTest, AnEntryThatWasMadeAgainUnseenIsTold) {
  const RuleId rule = rule_of(2);
  const auto idle = [&](std::uint64_t packets, int seconds) {
    DeniedCount counted = count(rule, packets);
    counted.idle = std::chrono::seconds(seconds);
    return counted;
  };
  give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1));
  EXPECT_TRUE(read({idle(1, 9)}, 10).empty());
  EXPECT_TRUE(read({idle(1, 59)}, 60).empty());
  const auto again = give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 62));
  ASSERT_EQ(again.size(), 2u) << "at once, both views";
  EXPECT_EQ(again[0].verdict_packets, 1u);
  EXPECT_TRUE(read({idle(1, 8)}, 70).empty()) << "and once only";
  // The message was lost: the count alone shows that there was another packet.
  const auto silent = read({idle(1, 5)}, 140);
  ASSERT_EQ(silent.size(), 2u);
  EXPECT_EQ(silent[0].verdict_packets, 1u);
}

// A busy machine: three seconds lie between what the kernel said and the time that it is said to be of.
TEST_F(FlowLoggerTest, AReadingThatIsLateTellsNothingTwice) {
  const RuleId rule = rule_of(2);
  give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 1));
  EXPECT_EQ(read({count(rule, 5)}, 10).size(), 2u);
  DeniedCount unchanged = count(rule, 5);
  unchanged.idle = std::chrono::seconds(10);
  EXPECT_TRUE(read({unchanged}, 23).empty());
}

TEST_F(FlowLoggerTest, ACountWithoutItsMessageWaitsOneReading) {
  const RuleId rule = rule_of(2);
  EXPECT_TRUE(read({count(rule, 4)}, 10).empty());
  const auto late = give(event(EventKind::Denied, rule, "10.0.0.3", "10.0.0.1", 5432, 9));
  ASSERT_EQ(late.size(), 2u);
  EXPECT_EQ(late[0].src_port, 40'000);
  const auto rest = read({count(rule, 4)}, 20);
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0].verdict_packets, 3u);
}

TEST_F(FlowLoggerTest, ACountWhoseMessageWasLostIsRecordedWithoutDetails) {
  const RuleId rule = rule_of(2);
  read({count(rule, 4)}, 10);
  const auto records = read({count(rule, 4)}, 20);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].verdict_packets, 4u);
  EXPECT_EQ(records[0].src_port, std::nullopt);
  EXPECT_EQ(records[0].policy, "platform/a/restrict");
}

TEST_F(FlowLoggerTest, TheLastReadingWaitsForNothing) {
  const auto records = read({count(rule_of(2), 4)}, 10, FlowLogger::Reading::Last);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].verdict_packets, 4u);
}

TEST_F(FlowLoggerTest, WhatWasCountedBeforeUsIsNoNews) {
  const RuleId rule = rule_of(2);
  const std::vector<DeniedCount> before{count(rule, 100)};
  logger_.set_denied_baseline(before, at(0));
  DeniedCount untouched = count(rule, 100);
  untouched.idle += std::chrono::seconds(10);
  EXPECT_TRUE(read({untouched}, 10).empty());
  const auto records = read({count(rule, 101)}, 20);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].verdict_packets, 1u);
}

}  // namespace
}  // namespace tierlog::logger
