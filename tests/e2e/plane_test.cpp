// A running node changes its data plane under traffic: the other one is in force before what the first left is
// taken away, and nothing of it stays.
//
// The control takes the rules away before the other data plane comes. That must leak, or this test could not
// see a leak.
#include <algorithm>
#include <sstream>

#include "tests/dataplane/older_layout.h"
#include "tests/e2e/datagram_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kPackets = 20'000;  // at least, denied and allowed each
constexpr const char* kPolicy = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: role == 'db'
  ingress:
  - {action: Allow, protocol: UDP, source: {selector: role == 'web'}, destination: {ports: [7001]}}
  - {action: Deny}
)";

class Plane : public DatagramNode {
 protected:
  void SetUp() override { begin("nftables"); }
  void begin(const std::string& plane) {
    DatagramNode::begin(kPolicy, {{"deny_interval", "1s"}, {"dataplane", plane}});
  }

  std::string settings() const { return lab_->folder() + "/tierlogd.yaml"; }
  void write_plane(const std::string& name) const {
    std::ifstream file(settings());
    std::string text, line;
    while (std::getline(file, line)) text += (line.rfind("dataplane:", 0) == 0 ? "dataplane: " + name : line) + "\n";
    std::ofstream(settings()) << text;
  }
  // Allowed packets that have not arrived, when none is under way; that `known` of them never will is known.
  std::uint64_t lost(std::uint64_t known = 0) const {
    traffic_->pause = true;
    EXPECT_TRUE(becomes([&] { return traffic_->paused.load(); }));
    becomes([&] { return traffic_->allowed_received + known >= traffic_->allowed_sent; }, 2s);
    const std::uint64_t missing = traffic_->allowed_sent - traffic_->allowed_received;
    traffic_->pause = false;
    EXPECT_TRUE(becomes([&] { return !traffic_->paused; }));
    return missing;
  }
  // What the node's own interfaces have not sent, as the kernel counts: TX dropped of `ip -s link`. While clsact is added to
  // one that is up, the kernel stops its queue for a grace period of RCU, and what is sent to that pod meanwhile is dropped
  // there (skb:kfree_skb says QDISC_DROP). Once an interface: clsact stays.
  std::uint64_t dropped_by_kernel() const {
    const auto read = lab_->run_in("node", [this] {
      std::ifstream table("/proc/net/dev");
      std::uint64_t sum = 0;
      for (std::string line; std::getline(table, line);) {
        const std::size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        std::istringstream numbers(line.substr(colon + 1));
        std::uint64_t number = 0;
        for (int i = 0; i < 12; ++i) numbers >> number;
        sum += number;
      }
      *dropped_ = sum;
      return 0;
    });
    EXPECT_EQ(read.value_or(-1), 0);
    return *dropped_;
  }
  bool on_node(const std::string& command) const { return lab_->exec("node", {"sh", "-c", command}).value_or(-1) == 0; }
  bool has_tables() const { return on_node("nft list tables | grep -q tierlog"); }
  bool has_programs() const {
    return on_node("for i in /sys/class/net/*; do tc filter show dev ${i##*/} ingress; tc filter show dev ${i##*/} egress; "
                   "done 2>/dev/null | grep -q 'handle 0x743[12]'");
  }
  bool has_pins() const { return on_node("test -e /sys/fs/bpf/tierlog"); }

  Shared<std::atomic<std::uint64_t>> dropped_;
};

TEST_F(Plane, IsChangedWithoutALeak) {
  if (!lab_) return;
  std::string now = "nftables";
  std::uint64_t lost_before = lost(), dropped_before = dropped_by_kernel();
  EXPECT_EQ(lost_before, 0u);
  for (int round = 0; round < 4; ++round) {
    now = now == "nftables" ? "ebpf" : "nftables";
    write_plane(now);
    ASSERT_TRUE(lab_->stop_daemon(round % 2 == 0 ? SIGTERM : SIGKILL));
    ASSERT_TRUE(lab_->start_daemon()) << now;
    EXPECT_EQ(status()["dataplane"], now);
    EXPECT_EQ(status()["in_sync"], true);
    EXPECT_EQ(has_tables(), now == "nftables");
    EXPECT_EQ(has_programs(), now == "ebpf");
    EXPECT_EQ(has_pins(), now == "ebpf");
    const std::uint64_t sent = traffic_->denied_sent, arrived = traffic_->allowed_received;
    EXPECT_TRUE(becomes([&] { return traffic_->denied_sent > sent + 1000 && traffic_->allowed_received > arrived + 1000; }));
    const std::uint64_t lost_now = lost(lost_before), dropped = dropped_by_kernel();
    EXPECT_LE(lost_now - lost_before, dropped - dropped_before) << "in the change to " << now << ", number " << round;
    lost_before = lost_now;
    dropped_before = dropped;
  }
  becomes([&] { return traffic_->denied_sent >= kPackets && traffic_->allowed_sent >= kPackets; }, 20s);
  EXPECT_EQ(lost(lost_before), lost_before) << "lost without a change";
  traffic_->stop = true;
  EXPECT_GE(traffic_->denied_sent, kPackets);
  EXPECT_GE(traffic_->allowed_sent, kPackets);
  EXPECT_EQ(traffic_->denied_received, 0u);
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  ASSERT_TRUE(on_node(std::string(TIERLOG_BINARY_DIR) + "/bin/tierlogd --config " + settings() + " --remove"));
  EXPECT_FALSE(has_tables() || has_programs() || has_pins());
}

