#include "tests/e2e/bypass.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "endpoints/control.h"
#include "store/query.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;
using lab::FrameSpec;

constexpr std::uint16_t kDenied = 9999;
constexpr std::uint16_t kUntracked = 9998;
constexpr std::uint16_t kFriendsOnly = 8000;
constexpr std::uint16_t kForAll = 7777;
constexpr const char* kSentinel = "sentinel-of-the-bypass-test";
constexpr lab::Mac kAlien{0x02, 0x00, 0x00, 0x00, 0x00, 0x66};

const std::vector<RuleId> kVlan{reserved::kVlanEgress};
const std::vector<RuleId> kSpoofed{reserved::kSpoofedEgress};
const std::vector<RuleId> kOther{reserved::kOtherEgress};
const std::vector<RuleId> kEthertype{reserved::kEthertypeEgress};
const std::vector<RuleId> kUnaddressed{reserved::kSpoofedIngress, reserved::kOtherEgress};
// A pod's guard may find it on its way out, the receiver's on its way in.
const std::vector<RuleId> kMidStream{reserved::kMidStreamEgress, reserved::kMidStreamIngress,
                                     reserved::kInvalidEgress, reserved::kInvalidIngress};

bool is_v4(const FrameSpec& frame) {
  return frame.to.family == Family::V4;
}

IpAddr either(const FrameSpec& frame, const char* v4, const char* v6) {
  return *IpAddr::parse(is_v4(frame) ? v4 : v6);
}

IpAddr link_local(const lab::Mac& mac) {
  IpAddr address = *IpAddr::parse("fe80::ff:fe00:0");
  address.bytes[8] = static_cast<std::uint8_t>(mac[0] ^ 2);
  std::copy(mac.begin() + 1, mac.begin() + 3, address.bytes.begin() + 9);
  std::copy(mac.begin() + 3, mac.end(), address.bytes.begin() + 13);
  return address;
}

void tcp(FrameSpec& frame, std::uint8_t flags) {
  frame.protocol = protocol::kTcp;
  frame.tcp_flags = flags;
}

// A value that another process found out.
template <typename Value, typename Work>
Value from_host(const lab::Lab& lab, const std::string& host, const Work& work) {
  void* shared = ::mmap(nullptr, sizeof(Value), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* value = new (shared) Value{};
  const auto code = lab.run_in(host, [&] {
    *value = work();
    return 0;
  });
  EXPECT_EQ(code.value_or(-1), 0) << host;
  const Value found = *value;
  ::munmap(shared, sizeof(Value));
  return found;
}

lab::Mac mac_of(const lab::Lab& lab, const std::string& host) {
  return from_host<lab::Mac>(lab, host, [] { return lab::own_mac().value_or(lab::Mac{}); });
}

// The hardware address of a routed pod's gateway, out of its table of neighbours.
lab::Mac gateway_of(const lab::Lab& lab, const std::string& host, const IpAddr& beyond) {
  return from_host<lab::Mac>(lab, host, [&] {
    static_cast<void>(lab::try_udp(beyond, kForAll, 500ms));
    std::ifstream table("/proc/net/arp");
    std::string line;
    std::getline(table, line);
    lab::Mac mac{};
    std::string address, type, flags, text;
    table >> address >> type >> flags >> text;
    std::array<unsigned, 6> parts{};
    std::sscanf(text.c_str(), "%x:%x:%x:%x:%x:%x", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4],
                &parts[5]);
    for (std::size_t i = 0; i < mac.size(); ++i) mac[i] = static_cast<std::uint8_t>(parts[i]);
    return mac;
  });
}

std::string mark_of(std::size_t number) {
  return "bypass-frame-" + std::to_string(1000 + number) + "-mark";
}

FrameSpec honest(const Link& link, std::uint16_t source_port, const std::string& mark) {
  FrameSpec frame;
  frame.source = link.sender;
  frame.destination = link.next_hop;
  frame.from = link.from;
  frame.to = link.to;
  frame.source_port = source_port;
  frame.port = kDenied;
  frame.fragment_id = source_port;
  frame.mark = mark;
  return frame;
}

// Sent before all cases: a connection of the sender's that everybody allows.
FrameSpec to_friend(const Link& link) {
  FrameSpec frame = honest(link, 40'999, "known-to-the-bypass-test");
  frame.to = link.friends;
  frame.port = kForAll;
  if (link.next_hop == link.receiver) frame.destination = link.friendly;
  return frame;
}

void about_the_friends(FrameSpec& frame, const Link& link) {
  FrameSpec came = to_friend(link);
  std::swap(came.from, came.to);
  std::swap(came.source_port, came.port);
  came.mark = frame.mark;
  const lab::Bytes whole = lab::build(came);
  frame.mark.assign(whole.begin() + 14, whole.end());
  frame.protocol = protocol::kIcmp;
  frame.icmp_type = is_v4(frame) ? 3 : 1;
}

}  // namespace

