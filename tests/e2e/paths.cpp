#include "tests/e2e/paths.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "endpoints/control.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;
using namespace protocol;

constexpr auto kPatience = 800ms;  // below the first retransmission of a SYN
constexpr std::size_t kSideBySide = 24;
constexpr std::uint16_t kFirstPort = 2000;
constexpr std::uint16_t kNodePorts = 30000;  // + the number
constexpr const char* kFirstNode = "node-1";
constexpr const char* kSecondNode = "node-2";       // its tierlogd judges what the node sends, too
constexpr const char* kPlainOutside = "outside:1";  // an address that pods reach unmasqueraded

bool is_pod(const std::string& host) {
  return host.find('/') != std::string::npos && !host.starts_with("p/agent");
}

std::string node_of(const std::string& host) {
  return host == "p/far" || host == "p/agent-2" || host == kSecondNode ? kSecondNode : kFirstNode;
}

bool is_self(const Path& path) {
  return std::string(path.from) == path.to;
}

// The node itself to its own pod, where that is always allowed.
bool is_host(const Path& path) {
  const std::string from = path.from;
  return !is_pod(from) && from != "outside" && node_of(from) == kFirstNode && is_pod(path.to) &&
         node_of(path.to) == kFirstNode;
}

std::vector<Variant> variants_of(const Path& path) {
  std::vector<Variant> variants{Variant::Allow};
  if (is_self(path) || is_host(path)) return variants;
  if (is_pod(path.from)) variants.push_back(Variant::DenyEgress);
  if (is_pod(path.to)) variants.push_back(Variant::DenyIngress);
  return variants;
}

// The rules' index grows with the shots, one rule a direction each.
std::vector<Side> sides_of(const Path& path, Variant variant, int rule) {
  std::vector<Side> sides;
  const bool self = is_self(path);
  if (is_pod(path.from)) {
    const bool allows = variant != Variant::DenyEgress;
    sides.push_back({node_of(path.from), Direction::Egress, allows, self ? std::nullopt : std::optional(rule),
                     self ? Reason::Self : Reason::Policy});
    if (!allows) return sides;
  }
  if (!is_pod(path.to)) return sides;
  const bool reserved = self || is_host(path);
  const Reason reason = self ? Reason::Self : reserved ? Reason::Host : Reason::Policy;
  sides.push_back({node_of(path.to), Direction::Ingress, variant != Variant::DenyIngress,
                   reserved ? std::nullopt : std::optional(rule), reason});
  return sides;
}

std::vector<IpAddr> addresses_of(const lab::Lab& lab, const std::string& host, Family family) {
  const std::string name = host == kFirstNode ? "node" : host == kPlainOutside ? "outside" : host;
  std::vector<IpAddr> found;
  for (const lab::LabHost& one : lab.hosts()) {
    if (one.name != name) continue;
    for (const IpAddr& address : one.addresses)
      if (address.family == family) found.push_back(address);
  }
  return found;
}

// The node's address on the pods' side: the first of their net.
IpAddr gateway_of(const lab::Lab& lab, Family family) {
  IpAddr gateway = addresses_of(lab, "p/client", family).front();
  gateway.bytes[gateway.size() - 1] = 1;
  return gateway;
}

lab::Attempt attempt(const Shot& shot) {
  lab::Sender sender{shot.from, 0, 0};
  const bool at_node = shot.path->via == Via::NodePortOfFirst;
  const auto port = static_cast<std::uint16_t>(shot.number + (at_node ? kNodePorts : 0));
  if (shot.path->protocol == kTcp) return lab::try_tcp(shot.to, port, kPatience, sender);
  if (shot.path->protocol == kUdp) return lab::try_udp(shot.to, port, kPatience, sender);
  sender.icmp_code = static_cast<std::uint8_t>(shot.number);
  return lab::try_ping(shot.to, kPatience, sender);
}

}  // namespace

