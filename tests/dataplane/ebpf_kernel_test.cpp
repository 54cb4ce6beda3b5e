// The programs at a pod's interface, frame by frame, in a network namespace of this process: what is guarded,
// judged, followed, judged again after a change, counted and told.
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <functional>
#include <set>
#include <thread>

#include "dataplane/ebpf/connections.h"
#include "tests/dataplane/ebpf_pods.h"
#include "tests/dataplane/question.h"

namespace tierlog::dataplane::test {
namespace {

TEST_F(EbpfKernel, APodSendsOnlyAsItself) {
  enforce(kOnlyPort80);
  struct Case {
    const char* name;
    std::function<void(FrameSpec&)> change;
    int verdict;
    RuleId counted;
  };
  const Case cases[] = {
      {"honest", [](FrameSpec&) {}, kAllow, RuleId::None},
      {"another address", [](FrameSpec& f) { f.from = ip("10.1.0.9"); }, kDrop, reserved::kSpoofedEgress},
      {"another MAC", [](FrameSpec& f) { f.source = kNodeMac; }, kDrop, reserved::kSpoofedEgress},
      {"a tag", [](FrameSpec& f) { f.tags = {0x8100}; }, kDrop, reserved::kVlanEgress},
      {"two tags",
       [](FrameSpec& f) {
         f.tags = {0x88a8, 0x8100};
       },
       kDrop, reserved::kVlanEgress},
      {"no IP", [](FrameSpec& f) { f.ethertype = 0x88cc; }, kDrop, reserved::kEthertypeEgress},
      {"multicast", [](FrameSpec& f) { f.to = ip("224.0.0.251"); }, kDrop, reserved::kOtherEgress},
      {"another IPv6 address", [](FrameSpec& f) { f.from = ip("fd00::9"), f.to = ip("fd00::2"); }, kDrop,
       reserved::kSpoofedEgress},
      {"IPv6 multicast", [](FrameSpec& f) { f.from = ip("fd00::1"), f.to = ip("ff02::fb"); }, kDrop,
       reserved::kOtherEgress},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    FrameSpec frame = from_p("203.0.113.9", 80);
    one.change(frame);
    const std::uint64_t before = counted(one.counted);
    EXPECT_EQ(out_of_p(frame), one.verdict);
    if (one.counted != RuleId::None) {
      EXPECT_EQ(counted(one.counted), before + 1);
    }
  }
}

TEST_F(EbpfKernel, AConnectionIsFollowed) {
  enforce(kOnlyPort80);
  const FrameSpec syn = from_p("203.0.113.9", 80);
  EXPECT_EQ(into_p(answer_to(syn)), kDrop) << "an answer to nothing is mid-stream";
  EXPECT_EQ(counted(reserved::kMidStreamIngress), 1u);
  static_cast<void>(events());
  EXPECT_EQ(out_of_p(syn), kAllow);
  EXPECT_EQ(into_p(answer_to(syn)), kAllow);
  FrameSpec ack = syn;
  ack.tcp_flags = 0x10;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(out_of_p(ack), kAllow);
  const auto told = events();
  ASSERT_EQ(told.size(), 1u) << "the first packet, and no other";
  EXPECT_EQ(told[0].kind, EventKind::Allowed);
  EXPECT_EQ(told[0].destination_port, 80);
  EXPECT_EQ(counted(told[0].rule), 1u);
  const auto flows = backend_->read_flows();
  ASSERT_TRUE(flows);
  ASSERT_EQ(flows->size(), 1u);
  const Connection connection = ebpf::connection_of(flows->front().key, flows->front().flow, Nanoseconds(0));
  EXPECT_EQ(connection.original.source, ip("10.1.0.1"));
  EXPECT_EQ(connection.original.destination_port, 80);
  EXPECT_EQ(connection.packets_out, 4u);
  EXPECT_EQ(connection.packets_in, 1u);
  EXPECT_EQ(connection.labels.egress, told[0].rule);
}

// The flags of both sides say how a TCP connection stands, in conntrack's words; of others, whether it was answered.
TEST_F(EbpfKernel, AConnectionsFlagsSayHowItStands) {
  constexpr std::uint8_t kFin = 0x11, kReset = 0x14, kAck = 0x10, kSynAck = 0x12;
  struct Packet {
    bool from_p;
    std::uint8_t flags;
  };
  struct Case {
    const char* name;
    std::vector<Packet> behind_syn;
    std::uint8_t state;
    bool answered;
  };
  const Case cases[] = {
      {"nobody there", {}, TCP_CONNTRACK_SYN_SENT, false},
      {"refused", {{false, kReset}}, TCP_CONNTRACK_CLOSE, true},
      {"left alone half open", {{false, kSynAck}}, TCP_CONNTRACK_SYN_RECV, true},
      {"open", {{false, kSynAck}, {true, kAck}}, TCP_CONNTRACK_ESTABLISHED, true},
      {"one side is done", {{false, kSynAck}, {true, kAck}, {false, kFin}}, TCP_CONNTRACK_FIN_WAIT, true},
      {"both are", {{false, kSynAck}, {true, kAck}, {false, kFin}, {true, kFin}}, TCP_CONNTRACK_TIME_WAIT, true},
      {"broken off", {{false, kSynAck}, {true, kAck}, {true, kReset}}, TCP_CONNTRACK_CLOSE, true},
  };
  enforce(kOnlyPort80);
  std::uint16_t port = 41'000;
  for (const Case& one : cases) {
    SCOPED_TRACE(one.name);
    FrameSpec syn = from_p("203.0.113.9", 80);
    syn.source_port = ++port;
    EXPECT_EQ(out_of_p(syn), kAllow);
    for (const Packet& packet : one.behind_syn) {
      FrameSpec frame = packet.from_p ? syn : answer_to(syn);
      frame.tcp_flags = packet.flags;
      EXPECT_EQ(packet.from_p ? out_of_p(frame) : into_p(frame), kAllow);
    }
    const Connection connection = only_connection(port);
    EXPECT_EQ(connection.tcp_state, one.state);
    EXPECT_EQ((connection.status & IPS_SEEN_REPLY) != 0, one.answered);
  }
}

// What a router says about a datagram is counted with its connection, and is no answer of the other end.
TEST_F(EbpfKernel, AnErrorIsNoAnswer) {
  enforce("");
  FrameSpec datagram = from_p("203.0.113.9", 53, protocol::kUdp);
  EXPECT_EQ(out_of_p(datagram), kAllow);
  FrameSpec error = answer_to(from_p("203.0.113.9", 0, protocol::kIcmp));
  error.icmp_type = 3;
  error.icmp_code = 3;
  const auto sent = lab::build(datagram);
  error.mark.assign(sent.begin() + 14, sent.begin() + 14 + 28);
  EXPECT_EQ(into_p(error), kAllow);
  Connection connection = only_connection(datagram.source_port);
  EXPECT_EQ(connection.packets_in, 1u);
  EXPECT_EQ(connection.status & IPS_SEEN_REPLY, 0u);
  EXPECT_EQ(into_p(answer_to(datagram)), kAllow);
  connection = only_connection(datagram.source_port);
  EXPECT_EQ(connection.packets_in, 2u);
  EXPECT_NE(connection.status & IPS_SEEN_REPLY, 0u);
}

TEST_F(EbpfKernel, DeniedPacketsAreCountedByFlow) {
  const auto program = enforce(kOnlyPort80);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(out_of_p(from_p("203.0.113.9", 81)), kDrop);
  const auto denied = backend_->read_denied();
  ASSERT_TRUE(denied);
  ASSERT_EQ(denied->size(), 1u);
  EXPECT_EQ(denied->front().packets, 5u);
  EXPECT_EQ(denied->front().rule, program->ends.front().id);
  EXPECT_EQ(counted(program->ends.front().id), 5u);
  const auto told = events();
  ASSERT_EQ(told.size(), 5u);
  for (const VerdictEvent& event : told) EXPECT_EQ(event.kind, EventKind::Denied);
}

// What its source let out by another key (a Service's address) is told by itself there: not counted with the others.
TEST_F(EbpfKernel, ADeniedFlowIsApartWhereItsSourceToldByItself) {
  enforce(R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: in, namespace: a}
spec: {selector: app == 'q', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
)");
  const FrameSpec refused = from_p("10.1.0.2", 81);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(run(Hook::In, "pod-q", refused), kDrop);
  EXPECT_EQ(out_of_p(refused), kAllow);
  EXPECT_EQ(run(Hook::In, "pod-q", refused, static_cast<int>(::if_nametoindex("pod-p"))), kDrop);
  const auto denied = backend_->read_denied();
  ASSERT_TRUE(denied);
  ASSERT_EQ(denied->size(), 2u);
  for (const DeniedCount& count : *denied) EXPECT_EQ(count.packets, count.alone ? 2u : 1u);
  const auto told = events();
  ASSERT_EQ(told.size(), 3u);
  for (std::size_t i = 0; i < told.size(); ++i) EXPECT_EQ(told[i].alone, i < 2);
}

TEST_F(EbpfKernel, ALocalPairIsJudgedAtBothEnds) {
  const auto program = enforce(R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: in, namespace: a}
spec: {selector: app == 'q', types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}
)");
  const FrameSpec allowed = from_p("10.1.0.2", 80), refused = from_p("10.1.0.2", 81);
  const int from = static_cast<int>(::if_nametoindex("pod-p"));
  EXPECT_EQ(out_of_p(allowed), kAllow);
  EXPECT_TRUE(events().empty()) << "not before both ends agreed";
  EXPECT_EQ(run(Hook::In, "pod-q", allowed, from), kAllow);
  const auto told = events();
  ASSERT_EQ(told.size(), 2u);
  EXPECT_EQ(told[0].rule, reserved::kNoPolicyEgress);
  EXPECT_EQ(told[1].rule, program->rules.front().id);
  EXPECT_EQ(out_of_p(refused), kAllow);
  EXPECT_EQ(run(Hook::In, "pod-q", refused, from), kDrop);
  const auto denial = events();
  ASSERT_EQ(denial.size(), 1u);
  EXPECT_EQ(denial[0].rule, program->ends.front().id);
  // What was denied gives the other side no way back.
  EXPECT_EQ(run(Hook::Out, "pod-q", answer_to(refused)), kDrop);
}

TEST_F(EbpfKernel, AChangeReachesLivingConnections) {
  enforce(kOnlyPort80);
  const FrameSpec syn = from_p("203.0.113.9", 80);
  FrameSpec ack = syn;
  ack.tcp_flags = 0x10;
  EXPECT_EQ(out_of_p(syn), kAllow);
  EXPECT_EQ(into_p(answer_to(syn)), kAllow);
  std::string other = kOnlyPort80;
  other.replace(other.find("[80]"), 4, "[8080]");
  const auto program = enforce(other);
  const std::uint64_t before = counted(reserved::kCutEgress);
  EXPECT_EQ(into_p(answer_to(syn)), kDrop);
  EXPECT_EQ(counted(reserved::kCutEgress), before + 1);
  EXPECT_EQ(out_of_p(ack), kDrop);
  EXPECT_EQ(counted(program->ends.front().id), 1u);
  enforce(kOnlyPort80);
  EXPECT_EQ(out_of_p(ack), kAllow) << "allowed again";
  EXPECT_EQ(into_p(answer_to(syn)), kAllow);
}

// A pod elsewhere gets other labels: one word of the table in force, and living connections are judged anew.
TEST_F(EbpfKernel, OneAddressIsWrittenInPlace) {
  constexpr const char* kToDb = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: a}
spec:
  selector: app == 'p'
  types: [Egress]
  egress:
  - {action: Allow, protocol: TCP, destination: {selector: role == 'db', ports: [80]}}
)";
  const auto with_role = [&](const char* role) {
    auto p = tierlog::testing::local_pod("a", "p", {"10.1.0.1", "fd00::1"}, {{"app", "p"}});
    p.interface = "pod-p";
    p.mac = "02:00:00:00:00:01";
    auto far = tierlog::testing::local_pod("a", "far", {"10.9.0.1", "fd00::9"}, {{"role", role}});
    far.local = false;
    const auto applied = backend_->apply(tierlog::testing::compile(kToDb, {p, far}, ids_));
    EXPECT_TRUE(applied) << applied.error().message;
  };
  with_role("db");
  const std::uint64_t used = backend_->installed().arena().used();
  std::uint32_t root = backend_->root();
  std::size_t others = 0, next_heads = 0;
  const auto look_at_root = [&] {
    const std::uint32_t before = std::exchange(root, backend_->root());
    others += root != before ? 1 : 0;
    next_heads += root == before + 32 ? 1 : 0;  // of the same object
  };
  for (const char* to : {"10.9.0.1", "fd00::9"}) {
    SCOPED_TRACE(to);
    const FrameSpec syn = from_p(to, 80);
    FrameSpec ack = syn, second = syn;
    ack.tcp_flags = 0x10;
    EXPECT_EQ(out_of_p(syn), kAllow);
    // More often than a root has heads.
    for (std::uint16_t i = 0; i < 40; ++i) {
      with_role("web");
      second.source_port = static_cast<std::uint16_t>(20'000 + i);
      EXPECT_EQ(out_of_p(ack), kDrop) << "a living connection";
      EXPECT_EQ(out_of_p(second), kDrop);
      look_at_root();
      with_role("db");
      EXPECT_EQ(out_of_p(ack), kAllow);
      EXPECT_EQ(out_of_p(second), kAllow);
      look_at_root();
    }
  }
  EXPECT_EQ(others, 160u);
  EXPECT_GE(next_heads, 155u);
  std::this_thread::sleep_for(std::chrono::milliseconds(120));
  ASSERT_TRUE(backend_->sweep_when_due());
  EXPECT_EQ(backend_->installed().arena().used(), used);
}

