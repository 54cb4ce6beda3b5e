// Pages of records of few peers or rules, found through roll-ups: the same as those of all rows.
#include "store/sightings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <tuple>

#include "store/filter_sql.h"
#include "store/groups.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;

// Two days; pods and rules of which some are rare, both ends of a connection, some records late by hours.
std::vector<FlowRecord> records_of_two_days(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<FlowRecord> records;
  for (std::size_t i = 0; i < count; ++i) {
    FlowRecord record = random() % 3 == 0    ? sample::denied()
                        : random() % 40 == 0 ? sample::denied_at_end()
                        : random() % 90 == 0 ? sample::without_policy()
                                             : sample::allowed();
    record.end = sample::at(0) + Nanoseconds(2 * 24 * kHourNs / static_cast<std::int64_t>(count) *
                                             static_cast<std::int64_t>(i));
    if (random() % 50 == 0) record.end -= Nanoseconds(random() % (5 * kHourNs));
    record.start = record.end;
    const auto any_pod = [&] {
      const std::uint64_t number = random() % 200 == 0 ? 90 + random() % 5 : random() % 8;
      return sample::pod("10.1.0." + std::to_string(1 + number), "ns-" + std::to_string(number % 4),
                         "pod-" + std::to_string(number), "w-" + std::to_string(number % 3));
    };
    record.src = any_pod();
    record.dst = any_pod();
    record.dst_port = static_cast<std::uint16_t>(80 + random() % 3);
    record.reporter = random() % 2 == 0 ? Reporter::Source : Reporter::Destination;
    records.push_back(record);
  }
  return records;
}

class SightingsOf : public testing::Test {
 protected:
  void SetUp() override {
    const auto records = records_of_two_days(4000, 11);
    const std::span<const FlowRecord> all(records);
    auto store = std::make_unique<FlowStore>(sample::open_store(path_));
    for (std::size_t i = 0; i < 3800; i += 200) {
      ASSERT_TRUE(store->insert(all.subspan(i, 200)));
      // Some are rolled up and folded into wider buckets, the last ones wait.
      if (i % 1000 == 0) {
        store.reset();
        store = std::make_unique<FlowStore>(sample::open_store(path_));
        while (store->maintain(sample::at(0), std::chrono::seconds(10)).value()) {
        }
      }
    }
    ASSERT_TRUE(store->insert(all.subspan(3800)));
    store_ = std::move(store);
  }

  static std::vector<std::int64_t> sequences_of(const Result<std::vector<StoredRecord>>& records) {
    std::vector<std::int64_t> sequences;
    if (!records) {
      ADD_FAILURE() << records.error().message;
      return sequences;
    }
    for (const StoredRecord& record : *records) sequences.push_back(record.sequence);
    return sequences;
  }
  // From all rows: in the order of writing nothing is left out.
  static std::vector<std::int64_t> expected(FlowReader& reader, FlowQuery query) {
    const std::size_t limit = query.limit;
    const auto behind = query.behind;
    query.limit = 0;
    query.oldest_first = true;
    query.behind.reset();
    auto records = reader.flows(query);
    if (!records) return {};
    std::sort(records->begin(), records->end(), [](const StoredRecord& a, const StoredRecord& b) {
      return std::tuple(a.record.end, a.sequence) > std::tuple(b.record.end, b.sequence);
    });
    if (behind)
      std::erase_if(*records, [&](const StoredRecord& record) {
        return std::tuple(to_ns(record.record.end), record.sequence) >=
               std::tuple(behind->end_ns, behind->sequence);
      });
    if (records->size() > limit) records->resize(limit);
    std::vector<std::int64_t> sequences;
    for (const StoredRecord& record : *records) sequences.push_back(record.sequence);
    return sequences;
  }

  sample::Folder folder_;
  std::string path_ = folder_.file("flows.db");
  std::unique_ptr<FlowStore> store_;
};

