// The programs at interfaces of the node itself, under policies of host endpoints: what is noted of connections,
// which way their answers may take, and whom a packet may say it is of.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <iterator>

#include "base/handle.h"
#include "dataplane/ebpf/connections.h"
#include "tests/dataplane/ebpf_pods.h"

namespace tierlog::dataplane::test {
namespace {

using namespace std::chrono_literals;

constexpr std::uint8_t kSyn = 2, kSynAck = 0x12, kAck = 0x10, kReset = 0x14;
constexpr const char* kClient = "203.0.113.7";  // beyond host-a
constexpr const char* kServer = "10.9.9.9";     // beyond host-b
constexpr const char* kNode = "192.0.2.1";

constexpr const char* kHosts = R"(
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: a, labels: {side: a}}
spec: {node: node-1, interfaceName: host-a}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: b, labels: {side: b}}
spec: {node: node-1, interfaceName: host-b}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host}
spec:
  selector: has(side)
)";

class EbpfHost : public EbpfKernel {
 protected:
  // The ends of host-a and host-b are in a namespace of their own, with routes to the client and to the server.
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    outside_ = here();
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    node_ = here();
    const std::string there = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(outside_.get());
    ASSERT_EQ(std::system("sysctl -qw net.ipv4.ip_forward=1"), 0);
    for (const std::string side : {"a", "b"}) {
      const std::string subnet = side == "a" ? "192.0.2." : "198.51.100.", mac = side == "a" ? "0a:01" : "0b:01";
      ASSERT_EQ(std::system(("ip link add host-" + side + " type veth peer name out-" + side + " address 02:00:00:00:" + mac +
                             " netns " + there + " && ip link set host-" + side + " up && ip address add " + subnet +
                             "1/24 dev host-" + side + " && ip neighbour add " + subnet + "2 lladdr 02:00:00:00:" + mac +
                             " dev host-" + side + " nud permanent")
                                .c_str()),
                0);
    }
    ASSERT_EQ(std::system("ip route add 203.0.113.0/24 via 192.0.2.2 && ip route add 10.9.9.0/24 via 198.51.100.2"), 0);
    enter(outside_);
    ASSERT_EQ(std::system("ip link set out-a up && ip link set out-b up"), 0);
    enter(node_);
  }
  static void TearDownTestSuite() { outside_ = Fd(), node_ = Fd(); }
  static Fd here() { return Fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)); }
  static void enter(const Fd& netns) { ASSERT_EQ(::setns(netns.get(), CLONE_NEWNET), 0); }

  // `spec`: of the one policy of both host endpoints.
  std::shared_ptr<const policy::Program> enforce(const std::string& spec) {
    auto program = tierlog::testing::compile(kHosts + spec, {}, ids_);
    const auto applied = backend_->apply(program);
    EXPECT_TRUE(applied) << applied.error().message;
    return program;
  }
  // Named as the programs at pods are: Out is what comes in by it.
  int comes_in(const char* interface, const FrameSpec& frame) const { return run_of_node(Hook::Out, interface, frame, ""); }
  int goes_out(const char* interface, const FrameSpec& frame, const std::string& came_by = "") const {
    return run_of_node(Hook::In, interface, frame, came_by);
  }
  static FrameSpec packet(const std::string& from, const std::string& to, std::uint16_t port,
                          std::uint8_t protocol_number = protocol::kTcp) {
    FrameSpec frame;
    frame.source = kPodMac;
    frame.destination = kNodeMac;
    frame.from = ip(from);
    frame.to = ip(to);
    frame.protocol = protocol_number;
    frame.port = port;
    frame.mark = "12345678";
    return frame;
  }
  // The only connection that is known.
  ebpf::KnownFlow flow() const {
    const auto flows = backend_->read_flows();
    EXPECT_TRUE(flows);
    EXPECT_EQ(flows->size(), 1u);
    return flows->empty() ? ebpf::KnownFlow{} : flows->front();
  }
  ConnectionLabels labels() const {
    const ebpf::KnownFlow known = flow();
    return ebpf::connection_of(known.key, known.flow, Nanoseconds(0)).labels;
  }

  static inline Fd outside_, node_;

 private:
  int run_of_node(Hook hook, const char* interface, const FrameSpec& frame, const std::string& came_by) const {
    const auto came_from = came_by.empty() ? 0u : ::if_nametoindex(came_by.c_str());
    const auto verdict = backend_->programs().run(hook, lab::build(frame), static_cast<int>(::if_nametoindex(interface)),
                                                  static_cast<int>(came_from), ebpf::Whose::Node);
    EXPECT_TRUE(verdict) << verdict.error().message;
    return verdict.value_or(99);
  }
};