// A packet that began before a change keeps all that was: with other rules an address changes beside, not in place. Where
// nothing but the address changes it does, and that is seen by a root that was in force before.
TEST_F(EbpfKernel, AnAddressDoesNotComeBeforeItsRules) {
  auto programs = ebpf::Programs::load("", {});
  ASSERT_TRUE(programs) << programs.error().message;
  ebpf::Installed installed((*programs)->segments(), 1);
  const auto compiled = [&](const std::string& role, const std::string& port) {
    auto p = tierlog::testing::local_pod("a", "p", {"10.1.0.1"}, {{"app", "p"}});
    auto far = tierlog::testing::local_pod("a", "far", {"10.9.0.1"}, {{"role", role}});
    far.local = false;
    return tierlog::testing::compile(
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: out, namespace: a}\nspec: {selector: app == "
        "'p', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {selector: role == 'web', ports: [" +
            port + "]}}]}\n",
        {p, far}, ids_);
  };
  __u32 root = 0;
  std::uint32_t klass = 0;
  const auto put = [&](const std::string& role, const std::string& port) {
    const auto program = compiled(role, port);
    const std::vector<ebpf::Attached> ends{{ebpf::Station::Pod, 0, 7}};
    const auto slot_of = [](RuleId id) -> Result<std::uint32_t> { return number(id); };
    const auto prepared = installed.prepare(*program, ends, slot_of);
    ASSERT_TRUE(prepared) << prepared.error().message;
    klass = installed.class_reference(program->endpoints.front().egress_class);
    installed.flip(root);
    installed.commit(std::chrono::steady_clock::now());
  };
  const auto allows = [&](std::uint32_t by_root, std::uint32_t by_class) {
    policy::Packet packet;
    packet.source = ip("10.1.0.1");
    packet.destination = ip("10.9.0.1");
    packet.protocol = protocol::kTcp;
    packet.source_port = 40'000;
    packet.destination_port = 80;
    const auto answer = (*programs)->ask(question_of(packet, by_root, by_class));
    EXPECT_TRUE(answer) << answer.error().message;
    return answer && answer->action == TL_ALLOW;
  };
  put("db", "80");
  const std::uint32_t first_root = root, first_class = klass;
  EXPECT_FALSE(allows(root, klass));
  put("web", "81");  // address and rules
  EXPECT_FALSE(allows(root, klass));
  EXPECT_FALSE(allows(first_root, first_class)) << "the new address by the old rules: no policy ever said so";
  put("web", "80");  // rules
  EXPECT_TRUE(allows(root, klass));
  const std::uint32_t third_root = root;
  put("db", "80");  // one address
  EXPECT_FALSE(allows(root, klass));
  EXPECT_FALSE(allows(third_root, klass));
}

