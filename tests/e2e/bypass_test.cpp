// What got past address dispatch once must not any more, and each must get past a node that enforces
// nothing: a frame that would not arrive anyway proves nothing.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "endpoints/control.h"
#include "tests/e2e/bypass.h"

namespace tierlog::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

class Bypass : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    folder_ = fs::temp_directory_path() / ("tierlog-bypass-" + std::to_string(::getpid()));
    bring_up(true, enforced_);
  }
  void TearDown() override {
    enforced_.reset();
    open_.reset();
    fs::remove_all(folder_);
  }
  void bring_up(bool enforced, std::optional<lab::Lab>& into) const {
    auto lab = bypass_lab(GetParam(), enforced, folder_);
    ASSERT_TRUE(lab) << lab.error().message;
    into.emplace(std::move(*lab));
    // Right after its very first start the daemon spares connections that are older than it.
    if (!enforced) return;
    ASSERT_TRUE(into->stop_daemon(SIGTERM));
    ASSERT_TRUE(into->start_daemon());
  }
  static lab::Attempt connect(const lab::Lab& lab, Family family, std::uint16_t port) {
    const IpAddr to = *lab.address("t/victim", family);
    return static_cast<lab::Attempt>(
        lab.run_in("t/mallory", [&] { return static_cast<int>(lab::try_tcp(to, port, 700ms)); })
            .value_or(-1));
  }
  bool bridged() const { return std::string(GetParam()) == "bridge"; }

  fs::path folder_;
  std::optional<lab::Lab> enforced_, open_;
};

class BypassOfBridges : public Bypass {};

TEST_P(Bypass, NoFrameGetsPastAndEachIsCounted) {
  bring_up(false, open_);
  ASSERT_TRUE(enforced_ && open_);
  const Modes mode = bridged() ? kBridge : kPtp;
  for (const Family family : {Family::V4, Family::V6}) {
    const std::string where = std::string(GetParam()) + (family == Family::V4 ? " IPv4: " : " IPv6: ");
    const auto control = send_all(*open_, look_at(*open_, family, GetParam()), family);
    const auto before = reserved_counters(*enforced_);
    const auto arrived = send_all(*enforced_, look_at(*enforced_, family, GetParam()), family);
    const auto after = reserved_counters(*enforced_);
    std::map<std::vector<RuleId>, std::pair<std::uint64_t, std::string>> wanted;
    for (std::size_t i = 0; i < bypass_cases().size(); ++i) {
      const BypassCase& one = bypass_cases()[i];
      if (!exists_in(one, family)) continue;
      EXPECT_EQ(control[i], (one.arrives & mode) != 0) << where << one.name << " without enforcement";
      EXPECT_FALSE(arrived[i]) << where << one.name << " arrives in spite of enforcement";
      if (one.counted.empty() || (one.arrives & mode) == 0) continue;
      auto& [count, names] = wanted[one.counted];
      ++count;
      names += std::string(" ") + one.name;
    }
    for (const auto& [ids, what] : wanted) {
      std::uint64_t counted = 0;
      for (const RuleId id : ids) counted += after[number(id)] - before[number(id)];
      EXPECT_GE(counted, what.first) << where << "too few under reserved id " << to_hex(ids.front()) << " for"
                                     << what.second;
    }
  }
}

TEST_P(Bypass, FlushingTheRulesetOpensNothing) {
  ASSERT_TRUE(enforced_);
  ASSERT_EQ(connect(*enforced_, Family::V4, 9999), lab::Attempt::TimedOut);
  ASSERT_EQ(enforced_->exec("node", {"nft", "flush", "ruleset"}), 0);
  EXPECT_EQ(connect(*enforced_, Family::V4, 9999), lab::Attempt::TimedOut);
  EXPECT_EQ(connect(*enforced_, Family::V6, 9999), lab::Attempt::TimedOut);
  for (const Family family : {Family::V4, Family::V6}) {
    const auto arrived = send_all(*enforced_, look_at(*enforced_, family, GetParam()), family);
    for (std::size_t i = 0; i < arrived.size(); ++i) EXPECT_FALSE(arrived[i]) << bypass_cases()[i].name;
  }
  ASSERT_TRUE(enforced_->stop_daemon(SIGTERM));
  ASSERT_EQ(enforced_->exec("node", {std::string(TIERLOG_BINARY_DIR) + "/bin/tierlogd", "--config",
                                     enforced_->folder() + "/tierlogd.yaml", "--remove"}),
            0);
  EXPECT_EQ(connect(*enforced_, Family::V4, 9999), lab::Attempt::Connected) << "control: nothing is enforced";
}

