// The node's metrics beside who else knows: ss, ip, nstat, nft's counters, and known traffic, in a network
// namespace of the test's own (each test is a process, which takes it along when it ends).
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/handle.h"
#include "exporters/prometheus/node/events.h"
#include "exporters/prometheus/node/links.h"
#include "exporters/prometheus/node/node_source.h"
#include "exporters/prometheus/node/proc.h"
#include "exporters/prometheus/node/sockets.h"
#include "tests/prometheus/programs.h"
#include "tests/prometheus/samples.h"

namespace tierlog::prometheus {
namespace {

using testing::Labels;
using testing::run_shell;
using testing::Samples;

std::string out_of(const std::string& command) {
  const auto told = run_shell(command);
  EXPECT_EQ(told.code, 0) << command << "\n" << told.text;
  return told.text;
}

// A connection to itself, by loopback.
struct Pair {
  Fd listener, client, server;
};

sockaddr_in6 loopback(int family, std::uint16_t port) {
  sockaddr_in6 address{};
  if (family == AF_INET6) {
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    address.sin6_addr = in6addr_loopback;
    return address;
  }
  auto& v4 = reinterpret_cast<sockaddr_in&>(address);
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

Fd listen_at(int family, std::uint16_t port) {
  Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const auto address = loopback(family, port);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(socket.get(), 64), 0);
  return socket;
}

Fd connect_to(int family, std::uint16_t port) {
  Fd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto address = loopback(family, port);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return socket;
}

void send_datagrams(std::uint16_t port, int count) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address = loopback(AF_INET, port);
  for (int i = 0; i < count; ++i)
    ::sendto(socket.get(), "0123456789", 10, 0, reinterpret_cast<const sockaddr*>(&address),
             sizeof(sockaddr_in));
}

class NodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    ASSERT_EQ(run_shell("ip link set lo up").code, 0);
    alone_ = true;
  }
  bool alone_ = false;
};

// ss's names of states by ours.
std::map<std::string, std::uint64_t> states_by_ss() {
  std::map<std::string, std::uint64_t> states;
  std::istringstream lines(out_of("ss -Hant"));
  for (std::string line; std::getline(lines, line);) {
    std::string state = line.substr(0, line.find(' '));
    if (state == "ESTAB") state = "ESTABLISHED";
    if (state == "UNCONN") state = "CLOSE";
    for (char& c : state) c = c == '-' ? '_' : c;
    if (state.starts_with("FIN_WAIT_")) state.erase(8, 1);
    ++states[state];
  }
  return states;
}

