// Which pods are taken, which take the place of others, and what is said to the rest.
#include "daemon/admission.h"

#include <gtest/gtest.h>

#include "tests/daemon/fake_host.h"

namespace tierlog::daemon {
namespace {

using store::RegisteredEndpoint;

RegisteredEndpoint pod(const std::string& container, const std::string& interface, const std::string& address,
                       const std::string& netns) {
  return {.container_id = container,
          .ifname = "eth0",
          .endpoint_namespace = "a",
          .name = container,
          .netns = netns,
          .host_interface = interface,
          .addresses = {address},
          .labels = {}};
}

struct AdmissionCase {
  const char* title;
  RegisteredEndpoint fresh;
  std::set<std::string> interfaces;  // that there are
  std::string said;                  // part of the refusal; empty: taken
  std::vector<std::string> superseded = {};
};

// Registered: "old" at veth1 with 10.0.0.5 in /run/netns/1. On another node: a/far with 10.0.9.9.
class AdmissionTest : public ::testing::TestWithParam<AdmissionCase> {};

TEST_P(AdmissionTest, TakesOrSaysWhy) {
  const AdmissionCase& c = GetParam();
  FakeHost host;
  host.interfaces = c.interfaces;
  host.namespaces = {"/run/netns/1"};
  host.own = {*IpAddr::parse("192.0.2.1"), *IpAddr::parse("fd00::1")};
  policy::Endpoint far, here;
  far.endpoint_namespace = here.endpoint_namespace = "a";
  far.name = "far";
  far.node = "node-2";
  far.addresses = {*IpAddr::parse("10.0.9.9")};
  here.name = "planned";
  here.node = "node-1";
  here.addresses = {*IpAddr::parse("10.0.9.1")};
  const auto admitted =
      admit(c.fresh, {pod("old", "veth1", "10.0.0.5", "/run/netns/1")}, {far, here}, "node-1", host);
  if (!c.said.empty()) {
    ASSERT_FALSE(admitted) << c.title;
    EXPECT_NE(admitted.error().message.find(c.said), std::string::npos) << admitted.error().message;
    return;
  }
  ASSERT_TRUE(admitted) << c.title << ": " << admitted.error().message;
  std::vector<std::string> names;
  for (const RegisteredEndpoint& one : *admitted) names.push_back(one.name);
  EXPECT_EQ(names, c.superseded) << c.title;
}

INSTANTIATE_TEST_SUITE_P(
    All, AdmissionTest,
    ::testing::Values(
        AdmissionCase{"another pod", pod("new", "veth2", "10.0.0.6", "/n"), {"veth1", "veth2"}, ""},
        AdmissionCase{"the same again", pod("old", "veth1", "10.0.0.5", "/run/netns/1"), {"veth1"}, "", {"old"}},
        AdmissionCase{"the same elsewhere", pod("old", "veth2", "10.0.0.7", "/n"), {"veth1", "veth2"}, "", {"old"}},
        AdmissionCase{"no such interface", pod("new", "veth9", "10.0.0.6", "/n"), {"veth1"},
                      "interface \"veth9\" is not in the network namespace"},
        AdmissionCase{"a living pod's address", pod("new", "veth2", "10.0.0.5", "/n"), {"veth1", "veth2"},
                      "address 10.0.0.5 is that of a/old (container old)"},
        AdmissionCase{"a gone pod's address", pod("new", "veth2", "10.0.0.5", "/n"), {"veth2"}, "", {"old"}},
        AdmissionCase{"a living pod's interface", pod("new", "veth1", "10.0.0.6", "/n"), {"veth1"},
                      "interface veth1 is that of a/old"},
        AdmissionCase{"another container in the same namespace", pod("new", "veth1", "10.0.0.5", "/run/netns/1"),
                      {"veth1"}, "", {"old"}},
        AdmissionCase{"a pod's address on another node", pod("new", "veth2", "10.0.9.9", "/n"), {"veth2"},
                      "address 10.0.9.9 is that of a/far on node node-2"},
        AdmissionCase{"an address planned for a pod here", pod("new", "veth2", "10.0.9.1", "/n"), {"veth2"}, ""},
        AdmissionCase{"the node's", pod("new", "veth2", "192.0.2.1", "/n"), {"veth2"}, "an address of this node"},
        AdmissionCase{"the node's, written otherwise", pod("new", "veth2", "fd00:0::0:1", "/n"), {"veth2"},
                      "an address of this node"},
        AdmissionCase{"loopback", pod("new", "veth2", "127.0.0.1", "/n"), {"veth2"}, "a loopback address"},
        AdmissionCase{"loopback of IPv6", pod("new", "veth2", "::1", "/n"), {"veth2"}, "the loopback address"},
        AdmissionCase{"no address", pod("new", "veth2", "0.0.0.0", "/n"), {"veth2"}, "no host's address"},
        AdmissionCase{"no address of IPv6", pod("new", "veth2", "::", "/n"), {"veth2"}, "no host's address"},
        AdmissionCase{"multicast", pod("new", "veth2", "224.0.0.5", "/n"), {"veth2"}, "a multicast address"},
        AdmissionCase{"multicast of IPv6", pod("new", "veth2", "ff02::1", "/n"), {"veth2"}, "a multicast address"},
        AdmissionCase{"broadcast", pod("new", "veth2", "255.255.255.255", "/n"), {"veth2"}, "the broadcast address"},
        AdmissionCase{"mapped", pod("new", "veth2", "::ffff:10.0.0.6", "/n"), {"veth2"}, "IPv4 address in IPv6"}));

}  // namespace
}  // namespace tierlog::daemon
