// Who may read flows.db, when: beside the writer, after its death, after its end, as another user.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <thread>

#include "store/query.h"
#include "tests/store/sample.h"

namespace tierlog::store {
namespace {

constexpr uid_t kOtherUser = 54321;
constexpr gid_t kReaders = 54322;

// What `body` returned, run in a child of this process.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

// Rows that plain SQLite counts, opened as the sqlite3 shell does; 200 on an error.
int count_rows(const std::string& path) {
  sqlite3* database = nullptr;
  sqlite3_stmt* statement = nullptr;
  int rows = 200;
  if (sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr) ==
          SQLITE_OK &&
      sqlite3_prepare_v2(database, "SELECT count(*) FROM denied_flows", -1, &statement, nullptr) ==
          SQLITE_OK &&
      sqlite3_step(statement) == SQLITE_ROW)
    rows = sqlite3_column_int(statement, 0);
  else
    std::fprintf(stderr, "plain sqlite: %s\n", sqlite3_errmsg(database));
  sqlite3_finalize(statement);
  sqlite3_close(database);
  return rows;
}

// The same as another user whose only right is the readers' group; 201 when that user cannot be had.
int count_rows_as_reader(const std::string& path) {
  return in_child([&path] {
    const gid_t group = kReaders;
    if (::setgroups(1, &group) != 0 || ::setgid(kReaders) != 0 || ::setuid(kOtherUser) != 0) return 201;
    return count_rows(path);
  });
}

// A writer in a process of its own that has committed two denied records and then waits.
class WritingChild {
 public:
  explicit WritingChild(const std::string& path) {
    int ready[2];
    int stop[2];
    if (::pipe2(ready, O_CLOEXEC) != 0 || ::pipe2(stop, O_CLOEXEC) != 0)
      throw std::runtime_error("pipe failed");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(stop[1]);
      ::_exit(write_and_wait(path, ready[1], stop[0]));
    }
    ::close(ready[1]);
    ::close(stop[0]);
    stop_ = stop[1];
    char byte = 0;
    ready_ = ::read(ready[0], &byte, 1) == 1;
    ::close(ready[0]);
  }
  ~WritingChild() {
    if (pid_ > 0) kill_now();
  }
  bool ready() const { return ready_; }
  void kill_now() {
    ::kill(pid_, SIGKILL);
    wait();
  }
  void stop_cleanly() {
    ::close(stop_);
    stop_ = -1;
    wait();
  }

 private:
  static int write_and_wait(const std::string& path, int ready, int stop) {
    auto store = FlowStore::open_writer(path, {"c1", "node-1"});
    if (!store || !store->insert(std::vector{sample::denied(), sample::denied(), sample::allowed()}))
      return 1;
    char byte = 'r';
    if (::write(ready, &byte, 1) != 1) return 1;
    return ::read(stop, &byte, 1) == 0 ? 0 : 1;
  }
  void wait() {
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
    if (stop_ >= 0) ::close(stop_);
  }

  pid_t pid_ = 0;
  int stop_ = -1;
  bool ready_ = false;
};

enum class WriterIs { Running, Killed, Stopped };

struct Sharing {
  const char* name;
  WriterIs writer;
};
void PrintTo(const Sharing& test, std::ostream* out) {
  *out << test.name;
}

class Readers : public testing::TestWithParam<Sharing> {
 protected:
  // A writer in the state of the parameter.
  std::unique_ptr<WritingChild> writer() {
    auto child = std::make_unique<WritingChild>(path_);
    EXPECT_TRUE(child->ready());
    if (GetParam().writer == WriterIs::Killed) child->kill_now();
    if (GetParam().writer == WriterIs::Stopped) child->stop_cleanly();
    return child;
  }
  sample::Folder outer_;
  std::string folder_ = outer_.file("store");
  std::string path_ = folder_ + "/flows.db";
};

TEST_P(Readers, OurReaderSeesWhatWasCommitted) {
  ASSERT_TRUE(prepare_store_folder(folder_));
  const auto child = writer();
  auto reader = FlowReader::open(path_);
  ASSERT_TRUE(reader) << reader.error().message;
  EXPECT_EQ(reader->flows({})->size(), 3u);
}

