// What exports read: every record once behind a cursor, by a filter, and how many retention took.
#include "store/outbox.h"

#include <gtest/gtest.h>

#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

using Field = FieldFilter::Field;

class OutboxTest : public ::testing::Test {
 protected:
  OutboxTest() : store_(sample::open_store(folder_.file("flows.db"))) {}
  // Denied, allowed, denied, …
  void put(int first, int count) {
    std::vector<FlowRecord> records;
    for (int i = first; i < first + count; ++i) {
      records.push_back(i % 2 == 0 ? sample::denied() : sample::allowed());
      records.back().id = "018f0000-0000-7000-8000-" + std::to_string(100'000'000'000 + i);
      records.back().start = sample::at(i);
      records.back().end = sample::at(i);
    }
    ASSERT_TRUE(store_.insert(records));
  }
  Outbox open(std::vector<FieldFilter> filters = {}) {
    return Outbox::open(folder_.file("flows.db"), std::move(filters)).value();
  }

  sample::Folder folder_;
  FlowStore store_;
};

TEST_F(OutboxTest, GivesEveryRecordOnceInPieces) {
  put(0, 25);
  Outbox outbox = open();
  std::int64_t cursor = 0;
  std::vector<std::int64_t> seen;
  for (int i = 0; i < 10; ++i) {
    const auto piece = outbox.read(cursor, 10);
    ASSERT_TRUE(piece) << piece.error().message;
    EXPECT_EQ(piece->last, 25);
    for (const StoredRecord& stored : piece->records) seen.push_back(stored.sequence);
    if (piece->through == cursor) break;
    cursor = piece->through;
  }
  ASSERT_EQ(seen.size(), 25u);
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_EQ(seen[i], static_cast<std::int64_t>(i + 1));
  put(25, 1);
  EXPECT_EQ(outbox.read(cursor, 10)->records.size(), 1u);
}

TEST_F(OutboxTest, PassesWhatTheFilterLeavesOut) {
  put(0, 20);
  Outbox denied = open({{Field::Action, {"deny"}, false}});
  const auto piece = denied.read(0, 8);
  ASSERT_TRUE(piece);
  EXPECT_EQ(piece->records.size(), 4u);
  EXPECT_EQ(piece->through, 8);
  Outbox none = open({{Field::Namespace, {"nowhere"}, false}});
  EXPECT_EQ(none.read(0, 100)->through, 20);
  EXPECT_TRUE(none.read(0, 100)->records.empty());
  EXPECT_EQ(Outbox::open(folder_.file("flows.db"), {{Field::Port, {"99999"}, false}}).error().code, ErrorCode::InvalidArgument);
  EXPECT_TRUE(check_filters({{Field::Port, {"99"}, false}}));
  EXPECT_FALSE(check_filters({{Field::Port, {"99999"}, false}}));
  EXPECT_EQ(Outbox::open(folder_.file("none.db"), {}).error().code, ErrorCode::NotFound);
}

TEST_F(OutboxTest, CountsWhatRetentionTook) {
  StoreOptions few;
  few.limits.max_rows = 5;
  store_ = FlowStore::open_writer(folder_.file("flows.db"), {"c1", "n"}, few).value();
  put(0, 20);
  while (store_.maintain(sample::at(100), std::chrono::seconds(1)).value()) {
  }
  Outbox outbox = open();
  const auto all = outbox.read(3, 100);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->records.size() + all->expired, 17u);
  EXPECT_GT(all->expired, 10u);
  EXPECT_EQ(all->through, 20);
  EXPECT_EQ(outbox.read(20, 100)->expired, 0u);
}

}  // namespace
}  // namespace tierlog::store
