#include "policy/containment.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

namespace tierlog::policy {
namespace {

// ---- addresses and ports as sorted spans that neither touch nor overlap ----------------------------------

template <typename T>
struct Span {
  T first, last;
};
template <typename T>
using Spans = std::vector<Span<T>>;

std::optional<std::uint32_t> after(std::uint32_t port) {
  return port + 1;
}
std::optional<std::uint32_t> before(std::uint32_t port) {
  return port == 0 ? std::nullopt : std::optional(port - 1);
}

std::optional<IpAddr> after(IpAddr address) {
  for (std::size_t i = address.size(); i-- > 0;)
    if (++address.bytes[i] != 0) return address;
  return std::nullopt;
}
std::optional<IpAddr> before(IpAddr address) {
  for (std::size_t i = address.size(); i-- > 0;)
    if (address.bytes[i]-- != 0) return address;
  return std::nullopt;
}

template <typename T>
Spans<T> joined(Spans<T> spans) {
  std::sort(spans.begin(), spans.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Spans<T> result;
  for (const Span<T>& span : spans) {
    const auto next = result.empty() ? std::nullopt : after(result.back().last);
    if (!result.empty() && (!next || !(*next < span.first)))
      result.back().last = std::max(result.back().last, span.last);
    else
      result.push_back(span);
  }
  return result;
}

template <typename T>
Spans<T> without(const Spans<T>& from, const Spans<T>& holes) {
  Spans<T> result;
  for (Span<T> left : from) {
    bool empty = false;
    for (const Span<T>& hole : holes) {
      if (empty || hole.last < left.first || left.last < hole.first) continue;
      if (left.first < hole.first) result.push_back({left.first, *before(hole.first)});
      const auto next = after(hole.last);
      empty = !next || left.last < *next;
      if (!empty) left.first = *next;
    }
    if (!empty) result.push_back(left);
  }
  return result;
}

template <typename T>
bool inside(const Spans<T>& narrow, const Spans<T>& wide) {
  return std::all_of(narrow.begin(), narrow.end(), [&](const Span<T>& span) {
    return std::any_of(wide.begin(), wide.end(), [&](const Span<T>& other) {
      return !(span.first < other.first) && !(other.last < span.last);
    });
  });
}

Spans<IpAddr> spans_of(const std::vector<Cidr>& nets, Family family) {
  Spans<IpAddr> spans;
  for (const Cidr& net : nets)
    if (net.address.family == family) spans.push_back({net.address, net.last()});
  return joined(std::move(spans));
}

// A list of one family only makes the rule one of that family, even when it is negated.
Spans<IpAddr> addresses_of(const PeerSpec& peer, Family family) {
  const Spans<IpAddr> all = spans_of({*Cidr::parse(family == Family::V4 ? "0.0.0.0/0" : "::/0")}, family);
  const Spans<IpAddr> nets = spans_of(peer.nets, family), holes = spans_of(peer.not_nets, family);
  if (!peer.not_nets.empty() && holes.empty()) return {};
  return without(peer.nets.empty() ? all : nets, holes);
}

Spans<std::uint32_t> numbers_of(const std::vector<PortSpec>& ports) {
  Spans<std::uint32_t> spans;
  for (const PortSpec& port : ports)
    if (port.named.empty()) spans.push_back({port.range.first, port.range.last});
  return joined(std::move(spans));
}

bool has_name(const std::vector<PortSpec>& ports, const std::string& name) {
  return std::any_of(ports.begin(), ports.end(), [&](const PortSpec& port) { return port.named == name; });
}

// ---- criterion by criterion --------------------------------------------------------------------------------

template <typename T>
bool covers_optional(const std::optional<T>& wide, const std::optional<T>& narrow) {
  return !wide || (narrow && *wide == *narrow);
}

bool covers_ports(const PeerSpec& wide, const PeerSpec& narrow, bool has_ports) {
  const Spans<std::uint32_t> all{{0, 65535}};
  for (const PortSpec& port : wide.not_ports)
    if (!port.named.empty() && !has_name(narrow.not_ports, port.named)) return false;
  const auto left = [&](const PeerSpec& peer) {
    return without(peer.ports.empty() ? all : numbers_of(peer.ports), numbers_of(peer.not_ports));
  };
  const Spans<std::uint32_t> admitted = left(wide);
  if (!wide.ports.empty() && narrow.ports.empty() && !has_ports) return false;
  for (const PortSpec& port : narrow.ports)
    if (!port.named.empty() && !has_name(wide.ports, port.named) && !inside(all, admitted)) return false;
  return inside(left(narrow), admitted);
}

bool covers_selector(const std::optional<Selector>& wide, const std::optional<Selector>& narrow,
                     const SelectsMore& selects_more) {
  if (!wide) return true;
  if (!narrow) return false;
  return *wide == *narrow || wide->is_all() || (selects_more && selects_more(*wide, *narrow));
}

bool covers(const PeerSpec& wide, const PeerSpec& narrow, bool has_ports, const SelectsMore& selects_more) {
  // Negated, the wider selector leaves more out.
  const bool not_selected = !wide.not_selector ||
                            (narrow.not_selector && covers_selector(narrow.not_selector, wide.not_selector, selects_more));
  return not_selected && covers_ports(wide, narrow, has_ports) &&
         covers_selector(wide.selector, narrow.selector, selects_more) &&
         covers_optional(wide.service, narrow.service) && covers_optional(wide.nodes, narrow.nodes) &&
         covers_optional(wide.relation, narrow.relation);
}

bool covers_icmp(const std::optional<IcmpSpec>& wide, const std::optional<IcmpSpec>& narrow) {
  return !wide ||
         (narrow && covers_optional(wide->type, narrow->type) && covers_optional(wide->code, narrow->code));
}

bool is_of(const MatchSpec& match, Family family) {
  if (match.family && *match.family != family) return false;
  if (match.protocol == protocol::kIcmp && family == Family::V6) return false;
  return match.protocol != protocol::kIcmpV6 || family != Family::V4;
}

bool covers_addresses(const MatchSpec& wide, const MatchSpec& narrow) {
  return std::ranges::all_of(std::array{Family::V4, Family::V6}, [&](Family family) {
    const Spans<IpAddr> source = addresses_of(narrow.source, family);
    const Spans<IpAddr> destination = addresses_of(narrow.destination, family);
    if (!is_of(narrow, family) || source.empty() || destination.empty()) return true;
    return is_of(wide, family) && inside(source, addresses_of(wide.source, family)) &&
           inside(destination, addresses_of(wide.destination, family));
  });
}

bool covers(const MatchSpec& wide, const MatchSpec& narrow, const SelectsMore& selects_more) {
  const bool not_protocol = covers_optional(wide.not_protocol, narrow.not_protocol) ||
                            (narrow.protocol && narrow.protocol != wide.not_protocol);
  const bool has_ports = narrow.protocol && protocol::has_ports(*narrow.protocol);
  return covers_optional(wide.protocol, narrow.protocol) && not_protocol && covers_icmp(wide.icmp, narrow.icmp) &&
         covers_optional(wide.not_icmp, narrow.not_icmp) && covers_addresses(wide, narrow) &&
         covers(wide.source, narrow.source, has_ports, selects_more) &&
         covers(wide.destination, narrow.destination, has_ports, selects_more);
}

// Whether its lists of nets have some of the family, or there are none.
bool names_family(const PeerSpec& peer, Family family) {
  const auto names = [&](const std::vector<Cidr>& nets) {
    return nets.empty() || std::any_of(nets.begin(), nets.end(),
                                       [&](const Cidr& net) { return net.address.family == family; });
  };
  return names(peer.nets) && names(peer.not_nets);
}

bool leaves_no_port(const PeerSpec& peer) {
  const bool all_numbers = std::all_of(peer.ports.begin(), peer.ports.end(),
                                       [](const PortSpec& port) { return port.named.empty(); });
  return all_numbers && without(numbers_of(peer.ports), numbers_of(peer.not_ports)).empty();
}

}  // namespace

bool covers(const PolicyRule& wide, const PolicyRule& narrow, const SelectsMore& selects_more) {
  return std::all_of(narrow.any_of.begin(), narrow.any_of.end(), [&](const MatchSpec& match) {
    return std::any_of(wide.any_of.begin(), wide.any_of.end(),
                       [&](const MatchSpec& other) { return covers(other, match, selects_more); });
  });
}

std::optional<std::string> why_never(const MatchSpec& match) {
  if (match.protocol && match.protocol == match.not_protocol)
    return "its protocol and notProtocol are the same";
  if (match.icmp && match.icmp == match.not_icmp) return "its icmp and notICMP are the same";
  for (const auto& [side, peer] : {std::pair{"source", &match.source}, {"destination", &match.destination}})
    if (!peer->ports.empty() && leaves_no_port(*peer))
      return std::string(side) + ".notPorts leaves nothing of " + side + ".ports";
  std::vector<Family> families;
  for (const Family family : {Family::V4, Family::V6})
    if (is_of(match, family) && names_family(match.source, family) && names_family(match.destination, family))
      families.push_back(family);
  if (families.empty())
    return "what it says of protocol, ipVersion, nets and notNets has no IP family in common";
  for (const auto& [side, peer] : {std::pair{"source", &match.source}, {"destination", &match.destination}})
    if (std::all_of(families.begin(), families.end(),
                    [&, &of = *peer](Family family) { return addresses_of(of, family).empty(); }))
      return std::string(side) + ".notNets leaves no address" +
             (peer->nets.empty() ? "" : " of " + std::string(side) + ".nets");
  const bool one_has_both = std::any_of(families.begin(), families.end(), [&](Family family) {
    return !addresses_of(match.source, family).empty() && !addresses_of(match.destination, family).empty();
  });
  if (one_has_both) return std::nullopt;
  return "notNets leaves source and destination no IP family in common";
}

}  // namespace tierlog::policy
