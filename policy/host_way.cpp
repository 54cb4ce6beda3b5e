#include "policy/host_way.h"

#include <algorithm>
#include <array>
#include <string>

namespace tierlog::policy {
namespace {

const HostEndpoint& endpoint_of(const Program& program, std::uint32_t host) {
  return program.cluster->host_endpoints[program.hosts[host].endpoint];
}

std::uint32_t by_address(const Program& program, const IpAddr& address) {
  const auto found = program.host_by_address.find(address);
  return found == program.host_by_address.end() ? kNone : found->second;
}

// Named ones stand before "*"; one that is known by its addresses is taken when `address` is among them.
std::uint32_t by_interface(const Program& program, const std::string& interface, const IpAddr& address) {
  for (std::uint32_t i = 0; i < program.hosts.size(); ++i) {
    const HostEndpoint& host = endpoint_of(program, i);
    if (host.interface == interface || host.interface == "*") return i;
    const auto& own = host.addresses;
    if (host.interface.empty() && std::find(own.begin(), own.end(), address) != own.end()) return i;
  }
  return kNone;
}

// What a forwarded packet of unknown interfaces passes, as far as that is certain.
std::uint32_t only_one(const Program& program) {
  const auto last = static_cast<std::uint32_t>(program.hosts.size() - 1);
  if (last == 0) return 0;
  const std::string& node = endpoint_of(program, 0).node;
  for (std::uint32_t i = 0; i <= last; ++i)
    if (endpoint_of(program, i).node != node) return kNone;
  return endpoint_of(program, last).interface == "*" ? last : kNone;
}

bool is_failsafe(const std::vector<Failsafe>& failsafes, const Packet& packet, const IpAddr& other_end) {
  return std::any_of(failsafes.begin(), failsafes.end(), [&](const Failsafe& failsafe) {
    return failsafe.admits(packet.protocol, packet.destination_port, other_end);
  });
}

DirectionVerdict failsafe_verdict(Direction direction, Detail detail) {
  const RuleId id = direction == Direction::Ingress ? reserved::kFailsafeIngress : reserved::kFailsafeEgress;
  DirectionVerdict verdict{direction, Action::Allow, id, {}, {}};
  verdict.trace.push_back({kNone, kNone, std::nullopt, id, StepResult::Allowed, false, true,
                           detail == Detail::Full ? "a failsafe port of the node" : ""});
  return verdict;
}

}  // namespace

HostWay host_way(const Program& program, const Packet& packet) {
  HostWay way;
  if (program.hosts.empty()) return way;
  const std::uint32_t of_source = by_address(program, packet.source);
  const std::uint32_t of_destination = by_address(program, packet.destination);
  const bool from_pod = program.enforced(packet.source) != nullptr;
  const bool to_pod = program.enforced(packet.destination) != nullptr;
  // A packet with one interface only begins or ends here, whatever its address (broadcasts).
  const bool arrives = !packet.in_interface.empty() && packet.out_interface.empty();
  const bool leaves = packet.in_interface.empty() && !packet.out_interface.empty();
  way.from_node = of_source != kNone || (leaves && !from_pod);
  way.to_node = of_destination != kNone || (arrives && !to_pod);
  const auto passed = [&](const std::string& interface, const IpAddr& own, std::uint32_t known) {
    if (!interface.empty()) return by_interface(program, interface, own);
    return known != kNone ? known : only_one(program);
  };
  if (!from_pod && !(way.from_node && !way.to_node))
    way.in = passed(packet.in_interface, packet.destination, of_destination);
  if (!to_pod && !(way.to_node && !way.from_node))
    way.out = passed(packet.out_interface, packet.source, of_source);
  // A node to itself goes over its loopback interface.
  if (of_source != kNone && of_destination != kNone && endpoint_of(program, of_source).node == endpoint_of(program, of_destination).node)
    way.in = way.out = kNone;
  return way;
}

std::optional<DirectionVerdict> host_says(const Program& program, const HostWay& way, Direction direction,
                                          const Packet& packet, Detail detail) {
  const bool ingress = direction == Direction::Ingress;
  const std::uint32_t index = ingress ? way.in : way.out;
  const ProgramHost& host = program.hosts[index];
  const bool local = ingress ? way.to_node : way.from_node;
  const bool failsafe = is_failsafe(ingress ? program.failsafes.inbound : program.failsafes.outbound, packet,
                                    ingress ? packet.source : packet.destination);
  std::optional<DirectionVerdict> verdict;
  const auto ask = [&](Stage stage) { verdict = walk_class(program, host.class_of(direction, stage), packet, detail); };
  // The early stages see what comes in, whoever it is for, and what the node itself sends.
  if ((ingress || local) && !failsafe) {
    ask(Stage::Untracked);
    if (!verdict) ask(Stage::PreDnat);
  }
  if (!verdict && local && failsafe)
    verdict = failsafe_verdict(direction, detail);
  else if (!verdict)
    ask(local ? Stage::Local : Stage::Forward);
  if (verdict) verdict->host = index;
  return verdict;
}

}  // namespace tierlog::policy
