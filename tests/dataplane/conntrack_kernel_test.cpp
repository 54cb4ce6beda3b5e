// The connection table of a network namespace of the test's own, with real packets over its loopback:
// labels, translated addresses, counters at the end, and what is told when too much ends at once.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "dataplane/conntrack.h"

namespace tierlog::dataplane {
namespace {

constexpr std::uint16_t kServerPort = 7100;
constexpr const char* kLabelled =
    "table inet t { chain o { type filter hook output priority 0; ct state new ct label set 5;\n}\n}\n";

void run_nft(const std::string& text) {
  FILE* nft = ::popen("nft -f -", "w");
  ASSERT_NE(nft, nullptr);
  std::fputs(text.c_str(), nft);
  ASSERT_EQ(::pclose(nft), 0) << text;
}

void write_switch(const std::string& name, const std::string& value) {
  std::ofstream("/proc/sys/net/netfilter/" + name) << value;
}

std::string read_switch(const std::string& name) {
  std::string value;
  std::ifstream("/proc/sys/net/netfilter/" + name) >> value;
  return value;
}

// A UDP socket on loopback of either family.
class Udp {
 public:
  explicit Udp(Family family, std::uint16_t port = 0) : family_(family) {
    socket_ = Fd(::socket(family == Family::V4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (port != 0) {
      sockaddr_storage address = loopback(port);
      EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0)
          << std::strerror(errno);
    }
    const timeval limit{2, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  void send(std::uint16_t port, const std::string& text) {
    sockaddr_storage address = loopback(port);
    EXPECT_EQ(::sendto(socket_.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&address),
                       sizeof address),
              static_cast<ssize_t>(text.size()))
        << std::strerror(errno);
  }
  // Receives one datagram and sends `answer` back to where it came from.
  void answer(const std::string& answer) {
    char text[2048];
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    ASSERT_GE(::recvfrom(socket_.get(), text, sizeof text, 0, reinterpret_cast<sockaddr*>(&from), &size), 0);
    ASSERT_EQ(
        ::sendto(socket_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size),
        static_cast<ssize_t>(answer.size()));
  }
  std::uint16_t port() const {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    return ntohs(reinterpret_cast<sockaddr_in*>(&address)->sin_port);
  }

 private:
  sockaddr_storage loopback(std::uint16_t port) const {
    sockaddr_storage storage{};
    if (family_ == Family::V4) {
      auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
      *v4 = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {}};
    } else {
      auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
      v6->sin6_family = AF_INET6;
      v6->sin6_port = htons(port);
      v6->sin6_addr = in6addr_loopback;
    }
    return storage;
  }
  Family family_;
  Fd socket_;
};

class ConntrackKernel : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNET) != 0)
      GTEST_SKIP() << "needs CAP_SYS_ADMIN (network namespaces): " << std::strerror(errno);
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "lo");
    request.ifr_flags = IFF_UP;
    ASSERT_EQ(::ioctl(socket.get(), SIOCSIFFLAGS, &request), 0);
  }

  std::unique_ptr<Conntrack> open(const ConntrackOptions& options = {}) {
    auto opened = Conntrack::open(options);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }

  static std::vector<Connection> dump(Conntrack& conntrack) {
    std::vector<Connection> all;
    const auto done = conntrack.dump([&](const Connection& connection) { all.push_back(connection); });
    EXPECT_TRUE(done) << done.error().message;
    return all;
  }

  static std::optional<Connection> find(Conntrack& conntrack, std::uint16_t source_port) {
    for (const Connection& connection : dump(conntrack))
      if (connection.original.source_port == source_port) return connection;
    return std::nullopt;
  }

  static std::vector<Connection> ended(Conntrack& conntrack) {
    std::vector<Connection> all;
    for (bool more = true; more;) more = *conntrack.drain(all, 1000);
    return all;
  }
};

TEST_F(ConntrackKernel, SetsItsSwitchesTellsAndRepairsThem) {
  write_switch("nf_conntrack_acct", "0");
  write_switch("nf_conntrack_events", "2");
  const auto conntrack = open();
  ASSERT_EQ(conntrack->changed().size(), 3u);
  EXPECT_EQ(conntrack->changed()[0].name, "net.netfilter.nf_conntrack_acct");
  EXPECT_EQ(conntrack->changed()[0].was, "0");
  EXPECT_EQ(conntrack->changed()[0].problem, "");
  EXPECT_EQ(read_switch("nf_conntrack_acct"), "1");
  EXPECT_EQ(read_switch("nf_conntrack_events"), "1");
  EXPECT_TRUE(conntrack->verify().empty());
  write_switch("nf_conntrack_events", "0");
  const auto repaired = conntrack->verify();
  ASSERT_EQ(repaired.size(), 1u);
  EXPECT_EQ(repaired[0].name, "net.netfilter.nf_conntrack_events");
  EXPECT_EQ(read_switch("nf_conntrack_events"), "1");
}