// Let through by audit alone, a connection is allowed by nobody; least of all by the rule that denies it.
TEST_F(EbpfHost, WhatOnlyAuditLetsThroughIsAllowedByNoRule) {
  ebpf::EbpfOptions options;
  options.audits = true;
  open(options);
  const auto denying = enforce("  ingress: [{action: Deny, protocol: TCP, destination: {ports: [81]}}]\n");
  FrameSpec syn = packet(kClient, kNode, 81), ack = syn;
  ack.tcp_flags = kAck;
  EXPECT_EQ(comes_in("host-a", syn), kAllow);
  EXPECT_EQ(counted(denying->rules.front().id), 1u);
  auto told = events();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].kind, EventKind::Denied);
  EXPECT_EQ(told[0].rule, denying->rules.front().id);
  EXPECT_EQ(labels().ingress, RuleId::None);

  enforce("  ingress: [{action: Deny, destination: {nets: [192.0.2.0/24]}}]\n");
  EXPECT_EQ(comes_in("host-a", ack), kAllow) << "judged again";
  EXPECT_EQ(labels().ingress, RuleId::None);

  const auto allowing = enforce("  ingress: [{action: Allow, protocol: TCP, destination: {ports: [81]}}]\n");
  EXPECT_EQ(comes_in("host-a", ack), kAllow);
  EXPECT_EQ(labels().ingress, allowing->rules.front().id) << "now a rule allows it";
}

TEST_F(EbpfHost, WhatPassesTwoInterfacesIsAllowedByNoRuleWhereOnlyAuditLetItGo) {
  ebpf::EbpfOptions options;
  options.audits = true;
  open(options);
  const auto program = enforce(
      "  applyOnForward: true\n  types: [Ingress, Egress]\n  ingress: [{action: Allow}]\n"
      "  egress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}]\n");
  const FrameSpec syn = packet(kClient, kServer, 80);
  EXPECT_EQ(comes_in("host-a", syn), kAllow);
  EXPECT_EQ(goes_out("host-b", syn, "host-a"), kAllow);
  EXPECT_EQ(labels().ingress, program->rules[0].id);
  EXPECT_EQ(labels().egress, RuleId::None);
  EXPECT_EQ(counted(program->rules[1].id), 1u);
}

// As at pods: what found no room is judged as the way there and as the way back, whatever its protocol is.
TEST_F(EbpfHost, AFullMapDeniesNoAnswer) {
  ebpf::EbpfOptions options;
  options.limits.flows = 2;
  open(options);
  enforce(
      "  types: [Ingress, Egress]\n  egress:\n  - {action: Allow, protocol: UDP, destination: {ports: [53]}}\n"
      "  - {action: Allow, protocol: UDP, source: {ports: [123]}, destination: {ports: [123]}}\n"
      "  - {action: Allow, protocol: 47}\n"
      "  - {action: Allow, protocol: SCTP, destination: {ports: [80]}}\n"
      "  - {action: Allow, protocol: TCP, destination: {ports: [80]}}\n"
      "  - {action: Allow, protocol: ICMP, icmp: {type: 8}}\n");
  struct Exchange {
    const char* name;
    std::uint8_t protocol_number;
    std::uint16_t port;
  };
  const Exchange exchanges[] = {{"DNS", protocol::kUdp, 53},
                                {"SCTP", protocol::kSctp, 80},
                                {"TCP", protocol::kTcp, 80},
                                {"NTP", protocol::kUdp, 123},
                                {"GRE", 47, 0},
                                {"echo", protocol::kIcmp, 0}};
  for (std::uint16_t port = 40'000; port < 40'010; ++port)
    for (const Exchange& one : exchanges) {
      SCOPED_TRACE(std::string(one.name) + " " + std::to_string(port));
      FrameSpec question = packet(kNode, kClient, one.port, one.protocol_number);
      question.source_port = question.icmp_id = port;
      question.icmp_type = 8;
      if (one.port == 123) question.source_port = 123;
      FrameSpec answer = answer_to(question);
      answer.icmp_type = 0;
      EXPECT_EQ(goes_out("host-a", question), kAllow);
      EXPECT_EQ(comes_in("host-a", answer), kAllow);
      FrameSpec unasked = answer;
      unasked.source_port = 81;
      unasked.icmp_type = 8;
      if (one.protocol_number != 47) {
        EXPECT_EQ(comes_in("host-a", unasked), kDrop) << "no rule lets anybody ask for that";
      }
    }
  const auto refused = backend_->read_flows_refused();
  ASSERT_TRUE(refused);
  EXPECT_GE(*refused, 56u);
}

