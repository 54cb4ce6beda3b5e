// The limits of flows.db: what goes, what stays, and that the file really is as small as it was told to be.
#include <gtest/gtest.h>

#include <filesystem>
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>

#include "store/check.h"
#include "store/query.h"
#include "store/state_db.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

constexpr std::chrono::milliseconds kBudget{20};

FlowStore open_limited(const std::string& path, const StoreLimits& limits) {
  auto store = FlowStore::open_writer(path, {"c1", "node-1"}, {limits, false, 0, Nanoseconds(0)});
  if (!store) throw std::runtime_error(store.error().message);
  return std::move(*store);
}

// Records of different peers, a second apart.
std::vector<FlowRecord> records(int first, int count) {
  std::vector<FlowRecord> made;
  for (int i = first; i < first + count; ++i) {
    FlowRecord record = i % 5 == 0 ? sample::denied() : sample::allowed();
    record.start = record.end = sample::at(i);
    record.src = sample::pod("10.2." + std::to_string(i / 250 % 250) + "." + std::to_string(i % 250), "a",
                             "pod-" + std::to_string(i), "w");
    if (i % 5 == 0) record.logged_by[0].suppressed = static_cast<std::uint64_t>(i);
    made.push_back(record);
  }
  return made;
}

void maintain_all(FlowStore& store, WallTime now) {
  for (;;) {
    const auto more = store.maintain(now, kBudget);
    ASSERT_TRUE(more) << more.error().message;
    if (!*more) return;
  }
}

std::uint64_t bytes_on_disk(const std::string& path) {
  std::uint64_t bytes = 0;
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat status {};
    if (::stat((path + suffix).c_str(), &status) == 0) bytes += static_cast<std::uint64_t>(status.st_size);
  }
  return bytes;
}

void expect_whole(const std::string& path, std::int64_t records) {
  const auto report = check_flow_index(path, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
  EXPECT_EQ(report->records, records);
}

class Retention : public testing::Test {
 protected:
  Retention() : path_(folder_.file("flows.db")) {}
  sample::Folder folder_;
  std::string path_;
};

TEST_F(Retention, ByRowsKeepsTheNewest) {
  auto store = open_limited(path_, {{}, 0, 1000});
  ASSERT_TRUE(store.insert(records(0, 2500)));
  maintain_all(store, sample::at(2500));
  EXPECT_EQ(store.state().records, 1000u);
  EXPECT_EQ(store.state().removed_records, 1500u);
  const auto left = store.read_after(0, 5000);
  ASSERT_EQ(left->size(), 1000u);
  EXPECT_EQ(left->front().sequence, 1501);
  expect_whole(path_, 1000);
  // What was ever recorded is still told: the books do not forget.
  std::uint64_t packets = 0;
  const auto recorded = store.recorded();
  for (const RuleCount& count : *recorded) packets += count.packets;
  EXPECT_EQ(packets, 2500u);
}

TEST_F(Retention, ByAgeGoesByTheEndOfRecords) {
  auto store = open_limited(path_, {std::chrono::minutes(10), 0, 0});
  auto batch = records(0, 1200);
  // Written first, but by a clock that was ahead: it is as young as it says.
  batch.front().end = batch.front().start = sample::at(5000);
  ASSERT_TRUE(store.insert(batch));
  maintain_all(store, sample::at(1200));
  EXPECT_EQ(store.state().records, 601u);
  EXPECT_EQ(store.state().oldest, sample::at(600));
  expect_whole(path_, 601);
  maintain_all(store, sample::at(100'000));
  EXPECT_EQ(store.state().records, 0u);
  EXPECT_EQ(store.state().oldest, std::nullopt);
  ASSERT_TRUE(store.insert(records(100'000, 10)));
  expect_whole(path_, 10);
}

TEST_F(Retention, WithoutLimitsNothingGoes) {
  auto store = open_limited(path_, {});
  ASSERT_TRUE(store.insert(records(0, 1500)));
  maintain_all(store, sample::at(1'000'000'000));
  EXPECT_EQ(store.state().records, 1500u);
  EXPECT_EQ(store.state().removed_records, 0u);
}

TEST_F(Retention, ByBytesTheFilesNeverGetLarger) {
  constexpr std::uint64_t kMost = 4 << 20;
  auto store = open_limited(path_, {{}, kMost, 0});
  std::uint64_t largest = 0;
  int written = 0;
  for (; written < 16'000; written += 200) {
    ASSERT_TRUE(store.insert(records(written, 200)));
    largest = std::max(largest, bytes_on_disk(path_));
    // As a daemon that is busy: one short look between batches.
    ASSERT_TRUE(store.maintain(sample::at(written), std::chrono::milliseconds(5)));
    largest = std::max(largest, bytes_on_disk(path_));
  }
  EXPECT_LE(largest, kMost);
  EXPECT_GT(largest, kMost / 2) << "the limit was never near";
  maintain_all(store, sample::at(written));
  const StoreState state = store.state();
  EXPECT_GT(state.removed_records, 2'000u);
  EXPECT_GT(state.records, 2'000u) << "much more went than had to";
  EXPECT_EQ(state.records + state.removed_records, 16'000u);
  EXPECT_LE(state.bytes, kMost);
  expect_whole(path_, static_cast<std::int64_t>(state.records));
}

// Dictionary rows go with the last record that needs them; what is kept for records that come is kept.
TEST_F(Retention, UnusedNamesGo) {
  {
    auto store = open_limited(path_, {{}, 0, 100});
    ASSERT_TRUE(store.insert(records(0, 3000)));
    maintain_all(store, sample::at(3000));
    const auto report = check_flow_index(path_, [](const std::string&, double) {});
    EXPECT_EQ(report->peers, 101) << "100 sources and one destination";
    EXPECT_EQ(report->texts, 20 + 2) << "20 lists of Log rules, the empty list, the staged policy";
    // The writer must not remember ids that are gone.
    ASSERT_TRUE(store.insert(records(0, 50)));
    EXPECT_TRUE(store.read_after(3000, 100));
  }
  const auto report = check_flow_index(path_, [](const std::string&, double) {});
  ASSERT_TRUE(report->damage.empty()) << report->damage.front();
}

TEST_F(Retention, TheRegistryOfIdsHasNone) {
  auto state = StateDb::open(folder_.file("state.db"));
  ASSERT_TRUE(state);
  policy::RuleKey key;
  key.policy.name = "restrict";
  const auto before = (*state)->identify({key});
  ASSERT_TRUE(before);
  auto store = open_limited(path_, {std::chrono::seconds(1), 1 << 20, 1});
  ASSERT_TRUE(store.put_catalog(sample::catalog()));
  ASSERT_TRUE(store.insert(records(0, 1000)));
  maintain_all(store, sample::at(1'000'000));
  EXPECT_EQ(store.state().records, 0u);
  EXPECT_EQ((*state)->identify({key})->front().id, before->front().id);
  auto reader = FlowReader::open(path_);
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->rules({}, true)->size(), sample::catalog().rules.size());
}

TEST_F(Retention, ASmallBudgetIsASmallStep) {
  auto store = open_limited(path_, {{}, 0, 1});
  ASSERT_TRUE(store.insert(records(0, 5000)));
  const auto more = store.maintain(sample::at(5000), std::chrono::nanoseconds(1));
  ASSERT_TRUE(more);
  EXPECT_TRUE(*more);
  EXPECT_GT(store.state().records, 1000u);
  ASSERT_TRUE(store.insert(records(5000, 1)));
  maintain_all(store, sample::at(5001));
  EXPECT_EQ(store.state().records, 1u);
}

}  // namespace
}  // namespace tierlog::store
