#include "dataplane/ebpf/cells.h"

#include <algorithm>
#include <set>
#include <utility>

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Match;
using policy::PeerMatch;
using policy::PortSet;
using policy::Program;
using Ranges = std::vector<PortRange>;

PortRange range(int first, int last) {
  return {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
}

Ranges joined(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges result;
  for (const PortRange& next : ranges) {
    if (!result.empty() && int{next.first} <= int{result.back().last} + 1)
      result.back().last = std::max(result.back().last, next.last);
    else
      result.push_back(next);
  }
  return result;
}

Ranges without(const Ranges& ranges, const Ranges& excluded) {
  Ranges result = ranges;
  for (const PortRange& out : excluded) {
    Ranges next;
    for (const PortRange& in : result) {
      if (out.last < in.first || out.first > in.last) {
        next.push_back(in);
        continue;
      }
      if (out.first > in.first) next.push_back(range(in.first, out.first - 1));
      if (out.last < in.last) next.push_back(range(out.last + 1, in.last));
    }
    result = std::move(next);
  }
  return result;
}

Ranges within(const Ranges& ranges, const Ranges& others) {
  Ranges result;
  for (const PortRange& a : ranges)
    for (const PortRange& b : others)
      if (a.first <= b.last && b.first <= a.last)
        result.push_back({std::max(a.first, b.first), std::min(a.last, b.last)});
  return joined(std::move(result));
}

Protocols only(std::uint8_t protocol) {
  Protocols set;
  set.set(protocol);
  set.set(256u + protocol);
  return set;
}

// One way in which an end of the packet can satisfy its conditions.
struct Way {
  Group in;
  std::vector<Term> not_in;  // each by itself
  Ports ports;
  Protocols protocols = Protocols().set();

  bool possible() const { return protocols.any() && !ports.none(); }
};
using Ways = std::vector<Way>;

std::set<std::pair<std::uint8_t, std::uint16_t>> ports_of(const PortSet& set) {
  std::set<std::pair<std::uint8_t, std::uint16_t>> found;
  for (const policy::EndpointPort& member : set.members) found.insert({member.protocol, member.port});
  return found;
}

void keep_ports(Way& way, const Ranges& ports) {
  way.ports.ports = within(way.ports.ports, ports);
  way.ports.icmp.clear();
  way.ports.other = false;
}

Ways through_port_set(const Program& program, const Way& way, std::uint32_t set) {
  Ways ways;
  for (const auto& [protocol, port] : ports_of(program.port_sets[set])) {
    Way one = way;
    one.in.push_back({true, set, protocol, port});
    one.protocols &= only(protocol);
    keep_ports(one, {range(port, port)});
    if (one.possible()) ways.push_back(std::move(one));
  }
  return ways;
}

// Past the port set: with another protocol, with another port, or with an address that has not this port.
Ways past_port_set(const Program& program, const Way& way, std::uint32_t set) {
  Ways ways;
  Way rest = way;
  std::map<std::uint8_t, Ranges> by_protocol;
  for (const auto& [protocol, port] : ports_of(program.port_sets[set])) {
    by_protocol[protocol].push_back(range(port, port));
    Way one = way;
    one.not_in.push_back({true, set, protocol, port});
    one.protocols &= only(protocol);
    keep_ports(one, {range(port, port)});
    if (one.possible()) ways.push_back(std::move(one));
  }
  for (const auto& [protocol, ports] : by_protocol) {
    rest.protocols &= ~only(protocol);
    Way one = way;
    one.protocols &= only(protocol);
    one.ports.ports = without(one.ports.ports, ports);
    if (one.possible()) ways.push_back(std::move(one));
  }
  if (rest.possible()) ways.push_back(std::move(rest));
  return ways;
}

template <typename Step>
Ways each(const Ways& ways, const Step& step) {
  Ways result;
  for (const Way& way : ways) {
    Ways next = step(way);
    result.insert(result.end(), std::make_move_iterator(next.begin()), std::make_move_iterator(next.end()));
  }
  return result;
}

Ways ways_of(const Program& program, const PeerMatch& peer) {
  Way base;
  for (const std::uint32_t set : peer.in_sets) base.in.push_back({false, set, 0, 0});
  for (const std::uint32_t set : peer.not_in_sets) base.not_in.push_back({false, set, 0, 0});
  base.ports.ports = without(base.ports.ports, peer.not_ports);
  Ways ways;
  if (!peer.restricts_ports()) {
    ways.push_back(base);
  } else {
    if (!peer.ports.empty()) {
      ways.push_back(base);
      keep_ports(ways.back(), joined(peer.ports));
    }
    if (peer.port_set)
      for (Way& way : through_port_set(program, base, *peer.port_set)) ways.push_back(std::move(way));
  }
  if (peer.not_port_set)
    ways = each(ways, [&](const Way& way) { return past_port_set(program, way, *peer.not_port_set); });
  if (peer.service_ports)
    ways = each(ways, [&](const Way& way) { return through_port_set(program, way, *peer.service_ports); });
  std::erase_if(ways, [](const Way& way) { return !way.possible(); });
  return ways;
}

Ranges icmp_ranges(const policy::IcmpSpec& icmp) {
  Ranges ranges;
  for (int type = icmp.type.value_or(0); type <= icmp.type.value_or(255); ++type)
    ranges.push_back(range(type << 8 | icmp.code.value_or(0), type << 8 | icmp.code.value_or(255)));
  return joined(std::move(ranges));
}

Protocols protocols_of(const Match& match) {
  Protocols protocols = match.protocol ? only(*match.protocol) : Protocols().set();
  if (match.not_protocol) protocols &= ~only(*match.not_protocol);
  for (unsigned i = 0; match.family && i < 256; ++i)
    protocols.reset(*match.family == Family::V4 ? 256 + i : i);
  if (match.icmp) protocols &= only(protocol::kIcmp) | only(protocol::kIcmpV6);
  return protocols;
}

std::vector<std::uint32_t> numbers_of(const Program& program, const std::vector<Term>& terms,
                                      GroupNumbers& groups) {
  std::vector<std::uint32_t> numbers;
  for (const Term& term : terms) numbers.push_back(groups.of(program, {term}));
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace

bool Ports::any() const {
  static const Ports all;
  return *this == all;
}

std::uint32_t GroupNumbers::of(const Program& program, Group group) {
  if (group.empty()) return 0;
  std::sort(group.begin(), group.end());
  group.erase(std::unique(group.begin(), group.end()), group.end());
  if (const auto known = used_.find(group); known != used_.end()) return known->second;
  std::string meaning;
  for (const Term& term : group) {
    const std::string& key = term.of_port_set ? program.port_sets[term.set].key : program.sets[term.set].key;
    meaning += std::to_string(key.size()) + (term.of_port_set ? "p" : "s") + key;
    if (term.of_port_set) meaning += std::to_string(term.protocol) + ":" + std::to_string(term.port);
  }
  const auto next = static_cast<std::uint32_t>(numbers_.size() + 1);
  const std::uint32_t number = numbers_.emplace(std::move(meaning), next).first->second;
  used_.emplace(std::move(group), number);
  return number;
}

std::vector<Cell> cells_of(const Program& program, const Match& match, GroupNumbers& groups) {
  std::vector<Cell> cells;
  if (match.never) return cells;
  const Protocols protocols = protocols_of(match);
  const Ways destinations = ways_of(program, match.destination);
  for (const Way& source : ways_of(program, match.source))
    for (const Way& destination : destinations) {
      Cell cell;
      cell.protocols = protocols & source.protocols & destination.protocols;
      cell.source_ports = source.ports;
      cell.destination_ports = destination.ports;
      if (match.icmp) {
        cell.destination_ports.ports.clear();
        cell.destination_ports.other = false;
        cell.destination_ports.icmp = within(cell.destination_ports.icmp, icmp_ranges(*match.icmp));
      }
      if (match.not_icmp)
        cell.destination_ports.icmp = without(cell.destination_ports.icmp, icmp_ranges(*match.not_icmp));
      if (cell.protocols.none() || cell.destination_ports.none() || cell.source_ports.none()) continue;
      cell.source = groups.of(program, source.in);
      cell.destination = groups.of(program, destination.in);
      cell.not_source = numbers_of(program, source.not_in, groups);
      cell.not_destination = numbers_of(program, destination.not_in, groups);
      cells.push_back(std::move(cell));
    }
  return cells;
}

}  // namespace tierlog::dataplane::ebpf