TEST_F(Plane, TakenAwayFirstLeaks) {
  if (!lab_) return;
  write_plane("ebpf");
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  ASSERT_TRUE(on_node(std::string(TIERLOG_BINARY_DIR) + "/bin/tierlogd --config " + settings() + " --remove"));
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_TRUE(becomes([&] { return traffic_->denied_received > 0; }));
}

class PlaneOfPrograms : public Plane {
 protected:
  void SetUp() override { begin("ebpf"); }

  bool goes_on() const {
    return becomes([&, sent = traffic_->denied_sent.load()] { return traffic_->denied_sent > sent + 1000; });
  }
  // What the books say against what was sent; empty: every denied packet is counted, and told or declared.
  std::string books_problem() const {
    std::string problem;
    std::uint64_t denied = 0;
    for (const store::RuleActivity& rule : rules()) {
      if (rule.rule.policy == "default/a/db" && rule.rule.action == "Deny") denied += rule.kernel_packets;
      if ((rule.rule.action == "Allow" || rule.rule.action == "Deny") &&
          rule.kernel_packets != rule.recorded_packets + rule.unattributed)
        problem += rule.rule.policy + " " + rule.rule.reason + ": kernel " + std::to_string(rule.kernel_packets) +
                   ", recorded " + std::to_string(rule.recorded_packets) + ", declared " +
                   std::to_string(rule.unattributed) + "\n";
    }
    if (denied != traffic_->denied_sent)
      problem += "denied " + std::to_string(denied) + " of " + std::to_string(traffic_->denied_sent) + "\n";
    return problem;
  }
  std::string log() const {
    std::ifstream file(lab_->folder() + "/tierlogd.log");
    return {std::istreambuf_iterator<char>(file), {}};
  }
};

TEST_F(PlaneOfPrograms, KeepsCountersAndBooksOverAKilledDaemon) {
  if (!lab_) return;
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(goes_on());
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    ASSERT_TRUE(goes_on());
    ASSERT_TRUE(lab_->start_daemon());
  }
  traffic_->stop = true;
  std::string problem;
  EXPECT_TRUE(becomes([&] { return (problem = books_problem()).empty(); }, 15s)) << problem;
}

// Once with maps as an earlier version had them, once with such as other settings make.
TEST_F(PlaneOfPrograms, TakesOverMapsOfAnotherLayoutAndOfOtherSizes) {
  if (!lab_) return;
  for (const char* left : {"v2", "v3-1"}) {
    SCOPED_TRACE(left);
    ASSERT_TRUE(goes_on());
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    if (std::string(left) == "v2") {
      const auto made = lab_->run_in("node", [] { return dataplane::test::make_layout_2("/sys/fs/bpf/tierlog"); });
      ASSERT_EQ(made.value_or(-1), 0);
    } else {
      std::ofstream(settings(), std::ios::app) << "ebpf: {max_rules: 3000, max_flows: 5000, max_denied_flows: 3000}\n";
    }
    ASSERT_TRUE(goes_on()) << "the programs of before go on";
    ASSERT_TRUE(lab_->start_daemon());
    EXPECT_EQ(status()["in_sync"], true);
    ASSERT_TRUE(goes_on());
    EXPECT_NE(log().find("maps of " + std::string(left) + " taken over: "), std::string::npos);
    EXPECT_TRUE(becomes([&] { return on_node("test $(ls /sys/fs/bpf/tierlog) = v" + std::to_string(TL_LAYOUT)); }));
  }
  traffic_->stop = true;
  EXPECT_EQ(log().find("LEFT BEHIND"), std::string::npos);
  becomes([&] { return traffic_->allowed_received == traffic_->allowed_sent; }, 2s);
  EXPECT_EQ(traffic_->denied_received, 0u);
  EXPECT_EQ(traffic_->allowed_received, traffic_->allowed_sent);
  std::string problem;
  EXPECT_TRUE(becomes([&] { return (problem = books_problem()).empty(); }, 15s)) << problem;
}

// The control: of maps whose form nobody knows nothing comes, so the books have less than was sent. It is said and counted.
TEST_F(PlaneOfPrograms, OfMapsThatNobodyKnowsNothingComes) {
  if (!lab_) return;
  ASSERT_TRUE(goes_on());
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  const std::string folder = "/sys/fs/bpf/tierlog/";
  ASSERT_TRUE(on_node("mv " + folder + "v" + std::to_string(TL_LAYOUT) + " " + folder + "v99"));
  ASSERT_TRUE(goes_on());
  ASSERT_TRUE(lab_->start_daemon());
  traffic_->stop = true;
  std::this_thread::sleep_for(500ms);
  EXPECT_NE(books_problem(), "");
  EXPECT_NE(log().find("LEFT BEHIND"), std::string::npos);
  EXPECT_NE(log().find("what v99 holds"), std::string::npos);
  auto reader = store::FlowReader::open(lab_->database());
  ASSERT_TRUE(reader);
  const auto losses = reader->losses();
  ASSERT_TRUE(losses);
  EXPECT_TRUE(std::ranges::any_of(*losses, [](const auto& loss) { return loss.cause == "left-behind" && loss.packets > 0; }));
  EXPECT_EQ(traffic_->denied_received, 0u) << "enforced all the same";
}

}  // namespace
}  // namespace tierlog::testing
