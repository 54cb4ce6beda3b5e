// Records in files: every line whole, none lost by rotation, by a full disk or by a death at any byte.
#include "exporters/file/file_sink.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "store/record_json.h"
#include "tests/exporters/sample_records.h"

namespace tierlog::exporters::file {
namespace {

namespace fs = std::filesystem;
using fluentbit::testing::denied_records;
using fluentbit::testing::kOrigin;

class FileSinkTest : public ::testing::Test {
 protected:
  FileSinkTest() {
    std::string pattern = (fs::temp_directory_path() / "tierlog-file-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
    options_.path = folder_ + "/flows.jsonl";
  }
  ~FileSinkTest() override { fs::remove_all(folder_); }

  static void bring(FileSink& sink, std::span<const store::StoredRecord> records) {
    while (!records.empty()) {
      records = records.subspan(sink.take(records));
      const auto delivered = sink.deliver();
      ASSERT_TRUE(delivered) << delivered.error().error.message;
    }
  }
  // Ids of all lines, the oldest file first. Every line has to be whole.
  std::vector<std::string> ids() const {
    std::vector<std::string> all;
    for (int i = 100; i >= 0; --i) {
      std::ifstream file(i == 0 ? options_.path : options_.path + "." + std::to_string(i));
      for (std::string line; std::getline(file, line);) {
        const auto json = nlohmann::ordered_json::parse(line, nullptr, false);
        EXPECT_FALSE(json.is_discarded()) << line;
        all.push_back(json.is_discarded() ? line : json.value("id", ""));
      }
    }
    return all;
  }
  static std::vector<std::string> ids_of(const std::vector<store::StoredRecord>& records) {
    std::vector<std::string> all;
    for (const auto& stored : records) all.push_back(stored.record.id);
    return all;
  }

  std::string folder_;
  FileOptions options_;
};

TEST_F(FileSinkTest, WritesALinePerRecord) {
  FileSink sink(options_, kOrigin);
  const auto records = denied_records(3);
  bring(sink, records);
  std::ifstream file(options_.path);
  for (const auto& stored : records) {
    std::string line;
    ASSERT_TRUE(std::getline(file, line));
    EXPECT_EQ(line, store::to_json(stored.record, kOrigin).dump());
  }
  EXPECT_EQ(sink.counts().records, 3u);
  EXPECT_EQ(sink.counts().bytes, fs::file_size(options_.path));
  EXPECT_EQ(sink.target(), "file://" + options_.path);
  struct stat status {};
  ASSERT_EQ(::stat(options_.path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0007, 0u) << "not for everybody";
}

TEST_F(FileSinkTest, RotatesBySizeAndKeepsSoMany) {
  options_.rotate_bytes = 5000;
  options_.keep = 3;
  FileSink sink(options_, kOrigin);
  const auto records = denied_records(40);
  for (std::size_t i = 0; i < records.size(); ++i) bring(sink, std::span(records).subspan(i, 1));
  const auto all = ids_of(records);
  const auto kept = ids();
  // The newest, without a gap and none twice.
  ASSERT_GT(kept.size(), 6u);
  EXPECT_EQ(kept, std::vector<std::string>(all.end() - static_cast<std::ptrdiff_t>(kept.size()), all.end()));
  EXPECT_TRUE(fs::exists(options_.path + ".3"));
  EXPECT_FALSE(fs::exists(options_.path + ".4"));
  for (const auto& entry : fs::directory_iterator(folder_)) EXPECT_LE(fs::file_size(entry.path()), 5000u);
}

TEST_F(FileSinkTest, RotatesByTime) {
  options_.rotate_every = std::chrono::milliseconds(200);
  FileSink sink(options_, kOrigin);
  const auto records = denied_records(2);
  bring(sink, std::span(records).first(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  bring(sink, std::span(records).subspan(1));
  EXPECT_TRUE(fs::exists(options_.path + ".1"));
  EXPECT_EQ(ids(), ids_of(records));
}

// Whatever part of a last line a death left behind: the next start goes on at a line.
TEST_F(FileSinkTest, CutsHalfALineOffAtEveryByte) {
  const auto records = denied_records(3);
  FileSink first(options_, kOrigin);
  bring(first, std::span(records).first(2));
  std::ifstream file(options_.path);
  const std::string whole((std::istreambuf_iterator<char>(file)), {});
  const std::size_t second_line = whole.find('\n') + 1;
  for (std::size_t cut = second_line; cut < whole.size(); cut += 7) {
    std::ofstream(options_.path, std::ios::trunc) << whole.substr(0, cut);
    FileSink again(options_, kOrigin);
    // The cursor had not moved: the second comes again.
    bring(again, std::span(records).subspan(1));
    EXPECT_EQ(ids(), ids_of(records)) << cut;
  }
}

TEST_F(FileSinkTest, GoesOnInANewFileWhenSomebodyElseRotates) {
  FileSink sink(options_, kOrigin);
  const auto records = denied_records(3);
  bring(sink, std::span(records).first(1));
  fs::rename(options_.path, options_.path + ".1");
  bring(sink, std::span(records).subspan(1, 1));
  fs::rename(options_.path, options_.path + ".0");
  fs::remove(options_.path + ".0");
  bring(sink, std::span(records).subspan(2));
  EXPECT_EQ(ids(), (std::vector<std::string>{records[0].record.id, records[2].record.id}));
}

TEST_F(FileSinkTest, AFullDiskLosesNothing) {
  const auto records = denied_records(20);
  FileSink sink(options_, kOrigin);
  bring(sink, std::span(records).first(1));
  // A limit in the middle of a line stands for the disk's end.
  struct rlimit before {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = fs::file_size(options_.path) * 5 / 2;
  ::setrlimit(RLIMIT_FSIZE, &small);
  ASSERT_EQ(sink.take(std::span(records).subspan(1)), records.size() - 1);
  const auto failed = sink.deliver();
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, ignored);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().cause, FailureCause::Disk);
  EXPECT_NE(failed.error().error.message.find("EFBIG"), std::string::npos) << failed.error().error.message;
  EXPECT_EQ(ids().size(), 1u) << "no part of what did not fit";
  ASSERT_TRUE(sink.deliver());
  EXPECT_EQ(ids(), ids_of(records));
}

TEST_F(FileSinkTest, HoldsTheCursorUntilItIsSafe) {
  using Sync = FileOptions::Sync;
  for (const Sync policy : {Sync::Always, Sync::Every, Sync::Never}) {
    FileOptions options = options_;
    options.sync = policy;
    options.sync_every = std::chrono::hours(1);
    FileSink sink(options, kOrigin);
    bring(sink, denied_records(1));
    EXPECT_EQ(sink.holds(), policy == Sync::Every);
    ASSERT_TRUE(sink.secure(false));
    EXPECT_EQ(sink.holds(), policy == Sync::Every) << "not due yet";
    ASSERT_TRUE(sink.secure(true));
    EXPECT_FALSE(sink.holds());
  }
}

TEST_F(FileSinkTest, WritesToNothingButAFile) {
  ASSERT_EQ(::mkfifo(options_.path.c_str(), 0600), 0);
  FileSink sink(options_, kOrigin);
  sink.take(denied_records(1));
  const auto failed = sink.deliver();
  ASSERT_FALSE(failed);
  EXPECT_NE(failed.error().error.message.find("no regular file"), std::string::npos) << failed.error().error.message;
}

}  // namespace
}  // namespace tierlog::exporters::file
