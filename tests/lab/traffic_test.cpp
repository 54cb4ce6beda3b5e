// Real packets between all hosts of labs without a daemon, and what try_* make of drops and refusals.
#include <gtest/gtest.h>

#include "tests/lab/scratch.h"

namespace tierlog::lab {
namespace {

using namespace std::chrono_literals;
using Cni = endpoints::LabOptions::Cni;

IpAddr ip(const char* text) {
  return *IpAddr::parse(text);
}

// 0, or which kind of traffic did not get through.
int reach(const IpAddr& address, std::uint16_t port, const Sender& from = {}) {
  if (try_ping(address, 5s, from) != Attempt::Connected) return 1;
  if (port == 0) return 0;
  if (try_tcp(address, port, 5s, from) != Attempt::Connected) return 2;
  return try_udp(address, port, 5s, from) == Attempt::Connected ? 0 : 3;
}

std::uint16_t port_of(const std::string& host) {
  if (host == "node") return 0;
  return host == "outside" ? 443 : kPodPort;
}

class Reach : public testing::TestWithParam<Cni> {};

// Pods with addresses at the edges of subnets, of one family only, and from host-local.
TEST_P(Reach, EverybodyReachesEverybody) {
  const Scratch scratch;
  auto topology = topology_of({pod("a", {"10.1.0.5", "fd01::5"}), pod("b", {"10.1.0.255", "fd01::6"}),
                               pod("c", {"10.1.3.1"}), pod("d", {"fd01:0:0:1::7"}), pod("e", {})});
  topology.lab.cni = GetParam();
  topology.lab.pod_cidrs = {*Cidr::parse("10.1.4.0/24"), *Cidr::parse("fd01:0:0:4::/64")};
  auto lab = Lab::up(topology, "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_TRUE(topology.lab.pod_cidrs[0].contains(lab->address("blue/e", Family::V4).value_or(IpAddr{})));
  EXPECT_TRUE(topology.lab.pod_cidrs[1].contains(lab->address("blue/e", Family::V6).value_or(IpAddr{})));
  for (const auto& from : lab->hosts()) {
    for (const auto& to : lab->hosts()) {
      for (const auto& address : to.addresses) {
        if (!lab->address(from.name, address.family)) continue;
        EXPECT_EQ(lab->run_in(from.name, [&] { return reach(address, port_of(to.name)); }), 0)
            << from.name << " -> " << to.name << " " << address.to_string();
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cni, Reach, testing::Values(Cni::Ptp, Cni::Bridge),
                         [](const auto& param) { return param.param == Cni::Ptp ? "ptp" : "bridge"; });

// The outside host answers on what is nobody's address, and sends from it.
TEST(Outside, PlaysTheRestOfTheWorld) {
  const Scratch scratch;
  auto topology = topology_of({pod("a", {"10.1.0.5", "fd01::5"}), pod("far", {"10.1.0.9"})});
  topology.cluster.endpoints[1].node = "node-2";
  topology.cluster.nodes = {{"node-1", {}, {ip("172.18.0.2")}}, {"node-3", {}, {ip("172.18.0.3")}}};
  topology.lab.outside = {ip("198.51.100.20"), ip("2001:db8:51::20")};
  auto lab = Lab::up(topology, "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_FALSE(lab->address("blue/far", Family::V4)) << "a pod of a node that nobody listed is no host of this lab";
  EXPECT_EQ(lab->address("outside", Family::V4), ip("198.51.100.20"));
  EXPECT_EQ(lab->address("node", Family::V4), ip("172.18.0.2"));
  for (const char* anywhere : {"198.51.100.20", "8.8.8.8", "192.0.2.77", "172.18.0.3", "10.1.0.9",
                               "10.1.0.254", "2001:db8:51::20", "2001:4860:4860::8888", "fd01::99"}) {
    EXPECT_EQ(lab->run_in("blue/a", [&] { return reach(ip(anywhere), 53); }), 0) << "to " << anywhere;
    const bool v6 = ip(anywhere).family == Family::V6;
    const IpAddr target = ip(v6 ? "fd01::5" : "10.1.0.5");
    EXPECT_EQ(lab->run_in("outside",
                          [&] {
                            return reach(target, kPodPort, {ip(anywhere), 0});
                          }),
              0)
        << "from " << anywhere;
  }
  EXPECT_EQ(lab->run_in("blue/a", [&] { return reach(ip("172.18.0.2"), 0); }), 0);
}

struct Filtered {
  const char* name;
  const char* rule;  // of nft, in the node's forward chain
  Attempt tcp, udp, ping;
};

void PrintTo(const Filtered& filtered, std::ostream* out) {
  *out << filtered.name;
}

class Attempts : public testing::TestWithParam<Filtered> {};

TEST_P(Attempts, TellWhatHappened) {
  const Scratch scratch;
  auto lab = Lab::up(topology_of({pod("a", {"10.1.0.5", "fd01::5"}), pod("b", {"10.1.0.6", "fd01::6"})}), "",
                     quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  const std::string rules = "table inet t {\nchain f {\ntype filter hook forward priority 0\n" +
                            std::string(GetParam().rule) + "\n}\n}\n";
  ASSERT_EQ(lab->exec("node", {"nft", rules}), 0);
  for (const char* target : {"10.1.0.6", "fd01::6"}) {
    const auto result = lab->run_in("blue/a", [&] {
      if (try_tcp(ip(target), 9999, 500ms) != GetParam().tcp) return 1;
      if (try_udp(ip(target), 9999, 500ms) != GetParam().udp) return 2;
      return try_ping(ip(target), 500ms) == GetParam().ping ? 0 : 3;
    });
    EXPECT_EQ(result, 0) << target;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Lab, Attempts,
    testing::Values(Filtered{"nobody_listens", "", Attempt::Refused, Attempt::Refused, Attempt::Connected},
                    Filtered{"dropped", "drop", Attempt::TimedOut, Attempt::TimedOut, Attempt::TimedOut},
                    Filtered{"prohibited", "reject with icmpx type admin-prohibited", Attempt::Unreachable,
                             Attempt::Unreachable, Attempt::Unreachable}),
    [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace tierlog::lab