const std::vector<BypassCase>& bypass_cases() {
  static const std::vector<BypassCase> kCases = {
      {"DeniedPort", kEverywhere, kBoth, [](FrameSpec&, const Link&) {}, {}},
      {"Vlan8021q", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { f.tags = {0x8100}; }, kVlan},
      {"Vlan8021ad", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { f.tags = {0x88a8}; }, kVlan},
      {"VlanTwice", kEverywhere, kBoth,
       [](FrameSpec& f, const Link&) {
         f.tags = {0x88a8, 0x8100};
       },
       kVlan},
      {"SpoofedFriend", kEverywhere, kBoth,
       [](FrameSpec& f, const Link& link) {
         f.from = link.friends;
         f.port = kFriendsOnly;
       },
       kSpoofed},
      {"SpoofedStranger", kEverywhere, kBoth,
       [](FrameSpec& f, const Link&) {
         f.from = either(f, "203.0.113.77", "2001:db8:113::77");
         f.port = kForAll;
       },
       kSpoofed},
      {"SpoofedMac", kEverywhere, kBoth,
       [](FrameSpec& f, const Link&) {
         f.source = kAlien;
         f.port = kForAll;
       },
       kSpoofed},
      {"Broadcast", kBridge, kV4Only,
       [](FrameSpec& f, const Link&) {
         f.destination = lab::kBroadcast;
         f.to = *IpAddr::parse("255.255.255.255");
       },
       kOther},
      {"BroadcastToOnePod",
       kBridge,
       kBoth,
       [](FrameSpec& f, const Link&) { f.destination = lab::kBroadcast; },
       {}},
      {"Multicast", kBridge, kBoth,
       [](FrameSpec& f, const Link&) {
         f.to = either(f, "224.0.0.251", "ff02::fb");
         f.destination = lab::multicast_mac(f.to);
       },
       kOther},
      {"LinkLocal", kBridge, kV6Only,
       [](FrameSpec& f, const Link& link) {
         f.from = link_local(link.sender);
         f.to = link_local(link.receiver);
       },
       kOther},
      {"Ethertype", kBridge, kBoth, [](FrameSpec& f, const Link&) { f.ethertype = 0x88b5; }, kEthertype},
      {"ClaimedAddress", kBridge, kBoth, nullptr, kSpoofed, true},
      {"AddressNobodyGave", kBridge, kBoth,
       [](FrameSpec& f, const Link&) { f.to = either(f, "10.1.0.88", "fd01::88"); }, kUnaddressed},
      {"MidStreamAck", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { tcp(f, 0x10); }, kMidStream},
      {"MidStreamSynAck", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { tcp(f, 0x12); }, kMidStream},
      {"TcpNoFlags", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { tcp(f, 0x00); }, kMidStream},
      {"TcpSynFin", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { tcp(f, 0x03); }, kMidStream},
      {"TcpXmas", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { tcp(f, 0x29); }, kMidStream},
      {"EchoReplyFirst",
       kEverywhere,
       kBoth,
       [](FrameSpec& f, const Link&) {
         f.protocol = protocol::kIcmp;
         f.icmp_type = is_v4(f) ? 0 : 129;
       },
       {}},
      {"ErrorOfNothing",
       kEverywhere,
       kBoth,
       [](FrameSpec& f, const Link&) {
         f.protocol = protocol::kIcmp;
         f.icmp_type = is_v4(f) ? 3 : 1;
       },
       {}},
      {"ErrorAboutAnother", kEverywhere, kBoth, about_the_friends, {}},
      {"FirstFragment", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { f.more_fragments = true; }, {}},
      {"LaterFragment", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { f.fragment_offset = 64; }, {}},
      {"UnknownProtocol", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { f.protocol = 253; }, {}},
      {"Untracked", kEverywhere, kBoth, [](FrameSpec& f, const Link&) { f.port = kUntracked; }, {}},
  };
  return kCases;
}

bool exists_in(const BypassCase& one, Family family) {
  return ((family == Family::V4 ? 1U : 2U) & one.families) != 0;
}

std::string bypass_policy() {
  return R"(apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: victim, namespace: t}
spec:
  selector: app in {'victim', 'heir'}
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {selector: app == 'victim', ports: [7777]}}
  - {action: Allow, protocol: UDP, source: {selector: app == 'friend'}, destination: {selector: app == 'victim', ports: [8000]}}
)";
}

