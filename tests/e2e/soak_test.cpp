// Everything at once, for as long as TIERLOG_SOAK_SECONDS says: a flood of denied packets on two rules, short
// connections, policies that change each second, pods that come and go with the same address, a daemon that
// is killed. After it the books balance to the packet, every name and every rule is that of its time,
// nothing passed that may not, nothing was dropped that may pass, and the daemon has not grown.
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>

#include "tests/e2e/datagrams.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr std::uint16_t kDeniedToo = 7003;
constexpr std::uint16_t kServed = 8080;
constexpr std::uint16_t kJustAfter = 30'000, kJustBefore = 40'000, kChurn = 50'000;  // + number
constexpr const char* kReused = "10.1.0.20";

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"], labels: {role: web}}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], labels: {role: db}, ports: [{name: http, protocol: TCP, port: 8080}]}
)";

// The same verdicts by other rules; which rule denies the rest tells one set from the other.
std::string policy(int number) {
  const bool even = number % 2 == 0;
  return std::string(
             "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: a}\n"
             "spec:\n  selector: role == 'db'\n  ingress:\n") +
         (even ? "" : "  - {action: Deny, protocol: TCP, destination: {ports: [" + std::to_string(1000 + number % 50) + "]}}\n") +
         "  - {action: Deny, protocol: UDP, destination: {ports: [7002]}}\n"
         "  - {action: Deny, protocol: UDP, destination: {ports: [7003]}}\n" +
         (even ? "  - {action: Allow, protocol: UDP, source: {selector: role == 'web'}, destination: {ports: [7001]}}\n"
               : "  - {action: Allow, protocol: UDP, source: {nets: [10.1.0.0/24, 'fd01::/64']}, destination: {ports: [7001]}}\n") +
         "  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}\n"
         "  - {action: Deny}\n";
}
int rest_index(int number) {
  return number % 2 == 0 ? 4 : 5;
}

bool decides(const store::RuleActivity& rule) {
  return rule.rule.action == "Allow" || rule.rule.action == "Deny";
}
bool balances(const store::RuleActivity& rule) {
  return !decides(rule) || rule.kernel_packets == rule.recorded_packets + rule.unattributed;
}

// What does not balance, rule by rule; empty when all does.
std::string books_problem(const std::vector<store::RuleActivity>& rules,
                          const std::vector<store::FlowRecord>& records) {
  std::map<RuleId, std::uint64_t> told;
  for (const store::FlowRecord& record : records) told[record.rule] += record.verdict_packets;
  std::string problem;
  for (const store::RuleActivity& rule : rules) {
    const std::uint64_t in_records = told[rule.rule.id];
    if (!decides(rule) || (balances(rule) && in_records == rule.recorded_packets)) continue;
    problem += rule.rule.policy + "[" + std::to_string(rule.rule.rule_index.value_or(-9)) + "] " + rule.rule.reason +
               " " + to_hex(rule.rule.id) + ": kernel " + std::to_string(rule.kernel_packets) + ", records " +
               std::to_string(in_records) + ", recorded " + std::to_string(rule.recorded_packets) +
               ", declared " + std::to_string(rule.unattributed) + "\n";
  }
  return problem;
}

// The port tells which pod sent it; the address was that of many.
std::string names_problem(const std::vector<store::FlowRecord>& records, std::size_t* checked = nullptr) {
  std::string problem;
  for (const store::FlowRecord& record : records) {
    if (record.src.ip.to_string() != kReused || !record.dst_port || *record.dst_port < kChurn) continue;
    const std::string expected = "x" + std::to_string(*record.dst_port - kChurn);
    if (checked != nullptr) ++*checked;
    if (record.src.name != expected) problem += expected + " was told as " + record.src.name + "\n";
  }
  return problem;
}

struct Load {
  Datagrams datagrams;
  std::atomic<std::uint64_t> flooded{0}, connected{0}, refused{0};
  std::atomic<bool> stop_connecting{false};
};