// The way back may lead over an interface that has not seen the way there.
TEST_F(EbpfHost, AnAnswerMayTakeAnotherWayBack) {
  enforce(
      "  applyOnForward: true\n  types: [Ingress, Egress]\n"
      "  ingress: [{action: Allow, protocol: TCP, source: {nets: [203.0.113.0/24]}, destination: {ports: [80]}}]\n");
  const FrameSpec syn = packet(kClient, kServer, 80);
  FrameSpec answer = answer_to(syn), ack = syn, other = answer;
  answer.tcp_flags = kSynAck;
  ack.tcp_flags = kAck;
  other.source_port = 81;
  EXPECT_EQ(comes_in("host-a", syn), kAllow) << "and leaves by an interface without policies";
  EXPECT_EQ(comes_in("host-b", answer), kAllow);
  EXPECT_EQ(comes_in("host-a", ack), kAllow) << "it goes on";
  const ebpf::KnownFlow known = flow();
  EXPECT_EQ(known.flow.packets[0], 2u);
  EXPECT_EQ(known.flow.packets[1], 1u);
  EXPECT_EQ(comes_in("host-b", other), kDrop) << "of no connection";
  FrameSpec begins = answer, end = answer;
  begins.tcp_flags = kSyn;
  EXPECT_EQ(comes_in("host-b", begins), kAllow) << "as conntrack has it: of the connection while that lives";
  EXPECT_EQ(comes_in("host-a", ack), kAllow) << "it goes on";
  end.tcp_flags = kReset;
  EXPECT_EQ(comes_in("host-b", end), kAllow);
  EXPECT_EQ(comes_in("host-b", begins), kDrop) << "a new one";
}

// The other interface may have policies of its own: they judge what begins there.
TEST_F(EbpfHost, AnAnswerIsNotJudgedByPoliciesOfAnotherWayBack) {
  const std::string only_a = R"(  order: 2
  types: [Egress]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: a}
spec: {order: 1, selector: side == 'a', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
)";
  enforce(only_a);
  const FrameSpec syn = packet(kNode, kServer, 80);
  FrameSpec answer = answer_to(syn), ack = syn;
  answer.tcp_flags = kSynAck;
  ack.tcp_flags = kAck;
  EXPECT_EQ(goes_out("host-b", syn), kDrop);
  EXPECT_EQ(goes_out("host-a", syn), kAllow);
  EXPECT_EQ(comes_in("host-b", answer), kAllow);
  EXPECT_EQ(goes_out("host-a", ack), kAllow) << "it goes on";
  std::string other = only_a;
  other.replace(other.find("[80]"), 4, "[81]");
  enforce(other);
  EXPECT_EQ(goes_out("host-a", ack), kDrop) << "ended where it was judged";
  EXPECT_EQ(comes_in("host-b", answer), kDrop);
  EXPECT_EQ(comes_in("host-a", answer), kDrop);
}

// Of the link is only what no router has let through, or what goes to the link.
TEST_F(EbpfHost, OnlyNeighboursSpeakUnjudged) {
  enforce("  applyOnForward: true\n  types: [Ingress]\n");
  struct Message {
    const char *name, *to;
    std::uint8_t type, hops;
    int verdict;
  };
  const Message messages[] = {
      {"a solicitation of the link", "fe80::1", 135, 255, kAllow},
      {"one from elsewhere", "2001:db8:9::9", 135, 64, kDrop},
      {"a redirect from elsewhere", "2001:db8:9::9", 137, 64, kDrop},
      {"a listener's report", "ff02::16", 143, 1, kAllow},
      {"a report to somebody", "2001:db8:9::9", 143, 1, kDrop},
      {"a query to somebody", "2001:db8:9::9", 130, 255, kDrop},
      {"an echo", "fe80::1", 128, 255, kDrop},
  };
  for (const Message& message : messages) {
    SCOPED_TRACE(message.name);
    FrameSpec spec = packet("2001:db8::7", message.to, 0, protocol::kIcmpV6);
    spec.icmp_type = message.type;
    lab::Bytes frame = lab::build(spec);
    frame[14 + 7] = message.hops;
    const auto verdict =
        backend_->programs().run(Hook::Out, frame, static_cast<int>(::if_nametoindex("host-a")), 0, ebpf::Whose::Node);
    ASSERT_TRUE(verdict);
    EXPECT_EQ(*verdict, message.verdict);
  }
}