// A class is made anew where what its rules come to is another thing, though the rules are the same; else it stays.
TEST_F(EbpfKernel, TheSameRulesFollowWhatPortsAreCalled) {
  constexpr const char* kNamed = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: a}
spec: {selector: app == 'p', types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {ports: [http]}}]}
)";
  const auto first = enforce(kNamed, 8080);
  const std::uint32_t klass = backend_->installed().class_reference(first->endpoints.front().egress_class);
  EXPECT_EQ(out_of_p(from_p("10.1.0.2", 8080)), kAllow);
  EXPECT_EQ(out_of_p(from_p("10.1.0.2", 9090)), kDrop);
  const auto same = enforce(kNamed, 8080);
  EXPECT_EQ(backend_->installed().class_reference(same->endpoints.front().egress_class), klass);
  const auto other = enforce(kNamed, 9090);
  EXPECT_EQ(other->rules.front().id, first->rules.front().id);
  EXPECT_EQ(out_of_p(from_p("10.1.0.2", 8080)), kDrop);
  EXPECT_EQ(out_of_p(from_p("10.1.0.2", 9090)), kAllow);
}

// An interface that is made anew under its name is another one.
TEST_F(EbpfKernel, AnInterfaceOfTheSameNameIsFoundAgain) {
  enforce(kOnlyPort80);
  ASSERT_EQ(std::system("ip link delete pod-p && ip link add pod-p type veth peer name pod-q"), 0);
  enforce(kOnlyPort80);
  for (const char* name : {"pod-p", "pod-q"})
    for (const Hook hook : {Hook::Out, Hook::In})
      EXPECT_TRUE(backend_->programs().is_attached(static_cast<int>(::if_nametoindex(name)), hook)) << name;
  EXPECT_EQ(out_of_p(from_p("203.0.113.9", 80)), kAllow);
  EXPECT_EQ(out_of_p(from_p("203.0.113.9", 81)), kDrop);
}