std::uint64_t resident_bytes(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/statm");
  std::uint64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

class Soak : public LiveNode {
 protected:
  void SetUp() override {
    // The sanitizer keeps freed memory for a while; that is no growth of the daemon's.
    ::setenv("ASAN_OPTIONS", "quarantine_size_mb=1:malloc_context_size=2", 0);
    start(kTopology, policy(0), {{"deny_interval", "1s"}, {"flow_interval", "5s"}});
    if (!lab_) return;
    begin("a/db", [this] { return receive_datagrams(load_->datagrams); });
    ASSERT_TRUE(becomes([&] { return load_->datagrams.ready.load(); }));
    std::vector<IpAddr> both;
    for (const Family family : {Family::V4, Family::V6}) both.push_back(*lab_->address("a/db", family));
    begin("a/web", [this, both] { return send_datagrams(load_->datagrams, both); });
    begin("a/web", [this, both] {
      return flood(load_->datagrams.stop, both[0], {kDenied, kDeniedToo}, load_->flooded);
    });
    begin("a/web", [this, both] {
      while (!load_->stop_connecting) {
        for (const IpAddr& to : both)
          ++(lab::try_tcp(to, kServed, 5s) == lab::Attempt::Connected ? load_->connected : load_->refused);
        std::this_thread::sleep_for(10ms);
      }
      return 0;
    });
  }
  void TearDown() override {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    LiveNode::TearDown();
  }

  void begin(const std::string& host, const std::function<int()>& work) {
    auto pid = lab_->start_in(host, work);
    ASSERT_TRUE(pid) << pid.error().message;
    pids_.push_back(*pid);
  }
  void send_from(const std::string& host, std::uint16_t port, int times = 1) const {
    const IpAddr to = *lab_->address("a/db", Family::V4);
    const auto sent = lab_->run_in(host, [&] {
      int failed = 0;
      for (int i = 0; i < times; ++i) failed += send_one(to, port);
      return failed;
    });
    ASSERT_EQ(sent.value_or(1), 0) << host;
  }
  void change_policies(int number) {
    send_from("a/web", static_cast<std::uint16_t>(kJustBefore + number));
    apply(policy(number));
    send_from("a/web", static_cast<std::uint16_t>(kJustAfter + number));
  }
  void change_pods(int number) {
    if (number > 1) {
      ASSERT_TRUE(lab_->remove_pod("a", "x" + std::to_string(number - 1)));
    }
    policy::Endpoint pod;
    pod.endpoint_namespace = "a";
    pod.name = "x" + std::to_string(number);
    pod.addresses = {*IpAddr::parse(kReused)};
    const auto added = lab_->add_pod(pod);
    ASSERT_TRUE(added) << added.error().message;
    send_from("a/" + pod.name, static_cast<std::uint16_t>(kChurn + number), 3);
  }
  void stop_load() {
    load_->datagrams.stop = true;
    load_->stop_connecting = true;
    for (std::size_t i = 1; i < pids_.size(); ++i) ::waitpid(pids_[i], nullptr, 0);
    pids_.resize(1);
    becomes([&] { return load_->datagrams.allowed_received == load_->datagrams.allowed_sent; }, 3s);
  }

  Shared<Load> load_;
  std::vector<pid_t> pids_;
};

TEST_F(Soak, BalancesToThePacket) {
  if (!lab_) return;
  const char* wanted = std::getenv("TIERLOG_SOAK_SECONDS");
  const std::chrono::seconds duration(wanted == nullptr ? 36 : std::atoi(wanted));
  const auto kill_every = duration > 60s ? 30s : duration > 20s ? 12s : 4s;
  const auto end = Clock::now() + duration;
  auto kill_at = Clock::now() + kill_every;
  std::vector<std::uint64_t> resident;
  int number = 0;
  while (Clock::now() < end) {
    const auto next = Clock::now() + 1s;
    ++number;
    ASSERT_NO_FATAL_FAILURE(change_policies(number));
    ASSERT_NO_FATAL_FAILURE(change_pods(number));
    resident.push_back(resident_bytes(status()["pid"].get<pid_t>()));
    if (Clock::now() >= kill_at && end - Clock::now() > 5s) {
      ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
      std::this_thread::sleep_for(500ms);
      ASSERT_TRUE(lab_->start_daemon());
      kill_at = Clock::now() + kill_every;
      resident.clear();
    }
    std::this_thread::sleep_until(next);
  }
  stop_load();

  const Datagrams& datagrams = load_->datagrams;
  EXPECT_EQ(datagrams.denied_received, 0u) << "a gap in enforcement";
  EXPECT_EQ(datagrams.allowed_received, datagrams.allowed_sent) << "dropped although every set allows it";
  EXPECT_EQ(load_->refused, 0u) << "connections that every set allows";
  const auto seconds = static_cast<std::uint64_t>(duration.count());
  EXPECT_GE(load_->flooded, seconds * 25'000);
  EXPECT_GE(load_->connected, seconds * 13);

  // What was declared must stand in two readings, and reading all records takes longer than the daemon's next.
  std::vector<store::RuleActivity> books;
  becomes([&] {
    books = rules();
    return std::ranges::all_of(books, balances);
  }, 20s);
  const Index index = Index::read(lab_->database());
  EXPECT_EQ(books_problem(books, index.records()), "");
  std::uint64_t kernel = 0, declared = 0;
  for (const store::RuleActivity& rule : books) {
    kernel += rule.kernel_packets;
    declared += rule.unattributed;
  }
  std::printf("%d changes, %llu packets flooded, %llu connections; %llu verdicts, %llu of them declared as not told\n",
              number, static_cast<unsigned long long>(load_->flooded), static_cast<unsigned long long>(load_->connected),
              static_cast<unsigned long long>(kernel), static_cast<unsigned long long>(declared));
  // What is counted while a daemon starts under a flood: some tens of milliseconds of it.
  EXPECT_LT(declared * 200, kernel) << "told is the rule";

  std::size_t named = 0;
  EXPECT_EQ(names_problem(index.records(), &named), "");
  EXPECT_GE(named, static_cast<std::size_t>(number));

  std::map<std::uint16_t, int> rule_of_port;
  for (const store::FlowRecord& record : index.records())
    if (record.direction == Direction::Ingress && record.dst_port && record.rule_index)
      rule_of_port[*record.dst_port] = *record.rule_index;
  for (int i = 1; i <= number; ++i) {
    EXPECT_EQ(rule_of_port[static_cast<std::uint16_t>(kJustBefore + i)], rest_index(i - 1)) << i;
    EXPECT_EQ(rule_of_port[static_cast<std::uint16_t>(kJustAfter + i)], rest_index(i)) << i;
  }

  // Of the last life, which lasted longest without a start in it.
  if (resident.size() >= 6) {
    const auto third = resident.begin() + static_cast<std::ptrdiff_t>(resident.size() / 3);
    const std::uint64_t early = *std::max_element(resident.begin(), third);
    const std::uint64_t late = *std::min_element(resident.end() - 2, resident.end());
    EXPECT_LT(late, early + early / 3 + (8u << 20)) << "the daemon grows";
  }

  // Controls: each of these checks can fail.
  auto records = index.records();
  EXPECT_TRUE(std::none_of(records.begin(), records.end(), [](const auto& r) { return r.rule == RuleId::None; }));
  const auto lost = std::find_if(records.begin(), records.end(), [](const auto& r) { return r.verdict_packets > 0; });
  ASSERT_NE(lost, records.end());
  records.erase(lost);
  EXPECT_NE(books_problem(books, records), "") << "a lost record";
  records = index.records();
  const auto named_wrong = std::find_if(records.begin(), records.end(),
                                        [](const auto& r) { return r.src.name == "x1" && r.dst_port == kChurn + 1; });
  ASSERT_NE(named_wrong, records.end());
  named_wrong->src.name = "x2";
  EXPECT_NE(names_problem(records), "") << "a wrong name";
}

}  // namespace
}  // namespace tierlog::testing
