#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "tests/cli/program.h"
#include "tests/store/sample.h"

namespace tierlog::cli {
namespace {

using testing_program::Outcome;
using testing_program::Running;
using testing_program::Words;
namespace sample = store::sample;

class Follow : public testing::Test {
 protected:
  Follow() : store_(sample::open_store(folder_.file("flows.db"))) {
    EXPECT_TRUE(store_.put_catalog(sample::catalog()));
    EXPECT_TRUE(store_.insert(std::vector<store::FlowRecord>{sample::denied()}));
  }
  Words words(Words more) {
    more.insert(more.end(), {"--db", folder_.file("flows.db")});
    return more;
  }
  void insert(const store::FlowRecord& record) {
    ASSERT_TRUE(store_.insert(std::vector<store::FlowRecord>{record}));
  }

  sample::Folder folder_;
  store::FlowStore store_;
};

TEST_F(Follow, ShowsNewRecordsAndEndsWithZero) {
  Running program(words({"flows", "--follow", "-o", "jsonl"}));
  ASSERT_TRUE(program.wait_for_err("following"));
  const store::FlowRecord fresh = sample::allowed();
  insert(fresh);
  ASSERT_TRUE(program.wait_for_out(fresh.id));
  const Outcome outcome = program.end_with(SIGINT);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("\"deny\""), std::string::npos) << "what was there before is not new";
  const auto first = nlohmann::json::parse(outcome.out.substr(0, outcome.out.find('\n')));
  EXPECT_EQ(first["action"], "allow");
}

TEST_F(Follow, FiltersAndPrintsRowsUnderOneHeader) {
  Running program(words({"denied", "tenant-01-restrict", "--follow", "--last", "5"}));
  ASSERT_TRUE(program.wait_for_out("5432/tcp"));
  insert(sample::allowed());
  insert(sample::denied_at_end());
  ASSERT_TRUE(program.wait_for_out("end-of-tier"));
  const Outcome outcome = program.end_with(SIGTERM);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(outcome.out.starts_with("TIME (UTC)"));
  EXPECT_EQ(outcome.out.find("allow"), std::string::npos);
}

TEST_F(Follow, SinceShowsOlderOnesFirst) {
  Running program(words({"flows", "--follow", "--since", "2026-11-01T00:00:00Z", "-o", "csv"}));
  ASSERT_TRUE(program.wait_for_out("tenant-01-restrict"));
  const Outcome outcome = program.end_with(SIGINT);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(outcome.out.starts_with("id,start_time,"));
}

// Whoever reads slowly gets whole records, and the end is as good as any.
TEST_F(Follow, EndsWithAWholeRecordWhenItsReaderIsSlow) {
  ASSERT_TRUE(store_.insert(std::vector<store::FlowRecord>(200, sample::allowed())));
  Running program(words({"flows", "--follow", "--since", "2026-11-01T00:00:00Z", "-o", "jsonl"}));
  ASSERT_TRUE(program.wait_for_full_out());
  ASSERT_TRUE(program.interrupt_with(SIGINT));
  const Outcome outcome = program.end_with(0);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err.find("write"), std::string::npos) << outcome.err;
  ASSERT_FALSE(outcome.out.empty());
  EXPECT_EQ(outcome.out.back(), '\n');
}

}  // namespace
}  // namespace tierlog::cli
