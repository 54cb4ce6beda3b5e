// What becomes of the flow index when the disk is full, read-only or gives back something else than was
// written.
#include <gtest/gtest.h>
#include <sched.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "store/check.h"
#include "store/query.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

namespace fs = std::filesystem;

// Runs `body` with a small disk of its own mounted on `folder`, seen by nobody else and gone afterwards.
// False when the kernel does not allow that (EPERM: no CAP_SYS_ADMIN); when it cannot be had for any other
// reason the test fails.
bool with_small_disk(const std::string& folder, const char* size, const std::function<void()>& body) {
  int problem = 0;
  std::thread thread([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("tierlog-test", folder.c_str(), "tmpfs", 0, (std::string("size=") + size).c_str()) != 0) {
      problem = errno;
      return;
    }
    body();
    EXPECT_EQ(::umount(folder.c_str()), 0) << "a file is still open";
  });
  thread.join();
  EXPECT_TRUE(problem == 0 || problem == EPERM) << "mount on " << folder << ": " << std::strerror(problem);
  return problem != EPERM;
}

std::vector<FlowRecord> batch(int number) {
  std::vector<FlowRecord> records;
  for (int i = 0; i < 500; ++i) {
    records.push_back(i % 4 == 0 ? sample::denied() : sample::allowed());
    records.back().src.ip =
        *IpAddr::parse("10.3." + std::to_string(number % 250) + "." + std::to_string(i % 250));
  }
  return records;
}

void expect_whole(const std::string& path, std::size_t records) {
  const auto report = check_flow_index(path, [](const std::string&, double) {});
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report->damage.empty()) << report->damage.front();
  EXPECT_EQ(report->records, static_cast<std::int64_t>(records));
}

TEST(Disk, FullIsAnErrorUntilThereIsRoom) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  const bool had = with_small_disk(folder.path(), "6m", [&] {
    {
      auto store = sample::open_store(path);
      const std::string ballast = folder.file("ballast");
      std::ofstream(ballast) << std::string(3 << 20, 'x');
      std::size_t written = 0;
      Result<void> done;
      for (int i = 0; i < 500 && done; ++i) {
        done = store.insert(batch(i));
        if (done) written += 500;
      }
      ASSERT_FALSE(done) << "the disk was never full";
      EXPECT_EQ(done.error().code, ErrorCode::Unavailable) << done.error().message;
      EXPECT_NE(done.error().message.find("full"), std::string::npos) << done.error().message;
      EXPECT_GT(written, 0u);
      EXPECT_EQ(store.state().level, StoreState::Level::Refusing);
      EXPECT_EQ(store.state().problem, done.error().message);
      EXPECT_FALSE(store.state().damaged);
      EXPECT_EQ(store.state().refused_batches, 1u);
      // Readers go on meanwhile, with all that was ever committed and nothing of what was refused.
      expect_whole(path, written);

      fs::remove(ballast);
      ASSERT_TRUE(store.insert(batch(2)));
      EXPECT_NE(store.state().level, StoreState::Level::Refusing);
      EXPECT_EQ(store.state().problem, "");
      EXPECT_EQ(store.last_sequence().value(), static_cast<std::int64_t>(written) + 500);
      std::uint64_t packets = 0;
      const auto recorded = store.recorded();
      for (const RuleCount& count : *recorded) packets += count.packets;
      EXPECT_EQ(packets, written + 500) << "a refused batch was counted";
      expect_whole(path, written + 500);
    }
    auto store = sample::open_store(path);
    EXPECT_TRUE(store.insert(batch(3)));
  });
  if (!had) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a small disk of its own";
}

// Rules, policies and counts come without records too, and then nobody else says that the disk is full.
TEST(Disk, FullIsSaidWhateverIsWritten) {
  const sample::Folder folder;
  const bool had = with_small_disk(folder.path(), "6m", [&] {
    auto store = sample::open_store(folder.file("flows.db"));
    const std::string ballast = folder.file("ballast");
    {
      std::ofstream file(ballast, std::ios::binary);
      for (const std::string block(4096, 'x'); file.write(block.data(), static_cast<std::streamsize>(block.size())).flush();) {
      }
    }
    std::vector<RuleRow> rules(20'000);
    for (std::uint32_t i = 0; i < rules.size(); ++i) {
      rules[i].id = RuleId{1000 + i};
      rules[i].text = std::string(200, 'r');
    }
    ASSERT_FALSE(store.put_rules(rules)) << "the disk was never full";
    EXPECT_EQ(store.state().level, StoreState::Level::Refusing);
    EXPECT_NE(store.state().problem.find("full"), std::string::npos) << store.state().problem;
    fs::remove(ballast);
    ASSERT_TRUE(store.put_rules({}));
    EXPECT_EQ(store.state().problem, "");
  });
  if (!had) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a small disk of its own";
}

TEST(Disk, ALimitBelowItsSizeIsNeverFull) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  const bool had = with_small_disk(folder.path(), "6m", [&] {
    auto store = FlowStore::open_writer(path, {"c1", "node-1"}, {{{}, 5 << 20, 0}, false, 0});
    ASSERT_TRUE(store);
    for (int i = 0; i < 120; ++i) {
      const auto done = store->insert(batch(i));
      ASSERT_TRUE(done) << done.error().message << " at batch " << i;
      ASSERT_TRUE(store->maintain(sample::at(0), std::chrono::milliseconds(2)));
    }
    EXPECT_GT(store->state().removed_records, 0u);
  });
  if (!had) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a small disk of its own";
}

