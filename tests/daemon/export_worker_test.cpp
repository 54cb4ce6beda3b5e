// From the flow index to receivers that fail in every way: nothing that was committed is lost, and what comes twice
// has the same id. Each check is shown to find a loss that was planted.
#include "daemon/export_worker.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/exporters/ack_server.h"
#include "tests/store/sample.h"

namespace tierlog::daemon {
namespace {

using namespace std::chrono_literals;
namespace sample = store::sample;
using exporters::fluentbit::testing::ack_of;
using exporters::fluentbit::testing::AckServer;
using exporters::fluentbit::testing::Answer;
using exporters::fluentbit::testing::Received;
using exporters::fluentbit::testing::ServerOptions;

constexpr int kRecords = 900;

Answer right(const Received& message) {
  return {.bytes = ack_of(message.chunk)};
}

class Delivery : public ::testing::Test {
 protected:
  Delivery() : store_(sample::open_store(folder_.file("flows.db"))) {
    config_.store_path = folder_.file("flows.db");
    config_.cluster = "c1";
    config_.node = "n1";
    target_.name = "out";
    target_.forward.socket = folder_.file("receiver.sock");
    target_.forward.timeout = 400ms;
    target_.forward.max_chunk_bytes = 60'000;
  }
  void put(int count = kRecords) {
    std::vector<store::FlowRecord> records;
    for (int i = 0; i < count; ++i) {
      records.push_back(i % 3 == 0 ? sample::allowed() : sample::denied());
      records.back().id = "018f0000-0000-7000-8000-" + std::to_string(100'000'000'000 + written_++);
      all_.insert(records.back().id);
      if (i % 3 != 0) denied_.insert(records.back().id);
    }
    ASSERT_TRUE(store_.insert(records));
  }
  template <typename Done>
  static bool wait_for(Done done, std::chrono::seconds time = 30s) {
    for (const auto end = std::chrono::steady_clock::now() + time; std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(5ms))
      if (done()) return true;
    return false;
  }
  bool wait_until_delivered(const ExportWorker& worker) const {
    return wait_for([&] { return worker.status().delivered_sequence == written_; });
  }
  ServerOptions here(ServerOptions options = {}) const {
    options.unix_path = target_.forward.socket;
    return options;
  }
  // What the receiver acknowledged and kept.
  static std::set<std::string> kept(const std::vector<Received>& messages) {
    std::set<std::string> ids;
    for (const Received& message : messages) ids.insert(message.ids.begin(), message.ids.end());
    return ids;
  }
  std::set<std::string> missing(const std::vector<Received>& messages) const {
    const auto there = kept(messages);
    std::set<std::string> lost;
    std::set_difference(all_.begin(), all_.end(), there.begin(), there.end(), std::inserter(lost, lost.end()));
    return lost;
  }

  sample::Folder folder_;
  store::FlowStore store_;
  Config config_;
  ExportConfig target_;
  int written_ = 0;
  std::set<std::string> all_, denied_;
};

struct Fault {
  const char* name;
  Answer (*answer)(const Received& message);  // to the first two chunks
  exporters::FailureCause cause;
};

class Faults : public Delivery, public ::testing::WithParamInterface<Fault> {};

// The receiver keeps nothing of what it answers wrongly.
TEST_P(Faults, LoseNothing) {
  put();
  int messages = 0;
  std::vector<Received> good;
  std::mutex mutex;
  AckServer server(
      [&](const Received& message) {
        const std::lock_guard lock(mutex);
        if (++messages <= 2) return GetParam().answer(message);
        good.push_back(message);
        return right(message);
      },
      here());
  ExportWorker worker(target_, config_);
  ASSERT_TRUE(wait_until_delivered(worker)) << worker.status().error;
  const std::lock_guard lock(mutex);
  EXPECT_TRUE(missing(good).empty());
  const ExportStatus status = worker.status();
  // With several chunks on their way the break may show itself while the next one goes out.
  EXPECT_GE(status.failures[static_cast<std::size_t>(GetParam().cause)] +
                status.failures[static_cast<std::size_t>(exporters::FailureCause::Send)],
            1u);
  EXPECT_GE(status.retries, 1u);
  EXPECT_EQ(status.counts.records, static_cast<std::uint64_t>(kRecords));
  EXPECT_TRUE(status.error.empty());
}

using Cause = exporters::FailureCause;
INSTANTIATE_TEST_SUITE_P(
    Table, Faults,
    ::testing::Values(
        Fault{"wrong_ack", [](const Received&) { return Answer{.bytes = ack_of("c29tZW9uZSBlbHNl")}; }, Cause::WrongAnswer},
        Fault{"half_an_ack",
              [](const Received& m) { return Answer{.bytes = ack_of(m.chunk).substr(0, 9), .close = true}; }, Cause::Closed},
        Fault{"garbage", [](const Received&) { return Answer{.bytes = "HTTP/1.1 400 Bad Request\r\n"}; }, Cause::WrongAnswer},
        Fault{"endless",
              [](const Received&) { return Answer{.bytes = "\x81\xda\x7f" + std::string(30'000, 'a')}; }, Cause::WrongAnswer},
        Fault{"closes", [](const Received&) { return Answer{.close = true}; }, Cause::Closed},
        Fault{"black_hole", [](const Received&) { return Answer{}; }, Cause::NoAnswer}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

// The control: a receiver that acknowledges what it throws away. The same check has to see it.
TEST_F(Delivery, ALossIsSeenByTheseTests) {
  put();
  int messages = 0;
  std::vector<Received> good;
  std::mutex mutex;
  AckServer server(
      [&](const Received& message) {
        const std::lock_guard lock(mutex);
        if (++messages != 2) good.push_back(message);
        return right(message);
      },
      here());
  ExportWorker worker(target_, config_);
  ASSERT_TRUE(wait_until_delivered(worker));
  const std::lock_guard lock(mutex);
  EXPECT_GT(missing(good).size(), 10u);
}

TEST_F(Delivery, AReceiverThatIsAwayGetsEverythingWhenItComes) {
  put();
  ExportWorker worker(target_, config_);
  ASSERT_TRUE(wait_for([&] { return worker.status().failures[static_cast<std::size_t>(Cause::Connect)] > 0; }));
  EXPECT_EQ(worker.status().delivered_sequence, 0);
  AckServer server(right, here());
  put(10);
  ASSERT_TRUE(wait_until_delivered(worker));
  EXPECT_TRUE(missing(server.received()).empty());
}

// Killed inside a chunk, again and again, each time a little later.
TEST_F(Delivery, AReceiverThatDiesInsideAChunkLosesNothing) {
  put();
  ExportWorker worker(target_, config_);
  std::vector<Received> all;
  for (const std::size_t bytes : {1u, 30'000u, 100'000u}) {
    AckServer mortal(right, here({.close_after = bytes}));
    ASSERT_TRUE(wait_for([&] { return mortal.connections() > 0; }));
    std::this_thread::sleep_for(20ms);
    for (const Received& message : mortal.received()) all.push_back(message);
    std::filesystem::remove(target_.forward.socket);
  }
  AckServer server(right, here());
  ASSERT_TRUE(wait_until_delivered(worker));
  for (const Received& message : server.received()) all.push_back(message);
  EXPECT_TRUE(missing(all).empty());
}

// A cursor outlives the daemon: what a restart sends again has the same ids, and nothing is left out.
TEST_F(Delivery, ADaemonThatIsKilledLosesNothing) {
  put();
  AckServer server(right, here({.read_pause = 3ms}));
  int killed_in_work = 0;
  for (int i = 0; i < 6; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ExportWorker worker(target_, config_);
      std::this_thread::sleep_for(20s);
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(60 + 25 * i));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    killed_in_work += kept(server.received()).size() < all_.size();
    put(100);
  }
  ExportWorker worker(target_, config_);
  ASSERT_TRUE(wait_until_delivered(worker));
  EXPECT_GE(killed_in_work, 1);
  EXPECT_TRUE(missing(server.received()).empty());
}

// The control: a cursor that moves before the ack would be seen.
TEST_F(Delivery, ACursorThatRunsAheadIsSeen) {
  put();
  {
    auto state = store::StateDb::open(config_.state_path()).value();
    ASSERT_TRUE(state->put("cursor/out", "500"));
  }
  AckServer server(right, here());
  ExportWorker worker(target_, config_);
  ASSERT_TRUE(wait_until_delivered(worker));
  EXPECT_EQ(missing(server.received()).size(), 500u);
}

TEST_F(Delivery, EachOutputHasItsOwnFilterAndCursor) {
  ExportConfig denied = target_;
  denied.name = "denied";
  denied.filters = {{store::FieldFilter::Field::Action, {"deny"}, false}};
  denied.forward.socket = folder_.file("denied.sock");
  ExportConfig file;
  file.type = ExportConfig::Type::File;
  file.name = "file";
  file.file.path = folder_.file("flows.jsonl");
  AckServer everything(right, here());
  // One receiver is away: the others do not wait for it.
  ExportWorker first(target_, config_), second(denied, config_);
  {
    ExportWorker third(file, config_);
    put();
    ASSERT_TRUE(wait_until_delivered(first));
    ASSERT_TRUE(wait_until_delivered(third));
  }
  EXPECT_EQ(second.status().delivered_sequence, 0);
  AckServer only_denied(right, ServerOptions{.unix_path = denied.forward.socket});
  ASSERT_TRUE(wait_until_delivered(second));
  EXPECT_EQ(kept(only_denied.received()), denied_);
  EXPECT_TRUE(missing(everything.received()).empty());
  std::set<std::string> lines;
  std::ifstream written(file.file.path);
  for (std::string line; std::getline(written, line);) lines.insert(nlohmann::json::parse(line)["id"].get<std::string>());
  EXPECT_EQ(lines, all_);
  // A stop keeps the cursor: nothing is written twice after an orderly one.
  ExportWorker again(file, config_);
  ASSERT_TRUE(wait_until_delivered(again));
  EXPECT_EQ(again.status().counts.records, 0u);
}

TEST_F(Delivery, CountsWhatRetentionTookFirst) {
  put(100);
  {
    AckServer server(right, here());
    ExportWorker worker(target_, config_);
    ASSERT_TRUE(wait_until_delivered(worker));
  }
  std::filesystem::remove(target_.forward.socket);
  put(800);
  store::StoreOptions few;
  few.limits.max_rows = 50;
  store_ = store::FlowStore::open_writer(config_.store_path, {"c1", "n1"}, few).value();
  while (store_.maintain(sample::at(100), 1s).value()) {
  }
  AckServer server(right, here());
  ExportWorker worker(target_, config_);
  ASSERT_TRUE(wait_until_delivered(worker));
  const ExportStatus status = worker.status();
  EXPECT_EQ(status.expired + status.counts.records, 800u);
  EXPECT_GT(status.expired, 700u);
}

}  // namespace
}  // namespace tierlog::daemon
