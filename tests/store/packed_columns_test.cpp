// Many small things in one row: flows that were told, uses of dictionaries; and many rows in one INSERT.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <random>

#include "store/denied_blocks.h"
#include "store/reference_uses.h"
#include "store/row_insertion.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

ToldDenied flow(std::int64_t handle, const char* source, std::uint64_t packets) {
  const bool is_v6 = std::string_view(source).find(':') != std::string_view::npos;
  return {handle,
          sample::kDenyRule,
          *IpAddr::parse(source),
          *IpAddr::parse(is_v6 ? "fd00::1" : "10.0.0.1"),
          protocol::kUdp,
          53,
          packets,
          packets * 60,
          sample::at(3)};
}

class PackedColumns : public testing::Test {
 protected:
  void SetUp() override {
    { const auto store = sample::open_store(path_); }
    auto opened = sqlite::Database::open(path_, SQLITE_OPEN_READWRITE);
    ASSERT_TRUE(opened) << opened.error().message;
    database_ = std::move(*opened);
  }
  std::int64_t number(const std::string& sql) { return database_.integer(sql).value(); }

  sample::Folder folder_;
  std::string path_ = folder_.file("flows.db");
  sqlite::Database database_;
};

TEST_F(PackedColumns, ToldFlowsAreThoseOfAMap) {
  auto blocks = DeniedBlocks::open(database_);
  ASSERT_TRUE(blocks) << blocks.error().message;
  std::map<std::int64_t, ToldDenied> kept;
  std::mt19937_64 random(21);
  std::int64_t next_handle = 1;
  for (int round = 0; round < 200; ++round) {
    std::vector<ToldDenied> changed;
    std::vector<std::int64_t> forgotten;
    for (std::uint64_t i = 0, count = random() % 60; i < count; ++i) {
      const bool is_new = kept.empty() || random() % 2 == 0;
      const std::int64_t handle =
          is_new ? next_handle++
                 : std::next(kept.begin(), static_cast<std::ptrdiff_t>(random() % kept.size()))->first;
      changed.push_back(flow(handle, random() % 5 == 0 ? "fd00::2" : "10.0.0.2", random()));
      changed.back().alone = random() % 7 == 0;
      changed.back().last_packet = from_ns(static_cast<std::int64_t>(random()));
    }
    for (std::uint64_t i = 0, count = random() % 50; i < count && next_handle > 1; ++i)
      forgotten.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(next_handle + 40)));
    for (const std::int64_t handle : forgotten) kept.erase(handle);
    for (const ToldDenied& one : changed) kept.insert_or_assign(one.handle, one);
    // Of a writer that has just begun, now and then.
    if (round % 10 == 0) *blocks = std::move(*DeniedBlocks::open(database_));
    const auto written = blocks->write(changed, forgotten);
    ASSERT_TRUE(written) << written.error().message;
    const auto read = blocks->read();
    ASSERT_TRUE(read) << read.error().message;
    ASSERT_EQ(read->size(), kept.size());
    auto expected = kept.begin();
    for (const ToldDenied& one : *read) ASSERT_TRUE(one == (expected++)->second);
  }
  std::vector<std::int64_t> all;
  for (const auto& [handle, one] : kept) all.push_back(handle);
  EXPECT_GT(all.size(), 50u);
  ASSERT_TRUE(blocks->write({}, all));
  EXPECT_EQ(number("SELECT count(*) FROM denied_told"), 0) << "blocks of which nothing is left are gone";
}

TEST_F(PackedColumns, ABlockThatIsCutIsCorrupt) {
  auto blocks = DeniedBlocks::open(database_);
  ASSERT_TRUE(blocks && blocks->write({flow(1, "10.0.0.2", 5), flow(2, "fd00::2", 5)}, {}));
  for (std::int64_t bytes = number("SELECT length(flows) FROM denied_told") - 1; bytes > 0; --bytes) {
    ASSERT_TRUE(
        database_.execute("UPDATE denied_told SET flows = substr(flows, 1, " + std::to_string(bytes) + ")"));
    const auto read = blocks->read();
    if (read) {
      EXPECT_EQ(read->size(), 1u) << "cut between two flows";
      continue;
    }
    EXPECT_EQ(read.error().code, ErrorCode::Corrupt);
    EXPECT_FALSE(blocks->write({flow(3, "10.0.0.2", 1)}, {})) << "what is damaged is not written over";
  }
}

TEST_F(PackedColumns, UsesAreThoseOfAMap) {
  auto uses = ReferenceUses::open(database_);
  ASSERT_TRUE(uses) << uses.error().message;
  std::map<std::int64_t, std::int64_t> kept;
  std::mt19937_64 random(22);
  std::size_t taken = 0;
  for (int round = 0; round < 300; ++round) {
    Uses more;
    for (std::uint64_t i = 0, count = random() % 40; i < count; ++i) {
      const auto id = static_cast<std::int64_t>(1 + random() % 2000);
      const auto had = kept.find(id);
      const std::int64_t by =
          had != kept.end() && random() % 2 == 0 ? -had->second : static_cast<std::int64_t>(random() % 1000);
      more.at(id) += by;
      kept[id] += by;
    }
    ASSERT_TRUE(uses->add(Referred::Peer, more));
    if (round % 25 == 0) {
      const auto unused = uses->take_unused(Referred::Peer, 10);
      ASSERT_TRUE(unused) << unused.error().message;
      for (const std::int64_t id : *unused) {
        EXPECT_EQ(kept.at(id), 0);
        kept.erase(id);
      }
      taken += unused->size();
    }
    ASSERT_EQ(uses->read(Referred::Peer).value(), kept);
    ASSERT_TRUE(uses->read(Referred::Text)->empty());
  }
  EXPECT_GT(taken, 20u);
}

TEST_F(PackedColumns, RowsOfOneRunDoNotMix) {
  ASSERT_TRUE(database_.execute("CREATE TABLE t(a INTEGER, b TEXT, c BLOB)"));
  auto many = RowInsertion::open(database_, "t(a, b, c)", 3, 4);
  ASSERT_TRUE(many) << many.error().message;
  std::string expected;
  for (int run = 0; run < 8; ++run) {
    std::array<std::string, 4> texts;
    for (int row = 0; row < 4; ++row) {
      // Each column is null in some runs and not in the next ones.
      const bool has_number = (run + row) % 2 == 0, has_text = (run + row) % 3 == 0,
                 has_blob = (run * row) % 2 == 0;
      many->put(row, 0, has_number ? std::optional<std::int64_t>(run * 10 + row) : std::nullopt);
      texts[static_cast<std::size_t>(row)] = "text " + std::to_string(run) + std::to_string(row);
      if (has_text)
        many->put_text(row, 1, texts[static_cast<std::size_t>(row)]);
      else
        many->put_null(row, 1);
      if (has_blob)
        many->put_blob(row, 2, std::string_view("\0x", 2));
      else
        many->put_null(row, 2);
      expected += (has_number ? std::to_string(run * 10 + row) : "-") + "|" +
                  (has_text ? texts[static_cast<std::size_t>(row)] : "-") + "|" + (has_blob ? "0078" : "-") +
                  "\n";
    }
    ASSERT_TRUE(many->run());
  }
  auto rows = database_.prepare(
      "SELECT coalesce(a, '-') || '|' || coalesce(b, '-') || '|' || iif(c IS NULL, '-', hex(c)) FROM t");
  ASSERT_TRUE(rows);
  std::string read;
  while (rows->step().value()) read += rows->text(0) + "\n";
  EXPECT_EQ(read, expected);
}

}  // namespace
}  // namespace tierlog::store