// The node gets what is for many, though a route leads elsewhere.
TEST_F(EbpfHost, WhatIsForManyIsForTheNode) {
  ASSERT_EQ(std::system("ip route add default via 192.0.2.2"), 0);
  enforce("  types: [Ingress]\n  ingress: [{action: Allow, protocol: UDP, destination: {ports: [7000]}}]\n");
  struct Receiver {
    const char* address;
    int otherwise;
  };
  const Receiver receivers[] = {{kNode, kDrop},     {"192.0.2.255", kDrop}, {"255.255.255.255", kDrop}, {"0.0.0.0", kDrop},
                                {"224.0.0.5", kDrop}, {"ff02::fb", kDrop},    {"198.18.0.1", kAllow}};
  for (const auto& [address, otherwise] : receivers) {
    SCOPED_TRACE(address);
    const char* from = ip(address).family == Family::V6 ? "2001:db8::7" : kClient;
    EXPECT_EQ(comes_in("host-a", packet(from, address, 7000, protocol::kUdp)), kAllow);
    EXPECT_EQ(comes_in("host-a", packet(from, address, 7001, protocol::kUdp)), otherwise);
  }
  ASSERT_EQ(std::system("ip route delete default"), 0);
}

class EbpfRealFrames : public EbpfHost {
 protected:
  // Whatever leaves out-a carries `mark` in tc_index from now on.
  void mark_what_comes(std::uint32_t mark) {
    const bpf_insn code[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .src_reg = 0, .off = 0, .imm = static_cast<std::int32_t>(mark)},
        {.code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = 1, .src_reg = 2, .off = offsetof(__sk_buff, tc_index), .imm = 0},
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = -1},  // TC_ACT_UNSPEC
        {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
    };
    const Fd program(::bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "foreign", "GPL", code, std::size(code), nullptr));
    ASSERT_TRUE(program) << std::strerror(errno);
    enter(outside_);
    LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = static_cast<int>(::if_nametoindex("out-a")), .attach_point = BPF_TC_EGRESS);
    LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = program.get(), .flags = BPF_TC_F_REPLACE, .handle = 1, .priority = 1);
    EXPECT_EQ(::bpf_tc_hook_create(&hook), 0);
    EXPECT_EQ(::bpf_tc_attach(&hook, &options), 0);
    enter(node_);
  }
  // Real frames into out-a, one behind the other; which of them came out of out-b.
  std::vector<bool> arrive(std::vector<FrameSpec> frames) {
    enter(node_);
    const auto node_mac = lab::own_mac("host-a");
    enter(outside_);
    auto watch = lab::Watch::open("out-b");
    std::vector<lab::Bytes> bytes;
    std::vector<std::string> marks;
    for (FrameSpec& frame : frames) {
      frame.destination = *node_mac;
      frame.mark = "frame-" + std::to_string(10 + bytes.size());
      bytes.push_back(lab::build(frame));
      marks.push_back(frame.mark);
    }
    EXPECT_TRUE(lab::send_frames(bytes, "out-a"));
    auto came = watch->until(marks.back(), marks, 5s);
    EXPECT_TRUE(came) << came.error().message;
    enter(node_);
    return came.value_or(std::vector<bool>(frames.size()));
  }
};

