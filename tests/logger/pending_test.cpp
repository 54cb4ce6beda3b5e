// Records that wait: as they are while there is room, then sums that stay exact, then numbers that are
// declared.
#include "logger/pending.h"

#include <gtest/gtest.h>

#include "logger/books.h"

namespace tierlog::logger {
namespace {

using store::FlowEntry;
using store::FlowRecord;

constexpr RuleId kRule{0x300};
constexpr auto at = [](int seconds) { return WallTime(std::chrono::seconds(1'700'000'000 + seconds)); };

std::shared_ptr<const FlowRecord> like(std::uint32_t source, RuleId rule = kRule) {
  FlowRecord record;
  record.rule = rule;
  record.src.ip = IpAddr::v4(source);
  return std::make_shared<const FlowRecord>(std::move(record));
}

FlowEntry entry(std::shared_ptr<const FlowRecord> description, int when, std::uint16_t source_port = 1,
                std::uint16_t destination_port = 80) {
  FlowEntry made;
  made.like = std::move(description);
  made.start = made.end = at(when);
  made.verdict_packets = made.packets_out = 1;
  made.bytes_out = 60;
  made.connections = 1;
  made.src_port = source_port;
  made.dst_port = destination_port;
  made.state = store::FlowState::New;
  return made;
}

struct Sum {
  std::uint64_t verdicts = 0, bytes = 0, connections = 0;
};
Sum sum_of(const std::vector<FlowEntry>& entries) {
  Sum sum;
  for (const FlowEntry& e : entries) {
    sum.verdicts += e.verdict_packets;
    sum.bytes += e.bytes_out;
    sum.connections += e.connections.value_or(0);
  }
  return sum;
}

TEST(Pending, WithRoomRecordsPassAsTheyAre) {
  Pending pending(100);
  const auto same = like(1);
  for (int i = 0; i < 100; ++i) pending.add(entry(same, i));
  EXPECT_EQ(pending.merged(), 0u);
  const auto taken = pending.take();
  ASSERT_EQ(taken.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(taken[static_cast<std::size_t>(i)].start, at(i));
  EXPECT_TRUE(pending.empty());
}

TEST(Pending, TheOldestOfOneDescriptionArePutTogetherAndAddUp) {
  Pending pending(1000);
  const auto a = like(1), b = like(2);
  for (int i = 0; i < 5000; ++i) pending.add(entry(i % 2 == 0 ? a : b, i, static_cast<std::uint16_t>(i)));
  EXPECT_LE(pending.size(), 1000u);
  EXPECT_TRUE(pending.given_up().empty());
  const auto taken = pending.take();
  EXPECT_EQ(pending.merged(), 5000 - taken.size());
  const Sum sum = sum_of(taken);
  EXPECT_EQ(sum.verdicts, 5000u);
  EXPECT_EQ(sum.bytes, 5000u * 60);
  EXPECT_EQ(sum.connections, 5000u);
  EXPECT_EQ(taken.front().start, at(0));
  EXPECT_GT(taken.front().end, at(1000));
  EXPECT_EQ(taken.front().src_port, std::nullopt) << "of many: none";
  EXPECT_EQ(taken.back().start, at(4999)) << "the newest as it came";
}

TEST(Pending, DifferentPortsOfOnePairArePutTogetherNext) {
  Pending pending(1000);
  std::vector<std::shared_ptr<const FlowRecord>> likes;
  for (std::uint32_t i = 0; i < 10; ++i) likes.push_back(like(i));
  for (int i = 0; i < 20'000; ++i)
    pending.add(entry(likes[static_cast<std::size_t>(i % 10)], i, 1, static_cast<std::uint16_t>(i)));
  EXPECT_LE(pending.size(), 1000u);
  EXPECT_TRUE(pending.given_up().empty());
  const auto taken = pending.take();
  EXPECT_EQ(sum_of(taken).verdicts, 20'000u);
  EXPECT_EQ(taken.front().dst_port, std::nullopt);
}

// The last way out: nothing is the same, and the store takes nothing.
TEST(Pending, WhatFindsNoRoomIsDeclaredByRule) {
  constexpr std::uint32_t kMany = 20'000;
  constexpr RuleId kOther{0x301};
  Pending pending(1000);
  for (std::uint32_t i = 0; i < kMany; ++i) pending.add(entry(like(i, i % 4 == 0 ? kOther : kRule), 1));
  EXPECT_LE(pending.size(), 1000u);
  std::uint64_t given_up = 0;
  for (const auto& [rule, packets] : pending.given_up()) given_up += packets;
  EXPECT_EQ(sum_of(pending.take()).verdicts + given_up, kMany);
  EXPECT_GT(pending.given_up().at(kOther), 0u);

  Books books;
  RuleBalance balance{kRule, false, 15'000, 15'000 - pending.given_up().at(kRule)};
  balance.given_up = pending.given_up().at(kRule);
  for (int reading = 0; reading < 3; ++reading) books.declare(std::vector{balance}, {});
  EXPECT_EQ(books.declared(LossCause::StoreFull), pending.given_up().at(kRule));
  EXPECT_EQ(books.declared(LossCause::Unknown), 0u) << "nothing stands twice";
  // The control: one verdict that nobody accounts for is not explained away.
  balance.recorded -= 1;
  for (int reading = 0; reading < 2; ++reading) books.declare(std::vector{balance}, {});
  EXPECT_EQ(books.declared(LossCause::Unknown), 1u);
}

}  // namespace
}  // namespace tierlog::logger
