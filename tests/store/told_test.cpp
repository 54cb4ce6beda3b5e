// What the records told of what the kernel still counts: with them or not at all, and after a migration.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "store/check.h"
#include "store/query.h"
#include "tests/store/packed.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

ToldConnection connection(std::int64_t handle, const char* source) {
  ToldConnection made;
  made.handle = handle;
  made.source = *IpAddr::parse(source);
  made.destination = *IpAddr::parse(made.source.family == Family::V4 ? "10.0.0.1" : "fd00::1");
  made.protocol = protocol::kTcp;
  made.source_port = 40'000;
  made.destination_port = 5432;
  made.icmp_id = 77;
  made.conntrack_id = 0xfedcba98;
  made.started = sample::at(1);
  made.told_until = sample::at(2);
  made.egress = {RuleId{0x101}, {1, 2, 3, 4}};
  made.ingress = {RuleId{0x102}, {5, 6, 7, 5'000'000'000}};
  return made;
}

ToldDenied denied_flow(std::int64_t handle, const char* source, std::uint64_t packets) {
  return {handle, sample::kDenyRule, *IpAddr::parse(source), *IpAddr::parse("10.0.0.1"), protocol::kUdp, 53, packets,
          packets * 60,      sample::at(3)};
}

void execute(const std::string& path, const std::string& sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  char* message = nullptr;
  EXPECT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
  sqlite3_close(database);
}

TEST(Told, IsReadBackAsItStandsNow) {
  const sample::Folder folder;
  {
    auto store = sample::open_store(folder.file("flows.db"));
    ToldChanges changes;
    changes.connections = {connection(1, "10.0.0.2"), connection(2, "fd00::2")};
    changes.denied = {denied_flow(7, "10.0.0.3", 5), denied_flow(8, "10.0.0.4", 6)};
    ASSERT_TRUE(store.insert(std::vector{sample::denied()}, changes));
    ToldChanges later;
    later.ended = {2};
    later.connections = {connection(1, "10.0.0.2")};
    later.connections[0].ingress.amounts.bytes_in = 6'000'000'000;
    later.forgotten = {8, 99};
    later.denied = {denied_flow(7, "10.0.0.3", 9), denied_flow(9, "10.0.0.3", 2)};
    later.denied[1].alone = true;
    ASSERT_TRUE(store.insert({}, later));
  }
  auto store = sample::open_store(folder.file("flows.db"));
  const auto told = store.told();
  ASSERT_TRUE(told) << told.error().message;
  ToldConnection expected = connection(1, "10.0.0.2");
  expected.ingress.amounts.bytes_in = 6'000'000'000;
  ASSERT_EQ(told->connections.size(), 1u);
  EXPECT_TRUE(told->connections[0] == expected);
  ASSERT_EQ(told->denied.size(), 2u);
  EXPECT_TRUE(told->denied[0] == denied_flow(7, "10.0.0.3", 9));
  ToldDenied alone = denied_flow(9, "10.0.0.3", 2);
  alone.alone = true;
  EXPECT_TRUE(told->denied[1] == alone);
}

TEST(Told, IsWrittenWithItsRecordsOrNotAtAll) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  { auto store = sample::open_store(path); }
  execute(path, "CREATE TRIGGER refuse BEFORE INSERT ON denied_told BEGIN SELECT raise(ABORT, 'full'); END");
  auto store = sample::open_store(path);
  ToldChanges changes;
  changes.denied = {denied_flow(7, "10.0.0.3", 5)};
  EXPECT_FALSE(store.insert(std::vector{sample::denied()}, changes));
  EXPECT_TRUE(store.read_after(0, 10)->empty());
  execute(path, "DROP TRIGGER refuse");
  ASSERT_TRUE(store.insert(std::vector{sample::denied()}, changes));
  EXPECT_EQ(store.read_after(0, 10)->size(), 1u);
  EXPECT_EQ(store.told()->denied.size(), 1u);
}

TEST(Told, IsThatOfAFileOfVersion9) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  Told before;
  {
    auto store = sample::open_store(path);
    ToldChanges changes;
    changes.connections = {connection(1, "10.0.0.2")};
    changes.denied = {denied_flow(7, "10.0.0.3", 5), denied_flow(40, "fd00::3", 6)};
    changes.denied[1].destination = *IpAddr::parse("fd00::1");
    changes.denied[0].alone = true;
    ASSERT_TRUE(store.insert(std::vector{sample::denied(), sample::allowed()}, changes));
    before = *store.told();
  }
  sample::undo_version_10(path);
  auto store = sample::open_store(path);
  const auto told = store.told();
  ASSERT_TRUE(told) << told.error().message;
  EXPECT_EQ(told->denied, before.denied);
  EXPECT_EQ(told->connections, before.connections);
  EXPECT_EQ(told->denied.size(), 2u);
  const auto report = check_flow_index(path, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
}

TEST(Told, CountedIsTheSumOfAllLivesOfACounter) {
  const sample::Folder folder;
  auto store = sample::open_store(folder.file("flows.db"));
  const RuleCount first[] = {{sample::kDenyRule, 10, 600}};
  const RuleCount anew[] = {{sample::kDenyRule, 3, 180}};
  ASSERT_TRUE(store.put_counts(first, {}, sample::at(1)));
  ASSERT_TRUE(store.put_counts(anew, {}, sample::at(2)));
  const auto counted = store.counted();
  ASSERT_EQ(counted->size(), 1u);
  EXPECT_EQ(counted->front().packets, 13u);
  EXPECT_EQ(counted->front().bytes, 780u);
}

struct Released {
  const char* file;
  std::size_t records;
  std::size_t told;  // open connections, denied flows
};
void PrintTo(const Released& test, std::ostream* out) {
  *out << test.file;
}

class Migration : public testing::TestWithParam<Released> {};

// A file as that version made it, with records, sums, counters and losses.
TEST_P(Migration, KeepsEverything) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  std::ostringstream sql;
  sql << std::ifstream(std::string(TIERLOG_SOURCE_DIR) + "/tests/store/" + GetParam().file).rdbuf();
  ASSERT_FALSE(sql.str().empty());
  execute(path, sql.str());
  auto store = sample::open_store(path);
  const auto records = store.read_after(0, 10);
  ASSERT_TRUE(records) << records.error().message;
  ASSERT_EQ(records->size(), GetParam().records);
  EXPECT_EQ(records->front().record.start, sample::at(0));
  EXPECT_EQ(records->front().record.end, sample::at(0));
  if (GetParam().records > 2) {
    const FlowRecord& ended = records->back().record;
    EXPECT_EQ(ended.start, sample::at(0));
    EXPECT_EQ(ended.end, sample::at(5));
    EXPECT_EQ(ended.end_reason, EndReason::Finished);
    ASSERT_TRUE(ended.translation);
    EXPECT_EQ(ended.translation->destination, IpAddr::parse("10.96.0.1"));
    EXPECT_EQ(ended.translation->destination_port, 80);
  }
  EXPECT_EQ(store.recorded()->size(), 2u);
  const auto told = store.told();
  ASSERT_TRUE(told) << told.error().message;
  EXPECT_EQ(told->connections.size(), GetParam().told);
  EXPECT_EQ(told->denied.size(), GetParam().told);
  ToldChanges changes;
  changes.denied = {denied_flow(7, "10.0.0.3", 5)};
  EXPECT_TRUE(store.insert(std::vector{sample::denied()}, changes));
  auto reader = FlowReader::open(path);
  ASSERT_TRUE(reader) << reader.error().message;
  const auto losses = reader->losses();
  ASSERT_TRUE(losses) << losses.error().message;
  ASSERT_EQ(losses->size(), 1u);
  EXPECT_EQ(losses->front().cause, "nflog-gap");
  EXPECT_EQ(losses->front().packets, 4u);
  const auto report = check_flow_index(path, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
  EXPECT_EQ(report->rolled_records, static_cast<std::int64_t>(GetParam().records))
      << "the roll-ups know the records of the older version";
}

constexpr Released kReleased[] = {
    {"version_1.sql", 2, 0}, {"version_2.sql", 2, 1}, {"version_3.sql", 3, 1}, {"version_4.sql", 3, 1},
    {"version_5.sql", 3, 1}};

INSTANTIATE_TEST_SUITE_P(EveryVersion, Migration, testing::ValuesIn(kReleased),
                         [](const auto& test) { return std::string(test.param.file, 9); });

}  // namespace
}  // namespace tierlog::store
