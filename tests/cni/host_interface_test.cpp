// Which interface of the host is taken for the pod's other end.
#include "cni/host_interface.h"

#include <gtest/gtest.h>

#include <map>

namespace tierlog::cni {
namespace {

class FakeLinks final : public Links {
 public:
  std::map<std::string, Link> host;
  std::optional<unsigned> container;

  std::optional<Link> on_host(const std::string& name) const override {
    const auto found = host.find(name);
    return found == host.end() ? std::nullopt : std::optional(found->second);
  }
  std::string mac_in_container(const std::string&, const std::string&) const override { return {}; }
  std::optional<unsigned> in_container(const std::string&, const std::string&) const override {
    return container;
  }
};

using Interfaces = std::vector<PreviousResult::Interface>;

struct Scene {
  const char* name;
  Interfaces interfaces;
  std::map<std::string, Links::Link> host;
  std::optional<unsigned> container;
  const char* expected;  // empty: refused
};

void PrintTo(const Scene& scene, std::ostream* out) {
  *out << scene.name;
}

class HostInterface : public testing::TestWithParam<Scene> {};

TEST_P(HostInterface, IsThePeerOfThePods) {
  FakeLinks links;
  links.host = GetParam().host;
  links.container = GetParam().container;
  const PreviousResult previous{GetParam().interfaces, {}, {}};
  const auto found = host_interface(previous, {"ADD", "c", "/run/netns/p", "eth0", {}}, links);
  EXPECT_EQ(found.value_or(""), GetParam().expected);
  if (!found) {
    EXPECT_EQ(found.error().code, Code::InvalidConfiguration);
  }
}

const Interfaces kPtp{{"veth1", ""}, {"eth0", "/run/netns/p"}};
const Interfaces kBridge{{"br0", ""}, {"veth1", ""}, {"eth0", "/run/netns/p"}};
const Interfaces kTwoPairs{{"veth1", ""}, {"veth2", ""}, {"eth0", "/run/netns/p"}, {"net1", "/run/netns/p"}};

INSTANTIATE_TEST_SUITE_P(
    Cni, HostInterface,
    testing::Values(
        Scene{"ptp", kPtp, {{"veth1", {7, 3, false}}}, 3, "veth1"},
        Scene{"ptp_unknown_to_the_kernel", kPtp, {}, std::nullopt, "veth1"},
        Scene{"bridge", kBridge, {{"br0", {3, 3, true}}, {"veth1", {7, 3, false}}}, 3, "veth1"},
        Scene{"bridge_with_the_pods_index",
              kBridge,
              {{"br0", {2, 2, true}}, {"veth1", {7, 2, false}}},
              2,
              "veth1"},
        Scene{"bridge_container_unreadable",
              kBridge,
              {{"br0", {3, 3, true}}, {"veth1", {7, 3, false}}},
              std::nullopt,
              "veth1"},
        Scene{"two_pairs", kTwoPairs, {{"veth1", {7, 4, false}}, {"veth2", {8, 2, false}}}, 2, "veth2"},
        Scene{"two_pairs_container_unreadable",
              kTwoPairs,
              {{"veth1", {7, 4, false}}, {"veth2", {8, 2, false}}},
              std::nullopt,
              ""},
        Scene{"none", {{"eth0", "/run/netns/p"}}, {}, 2, ""},
        Scene{"only_a_bridge", {{"br0", ""}, {"eth0", "/run/netns/p"}}, {{"br0", {2, 2, true}}}, 2, ""}),
    [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace tierlog::cni