const FieldFilter kFilters[] = {
    {Field::Pod, {"pod-91"}, false},
    {Field::Pod, {"pod-90", "pod-93"}, false},
    {Field::From, {"pod-92"}, false},
    {Field::To, {"pod-94"}, false},
    {Field::Namespace, {"ns-1"}, false},
    {Field::FromNamespace, {"ns-*"}, false},
    {Field::ToNamespace, {"ns-2"}, true},
    {Field::Pod, {"pod-3"}, true},
    {Field::Ip, {"10.1.0.92"}, false},
    {Field::Workload, {"w-1"}, false},
    {Field::Action, {"deny"}, false},
    {Field::Action, {"allow"}, false},
    {Field::Policy, {"tenant-01-restrict"}, false},
    {Field::Policy, {"isolate"}, false},
    {Field::Tier, {"platform"}, true},
    {Field::Port, {"81"}, false},
    {Field::Reporter, {"src"}, false},
    {Field::Rule, {"1"}, false},
    {Field::From, {"pod-1"}, false},
};

// One to three of them, often with a range of time; `told`: for people.
FlowQuery any_query(std::mt19937_64& random, std::string& told) {
  FlowQuery query;
  told.clear();
  for (std::uint64_t i = 0, count = 1 + random() % 3; i < count; ++i) {
    query.filters.push_back(kFilters[random() % std::size(kFilters)]);
    told += std::to_string(static_cast<int>(query.filters.back().field)) + " " +
            query.filters.back().values[0] + (query.filters.back().negate ? " not, " : ", ");
  }
  if (random() % 3 == 0) query.since = sample::at(static_cast<int>(random() % (48 * 3600)));
  if (random() % 3 == 0) query.until = sample::at(static_cast<int>(random() % (48 * 3600)));
  return query;
}

TEST_F(SightingsOf, AnyFilterAreThePagesOfAllRows) {
  auto reader = FlowReader::open(path_);
  ASSERT_TRUE(reader) << reader.error().message;
  std::mt19937_64 random(12);
  std::size_t found = 0, pages = 0;
  for (int round = 0; round < 80; ++round) {
    std::string told;
    FlowQuery query = any_query(random, told);
    query.limit = 1 + random() % 30;
    const auto sequences = sequences_of(reader->flows(query));
    ASSERT_EQ(sequences, expected(*reader, query)) << told << "limit " << query.limit;
    found += sequences.size();
    if (sequences.size() < query.limit) continue;
    // The next page begins behind this one.
    query.behind = FlowQuery::Place{to_ns(reader->record_at(sequences.back())->end), sequences.back()};
    ASSERT_EQ(sequences_of(reader->flows(query)), expected(*reader, query)) << told << "behind";
    ++pages;
  }
  EXPECT_GT(found, 300u);
  EXPECT_GT(pages, 10u);
}

TEST_F(SightingsOf, AllThatMatchIsWhatAllRowsHave) {
  auto reader = FlowReader::open(path_);
  auto database = sqlite::Database::open(path_, SQLITE_OPEN_READONLY);
  ASSERT_TRUE(reader && database && register_functions(*database));
  std::mt19937_64 random(13);
  std::size_t found = 0;
  int few = 0, many = 0;
  for (int round = 0; round < 50; ++round) {
    std::string told;
    FlowQuery query = any_query(random, told);
    query.limit = 0;
    const auto where = where_sighted(*database, query, {});
    ASSERT_TRUE(where) << where.error().message;
    ++(where->sql().find("json_each") == std::string::npos ? many : few);
    std::vector<std::pair<std::int64_t, std::int64_t>> ends;  // end, sequence
    ASSERT_TRUE(
        reader->scan(query, [&](const ScannedFlow& flow) { ends.emplace_back(flow.end_ns, flow.sequence); }));
    std::sort(ends.rbegin(), ends.rend());
    std::vector<std::int64_t> sequences;
    for (const auto& [end, sequence] : ends) sequences.push_back(sequence);
    query.limit = 1'000'000;
    ASSERT_EQ(sequences, expected(*reader, query)) << told;
    found += sequences.size();
    query.limit = 100;
    const auto sums = reader->grouped_flows(query);
    const auto of_rows = reader->grouped_flows(query, true);
    ASSERT_TRUE(sums && of_rows);
    ASSERT_EQ(sums->size(), of_rows->size()) << told;
    for (std::size_t i = 0; i < sums->size(); ++i) {
      const FlowGroup &one = (*sums)[i], &other = (*of_rows)[i];
      ASSERT_EQ(
          std::tuple(one.sequence, one.records, one.packets, one.bytes, one.first, one.last),
          std::tuple(other.sequence, other.records, other.packets, other.bytes, other.first, other.last))
          << told;
    }
    GroupQuery groups;
    groups.flows = query;
    groups.fields = *parse_group_fields("port,from");
    groups.from_rows = true;
    const auto counted = reader->groups(groups);
    ASSERT_TRUE(counted) << counted.error().message;
    // Told by both ends counts once there, so not more than there are.
    EXPECT_LE(counted->total.sums.records, sequences.size());
    EXPECT_EQ(counted->total.sums.records == 0, sequences.empty()) << told;
  }
  EXPECT_GT(found, 300u);
  EXPECT_GT(few, 5);
  EXPECT_GT(many, 20);
}

