// Records in and out, sums, catalogs and schema versions of flows.db.
#include "store/flow_store.h"

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

void execute(const std::string& path, const char* sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  char* message = nullptr;
  EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, &message), SQLITE_OK) << message;
  sqlite3_close(database);
}

struct RoundTrip {
  const char* name;
  FlowRecord record;
};
void PrintTo(const RoundTrip& test, std::ostream* out) {
  *out << test.name;
}

class RecordRoundTrip : public testing::TestWithParam<RoundTrip> {};

TEST_P(RecordRoundTrip, ReadsWhatWasWritten) {
  const sample::Folder folder;
  const FlowRecord& record = GetParam().record;
  {
    auto store = sample::open_store(folder.file("flows.db"));
    ASSERT_TRUE(store.insert(std::vector{record, record}));
  }
  auto store = sample::open_store(folder.file("flows.db"));
  const auto read = store.read_after(0, 10);
  ASSERT_TRUE(read) << read.error().message;
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].sequence, 1);
  EXPECT_EQ((*read)[1].sequence, 2);
  for (const StoredRecord& stored : *read) EXPECT_TRUE(stored.record == record);
}

std::vector<RoundTrip> round_trips() {
  FlowRecord foreign_id = sample::denied();
  foreign_id.id = "not-a-uuid";
  FlowRecord upper_case_id = sample::denied();
  upper_case_id.id = "018FABCD-EF01-7123-8456-000000000001";
  FlowRecord translated = sample::allowed();
  translated.ct_state = "closed";
  translated.end_reason = EndReason::Reset;
  translated.translation =
      Translation{IpAddr::parse("10.96.0.9"), IpAddr::parse("192.0.2.7"), 443, 61'000, "tenant-01/db"};
  return {{"Translated", translated},
          {"Full", sample::full_record()},
          {"Sparse", sample::sparse_record()},
          {"Denied", sample::denied()},
          {"EndOfTier", sample::denied_at_end()},
          {"Allowed", sample::allowed()},
          {"NoPolicy", sample::without_policy()},
          {"ForeignId", foreign_id},
          {"UpperCaseId", upper_case_id}};
}

INSTANTIATE_TEST_SUITE_P(All, RecordRoundTrip, testing::ValuesIn(round_trips()),
                         [](const auto& test) { return std::string(test.param.name); });

// What shares a description is the same record as one that stands alone.
TEST(FlowStore, EntriesAreRecords) {
  const sample::Folder folder;
  auto store = sample::open_store(folder.file("flows.db"));
  FlowRecord common = sample::denied();
  common.ct_state.clear();
  const auto like = std::make_shared<const FlowRecord>(common);
  std::vector<FlowEntry> entries(3);
  for (std::uint8_t i = 0; i < 3; ++i) {
    FlowEntry& entry = entries[i];
    entry.like = like;
    entry.id = {1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12, 13, 14, 15, i};
    entry.start = entry.end = common.start;
    entry.verdict_packets = entry.packets_out = i + 1U;
    entry.src_port = static_cast<std::uint16_t>(1000 + i);
    entry.state = FlowState::New;
  }
  entries[1].suppressed = std::make_shared<const std::vector<std::uint64_t>>(common.logged_by.size(), 7);
  entries[2].state = FlowState::Closed;
  entries[2].end_reason = EndReason::Finished;
  entries[2].translation = std::make_shared<const Translation>(
      Translation{IpAddr::parse("10.96.0.9"), std::nullopt, 443, 0, "a/b"});
  ASSERT_TRUE(store.append(entries, {}));
  const auto read = store.read_after(0, 10);
  ASSERT_EQ(read->size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_TRUE((*read)[i].record == to_record(entries[i])) << i;
  EXPECT_EQ((*read)[0].record.id, "01020304-0506-7008-800a-0b0c0d0e0f00");
  std::uint64_t packets = 0;
  const auto recorded = store.recorded();
  for (const RuleCount& count : *recorded)
    if (count.id == common.rule) packets = count.packets;
  EXPECT_EQ(packets, 6u);
}

TEST(FlowStore, SequencesAscendAcrossReopening) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  {
    auto store = sample::open_store(path);
    ASSERT_TRUE(store.insert(std::vector{sample::denied(), sample::allowed(), sample::denied()}));
    EXPECT_EQ(store.last_sequence().value(), 3);
  }
  execute(path, "DELETE FROM flow WHERE seq >= 2");
  auto store = sample::open_store(path);
  EXPECT_EQ(store.last_sequence().value(), 3);
  ASSERT_TRUE(store.insert(std::vector{sample::denied()}));
  const auto read = store.read_after(1, 10);
  ASSERT_EQ(read->size(), 1u);
  EXPECT_EQ(read->front().sequence, 4);
  EXPECT_EQ(store.read_after(0, 1)->size(), 1u);
}

TEST(FlowStore, SumsByRuleAreKept) {
  const sample::Folder folder;
  FlowRecord first = sample::denied();
  FlowRecord more = sample::denied();
  more.verdict_packets = 11;
  more.bytes_out = 660;
  {
    auto store = sample::open_store(folder.file("flows.db"));
    ASSERT_TRUE(store.insert(std::vector{first, sample::allowed()}));
    ASSERT_TRUE(store.insert(std::vector{more}));
  }
  auto store = sample::open_store(folder.file("flows.db"));
  const auto recorded = store.recorded();
  ASSERT_TRUE(recorded);
  ASSERT_EQ(recorded->size(), 2u);
  EXPECT_EQ((*recorded)[0].id, sample::kDenyRule);
  EXPECT_EQ((*recorded)[0].packets, 12u);
  EXPECT_EQ((*recorded)[0].bytes, 720u);
  EXPECT_EQ((*recorded)[1].id, sample::kAllowRule);
  EXPECT_EQ((*recorded)[1].packets, 1u);
}

TEST(FlowStore, EmptyFileBecomesAFlowIndex) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  std::ofstream(path).close();
  auto store = sample::open_store(path);
  EXPECT_TRUE(store.insert(std::vector{sample::denied()}));
}

