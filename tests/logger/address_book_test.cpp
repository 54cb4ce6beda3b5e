// Whose address it was at the time of the verdict.
#include "logger/address_book.h"

#include <gtest/gtest.h>

namespace tierlog::logger {
namespace {

using store::PeerKind;

constexpr auto at = [](int seconds) { return WallTime(std::chrono::seconds(1000 + seconds)); };

policy::Cluster cluster_with(const std::string& pod, const std::string& address) {
  policy::Cluster cluster;
  cluster.endpoints.push_back({.endpoint_namespace = "ns",
                               .name = pod,
                               .labels = {{"app", pod}},
                               .addresses = {*IpAddr::parse(address)},
                               .ports = {},
                               .service_account = {},
                               .workload = pod,
                               .node = {},
                               .interface = {},
                               .mac = {},
                               .bridge = {}});
  return cluster;
}

std::string who(const AddressBook& book, const std::string& address, WallTime when) {
  const store::Peer peer = book.peer(*IpAddr::parse(address), when);
  return std::string(name(peer.kind)) + ":" + peer.name;
}

TEST(AddressBook, AReusedAddressKeepsItsOldHolderForOldVerdicts) {
  AddressBook book;
  book.update(cluster_with("old", "10.0.0.5"), {}, at(0));
  book.update(cluster_with("new", "10.0.0.5"), {}, at(10));
  EXPECT_EQ(who(book, "10.0.0.5", at(9)), "pod:old");
  EXPECT_EQ(who(book, "10.0.0.5", at(10)), "pod:new");
  EXPECT_EQ(who(book, "10.0.0.5", at(99)), "pod:new");
}

TEST(AddressBook, AReleasedAddressIsNobodysUntilItIsGivenAgain) {
  AddressBook book;
  book.update(cluster_with("a", "10.0.0.5"), {}, at(0));
  book.update(policy::Cluster{}, {}, at(10));
  book.update(cluster_with("b", "10.0.0.5"), {}, at(20));
  EXPECT_EQ(who(book, "10.0.0.5", at(5)), "pod:a");
  EXPECT_EQ(who(book, "10.0.0.5", at(15)), "private:");
  EXPECT_EQ(who(book, "10.0.0.5", at(25)), "pod:b");
}

TEST(AddressBook, ChangedLabelsAreANewHolder) {
  AddressBook book;
  policy::Cluster cluster = cluster_with("a", "10.0.0.5");
  book.update(cluster, {}, at(0));
  cluster.endpoints[0].labels["app"] = "changed";
  book.update(cluster, {}, at(10));
  EXPECT_EQ(book.peer(*IpAddr::parse("10.0.0.5"), at(5)).labels.at("app"), "a");
  EXPECT_EQ(book.peer(*IpAddr::parse("10.0.0.5"), at(15)).labels.at("app"), "changed");
}

TEST(AddressBook, AHostNetworkPodDoesNotOwnTheNodesAddress) {
  AddressBook book;
  policy::Cluster cluster = cluster_with("agent", "192.0.2.1");
  cluster.endpoints[0].host_network = true;
  cluster.nodes.push_back({"node-1", {}, {*IpAddr::parse("192.0.2.1")}});
  book.update(cluster, {}, at(0));
  EXPECT_EQ(who(book, "192.0.2.1", at(1)), "node:node-1");
}

struct UnknownCase {
  const char* title;
  const char* address;
  const char* expected;
};

class Unknown : public ::testing::TestWithParam<UnknownCase> {};

TEST_P(Unknown, IsNamedByItsSetOrKind) {
  AddressBook book;
  policy::NetworkSet wide{.set_namespace = {},
                          .name = "wide",
                          .labels = {},
                          .nets = {*Cidr::parse("198.51.0.0/16")},
                          .source = {}};
  policy::NetworkSet narrow{.set_namespace = {},
                            .name = "narrow",
                            .labels = {},
                            .nets = {*Cidr::parse("198.51.100.0/24")},
                            .source = {}};
  book.update(policy::Cluster{}, {wide, narrow}, at(0));
  EXPECT_EQ(who(book, GetParam().address, at(1)), GetParam().expected);
}

INSTANTIATE_TEST_SUITE_P(Table, Unknown,
                         ::testing::Values(UnknownCase{"longest_prefix", "198.51.100.7", "networkset:narrow"},
                                           UnknownCase{"shorter_prefix", "198.51.3.7", "networkset:wide"},
                                           UnknownCase{"rfc1918", "172.31.255.255", "private:"},
                                           UnknownCase{"just_outside", "172.32.0.0", "public:"},
                                           UnknownCase{"shared", "100.64.0.1", "private:"},
                                           UnknownCase{"unique_local", "fd00::1", "private:"},
                                           UnknownCase{"public_v6", "2001:db8::1", "public:"}),
                         [](const auto& param_info) { return std::string(param_info.param.title); });

}  // namespace
}  // namespace tierlog::logger