TEST_F(SightingsOf, ARarePodAreFewMinutes) {
  auto database = sqlite::Database::open(path_, SQLITE_OPEN_READONLY);
  ASSERT_TRUE(database && register_functions(*database));
  FlowQuery query;
  query.filters = {{Field::Pod, {"pod-91"}, false}};
  auto sightings = Sightings::of(*database, query, {});
  ASSERT_TRUE(sightings && *sightings);
  std::int64_t before = std::numeric_limits<std::int64_t>::max(), spans = 0;
  for (;;) {
    const auto span = (*sightings)->next();
    ASSERT_TRUE(span) << span.error().message;
    if (!*span) break;
    EXPECT_LE((*span)->to, before) << "newest first, each once";
    before = (*span)->from;
    ++spans;
  }
  const auto rows = database->integer(
      "SELECT count(DISTINCT end_ns / 60000000000) FROM flow WHERE seq <= (SELECT CAST(value AS INTEGER) "
      "FROM meta WHERE"
      " key = 'rolled_sequence') AND (src IN (SELECT id FROM peer WHERE name = 'pod-91') OR dst IN (SELECT "
      "id FROM peer"
      " WHERE name = 'pod-91'))");
  ASSERT_TRUE(rows);
  EXPECT_GT(spans, 1);
  EXPECT_EQ(spans, *rows) << "each minute that has a record of it, and no other";
}

TEST_F(SightingsOf, WhatCameLateIsOlderThanWhatIsRolledUp) {
  const auto write = [&](std::initializer_list<int> seconds) {
    std::vector<FlowRecord> records;
    for (const int second : seconds) {
      records.push_back(sample::allowed());
      records.back().src = sample::pod("10.1.0.200", "ns-9", "pod-late", "w");
      records.back().start = records.back().end = sample::at(second);
    }
    EXPECT_TRUE(store_->insert(records));
  };
  write({300'000, 300'100, 300'200});
  store_.reset();  // rolls up
  store_ = std::make_unique<FlowStore>(sample::open_store(path_));
  write({299'000, 299'100, 299'200});
  auto reader = FlowReader::open(path_);
  FlowQuery query;
  query.filters = {{Field::Pod, {"pod-late"}, false}};
  query.limit = 3;
  const auto sequences = sequences_of(reader->flows(query));
  EXPECT_EQ(sequences, expected(*reader, query));
  EXPECT_EQ(sequences, (std::vector<std::int64_t>{4003, 4002, 4001})) << "the newest, not the last that were written";
}

TEST_F(SightingsOf, NobodyIsNothingAtOnce) {
  auto database = sqlite::Database::open(path_, SQLITE_OPEN_READONLY);
  ASSERT_TRUE(database && register_functions(*database));
  for (const FieldFilter& filter :
       {FieldFilter{Field::Pod, {"nosuch"}, false}, FieldFilter{Field::Policy, {"nosuch"}, false},
        FieldFilter{Field::FromNamespace, {"nosuch"}, false}}) {
    FlowQuery query;
    query.filters = {filter, {Field::Port, {"80"}, false}};
    const auto sightings = Sightings::of(*database, query, {});
    ASSERT_TRUE(sightings && *sightings);
    EXPECT_TRUE((*sightings)->nobody());
  }
  FlowQuery others;
  others.filters = {{Field::Port, {"80"}, false}, {Field::Action, {"deny"}, false}};
  const auto sightings = Sightings::of(*database, others, {});
  ASSERT_TRUE(sightings);
  EXPECT_FALSE(*sightings) << "no filter names peers or rules";
}

}  // namespace
}  // namespace tierlog::store