// Who sent what a Service leads on is carried in tc_index, which travels with a packet from one namespace to another:
// what comes in may not have it from elsewhere.
TEST_F(EbpfRealFrames, AForeignMarkIsNotTrusted) {
  enforce(
      "  applyOnForward: true\n  types: [Ingress, Egress]\n  ingress: [{action: Allow}]\n"
      "  egress: [{action: Allow, source: {nets: [203.0.113.7/32]}}]\n");
  ASSERT_TRUE(backend_->set_services({{ip("10.96.0.10"), protocol::kTcp, 80, {{ip(kServer), 8080}}}}));
  // The program's slot of who is allowed to pass.
  EXPECT_EQ(comes_in("host-a", packet(kClient, "10.96.0.10", 80)), kAllow);
  std::uint32_t slot = 0;
  ASSERT_EQ(::bpf_map_get_next_key(backend_->programs().origins(), nullptr, &slot), 0);
  const FrameSpec honest = packet(kClient, kServer, 81), other = packet("203.0.113.9", kServer, 82);
  EXPECT_EQ(arrive({other, honest}), (std::vector<bool>{false, true}));
  mark_what_comes(TL_CARRIES | slot);
  FrameSpec again = honest;
  again.source_port = 40'001;
  EXPECT_EQ(arrive({other, again}), (std::vector<bool>{false, true}));
}

// Tags of VLAN 0 have only a priority: the kernel takes the frame as if it had none, so it must be judged as one.
TEST_F(EbpfRealFrames, ATagWithoutAVlanHidesNothing) {
  enforce(
      "  applyOnForward: true\n  types: [Ingress]\n"
      "  ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]\n");
  const FrameSpec honest = packet(kClient, kServer, 80);
  FrameSpec denied = packet(kClient, kServer, 81), tagged = denied, allowed = packet(kClient, kServer, 80), twice = allowed;
  tagged.tags = {0x8100};
  allowed.tags = {0x8100};
  allowed.source_port = 40'002;
  twice.tags = {0x88a8, 0x8100};
  twice.source_port = 40'003;
  EXPECT_EQ(arrive({denied, tagged, allowed, twice, honest}), (std::vector<bool>{false, false, true, false, true}));
}

// A device that shows IP packets with nothing before them, as tunnels' do; its other end is a file of this test.
class EbpfTunnel : public EbpfKernel {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    tunnel_ = Fd(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!tunnel_) return;
    ifreq request{};
    std::strcpy(request.ifr_name, "tun-t");
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    ASSERT_EQ(::ioctl(tunnel_.get(), TUNSETIFF, &request), 0);
    ASSERT_EQ(std::system("ip link set tun-t up && ip address add 10.8.0.1/24 dev tun-t && ip address add fd08::1/64 dev "
                          "tun-t nodad && ip link set lo up"),
              0);
  }
  static void TearDownTestSuite() { tunnel_ = Fd(); }
  void SetUp() override {
    EbpfKernel::SetUp();
    if (!IsSkipped() && !tunnel_) GTEST_SKIP() << "needs /dev/net/tun";
  }

  // One datagram out of the tunnel to the node's `port`; whether it gets there.
  static bool arrives(const std::string& from, const std::string& to, std::uint16_t port) {
    const Fd socket = bound(to, port);
    FrameSpec frame;
    frame.from = ip(from);
    frame.to = ip(to);
    frame.protocol = protocol::kUdp;
    frame.port = port;
    frame.mark = "12345678";
    const lab::Bytes bytes = lab::build(frame);
    EXPECT_GT(::write(tunnel_.get(), bytes.data() + 14, bytes.size() - 14), 0);
    char buffer[256];
    pollfd wait{socket.get(), POLLIN, 0};
    return ::poll(&wait, 1, 200) == 1 && ::recv(socket.get(), buffer, sizeof buffer, 0) > 0;
  }
  // One datagram of the node into the tunnel; whether it gets there.
  static bool leaves(const std::string& from, const std::string& to, std::uint16_t port) {
    const Fd socket = bound(from, 40'000);
    sockaddr_storage peer{};
    const socklen_t length = address(to, port, peer);
    static_cast<void>(::sendto(socket.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&peer), length));
    bool found = false;
    pollfd wait{tunnel_.get(), POLLIN, 0};
    while (::poll(&wait, 1, 200) == 1) {
      std::uint8_t packet[256];
      const auto size = ::read(tunnel_.get(), packet, sizeof packet);
      if (size < 28) continue;
      const std::size_t head = packet[0] >> 4 == 6 ? 40 : 20;
      const bool is_udp = packet[packet[0] >> 4 == 6 ? 6 : 9] == protocol::kUdp;
      if (is_udp && (packet[head + 2] << 8 | packet[head + 3]) == port) found = true;
    }
    return found;
  }

 protected:
  static inline Fd tunnel_;

 private:
  static socklen_t address(const std::string& text, std::uint16_t port, sockaddr_storage& into) {
    if (text.find(':') == std::string::npos) {
      auto& v4 = reinterpret_cast<sockaddr_in&>(into);
      v4.sin_family = AF_INET;
      v4.sin_port = htons(port);
      ::inet_pton(AF_INET, text.c_str(), &v4.sin_addr);
      return sizeof v4;
    }
    auto& v6 = reinterpret_cast<sockaddr_in6&>(into);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    ::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr);
    return sizeof v6;
  }
  static Fd bound(const std::string& text, std::uint16_t port) {
    sockaddr_storage own{};
    const socklen_t length = address(text, port, own);
    Fd socket(::socket(own.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&own), length), 0);
    return socket;
  }
};

