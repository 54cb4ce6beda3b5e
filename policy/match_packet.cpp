#include "policy/match_packet.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "policy/set_table.h"

namespace tierlog::policy {
namespace {

using Criterion = Mismatch::Criterion;

// One end of the packet and what the match says of it.
struct Side {
  const PeerMatch& match;
  const IpAddr& address;
  std::uint16_t port;
  bool is_destination;
};

Side source_of(const Match& match, const Packet& packet) {
  return {match.source, packet.source, packet.source_port, false};
}

Side destination_of(const Match& match, const Packet& packet) {
  return {match.destination, packet.destination, packet.destination_port, true};
}

bool is_exactly(const IcmpSpec& icmp, const Packet& packet) {
  return protocol::is_icmp(packet.protocol) && (!icmp.type || *icmp.type == packet.icmp_type) &&
         (!icmp.code || *icmp.code == packet.icmp_code);
}

bool is_among(const Program& program, const std::vector<PortRange>& ranges,
              const std::optional<std::uint32_t>& set, const Side& side, std::uint8_t protocol) {
  const auto holds = [&](const PortRange& range) { return range.contains(side.port); };
  return std::any_of(ranges.begin(), ranges.end(), holds) ||
         (set && program.port_sets[*set].contains(side.address, protocol, side.port));
}

std::optional<Mismatch> protocol_mismatch(const Match& match, const Packet& packet) {
  if (match.protocol && *match.protocol != packet.protocol) return Mismatch{Criterion::Protocol};
  if (match.not_protocol && *match.not_protocol == packet.protocol) return Mismatch{Criterion::NotProtocol};
  if (match.icmp && !is_exactly(*match.icmp, packet)) return Mismatch{Criterion::Icmp};
  if (match.not_icmp && is_exactly(*match.not_icmp, packet)) return Mismatch{Criterion::NotIcmp};
  return std::nullopt;
}

std::optional<Mismatch> address_mismatch(const Program& program, const Side& side) {
  for (const std::uint32_t set : side.match.in_sets)
    if (!program.sets[set].contains(side.address))
      return Mismatch{Criterion::InSet, side.is_destination, set};
  for (const std::uint32_t set : side.match.not_in_sets)
    if (program.sets[set].contains(side.address))
      return Mismatch{Criterion::NotInSet, side.is_destination, set};
  return std::nullopt;
}

std::optional<Mismatch> port_mismatch(const Program& program, const Side& side, std::uint8_t protocol) {
  const PeerMatch& match = side.match;
  const bool has_port = protocol::has_ports(protocol);
  if (match.restricts_ports() &&
      !(has_port && is_among(program, match.ports, match.port_set, side, protocol)))
    return Mismatch{Criterion::Ports, side.is_destination};
  if (has_port && is_among(program, match.not_ports, match.not_port_set, side, protocol))
    return Mismatch{Criterion::NotPorts, side.is_destination};
  if (match.service_ports &&
      !program.port_sets[*match.service_ports].contains(side.address, protocol, side.port))
    return Mismatch{Criterion::Service, side.is_destination};
  return std::nullopt;
}

std::string ports_text(const Program& program, const std::vector<PortRange>& ranges,
                       const std::optional<std::uint32_t>& set) {
  std::string text;
  for (const PortRange& range : ranges) text += (text.empty() ? "" : ", ") + range.to_string();
  if (set) text += (text.empty() ? "" : ", ") + program.port_sets[*set].text;
  return text;
}

std::string set_text(const AddressSet& set, bool is_in) {
  const std::string verb = is_in ? "is " : "is not ";
  switch (origin_of(set)) {
    case SetOrigin::Nets:
      return verb + "in " + set.text;
    case SetOrigin::Service:
      return verb + "behind " + set.text;
    case SetOrigin::Selector:
      break;
  }
  return verb + set.text;
}

std::string icmp_text(const IcmpSpec& icmp, std::string_view verb) {
  if (!icmp.type) return "protocol " + std::string(verb) + " icmp";
  const std::string type = std::to_string(*icmp.type);
  if (!icmp.code) return "icmp type " + std::string(verb) + " " + type;
  return "icmp type and code " + std::string(verb) + " " + type + "/" + std::to_string(*icmp.code);
}

std::string port_text(const Program& program, const Packet& packet, const PeerMatch& peer,
                      const std::string& side) {
  if (!protocol::has_ports(packet.protocol)) return protocol::name(packet.protocol) + " has no ports";
  return side + " port is not " + ports_text(program, peer.ports, peer.port_set);
}

}  // namespace

std::optional<Mismatch> first_mismatch(const Program& program, const Match& match, const Packet& packet) {
  if (auto mismatch = protocol_mismatch(match, packet)) return mismatch;
  const Side source = source_of(match, packet), destination = destination_of(match, packet);
  if (auto mismatch = address_mismatch(program, source)) return mismatch;
  if (auto mismatch = address_mismatch(program, destination)) return mismatch;
  if (match.family && *match.family != packet.source.family) return Mismatch{Criterion::Family};
  if (auto mismatch = port_mismatch(program, source, packet.protocol)) return mismatch;
  if (auto mismatch = port_mismatch(program, destination, packet.protocol)) return mismatch;
  // Last, so that an explanation names what is impossible about it where it can.
  if (match.never) return Mismatch{Criterion::Never};
  return std::nullopt;
}

std::string why(const Program& program, const Match& match, const Packet& packet, const Mismatch& mismatch) {
  const std::string side = mismatch.of_destination ? "destination" : "source";
  const PeerMatch& peer = mismatch.of_destination ? match.destination : match.source;
  switch (mismatch.criterion) {
    case Criterion::Protocol:
      return "protocol is not " + protocol::name(*match.protocol);
    case Criterion::NotProtocol:
      return "protocol is " + protocol::name(packet.protocol);
    case Criterion::Icmp:
      return icmp_text(*match.icmp, "is not");
    case Criterion::NotIcmp:
      return icmp_text(*match.not_icmp, "is");
    case Criterion::InSet:
      return side + " " + set_text(program.sets[mismatch.set], false);
    case Criterion::NotInSet:
      return side + " " + set_text(program.sets[mismatch.set], true);
    case Criterion::Family:
      return *match.family == Family::V4 ? "packet is not IPv4" : "packet is not IPv6";
    case Criterion::Ports:
      return port_text(program, packet, peer, side);
    case Criterion::NotPorts:
      return side + " port is " + ports_text(program, peer.not_ports, peer.not_port_set);
    case Criterion::Service:
      return side + " is not " + program.port_sets[*peer.service_ports].text;
    case Criterion::Never:
      break;
  }
  return "the rule can match no packet";
}

}  // namespace tierlog::policy
