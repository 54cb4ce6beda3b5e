// Policies are replaced over and over under traffic: what both the old and the new deny never passes, what
// both allow is never dropped, and each packet is told by the rule that was in force when it came.
//
// The control replaces the same rules the naive way, table for table in one transaction. That must leak,
// or this test could not see a leak.
#include <sys/wait.h>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/remove.h"
#include "tests/dataplane/programs.h"
#include "tests/e2e/datagram_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr int kReplacements = 200;
constexpr std::uint64_t kPackets = 200'000;  // at least, denied and allowed each
constexpr std::uint16_t kJustAfter = 30'000;  // + number of the replacement
constexpr std::uint16_t kJustBefore = 40'000;

// The same verdicts by other rules in another order; index of the rule that denies the rest.
std::string policy(int number) {
  const std::string head =
      "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: a}\n"
      "spec:\n  selector: role == 'db'\n  ingress:\n";
  if (number % 2 == 0)
    return head + "  - {action: Deny, protocol: UDP, destination: {ports: [7002]}}\n"
                  "  - {action: Allow, protocol: UDP, source: {selector: role == 'web'}, destination: {ports: [7001]}}\n"
                  "  - {action: Deny}\n";
  return head + "  - {action: Deny, protocol: TCP, destination: {ports: [" + std::to_string(1000 + number) + "]}}\n"
                "  - {action: Allow, source: {nets: [10.1.0.0/24, 'fd01::/64']}, protocol: UDP, destination: {ports: [7000, 7001]}}\n"
                "  - {action: Deny, source: {selector: role == 'web'}, destination: {ports: [7002]}, protocol: UDP}\n"
                "  - {action: Deny}\n";
}
int rest_index(int number) {
  return number % 2 == 0 ? 2 : 3;
}

class Replacement : public DatagramNode {
 protected:
  void SetUp() override { begin(policy(0), {{"deny_interval", "1s"}}); }
  void stop_sending() {
    traffic_->stop = true;
    ::waitpid(pids_.front(), nullptr, 0);
    pids_.erase(pids_.begin());
    becomes([&] { return traffic_->allowed_received == traffic_->allowed_sent; }, 2s);
  }
  void probe(std::uint16_t port) const {
    const IpAddr to = *lab_->address("a/db", Family::V4);
    const auto sent = lab_->run_in("a/web", [&] { return send_one(to, port); });
    ASSERT_EQ(sent.value_or(1), 0);
  }
};

TEST_F(Replacement, LetsNothingThroughAndDropsNothing) {
  if (!lab_) return;
  std::uint64_t revision = status()["revision"].get<std::uint64_t>();
  for (int i = 1; i <= kReplacements; ++i) {
    probe(static_cast<std::uint16_t>(kJustBefore + i));
    ASSERT_EQ(apply(policy(i)), ++revision);
    probe(static_cast<std::uint16_t>(kJustAfter + i));
  }
  becomes([&] { return traffic_->denied_sent >= kPackets && traffic_->allowed_sent >= kPackets; }, 60s);
  stop_sending();
  EXPECT_GE(traffic_->denied_sent, kPackets);
  EXPECT_GE(traffic_->allowed_sent, kPackets);
  EXPECT_EQ(traffic_->denied_received, 0u) << "passed although old and new deny it";
  EXPECT_EQ(traffic_->allowed_received, traffic_->allowed_sent) << "dropped although old and new allow it";

  // Every denied packet is told, and the probes by the rules of just before and just after.
  const auto activity = rules();
  std::uint64_t counted = 0;
  for (const store::RuleActivity& rule : activity) {
    if (rule.rule.policy != "default/a/db" || rule.rule.action != "Deny") continue;
    counted += rule.kernel_packets;
    EXPECT_EQ(rule.kernel_packets, rule.recorded_packets) << number(rule.rule.id);
  }
  EXPECT_EQ(counted, traffic_->denied_sent + 2 * kReplacements);
  std::map<std::uint16_t, int> rule_of_port;
  const Index index = Index::read(lab_->database());
  for (const store::FlowRecord& record : index.records())
    if (record.direction == Direction::Ingress && record.dst_port && record.rule_index)
      rule_of_port[*record.dst_port] = *record.rule_index;
  for (int i = 1; i <= kReplacements; ++i) {
    EXPECT_EQ(rule_of_port[static_cast<std::uint16_t>(kJustBefore + i)], rest_index(i - 1)) << i;
    EXPECT_EQ(rule_of_port[static_cast<std::uint16_t>(kJustAfter + i)], rest_index(i)) << i;
  }
}

