#include "cli/format.h"

#include <gtest/gtest.h>

#include "query/names.h"

namespace tierlog::cli {
namespace {

TEST(Numbers, AsPeopleReadThem) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1'204'332), "1,204,332");
  EXPECT_EQ(short_count(999), "999");
  EXPECT_EQ(short_count(1'200), "1.2 k");
  EXPECT_EQ(short_count(19'200'000), "19.2 M");
  EXPECT_EQ(bytes_text(960), "960 B");
  EXPECT_EQ(bytes_text(2'040'109'466), "1.9 GiB");
  EXPECT_EQ(counted(1, "policy"), "1 policy");
  EXPECT_EQ(counted(1204, "policy"), "1,204 policies");
  EXPECT_EQ(counted(0, "flow"), "0 flows");
}

TEST(Ages, NeverBeforeNow) {
  const WallTime now = from_ns(1'000'000'000'000);
  EXPECT_EQ(ago(now - std::chrono::seconds(3), now), "3 s ago");
  EXPECT_EQ(ago(std::nullopt, now), "never");
  EXPECT_EQ(ago(now + std::chrono::seconds(3), now), "just now");
}

store::Peer peer(store::PeerKind kind, const char* ns, const char* name) {
  return {*IpAddr::parse("203.0.113.9"), kind, ns, name, "", {}};
}

TEST(Peers, SayWhatTheyAre) {
  EXPECT_EQ(peer_text(peer(store::PeerKind::Pod, "tenant-01", "db")), "tenant-01/db");
  EXPECT_EQ(peer_text(peer(store::PeerKind::Node, "", "n1")), "node n1");
  EXPECT_EQ(peer_text(peer(store::PeerKind::NetworkSet, "", "cdn")), "set cdn 203.0.113.9");
  EXPECT_EQ(peer_text(peer(store::PeerKind::NetworkSet, "a", "cdn")), "set a/cdn 203.0.113.9");
  EXPECT_EQ(peer_text(peer(store::PeerKind::Public, "", "")), "outside 203.0.113.9");
  EXPECT_EQ(peer_text(peer(store::PeerKind::Private, "", "")), "outside 203.0.113.9");
}

struct PortCase {
  const char* name;
  std::uint8_t proto;
  std::optional<std::uint16_t> port;
  std::optional<std::uint8_t> type, code;
  const char* expected;
};

class Ports : public testing::TestWithParam<PortCase> {};

TEST_P(Ports, SayProtocolToo) {
  const PortCase& c = GetParam();
  EXPECT_EQ(port_text(c.proto, c.port, c.type, c.code), c.expected);
}

INSTANTIATE_TEST_SUITE_P(Protocols, Ports,
                         testing::Values(PortCase{"tcp", 6, 5432, {}, {}, "5432/tcp"},
                                         PortCase{"no_port", 17, {}, {}, {}, "udp"},
                                         PortCase{"ping", 1, {}, 8, 0, "icmp echo-request"},
                                         PortCase{"ping6", 58, {}, 128, 0, "icmpv6 echo-request"},
                                         PortCase{"pong", 1, {}, 0, 0, "icmp echo-reply"},
                                         PortCase{"unreachable", 1, {}, 3, 1, "icmp type 3 code 1"},
                                         PortCase{"gre", 47, {}, {}, {}, "protocol 47"}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Rules, AreNamedAsUsersCount) {
  EXPECT_EQ(rule_text(Direction::Ingress, 2, "policy"), "ingress[2]");
  EXPECT_EQ(rule_text(Direction::Egress, 0, "policy"), "egress[0]");
  EXPECT_EQ(rule_text(Direction::Ingress, -1, "end-of-tier"), "end-of-tier");
  EXPECT_EQ(rule_text(Direction::Ingress, std::nullopt, "no-policy"), "no-policy");
}

TEST(Policies, UnderATierAreShort) {
  EXPECT_EQ(under_tier("platform/tenant-01/restrict"), "tenant-01/restrict");
  EXPECT_EQ(under_tier("security//quarantine"), "/quarantine");
}

TEST(Policies, NearestIsFoundByEveryForm) {
  const std::vector<std::string> known = {"security//quarantine", "platform/tenant-01/tenant-01-restrict"};
  EXPECT_EQ(query::nearest_policy("tenat-01-restrict", known), known[1]);
  EXPECT_EQ(query::nearest_policy("tenant-01/tenant-01-restrit", known), known[1]);
  EXPECT_EQ(query::nearest_policy("quarantne", known), known[0]);
  EXPECT_EQ(query::nearest_policy("something-else-entirely", known), "");
}

}  // namespace
}  // namespace tierlog::cli
