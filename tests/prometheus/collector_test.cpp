// Sums over records that never go back, and what a scrape tells of a real flow index.
#include "exporters/prometheus/collector.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>

#include "tests/prometheus/programs.h"
#include "tests/prometheus/samples.h"
#include "tests/store/sample.h"

namespace tierlog::prometheus {
namespace {

namespace sample = store::sample;
using testing::Samples;

std::string id_of(int i) {
  return "0193a000-0000-7000-8000-" + std::to_string(100000000000 + i);
}

class Tallies : public ::testing::Test {
 protected:
  void put(int from, int count, const std::string& from_namespace = "") {
    std::vector<store::FlowRecord> records;
    for (int i = from; i < from + count; ++i) {
      records.push_back(i % 2 == 0 ? sample::denied() : sample::allowed());
      records.back().id = id_of(i);
      if (!from_namespace.empty()) records.back().src = sample::pod("10.9.0.1", from_namespace, "x", "x");
    }
    ASSERT_TRUE(store_.insert(records));
  }
  store::FlowReader reader() const { return std::move(*store::FlowReader::open(folder_.file("flows.db"))); }
  std::string file() const { return folder_.file("metrics.json"); }
  static std::uint64_t denied(const Sums& sums) {
    std::uint64_t all = 0;
    for (const auto& [key, value] : sums.denied) all += value.packets;
    return all;
  }
  static std::uint64_t connections(const Sums& sums) {
    std::uint64_t all = 0;
    for (const auto& [key, value] : sums.policies) all += value.connections;
    return all;
  }