const std::vector<Path> kPaths = {
    {"PodToPodTcp", "p/client", Via::Direct, "p/server", kTcp},
    {"PodToPodUdp", "p/client", Via::Direct, "p/server", kUdp},
    {"PodToPodIcmp", "p/client", Via::Direct, "p/server", kIcmp},
    {"PodToPodSecondAddress", "p/client", Via::Direct, "p/server", kTcp, 0, 1},
    {"PodSecondAddressToPod", "p/client", Via::Direct, "p/server", kUdp, 1, 0},
    {"PodServiceItselfTcp", "p/server", Via::ClusterIp, "p/server", kTcp},
    {"PodServiceItselfUdp", "p/server", Via::ClusterIp, "p/server", kUdp},
    {"PodNodePortItself", "p/server", Via::NodePortOfFirst, "p/server", kTcp},
    {"PodServicePodTcp", "p/client", Via::ClusterIp, "p/server", kTcp},
    {"PodServicePodUdp", "p/client", Via::ClusterIp, "p/server", kUdp},
    {"PodNodePortPodTcp", "p/client", Via::NodePortOfFirst, "p/server", kTcp},
    {"PodNodePortPodUdp", "p/client", Via::NodePortOfFirst, "p/server", kUdp},
    {"PodToNodeTcp", "p/client", Via::Direct, "node-1", kTcp},
    {"PodToNodeUdp", "p/client", Via::Direct, "node-1", kUdp},
    {"PodToNodeIcmp", "p/client", Via::Direct, "node-1", kIcmp},
    {"NodeToPodTcp", "node-1", Via::Direct, "p/server", kTcp},
    {"NodeToPodUdp", "node-1", Via::Direct, "p/server", kUdp},
    {"NodeToPodIcmp", "node-1", Via::Direct, "p/server", kIcmp},
    {"NodeServicePod", "node-1", Via::ClusterIp, "p/server", kTcp},
    {"NodeNodePortPod", "node-1", Via::NodePortOfFirst, "p/server", kTcp},
    {"HostNetworkPodToPod", "p/agent-1", Via::Direct, "p/server", kTcp},
    {"NodeToPodByPolicyTcp", "node-2", Via::Direct, "p/far", kTcp},
    {"NodeToPodByPolicyUdp", "node-2", Via::Direct, "p/far", kUdp},
    {"NodeToPodOfOtherNode", "node-1", Via::Direct, "p/far", kTcp},
    {"OutsideToPodTcp", "outside", Via::Direct, "p/server", kTcp},
    {"OutsideToPodUdp", "outside", Via::Direct, "p/server", kUdp},
    {"OutsideToPodIcmp", "outside", Via::Direct, "p/server", kIcmp},
    {"OutsideServicePod", "outside", Via::ClusterIp, "p/server", kTcp},
    {"OutsideNodePortPodTcp", "outside", Via::NodePortOfFirst, "p/server", kTcp},
    {"OutsideNodePortPodUdp", "outside", Via::NodePortOfFirst, "p/server", kUdp},
    {"OutsideNodePortPodOfOtherNode", "outside", Via::NodePortOfFirst, "p/far", kTcp, 0, 0, "node-1"},
    {"PodToOutsideMasqueradedTcp", "p/client", Via::Direct, "outside", kTcp},
    {"PodToOutsideMasqueradedIcmp", "p/client", Via::Direct, "outside", kIcmp},
    {"PodToOutsidePlainUdp", "p/client", Via::Direct, kPlainOutside, kUdp, 0, 1},
    {"PodToPodOfOtherNodeTcp", "p/client", Via::Direct, "p/far", kTcp},
    {"PodToPodOfOtherNodeUdp", "p/client", Via::Direct, "p/far", kUdp},
    {"PodServicePodOfOtherNode", "p/client", Via::ClusterIp, "p/far", kTcp},
};

std::string Shot::title() const {
  const char* what = variant == Variant::Allow        ? "allow"
                     : variant == Variant::DenyEgress ? "deny egress"
                                                      : "deny ingress";
  return std::string(path->name) + (family == Family::V4 ? " IPv4 " : " IPv6 ") + what;
}

bool Shot::allowed() const {
  return std::all_of(sides.begin(), sides.end(), [](const Side& side) { return side.allows; });
}

