// Packets that belong to no connection: an ICMP answer that nobody asked for. They are judged as any other, one
// by one, and each is told by both rules.
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/handle.h"
#include "lab/socket_address.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

constexpr int kSent = 7;
constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"]}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"]}
)";

std::string policy(const std::string& action) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: a}\n"
         "spec:\n  selector: projectcalico.org/name == 'db'\n  types: [Ingress]\n  ingress:\n  - {action: " +
         action + ", protocol: ICMP}\n  - {action: " + action + ", protocol: ICMPv6}\n";
}

int answer_unasked(const IpAddr& to) {
  const bool v4 = to.family == Family::V4;
  const Fd socket(::socket(v4 ? AF_INET : AF_INET6, SOCK_RAW, v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6}));
  std::array<std::uint8_t, 8> reply{};  // the kernel fills the checksum of ICMPv6
  reply[0] = v4 ? 0 : 129;
  if (v4) reply[2] = reply[3] = 0xff;
  const lab::SocketAddress peer(to, 0);
  for (int i = 0; i < kSent; ++i)
    if (::sendto(socket.get(), reply.data(), reply.size(), 0, peer.get(), peer.size()) < 0) return 1;
  return 0;
}

class Stateless : public LiveNode, public ::testing::WithParamInterface<const char*> {};

TEST_P(Stateless, IsCountedAndToldPacketByPacket) {
  const std::string action = GetParam();
  start(kTopology, policy(action));
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6}) {
    const IpAddr to = *lab_->address("a/db", family);
    ASSERT_EQ(lab_->run_in("a/web", [&] { return answer_unasked(to); }).value_or(1), 0);
  }
  std::uint64_t ingress = 0, egress = 0;
  for (const store::RuleActivity& rule : rules()) {
    if (rule.rule.policy == "default/a/db") ingress += rule.kernel_packets;
    if (rule.rule.reason == "no-policy" && rule.rule.direction == Direction::Egress) egress += rule.kernel_packets;
    EXPECT_EQ(rule.kernel_packets, rule.recorded_packets) << rule.rule.policy << " " << rule.rule.reason;
    EXPECT_EQ(rule.unattributed, 0u) << rule.rule.policy << " " << rule.rule.reason;
  }
  EXPECT_EQ(ingress, 2u * kSent);
  EXPECT_EQ(egress, 2u * kSent);
  std::uint64_t told = 0;
  const Index index = Index::read(lab_->database());
  for (const store::FlowRecord& record : index.records()) {
    EXPECT_TRUE(record.src.name == "web" || record.src.name == "db" || record.dst.name == "web" || record.dst.name == "db")
        << record.src.ip.to_string() << " to " << record.dst.ip.to_string() << ": nobody here judged it";
    if (record.policy != "default/a/db") continue;
    told += record.verdict_packets;
    EXPECT_EQ(name(record.action), action == "Allow" ? "allow" : "deny");
    EXPECT_EQ(record.src.name, "web");
    EXPECT_EQ(record.icmp_type, record.src.ip.family == Family::V4 ? 0 : 129);
    if (action == "Allow") {
      EXPECT_EQ(record.ct_state, "untracked");
    }
  }
  EXPECT_EQ(told, 2u * kSent);
}

// IP that says UDP and has no room for ports.
int send_cut_off(const IpAddr& to) {
  const Fd socket(::socket(to.family == Family::V4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_UDP));
  const lab::SocketAddress peer(to, 0);
  for (int i = 0; i < kSent; ++i)
    if (::sendto(socket.get(), "abc", static_cast<std::size_t>(i % 4), 0, peer.get(), peer.size()) < 0) return 1;
  return 0;
}

TEST_P(Stateless, WhatIsTooShortForAFlowIsDroppedAndDeclared) {
  start(kTopology, policy(GetParam()));
  if (!lab_) return;
  for (const Family family : {Family::V4, Family::V6}) {
    const IpAddr to = *lab_->address("a/db", family);
    ASSERT_EQ(lab_->run_in("a/web", [&] { return send_cut_off(to); }).value_or(1), 0);
  }
  std::uint64_t invalid = 0;
  ASSERT_TRUE(becomes([&] {
    invalid = 0;
    std::uint64_t missing = 0;
    for (const store::RuleActivity& rule : rules()) {
      if (rule.rule.reason == "invalid" && rule.rule.direction == Direction::Egress) invalid = rule.kernel_packets;
      missing += rule.kernel_packets - std::min(rule.kernel_packets, rule.recorded_packets + rule.unattributed);
    }
    return invalid == 2u * kSent && missing == 0;
  })) << invalid;
}

INSTANTIATE_TEST_SUITE_P(Table, Stateless, ::testing::Values("Allow", "Deny"),
                         [](const auto& param_info) { return std::string(param_info.param); });

}  // namespace
}  // namespace tierlog::testing
