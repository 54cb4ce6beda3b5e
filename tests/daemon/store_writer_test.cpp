// A store that stalls stops nobody, loses no count, and what waits for it has bounded room.
#include "daemon/store_writer.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <sqlite3.h>
#include <unistd.h>

#include <filesystem>

#if defined(__SANITIZE_ADDRESS__)
// Of the sanitizers' run-time library; Debian's g++ brings no header for it.
extern "C" std::size_t __sanitizer_get_current_allocated_bytes();
#endif

#include "logger/flow_logger.h"
#include "logger/pending.h"
#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;
using dataplane::EventKind;
using dataplane::VerdictEvent;

constexpr std::size_t kRoom = 2'000;
constexpr int kRounds = 40;
constexpr std::uint16_t kEventsPerRound = 500;

constexpr const char* kPolicy = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: all()
  ingress:
  - {action: Allow, protocol: TCP}
)";

// A writer of another process that does not let go.
class Lock {
 public:
  explicit Lock(const std::string& path) {
    EXPECT_EQ(sqlite3_open(path.c_str(), &database_), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(database_, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() { sqlite3_close(database_); }

 private:
  sqlite3* database_ = nullptr;
};

class StalledStore : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_);
    auto store = store::FlowStore::open_writer(path(), {"c1", "n1"});
    ASSERT_TRUE(store) << store.error().message;
    store_.emplace(std::move(*store));
    const auto loaded = policy::load_text(kPolicy, "p.yaml");
    policy::Cluster cluster;
    policy::Endpoint pod;
    pod.endpoint_namespace = "a";
    pod.name = "db";
    pod.addresses = {IpAddr::v4(0x0a000001)};
    pod.local = true;
    cluster.endpoints = {pod};
    policy::MemoryRuleIds ids;
    auto program = policy::compile(loaded.set, std::make_shared<const policy::Cluster>(cluster), ids);
    ASSERT_TRUE(program) << program.error().message;
    program_ = std::make_shared<const policy::Program>(std::move(*program));
    ASSERT_TRUE(store_->put_catalog(logger::make_catalog(*program_, from_ns(0))));
    logger_.set_program(program_, {}, from_ns(0));
  }
  void TearDown() override {
    store_.reset();
    fs::remove_all(folder_);
  }

  std::string path() const { return (folder_ / "flows.db").string(); }

  // New connections of ten clients, each from its own port.
  void flood(StoreWriter& writer) {
    for (int round = 0; round < kRounds; ++round) {
      std::vector<VerdictEvent> events;
      for (std::uint16_t i = 0; i < kEventsPerRound; ++i) {
        VerdictEvent event;
        event.kind = EventKind::Allowed;
        event.rule = program_->rules.at(0).id;
        event.time = from_ns(1'700'000'000'000'000'000 + round);
        event.source = IpAddr::v4(0xc0000200U + i % 10U);
        event.destination = IpAddr::v4(0x0a000001);
        event.protocol = protocol::kTcp;
        event.source_port = static_cast<std::uint16_t>(1000 + round * kEventsPerRound + i);
        event.destination_port = 5432;
        event.length = 60;
        events.push_back(event);
      }
      logger_.on_events(events);
      give(writer);
      EXPECT_LE(logger_.pending().size(), kRoom);
    }
  }
  void give(StoreWriter& writer) {
    if (writer.idle())
      writer.give({std::nullopt, {}, logger_.take_entries(), logger_.take_changes(), std::nullopt});
  }
  std::uint64_t recorded() {
    std::uint64_t packets = 0;
    const auto sums = store_->recorded();
    EXPECT_TRUE(sums) << sums.error().message;
    for (const store::RuleCount& sum : *sums) packets += sum.packets;
    return packets;
  }

  const fs::path folder_ = fs::temp_directory_path() / ("tierlog-stall-" + std::to_string(::getpid()));
  const SystemClock clock_;
  std::optional<store::FlowStore> store_;
  std::shared_ptr<const policy::Program> program_;
  logger::FlowLogger logger_{std::chrono::seconds(60), kRoom};
};

constexpr std::uint64_t kAll = std::uint64_t{kRounds} * kEventsPerRound;

