#include "policy/compile_match.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace tierlog::policy {
namespace {

struct Families {
  bool v4 = true;
  bool v6 = true;

  void keep(bool keep_v4, bool keep_v6) {
    v4 = v4 && keep_v4;
    v6 = v6 && keep_v6;
  }
};

bool has_family(const std::vector<Cidr>& nets, Family family) {
  return std::any_of(nets.begin(), nets.end(), [&](const Cidr& net) { return net.address.family == family; });
}

bool covers_family(const std::vector<Cidr>& nets, Family family) {
  return std::any_of(nets.begin(), nets.end(),
                     [&](const Cidr& net) { return net.address.family == family && net.prefix == 0; });
}

// A list of nets that has none of a family keeps the whole rule from packets of that family, also where
// the list is negated.
void restrict_families(Families& families, const PeerSpec& peer) {
  for (const auto* nets : {&peer.nets, &peer.not_nets})
    if (!nets->empty()) families.keep(has_family(*nets, Family::V4), has_family(*nets, Family::V6));
  families.keep(!covers_family(peer.not_nets, Family::V4), !covers_family(peer.not_nets, Family::V6));
}

Families families_of(const MatchSpec& spec) {
  Families families;
  if (spec.family) families.keep(*spec.family == Family::V4, *spec.family == Family::V6);
  restrict_families(families, spec.source);
  restrict_families(families, spec.destination);
  return families;
}

// Sorted, overlapping and adjoining ranges joined.
std::vector<PortRange> ranges_of(const std::vector<PortSpec>& ports) {
  std::vector<PortRange> ranges;
  for (const PortSpec& port : ports)
    if (port.named.empty()) ranges.push_back(port.range);
  std::sort(ranges.begin(), ranges.end());
  std::vector<PortRange> merged;
  for (const PortRange& range : ranges) {
    if (!merged.empty() && static_cast<int>(range.first) <= merged.back().last + 1)
      merged.back().last = std::max(merged.back().last, range.last);
    else
      merged.push_back(range);
  }
  return merged;
}

std::optional<std::uint32_t> named_set(const std::vector<PortSpec>& ports, const PeerSpec& peer,
                                       std::optional<std::uint8_t> protocol, SetTable& sets) {
  std::vector<std::string> names;
  for (const PortSpec& port : ports)
    if (!port.named.empty()) names.push_back(port.named);
  if (names.empty()) return std::nullopt;
  return sets.of_named_ports(std::move(names), peer.selector, protocol);
}

PeerMatch compile_peer(const PeerSpec& spec, std::optional<std::uint8_t> protocol, bool is_destination,
                       SetTable& sets) {
  PeerMatch peer;
  if (spec.selector) peer.in_sets.push_back(sets.of_selector(*spec.selector, spec.selector_text));
  if (spec.nodes) peer.in_sets.push_back(sets.of_nodes(*spec.nodes, spec.selector_text));
  if (!spec.nets.empty()) peer.in_sets.push_back(sets.of_nets(spec.nets));
  if (spec.service && !is_destination) peer.in_sets.push_back(sets.of_service(*spec.service));
  if (spec.service && is_destination) peer.service_ports = sets.ports_of_service(*spec.service);
  if (spec.not_selector)
    peer.not_in_sets.push_back(sets.of_selector(*spec.not_selector, spec.not_selector_text));
  if (!spec.not_nets.empty()) peer.not_in_sets.push_back(sets.of_nets(spec.not_nets));
  peer.ports = ranges_of(spec.ports);
  peer.port_set = named_set(spec.ports, spec, protocol, sets);
  peer.not_ports = ranges_of(spec.not_ports);
  peer.not_port_set = named_set(spec.not_ports, spec, protocol, sets);
  return peer;
}

bool is_impossible(const PeerMatch& peer, std::optional<std::uint8_t> protocol, const SetTable& sets) {
  if (!peer.restricts_ports()) return false;
  if (protocol && !protocol::has_ports(*protocol)) return true;
  return peer.ports.empty() && sets.is_empty_port_set(*peer.port_set);
}

std::string of_namespace(const std::string& label_name) {
  return label::kNamespacePrefix + label_name;
}

// The distinct values of these labels among namespaces that have all of them.
std::set<std::vector<std::string>> values_of(const std::vector<std::string>& labels,
                                             const Population& population) {
  std::set<std::vector<std::string>> values;
  for (const Population::Group& group : population.groups()) {
    if (group.endpoints.empty()) continue;
    std::vector<std::string> row;
    for (const std::string& name : labels)
      if (const auto found = group.labels.find(of_namespace(name)); found != group.labels.end())
        row.push_back(found->second);
    if (row.size() == labels.size()) values.insert(std::move(row));
  }
  return values;
}

}  // namespace

std::vector<MatchSpec> expand_relation(const MatchSpec& spec, Direction direction,
                                       const Population& population) {
  const bool ingress = direction == Direction::Ingress;
  const auto& relation = (ingress ? spec.source : spec.destination).relation;
  if (!relation) return {spec};
  std::vector<MatchSpec> matches;
  for (const auto& row : values_of(relation->labels, population)) {
    std::vector<Selector> equal;
    for (std::size_t i = 0; i < row.size(); ++i)
      equal.push_back(Selector::equals(of_namespace(relation->labels[i]), row[i]));
    const Selector same = Selector::all_of(equal);
    MatchSpec match = spec;
    PeerSpec& peer = ingress ? match.source : match.destination;
    PeerSpec& subject = ingress ? match.destination : match.source;
    subject.selector = same;
    peer.selector = Selector::all_of({*peer.selector, relation->differs ? Selector::negate(same) : same});
    matches.push_back(std::move(match));
  }
  return matches;
}

Match compile_match(const MatchSpec& spec, SetTable& sets) {
  Match match;
  match.protocol = spec.protocol;
  match.not_protocol = spec.not_protocol;
  match.icmp = spec.icmp;
  match.not_icmp = spec.not_icmp;
  match.source = compile_peer(spec.source, spec.protocol, false, sets);
  match.destination = compile_peer(spec.destination, spec.protocol, true, sets);
  const Families families = families_of(spec);
  if (families.v4 != families.v6) match.family = families.v4 ? Family::V4 : Family::V6;
  match.never = (!families.v4 && !families.v6) || (spec.protocol && spec.protocol == spec.not_protocol) ||
                is_impossible(match.source, spec.protocol, sets) ||
                is_impossible(match.destination, spec.protocol, sets);
  return match;
}

}  // namespace tierlog::policy