// Killed while it prepares, flips, judges living connections or sweeps: what stands is always a whole set.
TEST_F(Replacement, OutlivesADaemonThatIsKilledInTheMiddle) {
  if (!lab_) return;
  for (int i = 1; i <= 12; ++i) {
    std::thread killer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(i * 7));
      EXPECT_TRUE(lab_->stop_daemon(SIGKILL));
    });
    std::ofstream(folder_ / "policies" / "p.yaml.new") << policy(i);
    std::filesystem::rename(folder_ / "policies" / "p.yaml.new", folder_ / "policies" / "p.yaml");
    static_cast<void>(endpoints::call(lab_->socket(), {{"op", "reload"}}, std::chrono::seconds(2)));
    killer.join();
    ASSERT_TRUE(lab_->start_daemon()) << i;
    probe(static_cast<std::uint16_t>(kJustAfter + i));
    EXPECT_EQ(status()["in_sync"], true) << i;
  }
  stop_sending();
  EXPECT_EQ(traffic_->denied_received, 0u) << "passed although old and new deny it";
  EXPECT_EQ(traffic_->allowed_received, traffic_->allowed_sent) << "dropped although old and new allow it";
  // Everything that was counted is told or declared.
  std::string problem = "never read";
  EXPECT_TRUE(becomes([&] {
    problem.clear();
    for (const store::RuleActivity& rule : rules())
      if ((rule.rule.action == "Allow" || rule.rule.action == "Deny") &&
          rule.kernel_packets != rule.recorded_packets + rule.unattributed)
        problem += rule.rule.policy + " " + to_hex(rule.rule.id) + ": kernel " + std::to_string(rule.kernel_packets) +
                   ", recorded " + std::to_string(rule.recorded_packets) + ", declared " +
                   std::to_string(rule.unattributed) + "\n";
    return problem.empty();
  }, 15s)) << problem;
  std::map<std::uint16_t, int> rule_of_port;
  const Index index = Index::read(lab_->database());
  for (const store::FlowRecord& record : index.records())
    if (record.direction == Direction::Ingress && record.dst_port && record.rule_index)
      rule_of_port[*record.dst_port] = *record.rule_index;
  for (int i = 1; i <= 12; ++i) EXPECT_EQ(rule_of_port[static_cast<std::uint16_t>(kJustAfter + i)], rest_index(i)) << i;
}

// What an older release left stays in force until the new rules are, and nothing slips between the two.
TEST_F(Replacement, OfAnOlderLayoutLetsNothingThrough) {
  if (!lab_) return;
  traffic_->fast = true;
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    // The same rules under the name of another layout, made by hand: tables are told by it alone.
    ASSERT_EQ(lab_->exec("node", {"nft", "delete table inet tierlog; delete table netdev tierlog; "
                                         "table inet tierlog { chain old { type filter hook forward priority 10; "
                                         "udp dport " + std::to_string(kDenied) + " counter drop; }; }"}),
              0);
    std::this_thread::sleep_for(20ms);  // what slipped through the change by hand has been read
    const std::uint64_t leaked = traffic_->denied_received;
    const std::uint64_t sent = traffic_->denied_sent;
    ASSERT_TRUE(becomes([&] { return traffic_->denied_sent > sent + 500; }));
    ASSERT_TRUE(lab_->start_daemon());
    ASSERT_TRUE(becomes([&] { return traffic_->denied_sent > sent + 2000; }));
    EXPECT_EQ(traffic_->denied_received, leaked) << "round " << round;
    EXPECT_EQ(lab_->exec("node", {"sh", "-c", "nft list tables | grep -q hold"}), 1) << "the hold is let go";
    const std::uint64_t arrived = traffic_->allowed_received;
    EXPECT_TRUE(becomes([&] { return traffic_->allowed_received > arrived + 100; })) << "and traffic goes on";
  }
  std::ifstream log(lab_->folder() + "/tierlogd.log");
  const std::string lines{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(lines.find("are replaced; what opens a connection meanwhile has to wait"), std::string::npos);
  stop_sending();
}

TEST_F(Replacement, TheNaiveWayLeaks) {
  if (!lab_) return;
  namespace nft = dataplane::nftables;
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  policy::MemoryRuleIds ids;
  std::vector<policy::Endpoint> pods{local_pod("a", "web", {"10.1.0.5", "fd01::5"}, {{"role", "web"}}),
                                     local_pod("a", "db", {"10.1.0.6", "fd01::6"}, {{"role", "db"}})};
  std::vector<nft::TableObjects> both;
  for (int i : {0, 1}) both.push_back(nft::build_program(*compile(policy(i), pods, ids), {}, {}, {}));
  traffic_->fast = true;
  Shared<std::uint64_t> replacements;
  const auto done = lab_->run_in("node", [&] {
    auto socket = nft::NetfilterSocket::open();
    if (!socket) return 1;
    const auto replace = [&](const nft::TableObjects& objects, bool first) {
      nft::Batch batch;
      batch.set_table(NFPROTO_INET, "naive");
      if (!first) nft::delete_table(batch);
      nft::add_table(batch, 0);
      for (const std::string& counter : objects.counters) nft::add_counter(batch, counter);
      for (const nft::Set& set : objects.sets) nft::add_set(batch, set);
      for (const nft::Chain& chain : objects.chains) nft::add_chain(batch, chain);
      for (const nft::Chain& chain : objects.chains) nft::add_rules(batch, chain);
      for (const nft::Set& set : objects.sets) nft::add_elements(batch, set.name, set.elements);
      return socket->commit(batch).has_value();
    };
    if (!replace(both[0], true) || !nft::remove_tables()) return 2;
    std::this_thread::sleep_for(100ms);
    const std::uint64_t before = traffic_->denied_received;
    const auto until = std::chrono::steady_clock::now() + 60s;
    for (std::size_t i = 1; std::chrono::steady_clock::now() < until; ++i) {
      if (!replace(both[i % 2], false)) return 3;
      *replacements = i;
      if (traffic_->denied_received > before) return 0;
    }
    return 4;
  });
  EXPECT_EQ(done.value_or(1), 0) << "after " << *replacements << " replacements";
  stop_sending();
}

}  // namespace
}  // namespace tierlog::testing