TEST_F(ConntrackKernel, LabelsAreWrittenReadBackAndReplacedExactly) {
  const auto conntrack = open();
  run_nft(kLabelled);
  for (const Family family : {Family::V4, Family::V6}) {
    Udp server(family, kServerPort);
    Udp client(family);
    client.send(kServerPort, "x");
    const auto made = find(*conntrack, client.port());
    ASSERT_TRUE(made);
    EXPECT_EQ(made->labels, (ConnectionLabels{RuleId{32}, {}, 0})) << "bit 5, by the rule";
    const ConnectionLabels wanted{RuleId{0x80000201}, RuleId{0x204}, kLabelCut};
    EXPECT_EQ(*conntrack->set_labels(*made, wanted), LabelResult::Written);
    EXPECT_EQ(find(*conntrack, client.port())->labels, wanted) << "no bit of the old word is left";
    EXPECT_EQ(*conntrack->set_labels(*made, {}), LabelResult::Written);
    EXPECT_EQ(find(*conntrack, client.port())->labels, ConnectionLabels{});
  }
}

TEST_F(ConntrackKernel, AnEntryOlderThanTheFirstLabelRuleHasNoSpace) {
  const auto conntrack = open();
  run_nft("table inet a { chain o { type filter hook output priority 0; ct state new counter;\n}\n}\n");
  Udp server(Family::V4, kServerPort);
  Udp client(Family::V4);
  client.send(kServerPort, "x");
  const auto made = find(*conntrack, client.port());
  ASSERT_TRUE(made);
  EXPECT_FALSE(made->has_labels);
  run_nft(kLabelled);
  EXPECT_EQ(*conntrack->set_labels(*made, {RuleId{1}, {}, 0}), LabelResult::NoSpace);
  ASSERT_TRUE(*conntrack->remove(*made));
  EXPECT_EQ(*conntrack->set_labels(*made, {RuleId{1}, {}, 0}), LabelResult::Gone);
}

TEST_F(ConntrackKernel, TranslatedConnectionsAreSeenFromTheRealClientToTheRealServer) {
  const auto conntrack = open();
  run_nft(
      "table inet n { chain o { type nat hook output priority -100; udp dport 7999 dnat ip to "
      "127.0.0.1:7100;\n}\n}\n");
  Udp server(Family::V4, kServerPort);
  Udp client(Family::V4);
  client.send(7999, "x");
  server.answer("yy");
  const auto made = find(*conntrack, client.port());
  ASSERT_TRUE(made);
  EXPECT_EQ(made->original.destination_port, 7999);
  EXPECT_EQ(made->reply.source_port, kServerPort);
  const ConnectionTuple view = forward_view(*made);
  EXPECT_EQ(view.source_port, client.port());
  EXPECT_EQ(view.destination_port, kServerPort);
  EXPECT_EQ(view.destination.to_string(), "127.0.0.1");
}

TEST_F(ConntrackKernel, TheEndTellsTheCountersOfBothDirections) {
  const auto conntrack = open();
  run_nft(kLabelled);
  Udp server(Family::V6, kServerPort);
  Udp client(Family::V6);
  client.send(kServerPort, std::string(100, 'x'));
  server.answer(std::string(200, 'y'));
  client.send(kServerPort, std::string(10, 'z'));
  const auto made = find(*conntrack, client.port());
  ASSERT_TRUE(made);
  EXPECT_TRUE(ended(*conntrack).empty()) << "beginnings are not told";
  ASSERT_TRUE(*conntrack->remove(*made));
  EXPECT_FALSE(*conntrack->remove(*made)) << "gone";
  const auto told = ended(*conntrack);
  ASSERT_EQ(told.size(), 1u);
  constexpr std::uint64_t kHeaders = 40 + 8;
  EXPECT_EQ(told[0].original, made->original);
  EXPECT_EQ(told[0].id, made->id);
  EXPECT_EQ(told[0].packets_out, 2u);
  EXPECT_EQ(told[0].bytes_out, 110 + 2 * kHeaders);
  EXPECT_EQ(told[0].packets_in, 1u);
  EXPECT_EQ(told[0].bytes_in, 200 + kHeaders);
  ASSERT_TRUE(told[0].started && told[0].ended);
  EXPECT_LE(*told[0].started, *told[0].ended);
}

TEST_F(ConntrackKernel, RemovalMeansThisEntryAndNotItsSuccessor) {
  const auto conntrack = open();
  run_nft(kLabelled);
  Udp server(Family::V4, kServerPort);
  Udp client(Family::V4);
  client.send(kServerPort, "x");
  auto made = find(*conntrack, client.port());
  ASSERT_TRUE(made);
  Connection other = *made;
  other.id ^= 0x10;
  EXPECT_FALSE(*conntrack->remove(other));
  EXPECT_TRUE(find(*conntrack, client.port()));
}

TEST_F(ConntrackKernel, WhatDoesNotFitTheBufferIsCounted) {
  const auto conntrack = open({.receive_bytes = 2048});
  run_nft(kLabelled);
  Udp client(Family::V4);
  constexpr int kMany = 100;
  for (int i = 0; i < kMany; ++i) client.send(static_cast<std::uint16_t>(20000 + i), "x");
  for (const Connection& connection : dump(*conntrack)) EXPECT_TRUE(*conntrack->remove(connection));
  const auto told = ended(*conntrack);
  EXPECT_LT(told.size(), static_cast<std::size_t>(kMany));
  EXPECT_GE(conntrack->loss().overruns, 1u);
  EXPECT_EQ(conntrack->loss().undecodable, 0u);
  client.send(20000, "x");
  for (const Connection& connection : dump(*conntrack)) EXPECT_TRUE(*conntrack->remove(connection));
  EXPECT_GE(ended(*conntrack).size(), 1u) << "and it goes on";
}

}  // namespace
}  // namespace tierlog::dataplane