// The way out to a Service and the way into its backend are two entries: the first is named as the second is, and marked.
TEST_F(EbpfKernel, TheWayToAServiceIsApartFromTheWayIntoItsBackend) {
  enforce("");
  ASSERT_TRUE(backend_->set_services({{ip("10.96.0.10"), protocol::kTcp, 80, {{ip("10.1.0.2"), 8080}}}}));
  FrameSpec frame = from_p("10.96.0.10", 80);
  EXPECT_EQ(out_of_p(frame), kAllow);
  frame.to = ip("10.1.0.2");
  frame.port = 8080;
  EXPECT_EQ(run(Hook::In, "pod-q", frame, static_cast<int>(::if_nametoindex("pod-p"))), kAllow);
  const auto told = events();
  ASSERT_EQ(told.size(), 2u);
  std::set<ConnectionTuple> of_events, of_entries;
  for (const VerdictEvent& event : told) {
    EXPECT_EQ(event.destination, ip("10.1.0.2"));
    EXPECT_EQ(event.apart, event.rule == reserved::kNoPolicyEgress);
    of_events.insert({event.source, event.destination, event.protocol, event.source_port, event.destination_port, 0, 0, 0, event.apart});
  }
  const auto flows = backend_->read_flows();
  ASSERT_TRUE(flows);
  for (const ebpf::KnownFlow& entry : *flows)
    of_entries.insert(forward_view(ebpf::connection_of(entry.key, entry.flow, Nanoseconds(0))));
  EXPECT_EQ(of_events.size(), 2u);
  EXPECT_TRUE(of_events == of_entries);
}