std::vector<Shot> plan_shots() {
  std::vector<Shot> shots;
  std::uint16_t code = 1;
  for (const Family family : {Family::V4, Family::V6})
    for (const Path& path : kPaths)
      for (const Variant variant : variants_of(path)) {
        Shot shot;
        shot.path = &path;
        shot.variant = variant;
        shot.family = family;
        const auto index = static_cast<int>(shots.size());
        shot.number = path.protocol == kIcmp ? code++ : static_cast<std::uint16_t>(kFirstPort + index);
        shot.sides = sides_of(path, variant, index);
        shots.push_back(std::move(shot));
      }
  return shots;
}

std::string paths_topology(const std::vector<Shot>& shots, const std::string& cni) {
  std::map<std::string, std::string> listens, serves;
  for (const Shot& shot : shots) {
    const Path& path = *shot.path;
    if (path.protocol == kIcmp) continue;
    const std::string number = std::to_string(shot.number);
    const std::string kind = path.protocol == kTcp ? "TCP" : "UDP";
    const std::string to = path.to == std::string(kFirstNode) ? "p/agent-1" : path.to;
    if (shot.variant == Variant::Allow)
      listens[to] += "{name: n" + number + ", protocol: " + kind + ", port: " + number + "}, ";
    if (path.via != Via::Direct)
      serves[to] += "{name: n" + number + ", protocol: " + kind + ", port: " + number +
                    ", nodePort: " + std::to_string(kNodePorts + shot.number) + "}, ";
  }
  std::ostringstream out;
  out << "namespaces: [{name: p}]\n"
         "nodes:\n- {name: node-1, ips: [198.51.100.1, \"2001:db8:100::1\"]}\n"
         "- {name: node-2, ips: [198.51.100.2, \"2001:db8:100::2\"]}\npods:\n";
  const auto pod = [&](const std::string& name, const char* node, const char* rest) {
    out << "- {name: " << name << ", namespace: p, node: " << node << ", labels: {app: " << name << "}, "
        << rest << ", ports: [" << listens["p/" + name] << "]}\n";
  };
  pod("client", kFirstNode, "ips: [10.244.1.2, 10.244.1.12, \"fd00:244:1::2\", \"fd00:244:1::12\"]");
  pod("server", kFirstNode, "ips: [10.244.1.3, 10.244.1.13, \"fd00:244:1::3\", \"fd00:244:1::13\"]");
  pod("far", kSecondNode, "ips: [10.244.2.3, \"fd00:244:2::3\"]");
  pod("agent-1", kFirstNode, "hostNetwork: true");
  pod("agent-2", kSecondNode, "hostNetwork: true");
  out << "services:\n";
  int number = 10;
  for (const auto& [to, ports] : serves) {
    // Known to the daemon: programs see packets to a Service before they are translated.
    out << "- {name: " << to.substr(2) << ", namespace: p, type: NodePort, clusterIPs: [10.96.7." << number
        << ", \"fd00:96::7:" << number << "\"], selector: {app: " << to.substr(2) << "}, ports: [" << ports << "]}\n";
    ++number;
  }
  out << "lab: {cni: " << cni
      << ", masquerade: true, outside: [203.0.113.9, 203.0.113.50, \"2001:db8:113::9\", "
         "\"2001:db8:113::50\"]}\n";
  return out.str();
}

std::string paths_policy(const std::vector<Shot>& shots) {
  std::ostringstream out;
  out << "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: paths}\n"
         "spec:\n  selector: all()\n  types: [Ingress, Egress]\n";
  for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
    out << "  " << name(direction) << ":\n";
    for (const Shot& shot : shots) {
      const Path& path = *shot.path;
      // What the policy says of traffic that it has no say in: the opposite of what happens.
      const bool ignored = is_self(path) || is_host(path);
      const Variant denies = direction == Direction::Egress ? Variant::DenyEgress : Variant::DenyIngress;
      const bool deny = ignored || shot.variant == denies;
      out << "  - {action: " << (deny ? "Deny" : "Allow") << ", ";
      if (path.protocol == kIcmp)
        out << (shot.family == Family::V4 ? "protocol: ICMP, icmp: {type: 8"
                                          : "protocol: ICMPv6, icmp: {type: 128")
            << ", code: " << shot.number << "}}\n";
      else
        out << "protocol: " << (path.protocol == kTcp ? "TCP" : "UDP") << ", destination: {ports: ["
            << shot.number << "]}}\n";
    }
  }
  return out.str();
}