TEST(Disk, ReadOnlyIsSaid) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  const bool had = with_small_disk(folder.path(), "6m", [&] {
    {
      auto store = sample::open_store(path);
      ASSERT_TRUE(store.insert(batch(0)));
    }
    ASSERT_EQ(::mount(nullptr, folder.path().c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
    const auto store = FlowStore::open_writer(path, {"c1", "node-1"}, {{}, true, 0});
    ASSERT_FALSE(store);
    EXPECT_NE(store.error().code, ErrorCode::Corrupt);
    EXPECT_NE(store.error().message.find("EROFS"), std::string::npos) << store.error().message;
    EXPECT_NE(store.error().message.find(path), std::string::npos) << store.error().message;
  });
  if (!had) GTEST_SKIP() << "needs CAP_SYS_ADMIN for a small disk of its own";
}

// What stands on a reader: as long as it does not end, the -wal cannot be written back.
TEST(Disk, AReaderThatDoesNotEndMakesTheStoreRefuse) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  auto store = FlowStore::open_writer(path, {"c1", "node-1"}, {{{}, 4 << 20, 0}, false, 0});
  ASSERT_TRUE(store);
  ASSERT_TRUE(store->insert(batch(0)));
  sqlite3* reader = nullptr;
  ASSERT_EQ(sqlite3_open_v2(path.c_str(), &reader, SQLITE_OPEN_READONLY, nullptr), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM flow", nullptr, nullptr, nullptr), SQLITE_OK);
  Result<void> done;
  for (int i = 0; i < 500 && done; ++i) {
    done = store->insert(batch(i));
    ASSERT_TRUE(store->maintain(sample::at(0), std::chrono::milliseconds(1)));
  }
  ASSERT_FALSE(done) << "the limit was passed";
  EXPECT_EQ(done.error().code, ErrorCode::Unavailable);
  EXPECT_NE(done.error().message.find("a reader that does not end"), std::string::npos)
      << done.error().message;
  EXPECT_LE(store->state().bytes, (4u << 20) + (2u << 20)) << "and one batch, with its sums";
  sqlite3_close(reader);
  EXPECT_TRUE(store->insert(batch(1)));
  EXPECT_LE(store->state().bytes, 4u << 20);
}

void overwrite(const std::string& path, std::size_t from) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(0, std::ios::end);
  const auto end = static_cast<std::size_t>(file.tellp());
  ASSERT_GT(end, from);
  file.seekp(static_cast<std::streamoff>(from));
  file << std::string(end - from, '\x5a');
}

std::vector<std::string> kept_aside(const sample::Folder& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder.path()))
    if (entry.path().filename().string().rfind("flows.db.corrupt-", 0) == 0 &&
        entry.path().extension().string().find("-wal") == std::string::npos)
      names.push_back(entry.path().string());
  return names;
}

struct Damage {
  const char* name;
  void (*damage)(const std::string& path);
};
void PrintTo(const Damage& test, std::ostream* out) {
  *out << test.name;
}

class DamagedFile : public testing::TestWithParam<Damage> {};

TEST_P(DamagedFile, IsKeptAsideAndANewOneBegun) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  {
    auto store = sample::open_store(path);
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(store.insert(batch(i)));
  }
  GetParam().damage(path);
  const auto size = fs::file_size(path);
  EXPECT_FALSE(FlowStore::open_writer(path, {"c1", "node-1"}))
      << "without being asked to, nothing is replaced";
  auto store = FlowStore::open_writer(path, {"c1", "node-1"}, {{}, true, 5000});
  ASSERT_TRUE(store) << store.error().message;
  const auto kept = kept_aside(folder);
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(store->state().kept_aside, kept.front());
  EXPECT_EQ(fs::file_size(kept.front()), size);
  ASSERT_TRUE(store->insert(batch(1)));
  EXPECT_EQ(store->last_sequence().value(), 5500) << "cursors of exports are not passed a second time";
  EXPECT_EQ(store->read_after(5000, 1000)->size(), 500u);
  expect_whole(path, 500);
}

constexpr Damage kDamages[] = {
    {"NoHeader", [](const std::string& path) { std::ofstream(path) << std::string(8192, 'x'); }},
    {"Truncated", [](const std::string& path) { fs::resize_file(path, 3 * 4096); }},
    {"AllButTheHead", [](const std::string& path) { overwrite(path, 4096); }},
};

INSTANTIATE_TEST_SUITE_P(All, DamagedFile, testing::ValuesIn(kDamages),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Disk, DamageWhileItIsOpenIsFoundAndReplaced) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  auto store = sample::open_store(path);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(store.insert(batch(i)));
  ASSERT_EQ(store.last_sequence().value(), 5000);
  // Another writer makes the store look at the file again, which then has other pages.
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO meta VALUES ('x', 'y')",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  overwrite(path, 4096);
  const auto refused = store.insert(batch(11));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::Corrupt) << refused.error().message;
  EXPECT_TRUE(store.state().damaged);
  sqlite3_close(other);
  const auto aside = store.replace_damaged();
  ASSERT_TRUE(aside) << aside.error().message;
  EXPECT_EQ(kept_aside(folder), std::vector<std::string>{*aside});
  EXPECT_FALSE(store.state().damaged);
  ASSERT_TRUE(store.insert(batch(12)));
  EXPECT_EQ(store.last_sequence().value(), 5500);
  expect_whole(path, 500);
}

TEST(Disk, FilesOfOthersAreNeverReplaced) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  ASSERT_EQ(
      sqlite3_exec(database, "CREATE TABLE mine(x); PRAGMA application_id = 7", nullptr, nullptr, nullptr),
      SQLITE_OK);
  sqlite3_close(database);
  EXPECT_FALSE(FlowStore::open_writer(path, {}, {{}, true, 0}));
  EXPECT_TRUE(kept_aside(folder).empty());
}

}  // namespace
}  // namespace tierlog::store