TEST_P(Readers, AMemberOfTheGroupReadsWithPlainSqlite) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SETUID, CAP_SETGID and CAP_CHOWN to read as another user";
  ASSERT_TRUE(prepare_store_folder(folder_));
  ASSERT_EQ(::chmod(outer_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chown(folder_.c_str(), 0, kReaders), 0);
  ASSERT_EQ(::chmod(folder_.c_str(), 02750), 0);
  const auto child = writer();
  EXPECT_EQ(count_rows_as_reader(path_), 2);
  EXPECT_EQ(count_rows_as_reader(path_), 2) << "the first reader must not have taken anything away";
  for (const char* suffix : {"", "-wal", "-shm"}) {
    struct stat status {};
    ASSERT_EQ(::stat((path_ + suffix).c_str(), &status), 0) << suffix;
    EXPECT_EQ(status.st_mode & 07777, 0640u) << suffix;
    EXPECT_EQ(status.st_gid, kReaders) << suffix;
  }
}

TEST_P(Readers, OthersDoNotRead) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SETUID, CAP_SETGID and CAP_CHOWN to read as another user";
  ASSERT_TRUE(prepare_store_folder(folder_));
  ASSERT_EQ(::chmod(outer_.path().c_str(), 0755), 0);
  const auto child = writer();
  EXPECT_EQ(count_rows_as_reader(path_), 200);
}

TEST_P(Readers, TheNextWriterGoesOn) {
  ASSERT_TRUE(prepare_store_folder(folder_));
  if (GetParam().writer == WriterIs::Running) return;
  const auto child = writer();
  auto store = sample::open_store(path_);
  EXPECT_EQ(store.last_sequence().value(), 3);
  EXPECT_EQ(store.recorded()->size(), 2u);
  ASSERT_TRUE(store.insert(std::vector{sample::denied()}));
  EXPECT_EQ(store.read_after(0, 10)->size(), 4u);
}

constexpr Sharing kSharing[] = {{"WhileTheWriterRuns", WriterIs::Running},
                                {"AfterKill9", WriterIs::Killed},
                                {"AfterACleanStop", WriterIs::Stopped}};

INSTANTIATE_TEST_SUITE_P(All, Readers, testing::ValuesIn(kSharing),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Sharing, ReadersSeeWholeBatchesWhileTheWriterWrites) {
  const sample::Folder folder;
  const std::string path = folder.file("flows.db");
  auto store = sample::open_store(path);
  constexpr std::size_t kBatch = 50;
  std::atomic<bool> done = false;
  std::atomic<int> torn = 0, reads = 0;
  std::thread reading([&] {
    while (!done || reads == 0) {
      auto reader = FlowReader::open(path);
      FlowQuery query;
      query.limit = 0;
      const auto flows =
          reader ? reader->flows(query) : Result<std::vector<StoredRecord>>(fail(reader.error()));
      if (!flows || flows->size() % kBatch != 0) ++torn;
      ++reads;
    }
  });
  const std::vector<FlowRecord> batch(kBatch, sample::denied());
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(store.insert(batch));
  done = true;
  reading.join();
  EXPECT_EQ(torn, 0);
  EXPECT_GT(reads, 0);
}

TEST(Sharing, FolderIsMadeWithItsMode) {
  const sample::Folder outer;
  const std::string folder = outer.file("tierlog");
  ASSERT_TRUE(prepare_store_folder(folder));
  struct stat status {};
  ASSERT_EQ(::stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 02750u);
  ASSERT_EQ(::chmod(folder.c_str(), 0700), 0);
  ASSERT_TRUE(prepare_store_folder(folder));
  ASSERT_EQ(::stat(folder.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u) << "a folder that was there keeps what its owner chose";
  EXPECT_EQ(prepare_store_folder(outer.file("a/b")).error().code, ErrorCode::NotFound);
}

TEST(Sharing, AReaderSaysWhatIsMissing) {
  const sample::Folder folder;
  const auto none = FlowReader::open(folder.file("none.db"));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::NotFound);
  std::ofstream(folder.file("text.db")) << "this is no database, whatever it is called";
  EXPECT_EQ(FlowReader::open(folder.file("text.db")).error().code, ErrorCode::Corrupt);
  std::ofstream(folder.file("empty.db")).close();
  EXPECT_EQ(FlowReader::open(folder.file("empty.db")).error().code, ErrorCode::Corrupt);
}

}  // namespace
}  // namespace tierlog::store