TEST_P(Bypass, AnAddressThatIsGivenAgainInheritsNoConnection) {
  bring_up(false, open_);
  ASSERT_TRUE(enforced_ && open_);
  for (lab::Lab* lab : {&*open_, &*enforced_}) {
    const bool is_open = lab == &*open_;
    for (const Family family : {Family::V4, Family::V6}) {
      const IpAddr to = *lab->address("t/victim", family);
      const auto from_friend = [&] {
        return static_cast<lab::Attempt>(
            lab->run_in("t/friend",
                        [&] {
                          return static_cast<int>(lab::try_udp(to, 8000, 700ms, {std::nullopt, 45'000, 0}));
                        })
                .value_or(-1));
      };
      ASSERT_EQ(from_friend(), lab::Attempt::Connected);
      ASSERT_TRUE(lab->remove_pod("t", "victim"));
      policy::Endpoint heir;
      heir.endpoint_namespace = "t";
      heir.name = "victim";
      heir.labels = {{"app", "heir"}};
      heir.addresses = {*IpAddr::parse("10.1.0.7"), *IpAddr::parse("fd01::7")};
      heir.ports = {{"", protocol::kTcp, 7777}, {"", protocol::kTcp, 8000}, {"", protocol::kTcp, 9999}};
      ASSERT_TRUE(lab->add_pod(heir));
      // The new pod has another hardware address.
      ASSERT_EQ(lab->exec("t/friend", {"ip", "neigh", "flush", "dev", "eth0"}), 0);
      EXPECT_EQ(from_friend(), is_open ? lab::Attempt::Connected : lab::Attempt::TimedOut)
          << "the old flow, the new pod";
      ASSERT_TRUE(lab->remove_pod("t", "victim"));
      heir.labels = {{"app", "victim"}};
      ASSERT_TRUE(lab->add_pod(heir));
      ASSERT_EQ(lab->exec("t/friend", {"ip", "neigh", "flush", "dev", "eth0"}), 0);
    }
  }
}

// A pod may give itself any address; nobody reaches it there, and nobody hears it from there.
TEST_P(Bypass, AddressesThatPodsGiveThemselvesAreDead) {
  bring_up(false, open_);
  ASSERT_TRUE(enforced_ && open_);
  struct Added {
    const char* pod;
    const char* pods_own;
    const char* address;
  };
  constexpr Added kAdded[] = {{"t/mallory", "10.1.0.5", "10.1.0.99"},
                              {"t/mallory", "fd01::5", "fd01::99"},
                              {"t/victim", "10.1.0.7", "10.1.0.88"},
                              {"t/victim", "fd01::7", "fd01::88"}};
  for (lab::Lab* lab : {&*open_, &*enforced_})
    for (const Added& added : kAdded) {
      const IpAddr address = *IpAddr::parse(added.address);
      const std::string wide = address.to_string() + (address.family == Family::V4 ? "/24" : "/64");
      ASSERT_EQ(lab->exec(added.pod, {"ip", "addr", "add", bridged() ? wide : added.address, "dev", "eth0"}),
                0);
      // A routed node has to be told, as a proxy would; without a route nothing comes back.
      const std::string route = std::string("ip route add ") + added.address + " dev $(ip -o route get " +
                                added.pods_own + " | sed 's/.* dev \\([^ ]*\\).*/\\1/')";
      if (!bridged()) {
        ASSERT_EQ(lab->exec("node", {"sh", "-c", route}), 0) << route;
      }
      const bool sender = std::string(added.pod) == "t/mallory";
      const IpAddr to = sender ? *lab->address("t/victim", address.family) : address;
      const auto outcome = static_cast<lab::Attempt>(lab->run_in("t/mallory",
                                                                 [&] {
                                                                   lab::Sender from;
                                                                   if (sender) from.address = address;
                                                                   return static_cast<int>(
                                                                       lab::try_udp(to, 7777, 1500ms, from));
                                                                 })
                                                         .value_or(-1));
      EXPECT_EQ(outcome == lab::Attempt::Connected, lab == &*open_)
          << added.pod << " " << added.address << ": " << lab::name(outcome);
    }
}

// Pods are made with it off, so that labs come up fast; here a pod looks for others that have its address.
TEST_P(Bypass, DuplicateAddressesAreFoundThroughTheGuard) {
  ASSERT_TRUE(enforced_);
  const auto in_mallory = [&](const std::string& command) {
    return enforced_->exec("t/mallory", {"sh", "-c", command}).value_or(-1);
  };
  const std::string until_known =
      "for i in $(seq 60); do ip -6 addr show dev eth0 to ADDRESS | grep -q tentative || break; sleep 0.1; done; ";
  const auto waits = [&](const std::string& address) {
    std::string text = until_known;
    return text.replace(text.find("ADDRESS"), 7, address);
  };
  ASSERT_EQ(in_mallory("echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_dad; echo 1 > /proc/sys/net/ipv6/conf/all/accept_dad; "
                       "echo 1 > /proc/sys/net/ipv6/conf/eth0/dad_transmits"),
            0);
  EXPECT_EQ(in_mallory("own=$(ip -6 -o addr show dev eth0 to fd01::5 | awk '{ print $4 }'); "
                       "ip -6 addr del $own dev eth0 && ip -6 addr add $own dev eth0 && " +
                       waits("fd01::5") + "ip -6 addr show dev eth0 to fd01::5 | grep inet6 | grep -vE 'tentative|dadfailed'"),
            0)
      << "its own address is nobody else's";
  if (!bridged()) return;  // a routed pod has its link to itself
  EXPECT_EQ(in_mallory("ip -6 addr add fd01::6/64 dev eth0 && " + waits("fd01::6") +
                       "sleep 0.3; ip -6 addr show dev eth0 to fd01::6 | grep -q dadfailed"),
            0)
      << "the friend answers";
}

// Where there is no bridge there is nothing to switch.
TEST_P(BypassOfBridges, SwitchingBridgeNetfilterOffIsRepairedCountedAndLogged) {
  ASSERT_TRUE(enforced_);
  const auto switch_off = [&] {
    for (const std::vector<std::string>& off :
         std::vector<std::vector<std::string>>{{"sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0",
                                                "net.bridge.bridge-nf-call-ip6tables=0"},
                                               {"ip", "link", "set", "tlbr0", "type", "bridge",
                                                "nf_call_iptables", "0", "nf_call_ip6tables", "0"}})
      ASSERT_EQ(enforced_->exec("node", off), 0);
  };
  const auto denied_soon = [&] {
    for (int i = 0; i < 20; ++i)  // a second is promised; the machine may be busy
      if (connect(*enforced_, Family::V6, 9999) == lab::Attempt::TimedOut) return true;
    return false;
  };
  switch_off();
  EXPECT_TRUE(denied_soon()) << "not repaired";
  EXPECT_EQ(connect(*enforced_, Family::V4, 9999), lab::Attempt::TimedOut);
  std::ifstream log(enforced_->folder() + "/tierlogd.log");
  const std::string text{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(text.find("bridge netfilter of tlbr0 was switched off"), std::string::npos) << text;
  const auto status = endpoints::call(enforced_->socket(), {{"op", "status"}});
  ASSERT_TRUE(status) << status.error().message;
  EXPECT_GE(status->at("status").at("kernel").at("bridge_repairs").get<int>(), 1);

  // Control: the same with nobody there to repair it opens the bridge; the next daemon closes it.
  ASSERT_TRUE(enforced_->stop_daemon(SIGKILL));
  switch_off();
  EXPECT_EQ(connect(*enforced_, Family::V4, 9999), lab::Attempt::Connected);
  EXPECT_EQ(connect(*enforced_, Family::V6, 9999), lab::Attempt::Connected);
  ASSERT_TRUE(enforced_->start_daemon());
  EXPECT_TRUE(denied_soon()) << "not repaired at the start";
}

INSTANTIATE_TEST_SUITE_P(Cni, BypassOfBridges, ::testing::Values("bridge"),
                         [](const auto& tested) { return std::string(tested.param); });
INSTANTIATE_TEST_SUITE_P(Cni, Bypass, ::testing::Values("ptp", "bridge"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace tierlog::testing
