#include "dataplane/nftables/build_match.h"

#include <algorithm>
#include <string_view>
#include <type_traits>
#include <utility>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/elements.h"
#include "policy/set_table.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Match;
using policy::PeerMatch;

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
    if (match.protocol && protocol::is_icmp(*match.protocol))
      alternatives = cross(alternatives, {differs});
    else if (!match.protocol)
      alternatives = cross(alternatives, {protocol_not_in("icmpp"), protocol_in("icmpp") + differs});
  }
  return alternatives;
}

}  // namespace

MatchBuilder::MatchBuilder(const policy::Program& program, const SetVersions& versions, BuildCache* cache)
    : program_(program), versions_(versions), cache_(cache) {}

std::string MatchBuilder::versioned(const std::string& base) const {
  const auto found = versions_.find(base);
  return base + "_" + std::to_string(found == versions_.end() ? 1 : found->second);
}

std::vector<Set> MatchBuilder::take_sets() {
  return std::exchange(sets_, {});
}

std::vector<LookedUp> MatchBuilder::take_looked_up() {
  std::vector<LookedUp> all;
  for (const auto& [key, name] : looked_up_) all.push_back({*name, key.second, false});
  for (const auto& [key, name] : ports_looked_up_) all.push_back({*name, key.second, true});
  looked_up_.clear();
  ports_looked_up_.clear();
  return all;
}

std::vector<Set> MatchBuilder::take_ranges() {
  std::vector<Set> ranges;
  for (const auto& [name, set] : ranges_looked_up_) ranges.push_back(*set);
  ranges_looked_up_.clear();
  return ranges;
}

void MatchBuilder::index_keys() {
  if (!by_key_.empty() || !ports_by_key_.empty()) return;
  for (std::uint32_t i = 0; i < program_.sets.size(); ++i) by_key_.emplace(program_.sets[i].key, i);
  for (std::uint32_t i = 0; i < program_.port_sets.size(); ++i) ports_by_key_.emplace(program_.port_sets[i].key, i);
}

std::optional<std::uint32_t> MatchBuilder::set_with_key(const std::string& key) {
  index_keys();
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? std::nullopt : std::optional(found->second);
}

void MatchBuilder::look_up(const LookedUp& set) {
  index_keys();
  const auto& keys = set.ports ? ports_by_key_ : by_key_;
  const auto found = keys.find(set.key);
  if (found == keys.end()) return;
  static_cast<void>(set.ports ? port_tuple_set(found->second, set.family) : address_set(found->second, set.family));
}

Content MatchBuilder::members_of_set(std::uint32_t index) {
  const auto [found, is_new] = members_.try_emplace(index, 0);
  if (is_new) {
    static_assert(std::has_unique_object_representations_v<Cidr>);
    const auto& members = program_.sets[index].members;
    found->second = content_of(
        std::string_view(reinterpret_cast<const char*>(members.data()), members.size() * sizeof(Cidr)));
  }
  return found->second;
}

Content MatchBuilder::face_of_set(std::uint32_t index) {
  const auto [found, is_new] = faces_.try_emplace(index, 0);
  if (is_new) {
    std::string face = program_.sets[index].key;
    for (const Family family : {Family::V4, Family::V6}) face += "\n" + name_of_set(index, family).versioned;
    found->second = content_of(face);
  }
  return found->second;
}

Content MatchBuilder::face_of_port_set(std::uint32_t index) {
  std::string face = program_.port_sets[index].key;
  for (const Family family : {Family::V4, Family::V6}) face += "\n" + name_of_port_set(index, family).versioned;
  return content_of(face);
}

template <typename Make>
SharedVector<Element> MatchBuilder::elements_for(const std::string& base, Content members, const Make& make) {
  if (cache_ == nullptr) return make();
  BuildCache::Members& kept = cache_->sets[base];
  kept.used = true;
  if (kept.content != members || kept.elements.empty()) {
    kept.content = members;
    kept.elements = make();
  }
  return kept.elements;
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
    in_family(match, match.family, match.family ? family_is(*match.family) : Phrase{}, result);
    return result;
  }
  for (const Family family : {Family::V4, Family::V6})
    if (!match.family || *match.family == family) in_family(match, family, family_is(family), result);
  return result;
}

std::vector<Phrase> MatchBuilder::rest_phrases(const Match& match, Family family) {
  std::vector<Phrase> result;
  in_family(match, family, {}, result);
  return result;
}

void MatchBuilder::in_family(const Match& match, std::optional<Family> family, const Phrase& known,
                             std::vector<Phrase>& into) {
  Phrase start = known;
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
  if (!add_test(peer.in_sets, peer.not_in_sets, side, family, phrase)) return false;
  if (peer.service_ports) {
    const std::string* set = port_tuple_set(*peer.service_ports, family);
    if (set == nullptr) return false;
    phrase += protocol_in("portp") + endpoint_port_in(family, side, *set, false);
  }
  return true;
}