template <typename Condition>
bool becomes(const Condition& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

// Empty: the same as ss says. Acknowledgements take their time, and states change between the two readings.
std::string difference_from_ss() {
  const auto counts = count_sockets();
  if (!counts) return counts.error().message;
  auto expected = states_by_ss();
  std::string text;
  for (std::size_t i = 0; i < kTcpStates.size(); ++i) {
    const std::uint64_t other = expected[std::string(kTcpStates[i])];
    if (counts->tcp[i] != other)
      text += std::string(kTcpStates[i]) + " " + std::to_string(counts->tcp[i]) +
              ", ss: " + std::to_string(other) + "\n";
  }
  return text;
}

void expect_states_of_ss() {
  EXPECT_TRUE(becomes([] { return difference_from_ss().empty(); })) << difference_from_ss();
}

TEST_F(NodeTest, SocketsAreWhatSsLists) {
  if (!alone_) return;
  const Fd v4 = listen_at(AF_INET, 7000), v6 = listen_at(AF_INET6, 7001);
  std::vector<Fd> sockets;
  for (int i = 0; i < 20; ++i) {
    sockets.push_back(connect_to(AF_INET, 7000));
    sockets.emplace_back(::accept(v4.get(), nullptr, nullptr));
  }
  for (int i = 0; i < 7; ++i) sockets.push_back(connect_to(AF_INET6, 7001));
  for (int i = 0; i < 6; ++i) ::shutdown(sockets[static_cast<std::size_t>(i) * 2].get(), SHUT_WR);
  const Fd datagrams(::socket(AF_INET6, SOCK_DGRAM, 0));
  const auto any = loopback(AF_INET6, 7002);
  ASSERT_EQ(::bind(datagrams.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
  expect_states_of_ss();
  auto counts = count_sockets();
  EXPECT_GE(counts->tcp[0], 40u) << "there is something to compare";
  EXPECT_EQ(counts->tcp[9], 2u);
  EXPECT_EQ(counts->udp, 1u);
  EXPECT_EQ(counts->udp, static_cast<std::uint64_t>(std::stoi(out_of("ss -Hanu | wc -l"))));
  EXPECT_EQ((counts->remotes[{*IpAddr::parse("127.0.0.1"), 7000}]), 20u);
  EXPECT_EQ((counts->remotes[{*IpAddr::parse("::1"), 7001}]), 7u);
  sockets.clear();
  expect_states_of_ss();
  counts = count_sockets();
  EXPECT_EQ(counts->tcp[0], 0u) << "what is gone counts 0";
}

TEST_F(NodeTest, InterfacesAreWhatIpLists) {
  if (!alone_) return;
  out_of(
      "ip link add va type veth peer name vb && ip link set va up && ip link set vb up && ip addr add "
      "10.5.0.1/24 dev va"
      " && ip route add default via 10.5.0.2 dev va && ip neigh add 10.5.0.2 lladdr 02:00:00:00:00:01 dev "
      "va");
  send_datagrams(9, 50);
  out_of("ping -c 3 -W 1 -i 0.2 10.5.0.2 >/dev/null || true");
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto statistics_of = [](const auto& links) {
    std::map<std::string, std::map<std::string, std::uint64_t>> all;
    for (const Link& link : *links) all[link.name] = {link.statistics.begin(), link.statistics.end()};
    return all;
  };
  auto links = read_links();
  ASSERT_TRUE(links) << links.error().message;
  nlohmann::json json;
  // The kernel solicits routers and neighbours by itself: both must have read the same moment.
  for (int attempt = 0; attempt < 100; ++attempt) {
    const auto earlier = statistics_of(links);
    json = nlohmann::json::parse(out_of("ip -s -s -j link"));
    links = read_links();
    ASSERT_TRUE(links) << links.error().message;
    if (statistics_of(links) == earlier) break;
  }
  ASSERT_EQ(links->size(), json.size());
  for (const auto& one : json) {
    const auto link =
        std::find_if(links->begin(), links->end(), [&](const Link& l) { return l.name == one["ifname"]; });
    ASSERT_NE(link, links->end());
    std::map<std::string, std::uint64_t> statistics(link->statistics.begin(), link->statistics.end());
    for (const char* way : {"rx", "tx"})
      for (const char* what : {"packets", "bytes", "errors", "dropped"})
        EXPECT_EQ(statistics[std::string(way) + "_" + what], one["stats64"][way][what].get<std::uint64_t>())
            << link->name << " " << way << " " << what;
    EXPECT_EQ(link->default_route, link->name == "va");
    EXPECT_EQ(link->loopback, link->name == "lo");
  }
  const auto driver = driver_statistics("va");
  EXPECT_FALSE(driver.empty());
  EXPECT_EQ(driver.front().first, "peer_ifindex");
  EXPECT_EQ(driver.front().second, ::if_nametoindex("vb"));
  EXPECT_TRUE(driver_statistics("nothing-here").empty());
}

TEST_F(NodeTest, ProtocolsAreWhatNstatLists) {
  if (!alone_) return;
  const auto value = [](const Statistics& list, const std::string& name) {
    for (const auto& [one, count] : list)
      if (one == name) return count;
    return ~std::uint64_t{0};
  };
  const Protocols before = read_protocols();
  const Fd listener = listen_at(AF_INET, 7000);
  for (int i = 0; i < 9; ++i) connect_to(AF_INET, 7000);
  send_datagrams(9, 30);
  std::map<std::string, std::uint64_t> nstat;
  Protocols now;
  // The connections' last acknowledgements come some time after: both must have read the same moment.
  for (int attempt = 0; attempt < 100; ++attempt) {
    const Protocols earlier = read_protocols();
    std::istringstream lines(out_of("nstat -asz"));
    for (std::string name, count, rate; lines >> name;) {
      if (name == "#kernel") continue;
      lines >> count >> rate;
      nstat[name] = std::stoull(count);
    }
    now = read_protocols();
    if (now.tcp == earlier.tcp && now.ip == earlier.ip && now.udp == earlier.udp) break;
  }
  EXPECT_EQ(value(now.tcp, "ActiveOpens"), value(before.tcp, "ActiveOpens") + 9);
  EXPECT_EQ(value(now.udp, "NoPorts"), value(before.udp, "NoPorts") + 30);
  EXPECT_GT(nstat.size(), 100u);
  for (const auto& [list, prefix] :
       {std::pair{&now.tcp, "Tcp"}, std::pair{&now.ip, "Ip"}, std::pair{&now.udp, "Udp"}})
    for (const auto& [name, count] : *list) {
      const bool v6 = name.starts_with("Ip6") || name.starts_with("Udp6");
      const std::string plain = v6 ? name : prefix + name, extended = std::string(prefix) + "Ext" + name;
      const auto found = nstat.contains(plain) ? nstat.find(plain) : nstat.find(extended);
      if (found != nstat.end()) {
        EXPECT_EQ(count, found->second) << name;
      }
    }
}

struct Text {
  const char* title;
  const char* snmp;
  std::size_t tcp, udp;
};
class ProcTexts : public ::testing::TestWithParam<Text> {};
TEST_P(ProcTexts, AreReadAsFarAsTheyGo) {
  const Protocols read = parse_protocols(GetParam().snmp, "", "Ip6InReceives 5\nUdp6NoPorts x\n");
  EXPECT_EQ(read.tcp.size(), GetParam().tcp);
  EXPECT_EQ(read.udp.size(), GetParam().udp);
  EXPECT_EQ(read.ip.size(), 1u);
}
INSTANTIATE_TEST_SUITE_P(
    Prometheus, ProcTexts,
    ::testing::Values(Text{"Whole", "Tcp: RtoMin ActiveOpens InSegs\nTcp: 200 3 4\nUdp: NoPorts\nUdp: 7\n", 2,
                           1},
                      Text{"Negative", "Tcp: MaxConn ActiveOpens\nTcp: -1 3\n", 1, 0},
                      Text{"Cut", "Tcp: ActiveOpens InSegs\nTcp: 3\n", 0, 0},
                      Text{"Odd", "Tcp: ActiveOpens\n", 0, 0}, Text{"Empty", "", 0, 0},
                      Text{"Garbage", "\n\n\xff\xfe : :\n", 0, 0}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

class EventsTest : public NodeTest {
 protected:
  void SetUp() override {
    NodeTest::SetUp();
    if (!alone_) return;
    if (::access("/sys/kernel/btf/vmlinux", R_OK) != 0)
      GTEST_SKIP() << "needs a kernel that describes its types (/sys/kernel/btf/vmlinux)";
    auto opened = KernelEvents::open();
    ASSERT_TRUE(opened) << opened.error().message;
    events_ = std::move(*opened);
  }
  std::uint64_t drops(const std::string& reason) const {
    std::uint64_t packets = 0;
    for (const Drop& drop : events_->drops())
      if (drop.reason == reason) packets += drop.packets;
    return packets;
  }
  // Packets of the counter in the first rule that has one.
  static std::uint64_t counter() {
    const auto json = nlohmann::json::parse(out_of("nft -j list table inet t"));
    for (const auto& one : json["nftables"])
      if (one.contains("rule"))
        for (const auto& expression : one["rule"]["expr"])
          if (expression.contains("counter")) return expression["counter"]["packets"].get<std::uint64_t>();
    return 0;
  }
  std::unique_ptr<KernelEvents> events_;
};

TEST_F(EventsTest, DropsHaveTheKernelsReasons) {
  if (!events_) return;
  ASSERT_TRUE(events_->has_drops());
  const std::uint64_t before = drops("NO_SOCKET");
  send_datagrams(9, 40);
  EXPECT_EQ(drops("NO_SOCKET"), before + 40);
  std::uint64_t bytes = 0;
  for (const Drop& drop : events_->drops())
    if (drop.reason == "NO_SOCKET") bytes += drop.bytes;
  EXPECT_GE(bytes, 40u * 10);
  // Another namespace's are not this node's.
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNET) != 0 || run_shell("ip link set lo up").code != 0) ::_exit(1);
    send_datagrams(9, 40);
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(drops("NO_SOCKET"), before + 40);
}

TEST_F(EventsTest, WhatNetfilterDropsIsWhatItsCounterCounts) {
  if (!events_) return;
  out_of(
      "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; };"
      " add rule inet t in udp dport 5 counter drop'");
  send_datagrams(5, 25);
  EXPECT_EQ(counter(), 25u);
  EXPECT_EQ(drops("NETFILTER_DROP"), 25u);
}

// What netfilter drops is ours or others': ours are told by rules, and what was dropped before anybody asked
// is neither.
TEST_F(EventsTest, WhatOthersRulesDropIsWhatOursDoNot) {
  if (!events_) return;
  out_of(
      "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; };"
      " add rule inet t in udp dport 5 counter drop'");
  ManualClock clock;
  NodeMetrics node(std::move(events_), 2, clock);
  Index index;
  Sums sums;
  index.rules.emplace_back();
  store::RuleActivity& ours = index.rules.back();
  ours.rule.action = "Deny";
  ours.rule.reason = "policy";
  const auto others = [&] {
    Exposition out(Format::Text, "n1", "c1");
    node.node_families(out, {index, sums});
    return Samples(out.finish()).value("kappie_drop_count", {{"Reason", "NETFILTER_DROP"}}).value_or(0);
  };
  const auto later = [&] {
    others();
    clock.advance(std::chrono::seconds(5));
    return others();
  };
  send_datagrams(5, 25);
  ours.kernel_packets = 25;  // they were a policy's
  EXPECT_EQ(later(), 0.0);
  send_datagrams(5, 7);
  ours.kernel_packets += 7;
  EXPECT_EQ(later(), 0.0);
  send_datagrams(5, 3);  // nobody's that we know
  EXPECT_EQ(later(), 3.0);
  send_datagrams(5, 10);
  ours.kernel_packets += 8;
  EXPECT_EQ(later(), 5.0);
}

TEST_F(EventsTest, FlagsAreCountedAtUplinksOnly) {
  if (!events_) return;
  out_of(
      "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; };"
      " add rule inet t in tcp flags & syn == syn counter'");
  const Fd v4 = listen_at(AF_INET, 7000), v6 = listen_at(AF_INET6, 7001);
  connect_to(AF_INET, 7000);
  EXPECT_EQ(events_->flags()[1], 0u) << "no uplink yet";
  events_->set_uplinks({static_cast<int>(::if_nametoindex("lo"))});
  const std::uint64_t before = counter();
  for (int i = 0; i < 12; ++i) connect_to(AF_INET, 7000);
  for (int i = 0; i < 5; ++i) connect_to(AF_INET6, 7001);
  const std::uint64_t syns = counter() - before;
  EXPECT_EQ(syns, 34u) << "SYN and SYN-ACK";
  EXPECT_EQ(events_->flags()[1], 2 * syns) << "loopback sends and receives each";
  EXPECT_GT(events_->flags()[4], syns);
}

TEST_F(EventsTest, SocketsOfPodsHaveTheirTimesAndRetransmissions) {
  if (!events_) return;
  const IpAddr v4 = *IpAddr::parse("127.0.0.1"), v6 = *IpAddr::parse("::1"),
               other = *IpAddr::parse("10.0.0.1");
  events_->watch({v4, v6});
  const Fd listener = listen_at(AF_INET, 7000), listener6 = listen_at(AF_INET6, 7001);
  for (int i = 0; i < 8; ++i) {
    const Fd client = connect_to(AF_INET, 7000), server(::accept(listener.get(), nullptr, nullptr));
    ASSERT_EQ(::send(client.get(), "x", 1, 0), 1);
    char byte = 0;
    ASSERT_EQ(::recv(server.get(), &byte, 1, 0), 1);
  }
  connect_to(AF_INET6, 7001);
  const TcpOfAddress sum = events_->of(v4);
  EXPECT_GE(sum.rtt_samples, 8u);
  EXPECT_LE(sum.rtt_samples, 16u);
  EXPECT_GE(sum.rtt_us, sum.rtt_samples) << "a microsecond at least";
  EXPECT_TRUE(becomes([&] { return events_->of(v6).rtt_samples >= 1; }));
  EXPECT_EQ(events_->of(other).rtt_samples, 0u);
  // What nobody answers is sent again.
  out_of(
      "nft 'add table inet t; add chain inet t in { type filter hook input priority 0; };"
      " add rule inet t in tcp dport 7000 counter drop'");
  const auto segments = [] {
    for (const auto& [name, value] : read_protocols().tcp)
      if (name == "RetransSegs") return value;
    return std::uint64_t{0};
  };
  const std::uint64_t before = segments();
  const Fd lost(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const auto to = loopback(AF_INET, 7000);
  ::connect(lost.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_GT(segments(), before);
  EXPECT_EQ(events_->of(v4).retransmissions, segments() - before);
  events_->watch({v4, other});
  EXPECT_EQ(events_->of(v4).retransmissions, segments() - before) << "kept when others come and go";
  EXPECT_EQ(events_->of(v6).rtt_samples, 0u);
}

// An uplink that goes takes nothing of the sum with it, and one that comes brings nothing of before.
TEST_F(NodeTest, WhatWasForwardedNeverGetsLess) {
  if (!alone_) return;
  SystemClock clock;
  NodeMetrics node(nullptr, 2, clock);
  const auto told = [&] {
    Index index;
    Sums sums;
    Exposition out(Format::Text, "n1", "c1");
    node.node_families(out, {index, sums});
    return Samples(out.finish()).value("kappie_forward_count", {{"Direction", "egress"}}).value_or(-1);
  };
  const auto counted = [] {
    double sum = 0;
    const auto links = read_links();
    for (const Link& link : *links)
      if (link.default_route) sum += static_cast<double>(link.tx_packets);
    return sum;
  };
  const auto add = [](const std::string& name, const std::string& net) {
    out_of("ip link add " + name + " type veth peer name p" + name + " && ip link set p" + name +
           " up && ip link set " + name + " up && ip addr add " + net + ".1/24 dev " + name +
           " && ip neigh add " + net + ".9 lladdr 02:00:00:00:00:01 dev " + name +
           " && ip route add default via " + net + ".2 dev " + name + " metric " + net.substr(5));
    out_of("bash -c 'for i in 1 2 3 4 5 6 7; do echo x >/dev/udp/" + net + ".9/9; done'");
  };
  // Nothing is sent but what is sent here.
  out_of("for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done");
  add("u1", "10.1.1");
  add("u2", "10.1.2");
  const double both = told();
  EXPECT_GE(both, 14.0);
  out_of("ip link del u1");
  EXPECT_LT(counted(), both) << "the control: the sum of what there is";
  EXPECT_GE(told(), both);
  const double before = told();
  add("u3", "10.1.3");
  EXPECT_GE(counted(), 14.0);
  EXPECT_LT(told(), before + 7) << "what it counted before it was seen";
  out_of("bash -c 'for i in 1 2 3; do echo x >/dev/udp/10.1.3.9/9; done'");
  EXPECT_GE(told(), before + 3);
}

TEST_F(NodeTest, AllTwelveAreThereInBothNames) {
  if (!alone_) return;
  auto events = KernelEvents::open();
  const bool bpf = events.has_value();
  SystemClock clock;
  NodeMetrics node(bpf ? std::move(*events) : nullptr, 2, clock);
  const Fd listener = listen_at(AF_INET, 7000);
  std::vector<Fd> open;
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{7001, 7002, 7003}) {
    open.push_back(listen_at(AF_INET, port));
    open.push_back(connect_to(AF_INET, port));
  }
  send_datagrams(9, 5);
  Index index;
  Sums sums;
  Exposition out(Format::Text, "n1", "c1");
  node.node_families(out, {index, sums});
  const Samples samples(out.finish());
  for (const Spec& spec : specs()) {
    if (spec.metric < Metric::KappieForwardCount) continue;
    if (!bpf && std::string(spec.name).find("flag") != std::string::npos) continue;
    const auto found = samples.find(spec.name);
    ASSERT_FALSE(found.empty()) << spec.name;
    for (const std::string_view label : label_names(spec))
      EXPECT_TRUE(found.front().labels.contains(std::string(label))) << spec.name << " " << label;
    if (is_kappie(spec)) {
      EXPECT_EQ(found.front().labels.at("NodeName"), "n1");
    }
  }
  EXPECT_EQ(samples.find("kappie_tcp_state").size(), 11u) << "all states, also with 0";
  EXPECT_EQ(samples.find("kappie_tcp_connection_remote").size(), 3u) << "two and other";
  EXPECT_EQ(samples.value("kappie_tcp_connection_remote"), 6.0) << "both ends of three";
  EXPECT_EQ(samples.value("kappie_tcp_connection_remote", {{"Address", "other"}}), 4.0);
  EXPECT_EQ(samples.value("kappie_tcp_state", {{"State", "LISTEN"}}), 4.0);
  EXPECT_EQ(samples.value("tierlog_node_tcp_sockets", {{"state", "listen"}}), 4.0);
}

}  // namespace
}  // namespace tierlog::prometheus