Result<lab::Lab> bypass_lab(const std::string& cni, bool enforced, const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/" + cni + ".yaml") << R"(namespaces: [{name: t}]
pods:
- {name: mallory, namespace: t, labels: {app: mallory}, ips: [10.1.0.5, "fd01::5"]}
- {name: friend, namespace: t, labels: {app: friend}, ips: [10.1.0.6, "fd01::6"]}
- {name: victim, namespace: t, labels: {app: victim}, ips: [10.1.0.7, "fd01::7"], ports: [{port: 7777}, {port: 8000}, {port: 9999}]}
lab: {cni: )" << cni << "}\n";
  std::ofstream(folder + "/policy.yaml") << bypass_policy();
  lab::LabOptions options;
  options.name = "e2e-bypass-" + cni + (enforced ? "-on-" : "-off-") + std::to_string(::getpid());
  options.policies = {folder + "/policy.yaml"};
  options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
  options.life = lab::LabOptions::Life::WithCaller;
  options.start_daemon = enforced;
  TL_ASSIGN(lab::Lab lab, lab::Lab::up(folder + "/" + cni + ".yaml", options));
  // Packets that conntrack does not follow.
  for (const char* family : {"ip", "ip6"}) {
    const std::string rules =
        std::string("table ") + family +
        " untracked { chain pre { type filter hook prerouting priority -300; udp dport " +
        std::to_string(kUntracked) + " notrack; }; }";
    TL_ASSIGN(const int code, lab.exec("node", {"nft", rules}));
    if (code != 0) return fail(ErrorCode::Refused, "nft " + rules);
  }
  return lab;
}

Link look_at(const lab::Lab& lab, Family family, const std::string& cni) {
  Link link{};
  link.sender = mac_of(lab, "t/mallory");
  link.friendly = mac_of(lab, "t/friend");
  link.receiver = mac_of(lab, "t/victim");
  link.from = *lab.address("t/mallory", family);
  link.friends = *lab.address("t/friend", family);
  link.to = *lab.address("t/victim", family);
  link.next_hop =
      cni == "bridge" ? link.receiver : gateway_of(lab, "t/mallory", *lab.address("t/victim", Family::V4));
  return link;
}

std::vector<bool> send_all(const lab::Lab& lab, const Link& link, Family family) {
  std::vector<lab::Bytes> frames;
  std::vector<std::string> marks;
  const auto& cases = bypass_cases();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    marks.push_back(mark_of(i));
    if (!exists_in(cases[i], family)) continue;
    if (cases[i].is_claim) {
      marks.back() = lab::claim_mark(link.sender, link.friends);
      frames.push_back(lab::claim(link.sender, link.receiver, link.friends, link.to));
      continue;
    }
    FrameSpec frame = honest(link, static_cast<std::uint16_t>(41'000 + i), marks.back());
    cases[i].shape(frame, link);
    frames.push_back(lab::build(frame));
  }
  frames.insert(frames.begin(), lab::build(to_friend(link)));
  FrameSpec sentinel = honest(link, 42'000, kSentinel);
  sentinel.port = kForAll;
  frames.push_back(lab::build(sentinel));

  std::array<int, 2> ready{};
  EXPECT_EQ(::pipe(ready.data()), 0);
  void* shared = ::mmap(nullptr, marks.size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* arrived = static_cast<std::uint8_t*>(shared);
  const auto watching = lab.start_in("t/victim", [&] {
    const auto watch = lab::Watch::open();
    if (!watch || ::write(ready[1], "r", 1) != 1) return 1;
    const auto seen = watch->until(kSentinel, marks, 5s);
    for (std::size_t i = 0; seen && i < marks.size(); ++i) arrived[i] = (*seen)[i] ? 1 : 0;
    return seen ? 0 : 2;
  });
  EXPECT_TRUE(watching);
  char word = 0;
  EXPECT_EQ(::read(ready[0], &word, 1), 1);
  EXPECT_EQ(lab.run_in("t/mallory", [&] { return lab::send_frames(frames) ? 0 : 1; }).value_or(-1), 0);
  int status = 0;
  ::waitpid(watching.value_or(-1), &status, 0);
  EXPECT_EQ(status, 0) << "the sentinel did not arrive";
  for (const int end : ready) ::close(end);
  std::vector<bool> found(arrived, arrived + marks.size());
  ::munmap(shared, marks.size());
  return found;
}

std::vector<std::uint64_t> reserved_counters(const lab::Lab& lab) {
  std::vector<std::uint64_t> counters(kFirstPolicyRuleId, 0);
  const auto flushed = endpoints::call(lab.socket(), {{"op", "flush"}});
  EXPECT_TRUE(flushed) << flushed.error().message;
  auto reader = store::FlowReader::open(lab.database());
  if (!reader) return counters;
  const auto rules = reader->rules({}, true);
  EXPECT_TRUE(rules);
  for (const auto& rule : *rules)
    if (number(rule.rule.id) < counters.size()) counters[number(rule.rule.id)] = rule.kernel_packets;
  return counters;
}

}  // namespace tierlog::testing