// What says by its hop limit that no router let it through is looked at where it stands without Ethernet's header.
TEST_F(EbpfTunnel, DiscoveryFromAfarIsJudged) {
  const auto program = tierlog::testing::compile(std::string(kHosts) + R"(  types: [Ingress]
  ingress: [{action: Allow, protocol: UDP}]
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: t, labels: {side: t}}
spec: {node: node-1, interfaceName: tun-t}
)",
                                                 {}, ids_);
  const auto applied = backend_->apply(program);
  ASSERT_TRUE(applied) << applied.error().message;
  const auto denials_of = [&](std::uint8_t hops) {
    FrameSpec frame;
    // Byte 13 of the source is where a hop limit would be behind an Ethernet header.
    frame.from = ip("fd08::ff:2");
    frame.to = ip("fd08::1");
    frame.protocol = protocol::kIcmpV6;
    frame.icmp_type = 135;
    frame.mark = "12345678";
    lab::Bytes bytes = lab::build(frame);
    bytes[14 + 7] = hops;
    static_cast<void>(events());
    EXPECT_GT(::write(tunnel_.get(), bytes.data() + 14, bytes.size() - 14), 0);
    const auto told = events();
    return std::count_if(told.begin(), told.end(), [](const VerdictEvent& event) {
      return event.kind == EventKind::Denied && event.protocol == protocol::kIcmpV6;
    });
  };
  EXPECT_EQ(denials_of(64), 1);
  EXPECT_EQ(denials_of(255), 0);
}

TEST_F(EbpfTunnel, PoliciesOfHostEndpointsHoldWithoutEthernet) {
  const auto program = tierlog::testing::compile(R"(
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: t, labels: {side: t}}
spec: {node: node-1, interfaceName: "*"}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host}
spec:
  selector: has(side)
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [5000]}}]
  egress: [{action: Allow, protocol: UDP, destination: {ports: [6000]}}]
)",
                                                 {}, ids_);
  const auto applied = backend_->apply(program);
  ASSERT_TRUE(applied) << applied.error().message;
  for (const bool v6 : {false, true}) {
    SCOPED_TRACE(v6);
    const std::string far = v6 ? "fd08::2" : "10.8.0.2", own = v6 ? "fd08::1" : "10.8.0.1";
    static_cast<void>(events());
    EXPECT_TRUE(arrives(far, own, 5000));
    EXPECT_FALSE(arrives(far, own, 5001));
    EXPECT_TRUE(leaves(own, far, 6000));
    EXPECT_FALSE(leaves(own, far, 6001));
    std::size_t denied = 0;
    for (const VerdictEvent& event : events())
      if (event.kind == EventKind::Denied && event.protocol == protocol::kUdp) {
        ++denied;
        EXPECT_TRUE(event.destination_port == 5001 || event.destination_port == 6001) << event.destination_port;
        EXPECT_EQ(event.source, ip(event.destination_port == 5001 ? far : own));
        EXPECT_EQ(event.destination, ip(event.destination_port == 5001 ? own : far));
      }
    EXPECT_EQ(denied, 2u);
  }
  // The control: without the programs all of it gets through.
  ASSERT_TRUE(backend_->remove_all());
  EXPECT_TRUE(arrives("10.8.0.2", "10.8.0.1", 5001));
  EXPECT_TRUE(leaves("10.8.0.1", "10.8.0.2", 6001));
}

}  // namespace
}  // namespace tierlog::dataplane::test
