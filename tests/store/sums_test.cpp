// Every listing that is answered from an index alone or from sums beside the rows says what the rows say.
#include <gtest/gtest.h>

#include <random>

#include "store/check.h"
#include "store/groups.h"
#include "store/query.h"
#include "store/rollup_groups.h"
#include "store/rollups.h"
#include "store/sqlite.h"
#include "tests/store/packed.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;

constexpr int kRecords = 1500;
constexpr std::int64_t kSpanNs = 150 * kHourNs;

// Records of pods of this node and others, both views, out of order by up to half a minute.
std::vector<FlowRecord> random_records(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<FlowRecord> records;
  for (int i = 0; i < kRecords; ++i) {
    FlowRecord record = random() % 3 == 0   ? sample::denied()
                        : random() % 2 == 0 ? sample::allowed()
                                            : sample::denied_at_end();
    record.end = sample::at(0) + Nanoseconds(kSpanNs / kRecords * i) - Nanoseconds(random() % 30'000'000'000);
    record.start = record.end - Nanoseconds(random() % 2 == 0 ? 0 : random() % 10'000'000'000);
    record.src = sample::pod("10.1.0." + std::to_string(1 + random() % 9), "a",
                             "src-" + std::to_string(random() % 3), "w");
    record.dst = sample::pod("10.2.0." + std::to_string(1 + random() % 5), "b",
                             "dst-" + std::to_string(random() % 2), "v");
    record.reporter = random() % 3 == 0 ? Reporter::Source : Reporter::Destination;
    record.verdict_packets = random() % 50;
    if (random() % 4 == 0) record.packets_out = std::nullopt;
    record.bytes_out = random() % 10'000;
    record.dst_port = static_cast<std::uint16_t>(random() % 2 == 0 ? 5432 : 80);
    records.push_back(record);
  }
  return records;
}

// Half of the destinations are pods of this node: what their sources tell is told twice.
policy::Cluster cluster() {
  policy::Cluster made;
  for (int i = 1; i <= 3; ++i) {
    policy::Endpoint pod;
    pod.endpoint_namespace = "b";
    pod.name = "dst-" + std::to_string(i);
    pod.addresses = {*IpAddr::parse("10.2.0." + std::to_string(i))};
    pod.local = true;
    made.endpoints.push_back(pod);
  }
  return made;
}

struct Filter {
  const char* text;
  FieldFilter filter;
};
const Filter kFilters[] = {
    {"deny", {Field::Action, {"deny"}, false}},
    {"allow", {Field::Action, {"allow"}, false}},
    {"not deny", {Field::Action, {"deny"}, true}},
    {"policy", {Field::Policy, {"tenant-01-restrict"}, false}},
    {"policy asked at the end", {Field::Policy, {"isolate"}, false}},
    {"not policy", {Field::Policy, {"isolate"}, true}},
    {"rule", {Field::Rule, {"ingress[2]"}, false}},
    {"reporter", {Field::Reporter, {"dst"}, false}},
    {"from", {Field::From, {"10.1.0.0/30"}, false}},
    {"to", {Field::To, {"10.2.0.2"}, false}},
    {"port", {Field::Port, {"80"}, false}},
    {"either side", {Field::Namespace, {"b"}, false}},
    {"logged", {Field::Logged, {"true"}, false}},
};

const char* const kFields[] = {"policy",
                               "tier,rule",
                               "from",
                               "to-ip",
                               "action,revision",
                               "reporter",
                               "from,to",
                               "from-workload,policy",
                               "port",
                               "direction,kind",
                               "to,rule-id"};

FlowQuery random_query(std::mt19937_64& random, std::string& text) {
  FlowQuery query;
  const auto instant = [&]() -> std::optional<WallTime> {
    if (random() % 2 == 0) return std::nullopt;
    const WallTime at = sample::at(0) + Nanoseconds(static_cast<std::int64_t>(random() % kSpanNs));
    return random() % 3 == 0 ? from_ns(to_ns(at) / kHourNs * kHourNs) : at;
  };
  query.since = instant();
  query.until = instant();
  for (std::size_t i = random() % 4; i > 0; --i) {
    const Filter& filter = kFilters[random() % std::size(kFilters)];
    query.filters.push_back(filter.filter);
    text += std::string(filter.text) + ", ";
  }
  if (query.since) text += "since " + format_rfc3339(*query.since) + ", ";
  if (query.until) text += "until " + format_rfc3339(*query.until) + ", ";
  return query;
}

std::string told(const Sums& sums) {
  std::string text;
  for (const std::uint64_t sum :
       {sums.records, sums.connections, sums.denied_packets, sums.packets, sums.bytes_out, sums.bytes_in})
    text += std::to_string(sum) + " ";
  return text;
}

std::string told(const FlowSums& group) {
  std::string text;
  for (const std::string& name : group.names) text += name + "|";
  text += told(group.sums) + format_rfc3339(group.first) + " " + format_rfc3339(group.last);
  for (const Sums& bin : group.bins) text += "\n    " + told(bin);
  return text;
}

std::string told(const GroupResult& result) {
  std::string text = std::to_string(result.all) + " groups\n";
  for (const FlowSums& group : result.groups) text += told(group) + "\n";
  return text + told(result.total);
}

std::string told(const std::vector<FlowGroup>& groups) {
  std::string text;
  for (const FlowGroup& group : groups)
    text += group.newest.id + " " + format_rfc3339(group.first) + " " + format_rfc3339(group.last) + " " +
            std::to_string(group.records) + " " + std::to_string(group.packets) + " " +
            std::to_string(group.bytes) + "\n";
  return text;
}

class SumsBesideRows : public testing::Test {
 protected:
  SumsBesideRows() {
    StoreOptions options;
    options.limits.max_rows = 1200;
    options.roll_up_within = Nanoseconds(0);
    auto opened = FlowStore::open_writer(path_, {"c1", "node-1"}, options);
    if (!opened) throw std::runtime_error(opened.error().message);
    FlowStore store = std::move(*opened);
    std::vector<FlowRecord> records = random_records(20261128);
    for (std::size_t i = 0; i < records.size(); ++i) {
      records[i].id = "r" + std::to_string(i);
    }
    const std::span<const FlowRecord> all(records);
    if (!store.put_catalog(sample::catalog()) ||
        !store.put_moment({sample::at(-100), 1, true, {{"a.yaml", "x"}}, {}}, cluster(), {}) ||
        !write_rolled_up(store, all.first(1400)) || !store.insert(all.subspan(1400)))
      throw std::runtime_error("the sample was not written");
    store_.emplace(std::move(store));  // the last hundred are not rolled up
  }

  static bool write_rolled_up(FlowStore& store, std::span<const FlowRecord> records) {
    for (std::size_t i = 0; i < records.size(); i += 100)
      if (!store.insert(records.subspan(i, 100)) || !store.maintain(sample::at(0), std::chrono::seconds(60)))
        return false;
    return true;
  }

  // How often sums and rows differ over many questions.
  int differences(int questions, int enough = 1 << 30) {
    auto reader = FlowReader::open(path_);
    EXPECT_TRUE(reader) << reader.error().message;
    std::mt19937_64 random(5);
    int different = 0;
    for (int i = 0; i < questions && different < enough; ++i) {
      std::string text;
      GroupQuery query;
      query.flows = random_query(random, text);
      const char* fields = kFields[random() % std::size(kFields)];
      if (random() % 8 != 0) query.fields = *parse_group_fields(fields);
      text += std::string("by ") + fields;
      constexpr std::int64_t kBins[] = {0, 0, 0, 10 * kMinuteNs, kHourNs, 3 * kHourNs, 90'000'000'000};
      if (const std::int64_t bin = kBins[random() % std::size(kBins)]; bin > 0) query.bin = Nanoseconds(bin);
      if (query.bin && (!query.flows.since || !query.flows.until)) query.flows.until = sample::at(600'000);
      const auto fast = reader->groups(query);
      query.from_rows = true;
      const auto rows = reader->groups(query);
      if (!fast || !rows) {
        ADD_FAILURE() << text << ": " << (fast ? rows : fast).error().message;
        continue;
      }
      if (told(*fast) == told(*rows)) continue;
      ++different;
      last_ = text + "\n" + told(*fast) + "\nrows:\n" + told(*rows);
    }
    return different;
  }

  sample::Folder folder_;
  const std::string path_ = folder_.file("flows.db");
  std::optional<FlowStore> store_;
  std::string last_;  // difference
};

TEST_F(SumsBesideRows, SayWhatTheRowsSay) {
  EXPECT_EQ(differences(300), 0) << last_;
}

// The comparison sees a sum that is one byte wrong.
TEST_F(SumsBesideRows, AWrongSumIsFound) {
  for (const RollupTable& table : kRollupTables)
    for (const std::int64_t width : kRollupWidths) {
      auto database = sqlite::Database::open(path_, SQLITE_OPEN_READWRITE);
      ASSERT_TRUE(database);
      sample::add_more_bytes(*database);
      const std::string change = std::string("UPDATE ") + table.name + " SET sums = more_bytes(sums, ";
      const std::string where = " WHERE width = " + std::to_string(width / kRollupSecondNs);
      ASSERT_TRUE(database->execute(change + "1)" + where));
      EXPECT_GT(differences(300, 1), 0) << table.name << where << " is never read";
      ASSERT_TRUE(database->execute(change + "-1)" + where));
    }
  EXPECT_EQ(differences(150), 0) << last_;
}

// Who sends most of what is allowed: from the sums, and the same as from the rows.
TEST_F(SumsBesideRows, TopTalkersOfAllowedTraffic) {
  auto reader = FlowReader::open(path_);
  GroupQuery query;
  query.flows.filters = {kFilters[1].filter};
  query.fields = *parse_group_fields("from");
  EXPECT_TRUE(is_told_by_rollups(query));
  const auto once = reader->groups(query);
  query.from_rows = true;
  EXPECT_FALSE(is_told_by_rollups(query));
  EXPECT_EQ(told(*once), told(*reader->groups(query)));
  EXPECT_GE(once->groups.size(), 3u);
  // Both views are there for those who tell them apart.
  query.from_rows = false;
  query.fields = *parse_group_fields("from,reporter");
  const auto both = reader->groups(query);
  EXPECT_GT(both->total.sums.records, once->total.sums.records);
  query.from_rows = true;
  EXPECT_EQ(told(*both), told(*reader->groups(query)));
}

TEST_F(SumsBesideRows, AFileOfVersion8SaysTheSame) {
  GroupQuery query;
  query.fields = *parse_group_fields("from,reporter,action");
  const std::string before = told(*FlowReader::open(path_)->groups(query));
  store_.reset();
  sample::undo_version_9(path_);
  EXPECT_FALSE(FlowReader::open(path_));
  auto opened = FlowStore::open_writer(path_, {"c1", "node-1"});
  ASSERT_TRUE(opened) << opened.error().message;
  EXPECT_EQ(opened->state().records, 1300u);
  store_.emplace(std::move(*opened));
  const auto report = check_flow_index(path_, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
  EXPECT_EQ(told(*FlowReader::open(path_)->groups(query)), before);
  EXPECT_EQ(differences(150), 0) << last_;
}

// A file as version 7 wrote it: one sum of both kinds of a source's view, and nothing about peers.
void undo_version_8(const std::string& path, int say_version) {
  sample::undo_version_9(path);
  auto database = sqlite::Database::open(path, SQLITE_OPEN_READWRITE);
  ASSERT_TRUE(database);
  for (const RollupTable& table : kRollupTables) {
    const std::string peer = table.peer == RollupPeer::None ? "" : "peer, ", name = table.name;
    const auto done = database->execute(
        "INSERT INTO " + name + " SELECT width, action, 0, bucket, " + peer +
        "rule, records, connections, verdict_packets, packets_out, packets_in, bytes_out, bytes_in, "
        "first_ns, last_ns FROM " +
        name + " WHERE reporter = 2 ON CONFLICT(width, action, reporter, bucket, " + peer +
        "rule) DO UPDATE SET records = records + excluded.records, connections = connections + "
        "excluded.connections,"
        " verdict_packets = verdict_packets + excluded.verdict_packets, packets_out = packets_out + "
        "excluded.packets_out,"
        " packets_in = packets_in + excluded.packets_in, bytes_out = bytes_out + excluded.bytes_out,"
        " bytes_in = bytes_in + excluded.bytes_in, first_ns = min(first_ns, excluded.first_ns),"
        " last_ns = max(last_ns, excluded.last_ns); DELETE FROM " +
        name + " WHERE reporter = 2");
    ASSERT_TRUE(done) << done.error().message;
  }
  const auto done =
      database->execute((say_version < 8 ? "ALTER TABLE peer DROP COLUMN local; PRAGMA user_version = "
                                         : "PRAGMA user_version = ") +
                        std::to_string(say_version));
  ASSERT_TRUE(done) << done.error().message;
}

TEST_F(SumsBesideRows, AFileOfVersion7SaysTheSame) {
  GroupQuery query;
  query.fields = *parse_group_fields("from,reporter,action");
  const std::string before = told(*FlowReader::open(path_)->groups(query));
  store_.reset();
  undo_version_8(path_, 7);
  StoreOptions options;
  options.limits.max_rows = 1200;
  auto opened = FlowStore::open_writer(path_, {"c1", "node-1"}, options);
  ASSERT_TRUE(opened) << opened.error().message;
  store_.emplace(std::move(*opened));
  const auto report = check_flow_index(path_, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
  EXPECT_EQ(told(*FlowReader::open(path_)->groups(query)), before);
  EXPECT_EQ(differences(150), 0) << last_;
}

TEST_F(SumsBesideRows, TheControlIsNotMigrated) {
  store_.reset();
  undo_version_8(path_, 8);
  ASSERT_TRUE(FlowStore::open_writer(path_, {"c1", "node-1"}));
  EXPECT_GT(differences(150, 1), 0);
}

// Records that were written before it was known that a pod is of this node stay what they were, in rows and
// sums.
TEST_F(SumsBesideRows, APodThatComesToThisNodeLaterIsAnotherPeer) {
  const std::string path = folder_.file("late.db");
  auto store = sample::open_store(path);
  std::vector<FlowRecord> records = random_records(7);
  for (std::size_t i = 0; i < records.size(); ++i) records[i].id = "l" + std::to_string(i);
  const std::span<const FlowRecord> all(records);
  ASSERT_TRUE(store.put_catalog(sample::catalog()));
  ASSERT_TRUE(store.insert(all.first(500)));
  ASSERT_TRUE(store.put_moment({sample::at(-100), 1, true, {{"a.yaml", "x"}}, {}}, cluster(), {}));
  ASSERT_TRUE(store.insert(all.subspan(500, 500)));
  auto reader = FlowReader::open(path);
  GroupQuery query;
  query.flows.filters = {kFilters[1].filter};
  for (const char* fields : {"from", "to", "policy", "reporter", "from,reporter"}) {
    query.fields = *parse_group_fields(fields);
    query.from_rows = false;
    const auto fast = reader->groups(query);
    query.from_rows = true;
    EXPECT_EQ(told(*fast), told(*reader->groups(query))) << fields;
  }
  auto database = sqlite::Database::open(path, SQLITE_OPEN_READONLY);
  EXPECT_GT(
      database
          ->integer(
              "SELECT count(*) FROM peer AS a JOIN peer AS b USING (ip, name) WHERE a.local AND NOT b.local")
          .value(),
      0);
}

TEST_F(SumsBesideRows, DeniedFlowsSayWhatTheRowsSay) {
  auto reader = FlowReader::open(path_);
  std::mt19937_64 random(6);
  int compared = 0;
  for (int i = 0; i < 150; ++i) {
    std::string text;
    FlowQuery query = random_query(random, text);
    query.filters.push_back(kFilters[0].filter);
    query.limit = random() % 2 == 0 ? 0 : 7;
    const auto fast = reader->grouped_flows(query);
    const auto rows = reader->grouped_flows(query, true);
    ASSERT_TRUE(fast && rows) << text;
    EXPECT_EQ(told(*fast), told(*rows)) << text;
    compared += fast->size() > 1;
  }
  EXPECT_GT(compared, 30);
}

// The newest page of denied records, by rule and merged, against all of them cut.
TEST_F(SumsBesideRows, APageIsTheNewestOfAll) {
  auto reader = FlowReader::open(path_);
  std::mt19937_64 random(7);
  int compared = 0;
  for (int i = 0; i < 100; ++i) {
    std::string text;
    FlowQuery query = random_query(random, text);
    query.filters.push_back(kFilters[0].filter);
    query.limit = 9;
    const auto page = reader->flows(query);
    query.limit = 0;
    auto all = reader->flows(query);
    ASSERT_TRUE(page && all) << text;
    if (all->size() > 9) all->resize(9);
    ASSERT_EQ(page->size(), all->size()) << text;
    for (std::size_t k = 0; k < all->size(); ++k) EXPECT_EQ((*page)[k].sequence, (*all)[k].sequence) << text;
    compared += page->size() == 9;
  }
  EXPECT_GT(compared, 20);
}

}  // namespace
}  // namespace tierlog::store
