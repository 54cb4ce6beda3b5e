// Two nodes, Services, masquerade, hostNetwork pods, several addresses: real packets through all of them,
// without tierlogd.
#include <gtest/gtest.h>

#include <algorithm>

#include "lab/services.h"
#include "tests/lab/scratch.h"

namespace tierlog::lab {
namespace {

using namespace std::chrono_literals;

Attempt connect(const Lab& lab, const std::string& from, const std::string& to, std::uint16_t port) {
  const auto address = *IpAddr::parse(to);
  const auto code = lab.run_in(from, [&] { return static_cast<int>(try_tcp(address, port, 2s)); });
  return static_cast<Attempt>(code.value_or(-1));
}

Result<Lab> up(const Scratch& scratch, const char* topology) {
  return Lab::up(std::string(TIERLOG_SOURCE_DIR "/examples/topologies/") + topology, quiet(scratch));
}

TEST(TwoNodes, RouteToEachOthersPodsAndServeFromBoth) {
  const Scratch scratch;
  auto lab = up(scratch, "two-nodes.yaml");
  ASSERT_TRUE(lab) << lab.error().message;
  ASSERT_EQ(lab->nodes().size(), 2u);
  EXPECT_EQ(lab->nodes()[1].database, lab->folder() + "/node-2/flows.db");
  for (const char* from :
       {"shop/client", "shop/web-2", "shop/agent", "node", "node-1", "node-2", "outside"}) {
    for (const char* to : {"10.244.1.3", "10.244.2.3", "fd00:244:1::3", "fd00:244:2::3"})
      EXPECT_EQ(connect(*lab, from, to, 8080), Attempt::Connected) << from << " -> " << to;
    for (const auto& address : lab->services().at(0).cluster_ips)
      EXPECT_EQ(connect(*lab, from, address.to_string(), 80), Attempt::Connected) << from << " -> Service";
    for (const char* node : {"198.51.100.1", "198.51.100.2", "2001:db8:100::1", "2001:db8:100::2"})
      EXPECT_EQ(connect(*lab, from, node, 30080), Attempt::Connected) << from << " -> NodePort of " << node;
  }
  EXPECT_EQ(connect(*lab, "shop/client", "198.51.100.2", 9100), Attempt::Connected) << "hostNetwork pod";
  EXPECT_EQ(connect(*lab, "shop/client", "198.51.100.1", 9100), Attempt::Refused)
      << "it is on the other node";
}

TEST(TwoNodes, ServicesFollowTheirPods) {
  const Scratch scratch;
  auto lab = up(scratch, "two-nodes.yaml");
  ASSERT_TRUE(lab) << lab.error().message;
  const std::string service = lab->services().at(0).cluster_ips.at(0).to_string();
  ASSERT_TRUE(lab->remove_pod("shop", "web-1"));
  ASSERT_TRUE(lab->remove_pod("shop", "web-2"));
  EXPECT_EQ(connect(*lab, "shop/client", service, 80), Attempt::Refused) << "no backend";
  EXPECT_EQ(connect(*lab, "outside", "198.51.100.2", 30080), Attempt::Refused);
  policy::Endpoint late = pod("late", {"10.244.2.9"});
  late.endpoint_namespace = "shop";
  late.node = "node-2";
  late.labels = {{"app", "web"}};
  ASSERT_TRUE(lab->add_pod(late));
  EXPECT_EQ(connect(*lab, "shop/client", service, 80), Attempt::Connected);
  EXPECT_EQ(connect(*lab, "outside", "10.244.2.9", kPodPort), Attempt::Connected);
  late.name = "lost";
  late.node = "node-3";
  EXPECT_EQ(lab->add_pod(late).error().code, ErrorCode::InvalidArgument);
}

TEST(OneNode, PodReachesItselfThroughItsServiceAndMasqueradeHidesPods) {
  const Scratch scratch;
  auto lab = up(scratch, "services.yaml");
  ASSERT_TRUE(lab) << lab.error().message;
  for (int i = 0; i < 8; ++i)  // each backend in turn is the pod itself
    EXPECT_EQ(connect(*lab, "shop/web-1", "10.96.0.10", 80), Attempt::Connected);
  EXPECT_EQ(connect(*lab, "shop/client", "203.0.113.9", 80), Attempt::Connected);
  const auto listing = lab->exec("node", {"sh", "-c",
                                          "conntrack -L -p tcp 2>/dev/null | grep -q 'src=203.0.113.9 "
                                          "dst=192.0.2.1'"});
  EXPECT_EQ(listing.value_or(-1), 0) << "the answer comes back to the node's address";
}

TEST(OneNode, BridgePodsMayHaveSeveralAddressesOfAFamily) {
  const Scratch scratch;
  auto lab = up(scratch, "bridge.yaml");
  ASSERT_TRUE(lab) << lab.error().message;
  for (const char* from : {"demo/client", "node", "outside"})
    for (const char* to : {"10.244.4.4", "10.244.4.5", "fd00:244:4::4", "fd00:244:4::5"})
      EXPECT_EQ(connect(*lab, from, to, 8080), Attempt::Connected) << from << " -> " << to;
}

TEST(OneNode, MayHaveOneFamilyAlone) {
  const Scratch scratch;
  auto lab = up(scratch, "ipv6.yaml");
  ASSERT_TRUE(lab) << lab.error().message;
  for (const auto& host : lab->hosts())
    for (const auto& address : host.addresses) EXPECT_EQ(address.family, Family::V6) << host.name;
  const std::string service = lab->services().at(0).cluster_ips.at(0).to_string();
  EXPECT_EQ(connect(*lab, "demo/client", service, 80), Attempt::Connected);
  EXPECT_EQ(connect(*lab, "outside", lab->address("demo/server", Family::V6)->to_string(), 8080),
            Attempt::Connected);
}

}  // namespace
}  // namespace tierlog::lab
