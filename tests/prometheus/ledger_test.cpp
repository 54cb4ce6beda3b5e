// Counters over the lives of a daemon that may be killed at any moment: never back to a value other than 0.
#include "exporters/prometheus/ledger.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "exporters/prometheus/exposition.h"
#include "tests/prometheus/programs.h"
#include "tests/prometheus/samples.h"
#include "tests/store/sample.h"

namespace tierlog::prometheus {
namespace {

using store::sample::Folder;
using namespace std::chrono_literals;

const WallTime kNow = store::sample::at(0);

class Ledgers : public ::testing::Test {
 protected:
  std::string file() const { return folder_.file("counters.json"); }
  Ledger life(const std::string& boot = "this boot") const { return {file(), boot}; }
  Folder folder_;
};

enum class Order { WriteThenTell, TellThenWrite };

// 200 lives that are killed between the two steps of an answer or after it.
struct Lives {
  bool written = true;
  int steps_back = 0;
  std::uint64_t counted = 0, told = 0;
};
Lives live(const std::string& file, Order order) {
  std::mt19937 random(7);  // the same run each time
  Lives lives;
  const auto tell = [&](std::uint64_t value) {
    lives.steps_back += value < lives.told;
    lives.told = value;
  };
  for (int i = 0; i < 200; ++i) {
    Ledger ledger(file, "boot");
    std::uint64_t count = 0;
    for (auto answers = random() % 5; answers > 0; --answers) {
      count += random() % 100;
      const std::uint64_t value = ledger.since_start("a", count);
      const bool killed_between = random() % 4 == 0;
      if (order == Order::TellThenWrite) tell(value);
      lives.written = lives.written && (order == Order::TellThenWrite || ledger.write(kNow));
      if (killed_between) break;
      if (order == Order::WriteThenTell) tell(value);
      lives.written = lives.written && (order == Order::WriteThenTell || ledger.write(kNow));
    }
    lives.counted += count;
  }
  return lives;
}

TEST_F(Ledgers, GoOnOverKillsAtOrAboveWhatWasTold) {
  const Lives lives = live(file(), Order::WriteThenTell);
  ASSERT_TRUE(lives.written);
  EXPECT_EQ(lives.steps_back, 0);
  EXPECT_GT(lives.counted, 1000u);
  EXPECT_EQ(life("boot").since_start("a", 0), lives.counted)
      << "nothing is lost and nothing is counted twice";
}

TEST_F(Ledgers, TheControlTellsBeforeItWrites) {
  EXPECT_GT(live(file(), Order::TellThenWrite).steps_back, 0);
}

TEST_F(Ledgers, AreBelievedInTheirBootOrWhenTheyWereClosed) {
  {
    Ledger ledger = life();
    ledger.since_start("a", 10);
    ASSERT_TRUE(ledger.write(kNow));
  }
  EXPECT_EQ(life("another boot").since_start("a", 1), 1u) << "a power failure may have left an older file";
  ASSERT_EQ(life().since_start("a", 0), 10u);
  {
    Ledger ledger = life();
    ledger.since_start("a", 2);
    ASSERT_TRUE(ledger.close(kNow));
  }
  const std::string closed = testing::read_text(file());
  EXPECT_EQ(life("another boot").since_start("a", 1), 13u);
  // That life wrote nothing more, and the power went.
  EXPECT_EQ(life("a third boot").since_start("a", 1), 1u);
  EXPECT_NE(testing::read_text(file()), closed);
}

TEST_F(Ledgers, ThatCannotBeWrittenBeginWithNothing) {
  {
    Ledger ledger = life();
    ledger.since_start("a", 10);
    ASSERT_TRUE(ledger.write(kNow));
    std::filesystem::create_directory(file() + ".new");
    EXPECT_EQ(ledger.since_start("a", 11), 11u);
    EXPECT_FALSE(ledger.write(kNow));
    EXPECT_FALSE(std::filesystem::exists(file())) << "it would be older than what is told";
    std::filesystem::remove(file() + ".new");
    EXPECT_TRUE(ledger.write(kNow)) << "without a new count";
  }
  EXPECT_EQ(life().since_start("a", 0), 11u);
}

TEST_F(Ledgers, TakeBrokenFilesForNone) {
  for (const char* text : {"", "{", "[1]", "{\"version\":1,\"boot\":\"this boot\"}",
                           "{\"version\":1,\"boot\":\"this boot\",\"counters\":{\"a\":7}}",
                           "{\"version\":1,\"boot\":\"this boot\",\"counters\":{\"a\":[\"x\",1]}}",
                           "{\"version\":2,\"boot\":\"this boot\",\"counters\":{\"a\":[7,1]}}"}) {
    std::ofstream(file()) << text;
    EXPECT_EQ(life().since_start("a", 1), 1u) << text;
  }
}

TEST_F(Ledgers, AddWhatBeganAnewAndForgetWhatNobodyAsksFor) {
  {
    Ledger ledger = life();
    EXPECT_EQ(ledger.since_start("pod", 10), 10u);
    EXPECT_EQ(ledger.since_start("pod", 3), 13u) << "it went and came again";
    EXPECT_EQ(ledger.at_least("loss", 5), 5u);
    EXPECT_EQ(ledger.at_least("loss", 4), 5u);
    ASSERT_TRUE(ledger.write(kNow));
  }
  {
    Ledger ledger = life();
    EXPECT_EQ(ledger.at_least("loss", 3), 5u) << "what was kept of it is older";
    EXPECT_EQ(ledger.at_least("loss", 6), 6u);
    ASSERT_TRUE(ledger.write(kNow + 25h));
  }
  Ledger ledger = life();
  EXPECT_EQ(ledger.at_least("loss", 0), 6u);
  EXPECT_EQ(ledger.since_start("pod", 1), 1u);
}

TEST_F(Ledgers, AreAskedForEachSeries) {
  const auto answer = [&](std::uint64_t count) {
    Ledger ledger = life();
    Exposition out(Format::Text, "n", "c", LabelStyle::Aks, &ledger);
    out.family(Metric::ExportSent);
    out.sample({"one\"}"}, SinceStart{count});
    out.sample({"two"}, SinceStart{2 * count});
    out.family(Metric::PodRtt);
    out.sample({"a", "b", "c"}, SinceStart{count, 0.5});
    EXPECT_TRUE(ledger.write(kNow));
    return testing::Samples(out.finish());
  };
  answer(10);
  const testing::Samples samples = answer(5);
  EXPECT_EQ(samples.value("tierlog_export_sent_records_total", {{"export", "one\"}"}}), 15.0);
  EXPECT_EQ(samples.value("tierlog_export_sent_records_total", {{"export", "two"}}), 30.0);
  EXPECT_EQ(samples.value("tierlog_pod_tcp_rtt_seconds_total"), 7.5);
}

}  // namespace
}  // namespace tierlog::prometheus