  sample::Folder folder_;
  store::FlowStore store_ = sample::open_store(folder_.file("flows.db"));
};

TEST_F(Tallies, GoOnOverARestartAndAKill) {
  const std::uint64_t per_denial = sample::denied().verdict_packets;
  auto reading = reader();
  {
    Tally tally(file(), 100);
    put(0, 10);
    ASSERT_TRUE(tally.catch_up(reading));
    ASSERT_TRUE(tally.catch_up(reading)) << "nothing new is nothing new";
    EXPECT_EQ(denied(tally.sums()), 5 * per_denial);
    ASSERT_TRUE(tally.save());
    put(10, 10);
    ASSERT_TRUE(tally.catch_up(reading));
    EXPECT_EQ(denied(tally.sums()), 10 * per_denial);
    EXPECT_EQ(connections(tally.sums()), 10 * sample::allowed().connections.value());
  }  // killed: what came after save() is not in the file
  Tally next(file(), 100);
  EXPECT_EQ(denied(next.sums()), 5 * per_denial);
  ASSERT_TRUE(next.catch_up(reading));
  EXPECT_EQ(denied(next.sums()), 10 * per_denial);
  EXPECT_EQ(connections(next.sums()), 10 * sample::allowed().connections.value());
}

TEST_F(Tallies, ABrokenFileIsStartedAnew) {
  put(0, 4);
  auto reading = reader();
  for (const char* text : {"", "{", "[1,2]", "{\"version\":1,\"cursor\":\"x\"}",
                           "{\"version\":1,\"cursor\":9}", "{\"version\":2,\"cursor\":3}"}) {
    std::ofstream(file()) << text;
    Tally tally(file(), 100);
    ASSERT_TRUE(tally.catch_up(reading));
    EXPECT_EQ(denied(tally.sums()), 2 * sample::denied().verdict_packets) << text;
  }
}

// A power failure takes the newest commits of the flow index, not the file; another file is another matter.
TEST_F(Tallies, GoOnInAFileThatLostItsNewestAndBeginWithAnother) {
  const std::uint64_t per_denial = sample::denied().verdict_packets;
  put(0, 10);
  auto reading = reader();
  {
    Tally tally(file(), 100);
    ASSERT_TRUE(tally.catch_up(reading));
    ASSERT_TRUE(tally.save());
  }
  const auto cursor_becomes = [&](const char* from, const char* to) {
    std::string text = testing::read_text(file());
    text.replace(text.find(from), std::string(from).size(), to);
    std::ofstream(file(), std::ios::trunc) << text;
  };
  cursor_becomes("\"cursor\":10", "\"cursor\":12");
  Tally tally(file(), 100);
  ASSERT_TRUE(tally.catch_up(reading));
  EXPECT_EQ(denied(tally.sums()), 5 * per_denial) << "and not all of them again";
  EXPECT_EQ(tally.sums().cursor, 10);
  put(10, 2);
  ASSERT_TRUE(tally.catch_up(reading));
  EXPECT_EQ(denied(tally.sums()), 6 * per_denial);
  auto other = sample::open_store(folder_.file("other.db"));
  store::FlowRecord one = sample::denied();
  ASSERT_TRUE(other.insert(std::vector<store::FlowRecord>{one}));
  auto reading_other = std::move(*store::FlowReader::open(folder_.file("other.db")));
  ASSERT_TRUE(tally.catch_up(reading_other));
  EXPECT_EQ(denied(tally.sums()), 7 * per_denial) << "its records are other records";
}

// A killed daemon's successor begins with an older file: it tells nothing until it is where that one was.
TEST_F(Tallies, NothingIsToldBeforeTheSumsAreComplete) {
  put(0, 4);
  Options options;
  options.flows_path = folder_.file("flows.db");
  options.tally_file = file();
  SystemClock clock;
  const auto health = std::make_shared<const Health>();
  const auto denied = [](const Result<Collector::Answer>& answer) {
    return Samples(answer->body).value("tierlog_denied_packets_total");
  };
  Collector collector(
      options, [&] { return health; }, nullptr, clock);
  EXPECT_EQ(collector.scrape("").error().code, ErrorCode::Unavailable);
  collector.start();
  const auto answer = collector.scrape("");
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(denied(answer), 2.0 * static_cast<double>(sample::denied().verdict_packets));
}

TEST_F(Tallies, WhatHasNoRoomIsInOtherAndNothingGetsSmaller) {
  Tally tally(file(), 3);
  auto reading = reader();
  std::map<DeniedKey, std::uint64_t> before;
  for (int i = 0; i < 10; ++i) {
    put(i * 2, 2, "ns-" + std::to_string(i % 7));
    ASSERT_TRUE(tally.catch_up(reading));
    for (const auto& [key, value] : tally.sums().denied) {
      EXPECT_GE(value.packets, before[key]);
      before[key] = value.packets;
    }
  }
  EXPECT_EQ(tally.sums().denied.size(), 4u) << "three of their own and other";
  EXPECT_EQ(denied(tally.sums()), 10 * sample::denied().verdict_packets);
  std::uint64_t other = 0;
  for (const auto& [key, value] : tally.sums().denied)
    if (key.from_namespace == kOther) other += value.packets;
  EXPECT_EQ(other, 4 * sample::denied().verdict_packets) << "ns-3 to ns-6";
}

TEST_F(Tallies, PodsSeeTheirOwnSide) {
  store::FlowRecord taken = sample::allowed();  // reported by its destination
  taken.reporter = store::Reporter::Destination;
  taken.direction = Direction::Ingress;
  taken.id = id_of(1);
  taken.packets_out = 10;
  taken.bytes_out = 1000;
  taken.packets_in = 7;
  taken.bytes_in = 70;
  taken.end_reason = store::EndReason::Reset;
  store::FlowRecord opened = taken;
  opened.id = id_of(2);
  opened.reporter = store::Reporter::Source;
  opened.direction = Direction::Egress;
  store::FlowRecord refused = opened;
  refused.id = id_of(3);
  refused.packets_out = refused.packets_in = 1;
  ASSERT_TRUE(store_.insert(std::vector<store::FlowRecord>{taken, opened, refused}));
  Tally tally(file(), 100);
  auto reading = reader();
  ASSERT_TRUE(tally.catch_up(reading));
  const auto pod = [&](const store::Peer& peer) {
    return tally.sums().pods.at({peer.peer_namespace, peer.workload, peer.name});
  };
  const PodSums server = pod(taken.dst), client = pod(taken.src);
  EXPECT_EQ(server.ingress.forward_packets, 10u);
  EXPECT_EQ(server.egress.forward_bytes, 70u);
  EXPECT_EQ(server.ingress.reset, 1u);
  EXPECT_EQ(client.egress.forward_packets, 11u);
  EXPECT_EQ(client.ingress.forward_packets, 8u);
  EXPECT_EQ(client.egress.reset, 1u);
  EXPECT_EQ(client.egress.refused, 1u);
}

TEST_F(Tallies, AScrapeTellsWhatTheIndexHolds) {
  ASSERT_TRUE(store_.put_catalog(sample::catalog()));
  put(0, 6);
  const std::vector<store::RuleCount> counts = {{sample::kDenyRule, 5, 300}, {sample::kLogRule, 4, 240}};
  ASSERT_TRUE(store_.put_counts(counts, std::vector<store::LossCount>{{"nflog-gap", sample::kDenyRule, 1}},
                                sample::at(20)));
  Options options;
  options.version = "9";
  options.node = "n";
  options.cluster = "c";
  options.flows_path = folder_.file("flows.db");
  options.tally_file = file();
  options.rules = true;
  SystemClock clock;
  auto health = std::make_shared<Health>();
  health->exports.emplace_back();
  health->exports.back().name = "one";
  health->exports.back().delivered_sequence = 2;
  health->exports.back().failing = true;
  std::shared_ptr<const Health> told;
  Collector collector(
      options, [&] { return told; }, nullptr, clock);
  EXPECT_EQ(collector.scrape("").error().code, ErrorCode::Unavailable);
  told = health;
  ASSERT_TRUE(collector.catch_up());
  for (const char* accept : {"", "application/openmetrics-text"}) {
    const auto answer = collector.scrape(accept);
    ASSERT_TRUE(answer) << answer.error().message;
    const Samples samples(answer->body);
    const testing::Labels deny{{"policy", sample::kRestrict}, {"action", "deny"}, {"direction", "ingress"}};
    EXPECT_EQ(samples.value("tierlog_policy_packets_total", deny),
              3.0 * static_cast<double>(sample::denied().verdict_packets));
    EXPECT_EQ(samples.value("tierlog_denied_packets_total", {{"to_namespace", "tenant-01"}}),
              samples.value("tierlog_policy_packets_total", deny));
    EXPECT_EQ(samples.value("tierlog_policy_verdicts_total", {{"action", "log"}}), 4.0);
    EXPECT_EQ(samples.value("tierlog_rule_verdicts_total", {{"rule_id", to_hex(sample::kDenyRule)}}), 5.0);
    EXPECT_EQ(samples.value("tierlog_books_unattributed_packets_total", {{"cause", "nflog-gap"}}), 1.0);
    EXPECT_EQ(samples.value("tierlog_export_waiting_records", {{"export", "one"}}), 4.0);
    EXPECT_GT(samples.value("tierlog_export_age_seconds", {{"export", "one"}}).value_or(0), 0.0);
    EXPECT_EQ(samples.value("tierlog_build_info", {{"version", "9"}, {"node", "n"}, {"cluster", "c"}}), 1.0);
  }
}

}  // namespace
}  // namespace tierlog::prometheus
