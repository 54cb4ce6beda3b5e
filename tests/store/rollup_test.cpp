// Sums through roll-ups against sums over the rows themselves: any range, any moment of the writer's life.
#include "store/rollup_query.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "store/check.h"
#include "store/denied_query.h"
#include "tests/store/packed.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

// Three days of records of a few pods, out of order by up to half a minute.
std::vector<FlowRecord> random_records(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<FlowRecord> records;
  for (std::size_t i = 0; i < count; ++i) {
    FlowRecord record = random() % 3 == 0   ? sample::denied()
                        : random() % 2 == 0 ? sample::allowed()
                                            : sample::denied_at_end();
    const auto due =
        Nanoseconds(3 * 24 * kHourNs / static_cast<std::int64_t>(count) * static_cast<std::int64_t>(i));
    record.end = sample::at(0) + due - Nanoseconds(random() % 30'000'000'000);
    record.start = record.end - Nanoseconds(random() % 2 == 0 ? 0 : random() % 10'000'000'000);
    record.src = sample::pod("10.1.0." + std::to_string(1 + random() % 20), "a",
                             "pod-" + std::to_string(random() % 3), "w");
    record.verdict_packets = random() % 50;
    record.bytes_out = random() % 10'000;
    records.push_back(record);
  }
  return records;
}

sqlite::Database open_for_reading(const std::string& path) {
  auto database = sqlite::Database::open(path, SQLITE_OPEN_READONLY);
  if (!database) throw std::runtime_error(database.error().message);
  return std::move(*database);
}

using Sums = std::map<std::int64_t, RollupSums>;

Sums sums_of(sqlite::Database& database, const std::string& sql) {
  auto select = database.prepare(sql);
  Sums sums;
  if (!select) {
    ADD_FAILURE() << select.error().message << " in " << sql;
    return sums;
  }
  while (select->step().value())
    for (std::size_t i = 0; i < kRollupSums; ++i)
      sums[select->integer(0)][i] = select->integer(static_cast<int>(i) + 1);
  return sums;
}

constexpr const char* kRowSums =
    "count(*), sum(coalesce(connections, 0)), sum(verdict_packets), "
    " sum(coalesce(packets_out, iif(action = 1, verdict_packets, 0))),"
    " sum(coalesce(packets_in, 0)), sum(coalesce(bytes_out, 0)), sum(coalesce(bytes_in, 0))";

struct Asked {
  RollupRange range;
  std::optional<Verdict> action;
};

std::string range_sql(const Asked& asked) {
  std::string sql = " FROM flow WHERE 1";
  if (asked.range.since) sql += " AND end_ns >= " + std::to_string(to_ns(*asked.range.since));
  if (asked.range.until) sql += " AND end_ns <= " + std::to_string(to_ns(*asked.range.until));
  if (asked.action) sql += std::string(" AND action = ") + (*asked.action == Verdict::Deny ? "1" : "0");
  return sql;
}

void expect_equal(sqlite::Database& database, const Asked& asked) {
  const std::int64_t bin = asked.range.bin.count();
  const std::pair<RollupPeer, const char*> kinds[] = {
      {RollupPeer::None, "rule"}, {RollupPeer::Source, "src"}, {RollupPeer::Target, "dst"}};
  for (const auto& [peer, column] : kinds) {
    // Read as if by bins, so that only their widths serve; the sums of all bins are those of the range.
    Sums found, by_bin;
    RollupSlices slices;
    for (int action = 0; action < 2; ++action)
      if (!asked.action || static_cast<int>(*asked.action) == action)
        slices[static_cast<std::size_t>(action)] = {peer, peer};
    const auto done = read_rollups(database, asked.range, slices, [&](const RollupRow& row) {
      RollupSums& of_key = found[peer == RollupPeer::None ? row.rule : row.peer];
      for (std::size_t i = 0; i < kRollupSums; ++i) of_key[i] += row.sums[i];
      if (bin > 0)
        for (std::size_t i = 0; i < kRollupSums; ++i) by_bin[row.time_ns / bin * bin][i] += row.sums[i];
    });
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(found, sums_of(database,
                             std::string("SELECT ") + column + ", " + kRowSums + range_sql(asked) + " GROUP BY 1"));
    if (bin == 0) continue;
    const std::string width = std::to_string(bin);
    EXPECT_EQ(by_bin, sums_of(database, "SELECT end_ns / " + width + " * " + width + ", " + kRowSums +
                                            range_sql(asked) + " GROUP BY 1"));
  }
}

void expect_equal_in_many_ranges(const std::string& path) {
  auto database = open_for_reading(path);
  std::mt19937_64 random(7);
  const auto instant = [&random]() -> std::optional<WallTime> {
    if (random() % 4 == 0) return std::nullopt;
    const auto past = Nanoseconds(random() % static_cast<std::uint64_t>(75 * kHourNs)) - Nanoseconds(kHourNs);
    const WallTime at = sample::at(0) + past;
    // Also on the edges of buckets.
    return random() % 3 == 0 ? from_ns(to_ns(at) / kHourNs * kHourNs) : at;
  };
  constexpr std::int64_t kBins[] = {0, 0, kMinuteNs, 5 * kMinuteNs, kHourNs, 12 * kHourNs, 24 * kHourNs};
  for (int i = 0; i < 12; ++i) {
    Asked asked{{instant(), instant(), Nanoseconds(kBins[random() % std::size(kBins)])}, std::nullopt};
    if (random() % 3 != 0) asked.action = random() % 2 == 0 ? Verdict::Deny : Verdict::Allow;
    expect_equal(database, asked);
  }
}

// Batch by batch, each with its sums in every width.
void write_rolled_up(const std::string& path, std::span<const FlowRecord> records, StoreOptions options = {}) {
  options.roll_up_within = Nanoseconds(0);
  auto store = FlowStore::open_writer(path, {"c1", "node-1"}, options);
  ASSERT_TRUE(store) << store.error().message;
  for (std::size_t i = 0; i < records.size(); i += 50) {
    ASSERT_TRUE(store->insert(records.subspan(i, std::min<std::size_t>(50, records.size() - i))));
    ASSERT_TRUE(store->maintain(sample::at(0), std::chrono::seconds(60)));
  }
}

void expect_whole(const std::string& path) {
  const auto report = check_flow_index(path, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
}

class RollupsOf : public testing::Test {
 protected:
  RollupsOf() : path_(folder_.file("flows.db")) {}
  sample::Folder folder_;
  std::string path_;
};

TEST_F(RollupsOf, ALivingWriterAreItsRows) {
  auto store = sample::open_store(path_);
  const auto records = random_records(2000, 1);
  const std::span<const FlowRecord> all(records);
  ASSERT_TRUE(store.insert(all.first(1000)));
  expect_equal_in_many_ranges(path_);  // nothing is rolled up
  { const auto closed = std::move(store); }
  store = sample::open_store(path_);
  for (std::size_t i = 1000; i < records.size(); i += 100) ASSERT_TRUE(store.insert(all.subspan(i, 100)));
  expect_equal_in_many_ranges(path_);  // some is
  expect_whole(path_);
}

TEST_F(RollupsOf, ARestartAreItsRows) {
  const auto records = random_records(3000, 2);
  {
    auto store = sample::open_store(path_);
    ASSERT_TRUE(store.insert(records));
  }
  expect_equal_in_many_ranges(path_);
  auto database = open_for_reading(path_);
  EXPECT_EQ(sample::records_by_minute(database, kRollupTables[2]), 3000);
  expect_whole(path_);
}

TEST_F(RollupsOf, ADeadWriterAreItsRows) {
  const auto records = random_records(2000, 3);
  {
    auto store = sample::open_store(path_);
    ASSERT_TRUE(store.insert(std::span<const FlowRecord>(records).first(1500)));
  }
  // A writer that died has committed rows and has not rolled them up: its file, as it stands beside it.
  auto store = sample::open_store(path_);
  ASSERT_TRUE(store.insert(std::span<const FlowRecord>(records).subspan(1500)));
  const std::string copy = folder_.file("copy.db");
  {
    auto database = open_for_reading(path_);
    EXPECT_EQ(sample::records_by_minute(database, kRollupTables[0]), 1500);
    ASSERT_TRUE(database.execute("VACUUM INTO '" + copy + "'"));
  }
  {
    auto next = sample::open_store(copy);
    EXPECT_EQ(next.last_sequence().value(), 2000);
    EXPECT_EQ(next.state().records, 2000u);
  }
  auto database = open_for_reading(copy);
  EXPECT_EQ(sample::records_by_minute(database, kRollupTables[0]), 2000);
  expect_equal_in_many_ranges(copy);
  expect_whole(copy);
}

TEST_F(RollupsOf, ABinThatIsNoMinuteIsRefused) {
  auto store = sample::open_store(path_);
  auto database = open_for_reading(path_);
  const auto refused = read_rollups(database, {{}, {}, std::chrono::seconds(30)}, {}, [](const RollupRow&) {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::InvalidArgument);
}

// Wide buckets: of a writer that goes on, with records that come late, and with some that retention takes.
TEST_F(RollupsOf, WideBucketsAreTheirRows) {
  StoreOptions options;
  options.limits.max_rows = 1600;
  auto records = random_records(2000, 8);
  // Every hundredth is told a day later than it happened.
  for (std::size_t i = 0; i + 700 < records.size(); i += 100) std::swap(records[i], records[i + 700]);
  for (std::size_t i = 0; i < records.size(); i += 250) {
    write_rolled_up(path_, std::span<const FlowRecord>(records).subspan(i, 250), options);
    expect_equal_in_many_ranges(path_);
  }
  auto database = open_for_reading(path_);
  for (const RollupTable& table : kRollupTables) {
    const auto reach = read_rollup_reach(database, table);
    ASSERT_TRUE(reach) << reach.error().message;
    for (std::size_t level = 1; level < kRollupLevels; ++level)
      EXPECT_GT((*reach)[level], to_ns(sample::at(2 * 24 * 3600))) << table.name << level;
  }
  EXPECT_EQ(count_rolled_records(database).value(), 1600);
  expect_equal_in_many_ranges(path_);
  expect_whole(path_);
}

// Sums of a bucket stand in several rows where there are many peers.
TEST_F(RollupsOf, ManyPeersAreTheirRows) {
  StoreOptions options;
  options.limits.max_rows = 1500;
  std::vector<FlowRecord> records = random_records(2000, 9);
  std::mt19937_64 random(9);
  for (FlowRecord& record : records) {
    const auto peer = random() % 900;
    record.src.ip = *IpAddr::parse("10.9." + std::to_string(peer / 250) + "." + std::to_string(peer % 250));
    // Within an hour: most of them meet in each bucket but the smallest.
    record.end = sample::at(0) + Nanoseconds((record.end - sample::at(0)).count() / 72);
    record.start = record.end;
  }
  write_rolled_up(path_, records, options);
  auto database = open_for_reading(path_);
  EXPECT_GT(database.integer("SELECT count(DISTINCT part) FROM sums_by_source WHERE width = 600").value(), 2);
  expect_equal_in_many_ranges(path_);
  expect_whole(path_);
}

// Each sentence of the check, by a file that is wrong in just that.
struct Tampering {
  const char* name;
  const char* sql;
  const char* finding;
};
void PrintTo(const Tampering& test, std::ostream* out) {
  *out << test.name;
}

class CheckFinds : public testing::TestWithParam<Tampering> {};

TEST_P(CheckFinds, WhatIsWrong) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  write_rolled_up(path, random_records(300, 5));
  expect_whole(path);
  {
    auto database = sqlite::Database::open(path, SQLITE_OPEN_READWRITE);
    sample::add_more_bytes(*database);
    const auto done = database->execute(GetParam().sql);
    ASSERT_TRUE(done) << done.error().message;
  }
  const auto report = check_flow_index(path, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  bool found = false;
  for (const std::string& damage : report->damage)
    found = found || damage.find(GetParam().finding) != std::string::npos;
  EXPECT_TRUE(found) << (report->damage.empty() ? "nothing was found" : report->damage.front());
}

constexpr Tampering kTamperings[] = {
    {"RollupValue",
     "UPDATE sums_by_source SET sums = more_bytes(sums, 1) WHERE width = 60 AND bucket ="
     " (SELECT max(bucket) FROM sums_by_source WHERE width = 60)",
     "sums_by_source of width 60 is not the sum of the records"},
    {"WideRollupValue",
     "UPDATE sums_by_source SET sums = more_bytes(sums, 1) WHERE width = 600 AND bucket ="
     " (SELECT max(bucket) FROM sums_by_source WHERE width = 600)",
     "sums_by_source of width 600 is not the sum of the records"},
    {"WideRollupMissing",
     "DELETE FROM sums_by_rule WHERE width = 3600 AND bucket ="
     " (SELECT min(bucket) FROM sums_by_rule WHERE width = 3600)",
     "sums_by_rule of width 3600 is not the sum of the records"},
    {"RollupRow", "DELETE FROM sums_by_target WHERE width = 60 AND bucket ="
     " (SELECT max(bucket) FROM sums_by_target WHERE width = 60)",
     "sums_by_target counts"},
    {"RollupCut",
     "UPDATE sums_by_source SET sums = substr(sums, 1, length(sums) - 1) WHERE width = 60 AND bucket ="
     " (SELECT max(bucket) FROM sums_by_source WHERE width = 60)",
     "end in the middle of an entry"},
    {"Record", "DELETE FROM flow WHERE seq = 7", "sums_by_rule counts 300 records; 299 are there"},
    {"Value", "UPDATE flow SET verdict_packets = verdict_packets + 1 WHERE seq = 8",
     "sums_by_rule of width 60 is not the sum of the records"},
    {"Peer", "DELETE FROM peer WHERE id = (SELECT src FROM flow WHERE seq = 9)",
     "of peer, which is not there"},
    {"Rule", "DELETE FROM rule_revision", "more references find no row"},
    {"Text", "DELETE FROM text WHERE id = (SELECT max(logged_by) FROM flow)", "of text, which is not there"},
    // Place 1, by itself, in the first part: used 5 times, folded.
    {"Uses", "UPDATE reference_uses SET counts = CAST(X'010A' || substr(counts, 3) AS BLOB) WHERE of = 0 AND part = 0",
     "row 1 of peer is said to be used 5 times"},
    {"Index",
     "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage ="
     " (SELECT rootpage FROM sqlite_schema WHERE name = 'flow_denied_end') WHERE name = 'flow_end'",
     "malformed database schema"},
};

INSTANTIATE_TEST_SUITE_P(All, CheckFinds, testing::ValuesIn(kTamperings),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(DeniedQuery, PagesAreThoseOfTheRows) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  auto store = sample::open_store(path);
  ASSERT_TRUE(store.insert(random_records(2000, 6)));
  auto database = open_for_reading(path);
  const auto sequences = [&database](const std::string& sql) {
    auto select = database.prepare(sql);
    std::vector<std::int64_t> found;
    while (select->step().value()) found.push_back(select->integer(0));
    return found;
  };
  const DeniedRange range{sequences("SELECT DISTINCT rule FROM flow WHERE action = 1"), sample::at(3600),
                          sample::at(2 * 24 * 3600), 40};
  ASSERT_EQ(range.rules.size(), 2u);
  const std::string where = " FROM flow WHERE action = 1 AND end_ns BETWEEN " +
                            std::to_string(to_ns(*range.since)) + " AND " +
                            std::to_string(to_ns(*range.until));
  EXPECT_EQ(newest_denied(database, range).value(),
            sequences("SELECT seq" + where + " ORDER BY end_ns DESC, seq DESC LIMIT 40"));
  const auto groups = denied_groups(database, range);
  ASSERT_TRUE(groups) << groups.error().message;
  ASSERT_FALSE(groups->empty());
  std::int64_t records = 0;
  for (const DeniedGroup& group : *groups) records += group.records;
  EXPECT_EQ(records, sequences("SELECT count(*)" + where).front());
  for (std::size_t i = 1; i < groups->size(); ++i) EXPECT_GE((*groups)[i - 1].last_ns, (*groups)[i].last_ns);
  // One address with three names is one flow.
  EXPECT_EQ(groups->size(),
            static_cast<std::size_t>(
                sequences("SELECT count(*) FROM (SELECT DISTINCT s.ip, rule, dst_port FROM (SELECT *" +
                          where + ") AS f JOIN peer AS s ON s.id = f.src)")
                    .front()) > 40
                ? 40u
                : groups->size());
}

}  // namespace
}  // namespace tierlog::store