// Between its making and the pod's registration it is an interface of the node, which tells of senders behind Services.
TEST_F(EbpfKernel, AnInterfaceHasTheFiltersOfItsStationOnly) {
  const int p = static_cast<int>(::if_nametoindex("pod-p"));
  const auto filters = [p] {
    std::string found;
    for (const Hook hook : {Hook::Out, Hook::In})
      for (const bool of_node : {false, true})
        if (ebpf::Programs::has_filter(p, hook, of_node))
          found += std::string(of_node ? "node" : "pod") + (hook == Hook::Out ? "-out " : "-in ");
    return found;
  };
  const auto lead_somewhere = [&] {
    const auto led = backend_->set_services({{ip("10.96.0.10"), protocol::kTcp, 80, {{ip("10.1.0.2"), 8080}}}});
    EXPECT_TRUE(led) << led.error().message;
  };
  const auto nobody = tierlog::testing::compile("", {}, ids_);
  ASSERT_TRUE(backend_->apply(nobody));
  lead_somewhere();
  EXPECT_EQ(filters(), "node-out ");
  enforce("");
  EXPECT_EQ(filters(), "pod-out pod-in ");
  ASSERT_TRUE(backend_->apply(nobody));
  EXPECT_EQ(filters(), "node-out ");
  open({});
  lead_somewhere();
  ASSERT_TRUE(backend_->programs().attach(p, Hook::Out, ebpf::Whose::Node)) << "as an earlier daemon left it";
  enforce("");
  EXPECT_EQ(filters(), "pod-out pod-in ");
}