void aim(std::vector<Shot>& shots, const lab::Lab& lab) {
  for (Shot& shot : shots) {
    const Path& path = *shot.path;
    const auto own = addresses_of(lab, path.from, shot.family);
    const auto targets = addresses_of(lab, path.to, shot.family);
    ASSERT_GT(own.size(), path.source) << shot.title();
    ASSERT_GT(targets.size(), path.target) << shot.title();
    shot.reached = shot.to = targets[path.target];
    if (path.via == Via::NodePortOfFirst) shot.to = addresses_of(lab, kFirstNode, shot.family).front();
    if (path.via == Via::ClusterIp) {
      for (const auto& service : lab.services()) {
        const auto at = std::ranges::find(service.cluster_ips, shot.family, &IpAddr::family);
        if (service.display() == path.to && at != service.cluster_ips.end()) shot.to = *at;
      }
    }
    shot.from = own[path.source];
    shot.sources = {shot.from};
    shot.observed = path.seen != nullptr ? addresses_of(lab, path.seen, shot.family) : shot.sources;
    // Programs see the node behind its masquerade: by its address towards the pod.
    const char* plane = std::getenv("TIERLOG_DATAPLANE");
    if (is_host(path) && path.via != Via::Direct && plane != nullptr && std::string(plane) == "ebpf")
      shot.observed.push_back(gateway_of(lab, shot.family));
  }
}

void shoot(const lab::Lab& lab, std::vector<Shot*> shots) {
  void* shared = ::mmap(nullptr, shots.size() * sizeof(lab::Attempt), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* outcomes = static_cast<lab::Attempt*>(shared);
  std::map<std::string, std::vector<std::size_t>> by_host;
  for (std::size_t i = 0; i < shots.size(); ++i) by_host[shots[i]->path->from].push_back(i);
  std::vector<pid_t> children;
  for (const auto& [host, mine] : by_host) {
    const auto child = lab.start_in(host, [&] {
      std::atomic<std::size_t> next{0};
      std::vector<std::thread> threads;
      for (std::size_t i = 0; i < std::min(kSideBySide, mine.size()); ++i)
        threads.emplace_back([&] {
          for (std::size_t at = next++; at < mine.size(); at = next++)
            outcomes[mine[at]] = attempt(*shots[mine[at]]);
        });
      for (std::thread& thread : threads) thread.join();
      return 0;
    });
    ASSERT_TRUE(child) << child.error().message;
    children.push_back(*child);
  }
  for (const pid_t child : children) ::waitpid(child, nullptr, 0);
  for (std::size_t i = 0; i < shots.size(); ++i) shots[i]->outcome = outcomes[i];
  ::munmap(shared, shots.size() * sizeof(lab::Attempt));
}

AllBooks read_books(const lab::Lab& lab) {
  AllBooks all;
  for (const lab::LabNode& node : lab.nodes()) {
    const auto flushed = endpoints::call(node.socket, {{"op", "flush"}});
    EXPECT_TRUE(flushed) << flushed.error().message;
    auto reader = store::FlowReader::open(node.database);
    if (!reader) {
      ADD_FAILURE() << reader.error().message;
      continue;
    }
    store::FlowQuery everything;
    everything.limit = 0;
    auto records = reader->flows(everything);
    auto rules = reader->rules({}, true);
    EXPECT_TRUE(records && rules);
    if (!records || !rules) continue;
    Books& books = all[node.name];
    for (store::StoredRecord& stored : *records) books.records.push_back(std::move(stored.record));
    books.rules = std::move(*rules);
  }
  return all;
}

}  // namespace tierlog::testing
