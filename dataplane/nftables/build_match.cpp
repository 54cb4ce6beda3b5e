#include "dataplane/nftables/build_match.h"

#include <algorithm>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Match;
using policy::PeerMatch;

// nft's data type numbers, so that `nft list` prints elements readably.
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypePort = 13;

bool uses_addresses(const PeerMatch& peer) {
  return !peer.in_sets.empty() || !peer.not_in_sets.empty() || peer.port_set || peer.not_port_set ||
         peer.service_ports;
}

std::vector<Phrase> cross(const std::vector<Phrase>& left, const std::vector<Phrase>& right) {
  std::vector<Phrase> product;
  product.reserve(left.size() * right.size());
  for (const Phrase& l : left)
    for (const Phrase& r : right) product.push_back(l + r);
  return product;
}

// The address after `address`; nothing after the highest.
std::optional<Bytes> successor(Bytes address) {
  for (std::size_t i = address.size(); i-- > 0;)
    if (++address[i] != 0) return address;
  return std::nullopt;
}

void add_interval(std::vector<Element>& elements, Bytes first, Bytes last) {
  elements.push_back({std::move(first), std::nullopt, false});
  if (auto end = successor(std::move(last))) elements.push_back({std::move(*end), std::nullopt, true});
}

std::vector<PortRange> merged(std::vector<PortRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<PortRange> result;
  for (const PortRange& range : ranges) {
    if (!result.empty() && range.first <= std::uint32_t{result.back().last} + 1)
      result.back().last = std::max(result.back().last, range.last);
    else
      result.push_back(range);
  }
  return result;
}

// What a criterion on ICMP asks of the protocol, when the rule does not name one.
std::vector<Phrase> icmp_phrases(const Match& match) {
  std::vector<Phrase> alternatives{Phrase{}};
  if (match.icmp) {
    Phrase phrase;
    if (!match.protocol) phrase += protocol_in("icmpp");
    if (match.icmp->type) phrase += icmp_is(*match.icmp->type, match.icmp->code, false);
    alternatives = cross(alternatives, {phrase});
  }
  if (match.not_icmp && match.not_icmp->type) {
    const Phrase differs = icmp_is(*match.not_icmp->type, match.not_icmp->code, true);
    if (match.protocol)
      alternatives = cross(alternatives, {differs});
    else
      alternatives = cross(alternatives, {protocol_not_in("icmpp"), protocol_in("icmpp") + differs});
  }
  return alternatives;
}

}  // namespace

MatchBuilder::MatchBuilder(const policy::Program& program, const SetVersions& versions)
    : program_(program), versions_(versions) {}

std::string MatchBuilder::versioned(const std::string& base) const {
  const auto found = versions_.find(base);
  return base + "_" + std::to_string(found == versions_.end() ? 1 : found->second);
}

std::vector<Set> MatchBuilder::take_sets() {
  return std::exchange(sets_, {});
}

std::vector<Phrase> MatchBuilder::phrases(const policy::ProgramRule& rule) {
  std::vector<Phrase> all;
  for (const Match& match : rule.any_of) {
    auto some = phrases(match);
    all.insert(all.end(), std::make_move_iterator(some.begin()), std::make_move_iterator(some.end()));
  }
  return all;
}

std::vector<Phrase> MatchBuilder::phrases(const Match& match) {
  std::vector<Phrase> result;
  if (match.never) return result;
  if (match.icmp && match.protocol && !protocol::is_icmp(*match.protocol)) return result;
  if (!uses_addresses(match.source) && !uses_addresses(match.destination)) {
    in_family(match, match.family, result);
    return result;
  }
  for (const Family family : {Family::V4, Family::V6})
    if (!match.family || *match.family == family) in_family(match, family, result);
  return result;
}

void MatchBuilder::in_family(const Match& match, std::optional<Family> family, std::vector<Phrase>& into) {
  Phrase start;
  if (family) start += family_is(*family);
  if (match.protocol) start += protocol_is(*match.protocol);
  if (match.not_protocol) start += protocol_is_not(*match.not_protocol);
  if (family && (!add_addresses(match.source, Side::Source, *family, start) ||
                 !add_addresses(match.destination, Side::Destination, *family, start)))
    return;
  std::vector<Phrase> alternatives = cross({start}, icmp_phrases(match));
  for (const Side side : {Side::Destination, Side::Source}) {
    const PeerMatch& peer = side == Side::Source ? match.source : match.destination;
    const auto port_alternatives = ports(match, peer, side, family);
    if (!port_alternatives) return;
    alternatives = cross(alternatives, *port_alternatives);
  }
  into.insert(into.end(), alternatives.begin(), alternatives.end());
}

bool MatchBuilder::add_addresses(const PeerMatch& peer, Side side, Family family, Phrase& phrase) {
  for (const std::uint32_t index : peer.in_sets) {
    const std::string* set = address_set(index, family);
    if (set == nullptr) return false;
    phrase += address_in(family, side, *set, false);
  }
  for (const std::uint32_t index : peer.not_in_sets)
    if (const std::string* set = address_set(index, family)) phrase += address_in(family, side, *set, true);
  if (peer.service_ports) {
    const std::string* set = port_tuple_set(*peer.service_ports, family);
    if (set == nullptr) return false;
    phrase += protocol_in("portp") + endpoint_port_in(family, side, *set, false);
  }
  return true;
}