TEST_F(EbpfKernel, FragmentsHaveThePortsOfTheFirst) {
  enforce(kOnlyPort80);
  FrameSpec first = from_p("203.0.113.9", 53, protocol::kUdp), later = first;
  first.more_fragments = true;
  first.fragment_id = later.fragment_id = 7;
  later.fragment_offset = 8;
  FrameSpec unknown = later;
  unknown.fragment_id = 8;
  EXPECT_EQ(out_of_p(unknown), kDrop) << "no rule without ports allows it";
  EXPECT_EQ(counted(RuleId{32}), 1u);
  EXPECT_EQ(out_of_p(first), kAllow);
  EXPECT_EQ(out_of_p(later), kAllow);
}

FrameSpec from_port(FrameSpec frame, std::uint16_t source_port, std::uint8_t tcp_flags) {
  frame.source_port = source_port;
  frame.tcp_flags = tcp_flags;
  return frame;
}

constexpr std::uint8_t kSyn = 2, kAck = 0x10;

// Both ways of connections that found no room are judged by the rules; what they deny stays denied.
TEST_F(EbpfKernel, AFullMapChangesNoVerdict) {
  ebpf::EbpfOptions options;
  options.limits.flows = 2;
  open(options);
  enforce(closed_to_others() +
          "  - {action: Allow, protocol: UDP, source: {ports: [123]}, destination: {ports: [123]}}\n"
          "  - {action: Allow, protocol: 47}\n");
  for (std::uint16_t port = 40'000; port < 40'010; ++port) {
    SCOPED_TRACE(port);
    const FrameSpec syn = from_port(from_p("203.0.113.9", 80), port, kSyn);
    EXPECT_EQ(out_of_p(syn), kAllow);
    EXPECT_EQ(into_p(answer_to(syn)), kAllow);
    EXPECT_EQ(out_of_p(from_port(syn, port, kAck)), kAllow);
    FrameSpec question = from_port(from_p("203.0.113.9", 53, protocol::kUdp), port, 0);
    EXPECT_EQ(out_of_p(question), kAllow);
    EXPECT_EQ(into_p(answer_to(question)), kAllow);
    const FrameSpec same = from_port(from_p("203.0.113.9", 123, protocol::kUdp), 123, 0), none = from_p("203.0.113.9", 0, 47);
    for (const FrameSpec& frame : {same, none}) {
      EXPECT_EQ(out_of_p(frame), kAllow) << "nobody has the lower port";
      EXPECT_EQ(into_p(answer_to(frame)), kAllow);
    }
    const FrameSpec other = from_port(from_p("203.0.113.9", 81), port, kAck);
    EXPECT_EQ(out_of_p(other), kDrop);
    EXPECT_EQ(into_p(answer_to(other)), kDrop);
  }
  const auto refused = backend_->read_flows_refused();
  ASSERT_TRUE(refused);
  EXPECT_GE(*refused, 36u);
  EXPECT_LE(backend_->read_flows()->size(), 2u);
}