TEST_F(StalledStore, StopsNobodyAndEveryVerdictIsCounted) {
  StoreWriter writer(*store_, clock_);
  writer.start();
  {
    const Lock lock(path());
    flood(writer);
    EXPECT_FALSE(writer.idle()) << "or it was no stall";
    EXPECT_EQ(writer.last_sequence(), 0);
    EXPECT_GT(logger_.pending().merged(), kAll / 2);
  }
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30))) << writer.problem();
  give(writer);
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30))) << writer.problem();
  EXPECT_TRUE(logger_.pending().given_up().empty());
  EXPECT_EQ(recorded(), kAll);
  EXPECT_TRUE(writer.problem().empty());
}

// The control: what is thrown away is missed.
TEST_F(StalledStore, ABatchThatIsThrownAwayIsMissed) {
  StoreWriter writer(*store_, clock_);
  writer.start();
  flood(writer);
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30)));
  VerdictEvent lost;
  lost.kind = EventKind::Allowed;
  lost.rule = program_->rules.at(0).id;
  lost.time = from_ns(1'700'000'001'000'000'000);
  lost.destination = IpAddr::v4(0x0a000001);
  lost.protocol = protocol::kTcp;
  logger_.on_events({&lost, 1});
  static_cast<void>(logger_.take_entries());
  give(writer);
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30)));
  EXPECT_LT(recorded(), kAll + 1);
}

// Bytes that are allocated now; what a checker of memory keeps back is not among them.
std::size_t live_bytes() {
#if defined(__SANITIZE_ADDRESS__)
  return __sanitizer_get_current_allocated_bytes();
#else
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
#endif
}

struct Flooded {
  std::size_t grown = 0;  // at most, bytes
  std::uint64_t told = 0, given_up = 0;
};

// Flows that are all different, so that nothing can be put together, while the writer waits for a lock.
Flooded flood_of_strangers(StoreWriter& writer, const std::string& path, RuleId rule, std::size_t room,
                           std::uint32_t flows) {
  const Lock lock(path);
  logger::Pending pending(room);
  Flooded seen;
  const std::size_t before = live_bytes();
  for (std::uint32_t i = 0; i < flows; ++i) {
    auto like = std::make_shared<store::FlowRecord>();
    like->rule = rule;
    like->policy = "default/a/db";
    like->src.ip = IpAddr::v4(0x0b000000U + i);
    like->src.name = "stranger-" + std::to_string(i) + "-of-a-flood";
    store::FlowEntry entry;
    entry.like = std::move(like);
    entry.verdict_packets = 1;
    pending.add(std::move(entry));
    if (i == 0) writer.give({std::nullopt, {}, pending.take(), {}, std::nullopt});
    if (i % 256 != 0) continue;
    // The writer's thread gives back as well.
    if (const std::size_t now = live_bytes(); now > before) seen.grown = std::max(seen.grown, now - before);
  }
  EXPECT_FALSE(writer.idle()) << "or it was no stall";
  seen.told = 1;  // what the writer holds
  for (const store::FlowEntry& entry : pending.take()) seen.told += entry.verdict_packets;
  for (const auto& [by, packets] : pending.given_up()) seen.given_up += packets;
  return seen;
}

TEST_F(StalledStore, MemoryStaysFlatAndWhatIsGivenUpIsCountedByRule) {
  constexpr std::size_t kFew = 2'000;
  constexpr std::uint32_t kFlows = 40'000;
  const RuleId rule = program_->rules.at(0).id;
  StoreWriter writer(*store_, clock_);
  writer.start();
  const Flooded half = flood_of_strangers(writer, path(), rule, kFew, kFlows / 2);
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30)));
  const Flooded whole = flood_of_strangers(writer, path(), rule, kFew, kFlows);
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30)));
  EXPECT_EQ(whole.told + whole.given_up, kFlows);
  EXPECT_GT(whole.given_up, kFlows / 2);
  EXPECT_LT(whole.grown, half.grown + half.grown / 4) << "twice the flood needs no more room";
  // The control: without a bound it does.
  const Flooded unbounded = flood_of_strangers(writer, path(), rule, kFlows * 2, kFlows);
  ASSERT_TRUE(writer.wait(std::chrono::seconds(30)));
  EXPECT_EQ(unbounded.given_up, 0u);
  EXPECT_GT(unbounded.grown, 3 * whole.grown);
}

}  // namespace
}  // namespace tierlog::daemon
