// Labs without a daemon: real pods by real plugins, real packets between all of them.
#include "lab/lab.h"

#include <gtest/gtest.h>

namespace tierlog::lab {
namespace {

using namespace std::chrono_literals;
using Cni = endpoints::LabOptions::Cni;

constexpr std::uint16_t kPodPort = 8000;

policy::Endpoint pod(const std::string& name, const std::vector<const char*>& addresses) {
  policy::Endpoint one;
  one.endpoint_namespace = "blue";
  one.name = name;
  for (const char* text : addresses) one.addresses.push_back(*IpAddr::parse(text));
  one.ports = {{"http", protocol::kTcp, kPodPort}};
  return one;
}

LabOptions quiet(const std::string& name) {
  LabOptions options;
  options.name = name;
  options.life = LabOptions::Life::WithCaller;
  options.start_daemon = false;
  return options;
}

// 0, or which kind of traffic did not get through.
int reach(const IpAddr& address, std::uint16_t port) {
  if (try_ping(address, 2s) != Attempt::Connected) return 1;
  if (port == 0) return 0;
  if (try_tcp(address, port, 2s) != Attempt::Connected) return 2;
  return try_udp(address, port, 2s) == Attempt::Connected ? 0 : 3;
}

std::uint16_t port_of(const std::string& host) {
  if (host == "node") return 0;
  return host == "outside" ? 443 : kPodPort;
}

class Reach : public testing::TestWithParam<Cni> {};

TEST_P(Reach, EverybodyReachesEverybody) {
  endpoints::Topology topology;
  topology.lab.cni = GetParam();
  topology.cluster.endpoints = {pod("a", {"10.1.0.5", "fd01::5"}), pod("b", {"10.1.0.255", "fd01::6"}),
                                pod("c", {"10.1.3.1"}), pod("d", {"fd01:0:0:1::7"})};
  topology.lab.pod_cidrs = {*Cidr::parse("10.1.4.0/24"), *Cidr::parse("fd01:0:0:4::/64")};
  topology.cluster.endpoints.push_back(pod("e", {}));
  auto lab = Lab::up(topology, "", quiet(GetParam() == Cni::Ptp ? "reach-ptp" : "reach-bridge"));
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_TRUE(lab->address("blue/e", Family::V4) && lab->address("blue/e", Family::V6));
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

}  // namespace
}  // namespace tierlog::lab