// Where the map is younger than the connections: who begins is known by the ports.
TEST_F(EbpfKernel, ConnectionsOlderThanTheMapGoOnAsThePoliciesSay) {
  ebpf::EbpfOptions options;
  options.spares_midstream = true;
  open(options);
  enforce(closed_to_others());
  const FrameSpec ack = from_port(from_p("203.0.113.9", 80), 40'000, kAck);
  EXPECT_EQ(out_of_p(ack), kAllow);
  const FrameSpec other = from_port(from_p("203.0.113.8", 80), 40'001, kAck);
  FrameSpec answer = answer_to(other);
  answer.tcp_flags = kAck;
  EXPECT_EQ(into_p(answer), kAllow);
  EXPECT_EQ(out_of_p(from_port(from_p("203.0.113.9", 81), 40'000, kAck)), kDrop);
  const auto flows = backend_->read_flows();
  ASSERT_TRUE(flows);
  ASSERT_EQ(flows->size(), 2u);
  for (const ebpf::KnownFlow& entry : *flows) {
    const Connection connection = ebpf::connection_of(entry.key, entry.flow, Nanoseconds(0));
    EXPECT_EQ(connection.original.source, ip("10.1.0.1"));
    EXPECT_EQ(connection.original.destination_port, 80);
  }
}

TEST_F(EbpfKernel, PingIsAnsweredAndAnErrorBelongsToItsConnection) {
  enforce(kOnlyPort80);
  FrameSpec ping = from_p("203.0.113.9", 0, protocol::kIcmp);
  ping.icmp_type = 8;
  FrameSpec pong = answer_to(ping);
  pong.icmp_type = 0;
  EXPECT_EQ(out_of_p(ping), kAllow);
  EXPECT_EQ(into_p(pong), kAllow);
  const auto flows = backend_->read_flows();
  ASSERT_TRUE(flows);
  ASSERT_EQ(flows->size(), 1u);
  EXPECT_EQ(flows->front().flow.packets[1], 1u);
}

// An exchange by ICMP is its question and the answers to it: not what else has the same id, nor the other side's question.
TEST_F(EbpfKernel, AnotherMessageOfTheSameEndsIsAnotherExchange) {
  enforce(R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: echo, namespace: a}
spec:
  selector: app == 'p'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}
  - {action: Allow, protocol: ICMPv6, icmp: {type: 128, code: 0}}
)");
  struct Message {
    const char* name;
    bool from_p;
    std::uint8_t type4, type6, code;
    std::uint16_t id;
    int verdict;
  };
  // In this order.
  const Message messages[] = {
      {"an answer to nothing", true, 0, 129, 0, 0, kDrop},
      {"a question", false, 8, 128, 0, 0, kAllow},
      {"its answer", true, 0, 129, 0, 0, kAllow},
      {"what asks nothing", false, 10, 141, 0, 0, kDrop},
      {"what asks nothing, back", true, 10, 141, 0, 0, kDrop},
      {"an error about nothing", false, 3, 1, 1, 0, kDrop},
      {"another question with the id", false, 13, 139, 0, 0, kDrop},
      {"the answer to another question", true, 14, 140, 0, 0, kDrop},
      {"the question with another code", false, 8, 128, 1, 0, kDrop},
      {"the answer with another code", true, 0, 129, 1, 0, kDrop},
      {"the other side's own question", true, 8, 128, 0, 0, kDrop},
      {"the answer to that", false, 0, 129, 0, 0, kDrop},
      {"another id", false, 8, 128, 0, 9, kAllow},
      {"the question again", false, 8, 128, 0, 0, kAllow},
  };
  for (const bool v6 : {false, true})
    for (const Message& message : messages) {
      SCOPED_TRACE(std::string(v6 ? "IPv6: " : "IPv4: ") + message.name);
      FrameSpec frame = from_p(v6 ? "2001:db8::9" : "203.0.113.9", 0, v6 ? protocol::kIcmpV6 : protocol::kIcmp);
      if (!message.from_p) frame = answer_to(frame);
      frame.icmp_type = v6 ? message.type6 : message.type4;
      frame.icmp_code = message.code;
      frame.icmp_id = message.id;
      EXPECT_EQ(message.from_p ? out_of_p(frame) : into_p(frame), message.verdict);
    }
  const auto flows = backend_->read_flows();
  ASSERT_TRUE(flows);
  EXPECT_EQ(flows->size(), 4u) << "two ids, two families";
  for (const ebpf::KnownFlow& entry : *flows) {
    const Connection connection = ebpf::connection_of(entry.key, entry.flow, Nanoseconds(0));
    EXPECT_EQ(connection.original.icmp_type, connection.original.protocol == protocol::kIcmp ? 8 : 128);
    EXPECT_EQ(connection.original.destination, ip(connection.original.protocol == protocol::kIcmp ? "10.1.0.1" : "fd00::1"));
  }
}

// As many messages as the rule's rate has, whoever they are about; every packet counts.
TEST_F(EbpfKernel, ALogRuleTellsNoMoreThanItsRate) {
  ebpf::EbpfOptions options;
  options.log_rate = {3, 3600};
  open(options);
  const auto program = enforce(
      "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: log, namespace: a}\n"
      "spec: {selector: app == 'p', types: [Egress], egress: [{action: Log}, {action: Allow}]}\n");
  for (std::uint16_t port = 1; port <= 10; ++port) EXPECT_EQ(out_of_p(from_p("203.0.113.9", port)), kAllow);
  std::size_t logged = 0;
  for (const VerdictEvent& event : events()) logged += event.kind == EventKind::Logged ? 1 : 0;
  EXPECT_EQ(logged, 3u);
  EXPECT_EQ(counted(program->rules.front().id), 10u);
  const auto counters = backend_->read_counters();
  ASSERT_TRUE(counters);
  for (const RuleCounter& counter : *counters)
    if (counter.id == program->rules.front().id) {
      EXPECT_EQ(counter.messages, 3u);
    }
}

}  // namespace
}  // namespace tierlog::dataplane::test