struct Refusal {
  const char* name;
  const char* sql;  // nullptr: a file that is no database
  const char* message;
};
void PrintTo(const Refusal& test, std::ostream* out) {
  *out << test.name;
}

class RefusedFile : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedFile, SaysWhatItIs) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  if (GetParam().sql == nullptr) {
    std::ofstream(path) << std::string(4096, 'x');
  } else {
    { sample::open_store(folder.file("flows.db")); }
    execute(path, GetParam().sql);
  }
  const auto store = FlowStore::open_writer(path, {"c1", "node-1"});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::Corrupt);
  EXPECT_NE(store.error().message.find(GetParam().message), std::string::npos) << store.error().message;
  EXPECT_NE(store.error().message.find(path), std::string::npos) << store.error().message;
}

constexpr Refusal kRefusals[] = {
    {"NewerSchema", "PRAGMA user_version = 99", "has schema version 99; this program knows versions up to "},
    {"AnotherProgram", "PRAGMA application_id = 7", "database of another program (application id 7)"},
    {"NoApplication", "PRAGMA application_id = 0", "database of another program (application id 0)"},
    {"NoDatabase", nullptr, "expected a Tierlog flow index"},
};

INSTANTIATE_TEST_SUITE_P(All, RefusedFile, testing::ValuesIn(kRefusals),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(FlowStore, ARefusedFileIsLeftAsItIs) {
  const sample::Folder folder;
  const std::string path = folder.file("other.db");
  execute(path, "CREATE TABLE mine(x); PRAGMA application_id = 7");
  EXPECT_FALSE(FlowStore::open_writer(path, {}));
  struct stat status {};
  EXPECT_NE(::stat((path + "-wal").c_str(), &status), 0) << "the foreign file was switched to WAL";
}

}  // namespace
}  // namespace tierlog::store
