#include "policy/program.h"

#include <algorithm>
#include <charconv>
#include <string_view>

namespace tierlog::policy {

bool AddressSet::contains(const IpAddr& address) const {
  // Only the last member that starts at or before the address can hold it: none lies inside another.
  const auto after = std::upper_bound(members.begin(), members.end(), address,
                                      [](const IpAddr& a, const Cidr& member) { return a < member.address; });
  return after != members.begin() && std::prev(after)->contains(address);
}

bool PortSet::contains(const IpAddr& address, std::uint8_t protocol, std::uint16_t port) const {
  return std::binary_search(members.begin(), members.end(), EndpointPort{address, protocol, port});
}

const ProgramEndpoint* Program::enforced(const IpAddr& address) const {
  const auto found = enforced_by_address.find(address);
  return found == enforced_by_address.end() ? nullptr : &endpoints[found->second];
}

const Endpoint* Program::known(const IpAddr& address) const {
  const auto found = endpoint_by_address.find(address);
  return found == endpoint_by_address.end() ? nullptr : &cluster->endpoints[found->second];
}

std::uint32_t ProgramHost::class_of(Direction direction, Stage stage) const {
  const bool ingress = direction == Direction::Ingress;
  switch (stage) {
    case Stage::Local:
      return ingress ? ingress_class : egress_class;
    case Stage::Forward:
      return ingress ? forward_ingress : forward_egress;
    case Stage::PreDnat:
      return ingress ? pre_dnat : kNone;
    case Stage::Untracked:
      break;
  }
  return ingress ? untracked_ingress : untracked_egress;
}

std::optional<Failsafe> Failsafe::parse(std::string_view text) {
  const auto first = text.find(':'), last = text.rfind(':');
  if (first == std::string_view::npos) return std::nullopt;
  Failsafe failsafe;
  const std::string_view word = text.substr(0, first), number = text.substr(last + 1);
  if (word != "tcp" && word != "udp" && word != "sctp") return std::nullopt;
  failsafe.protocol = *protocol::parse(word);
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), failsafe.port);
  if (error != std::errc() || end != number.data() + number.size() || failsafe.port == 0) return std::nullopt;
  if (first == last) return failsafe;
  std::string_view net = text.substr(first + 1, last - first - 1);
  if (net.starts_with('[') && net.ends_with(']')) net = net.substr(1, net.size() - 2);
  failsafe.net = Cidr::parse(std::string(net));
  if (!failsafe.net) return std::nullopt;
  return failsafe;
}

bool Failsafe::admits(std::uint8_t protocol_number, std::uint16_t port_number, const IpAddr& other_end) const {
  return protocol_number == protocol && port_number == port && (!net || net->contains(other_end));
}

const Failsafes& default_failsafes() {
  static const Failsafes defaults = [] {
    constexpr std::uint16_t both[] = {179, 2379, 2380, 5473, 6443, 6666, 6667};
    Failsafes failsafes;
    failsafes.inbound = {{protocol::kTcp, 22, {}}, {protocol::kUdp, 68, {}}};
    failsafes.outbound = {{protocol::kUdp, 53, {}}, {protocol::kUdp, 67, {}}};
    for (const std::uint16_t port : both) {
      failsafes.inbound.push_back({protocol::kTcp, port, {}});
      failsafes.outbound.push_back({protocol::kTcp, port, {}});
    }
    return failsafes;
  }();
  return defaults;
}

}  // namespace tierlog::policy