bool MatchBuilder::add_test(const std::vector<std::uint32_t>& in, const std::vector<std::uint32_t>& not_in,
                            Side side, Family family, Phrase& phrase) {
  for (const auto* sets : {&in, &not_in})
    for (const std::uint32_t index : *sets) {
      const bool negate = sets == &not_in;
      if (const Cidr* net = single_net(index, family)) {
        phrase += address_in_net(side, *net, negate);
      } else if (const std::string* set = address_set(index, family)) {
        phrase += address_in(family, side, *set, negate);
      } else if (!negate) {
        return false;
      }
    }
  return true;
}

const Cidr* MatchBuilder::single_net(std::uint32_t index, Family family) const {
  const policy::AddressSet& set = program_.sets[index];
  if (policy::origin_of(set) != policy::SetOrigin::Nets) return nullptr;
  const Cidr* only = nullptr;
  for (const Cidr& member : set.members) {
    if (member.address.family != family) continue;
    if (only != nullptr) return nullptr;
    only = &member;
  }
  return only != nullptr && only->prefix != 0 ? only : nullptr;
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
    Set& set = found->second;
    set.key_type = kTypePort;
    set.key_length = 2;
    set.interval = true;
    std::string meaning;
    for (const PortRange& range : key) {
      add_interval(set.elements.edit(), big_endian16(range.first), big_endian16(range.last));
      meaning += std::to_string(range.first) + "-" + std::to_string(range.last) + " ";
    }
    set.name = "p_" + hex(content_of(meaning));
  }
  ranges_looked_up_.emplace(found->second.name, &found->second);
  return port_in_set(side, found->second.name, negate);
}

const MatchBuilder::Name& MatchBuilder::name_of_set(std::uint32_t index, Family family) {
  const auto [found, is_new] = names_.try_emplace({index, family});
  if (is_new) {
    Name& name = found->second;
    bool any = false;
    for (const Cidr& member : program_.sets[index].members) {
      if (member.address.family != family) continue;
      any = true;
      name.interval = name.interval || member.prefix != member.address.bits();
    }
    if (any) {
      // Its kind is part of the name: a set of hosts cannot become one of nets.
      name.base = (name.interval ? "w" : "s") + std::string(family == Family::V4 ? "4_" : "6_") +
                  hex(content_of(program_.sets[index].key));
      name.versioned = versioned(name.base);
    }
  }
  return found->second;
}

const std::string* MatchBuilder::address_set(std::uint32_t index, Family family) {
  const Name& name = name_of_set(index, family);
  if (name.base.empty()) return nullptr;
  looked_up_.emplace(Key{index, family}, &program_.sets[index].key);
  if (!made_.insert({index, family}).second) return &name.versioned;
  const bool v4 = family == Family::V4;
  Set set{.name = name.versioned,
          .key_type = v4 ? kTypeIpv4 : kTypeIpv6,
          .key_length = v4 ? 4u : 16u,
          .interval = name.interval};
  set.elements = elements_for(name.base, members_of_set(index), [&] {
    std::vector<Element> elements;
    for (const Cidr& member : program_.sets[index].members) {
      if (member.address.family != family) continue;
      if (name.interval)
        add_interval(elements, address_bytes(member.address), address_bytes(member.last()));
      else
        elements.push_back({address_bytes(member.address), std::nullopt, false});
    }
    return sorted(std::move(elements));
  });
  sets_.push_back(std::move(set));
  return &name.versioned;
}

const MatchBuilder::Name& MatchBuilder::name_of_port_set(std::uint32_t index, Family family) {
  const auto [found, is_new] = port_names_.try_emplace({index, family});
  const auto of_family = [family](const policy::EndpointPort& port) { return port.address.family == family; };
  const auto& members = program_.port_sets[index].members;
  if (is_new && std::any_of(members.begin(), members.end(), of_family)) {
    found->second.base = (family == Family::V4 ? "n4_" : "n6_") + hex(content_of(program_.port_sets[index].key));
    found->second.versioned = versioned(found->second.base);
  }
  return found->second;
}

const std::string* MatchBuilder::port_tuple_set(std::uint32_t index, Family family) {
  const Name& name = name_of_port_set(index, family);
  if (name.base.empty()) return nullptr;
  ports_looked_up_.emplace(Key{index, family}, &program_.port_sets[index].key);
  if (!ports_made_.insert({index, family}).second) return &name.versioned;
  Set set{.name = name.versioned, .key_length = family == Family::V4 ? 12u : 24u};
  std::vector<Element> elements;
  for (const policy::EndpointPort& member : program_.port_sets[index].members) {
    if (member.address.family != family) continue;
    Bytes key = address_bytes(member.address);
    const Bytes port = big_endian16(member.port);
    key.insert(key.end(), {member.protocol, 0, 0, 0, port[0], port[1], 0, 0});
    elements.push_back({std::move(key), std::nullopt, false});
  }
  set.elements = sorted(std::move(elements));
  sets_.push_back(std::move(set));
  return &name.versioned;
}

}  // namespace tierlog::dataplane::nftables