// nullopt: can never hold. Otherwise at least one alternative (an empty phrase = no restriction).
std::optional<MatchBuilder::Alternatives> MatchBuilder::ports(const Match& match, const PeerMatch& peer,
                                                              Side side, std::optional<Family> family) {
  const bool certain = match.protocol && protocol::has_ports(*match.protocol);
  const bool impossible = match.protocol && !certain;
  const Phrase guard = certain ? Phrase{} : protocol_in("portp");

  Alternatives wanted;
  if (peer.restricts_ports()) {
    if (impossible) return std::nullopt;
    if (!peer.ports.empty()) wanted.push_back(guard + port_ranges(side, peer.ports, false));
    if (peer.port_set && family)
      if (const std::string* set = port_tuple_set(*peer.port_set, *family))
        wanted.push_back(guard + endpoint_port_in(*family, side, *set, false));
    if (wanted.empty()) return std::nullopt;
  } else {
    wanted.emplace_back();
  }

  Phrase unwanted;
  if (!peer.not_ports.empty()) unwanted += port_ranges(side, peer.not_ports, true);
  if (peer.not_port_set && family)
    if (const std::string* set = port_tuple_set(*peer.not_port_set, *family))
      unwanted += endpoint_port_in(*family, side, *set, true);
  if (unwanted.expressions.empty() || impossible) return wanted;
  if (certain || peer.restricts_ports()) return cross(wanted, {guard + unwanted});
  return Alternatives{protocol_not_in("portp"), guard + unwanted};
}

Phrase MatchBuilder::port_ranges(Side side, const std::vector<PortRange>& ranges, bool negate) {
  const std::vector<PortRange> key = merged(ranges);
  const bool single = key.size() == 1 && (!negate || key[0].first == key[0].last);
  if (single) return negate ? port_not_in(side, key[0]) : port_in(side, key[0]);
  auto [found, is_new] = range_sets_.try_emplace(key);
  if (is_new) {
    Set set{.key_type = kTypePort, .key_length = 2, .interval = true};
    std::string meaning;
    for (const PortRange& range : key) {
      add_interval(set.elements, big_endian16(range.first), big_endian16(range.last));
      meaning += std::to_string(range.first) + "-" + std::to_string(range.last) + " ";
    }
    set.name = found->second = "p_" + hex(content_of(meaning));
    sets_.push_back(std::move(set));
  }
  return port_in_set(side, found->second, negate);
}

const std::string* MatchBuilder::address_set(std::uint32_t index, Family family) {
  auto [found, is_new] = address_sets_.try_emplace({index, family});
  if (is_new) {
    const bool v4 = family == Family::V4;
    Set set{.key_type = v4 ? kTypeIpv4 : kTypeIpv6, .key_length = v4 ? 4u : 16u};
    const auto& members = program_.sets[index].members;
    const auto other_family = [family](const Cidr& c) { return c.address.family != family; };
    set.interval = std::any_of(members.begin(), members.end(), [&](const Cidr& c) {
      return !other_family(c) && c.prefix != c.address.bits();
    });
    // Its kind is part of the name: a set of hosts cannot become one of nets.
    set.name = versioned((set.interval ? "w" : "s") + std::string(v4 ? "4_" : "6_") +
                         hex(content_of(program_.sets[index].key)));
    for (const Cidr& member : members) {
      if (other_family(member)) continue;
      if (set.interval)
        add_interval(set.elements, address_bytes(member.address), address_bytes(member.last()));
      else
        set.elements.push_back({address_bytes(member.address), std::nullopt, false});
    }
    if (!set.elements.empty()) {
      found->second = set.name;
      sets_.push_back(std::move(set));
    }
  }
  return found->second.empty() ? nullptr : &found->second;
}

const std::string* MatchBuilder::port_tuple_set(std::uint32_t index, Family family) {
  auto [found, is_new] = tuple_sets_.try_emplace({index, family});
  if (is_new) {
    const bool v4 = family == Family::V4;
    Set set{.name = versioned(std::string(v4 ? "n4_" : "n6_") + hex(content_of(program_.port_sets[index].key))),
            .key_length = v4 ? 12u : 24u};
    for (const policy::EndpointPort& member : program_.port_sets[index].members) {
      if (member.address.family != family) continue;
      Bytes key = address_bytes(member.address);
      const Bytes port = big_endian16(member.port);
      key.insert(key.end(), {member.protocol, 0, 0, 0, port[0], port[1], 0, 0});
      set.elements.push_back({std::move(key), std::nullopt, false});
    }
    if (!set.elements.empty()) {
      found->second = set.name;
      sets_.push_back(std::move(set));
    }
  }
  return found->second.empty() ? nullptr : &found->second;
}

}  // namespace tierlog::dataplane::nftables
