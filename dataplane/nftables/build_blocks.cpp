#include "dataplane/nftables/build_blocks.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/elements.h"
#include "dataplane/nftables/traffic_maps.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::uint16_t kLastPort = 0xffff;
constexpr std::uint32_t kNumberBytes = 4;  // of a list's or group's number in maps

bool is_certain(const Atom& atom, const Reach& reach) {
  return atom.item.test == kNothing && atom.item.rest == kNothing && reach.portless && reach.is_all_ports();
}

Content content_of_elements(const Set& set) {
  std::string meaning;
  for (const Element& element : set.elements) {
    meaning.append(element.key.begin(), element.key.end());
    meaning += element.interval_end ? '-' : '+';
    meaning.append(element.data.begin(), element.data.end());
    if (element.verdict) meaning += element.verdict->chain;
  }
  return content_of(meaning);
}

// Every address once: where a group begins that the addresses before are not of.
std::map<Bytes, std::uint32_t> begins_of(const AddressGroups& groups, Family family) {
  std::map<Bytes, std::uint32_t> begins{{address_bytes(IpAddr{family, {}}), 0}};
  for (const AddressGroups::Range& range : groups.ranges) {
    begins[address_bytes(range.first)] = range.group;
    if (auto end = successor(address_bytes(range.last))) begins[std::move(*end)] = 0;
  }
  for (const AddressGroups::Host& host : groups.hosts) {
    const Bytes key = address_bytes(host.address);
    const std::uint32_t around = std::prev(begins.upper_bound(key))->second;
    if (auto end = successor(key)) begins.try_emplace(std::move(*end), around);
    begins[key] = host.group;
  }
  return begins;
}

}  // namespace

BlockBuilder::BlockBuilder(const policy::Program& program, MatchBuilder& matches, RuleChains& chains,
                           const ClassCosts& costs, const ClassList& list, Family family)
    : program_(program),
      matches_(matches),
      chains_(chains),
      costs_(costs),
      list_(list),
      family_(family),
      atoms_(list.slots.size()) {
  for (const Atom& atom : list.atoms)
    if (family == Family::V4 ? atom.v4 : atom.v6) atoms_[atom.item.slot].push_back(&atom);
  const auto small = [&](std::uint32_t set) { return program.sets[set].members.size() <= costs.largest_set; };
  for (const AddressTest& test : list.tests)
    groupable_.push_back(std::all_of(test.in.begin(), test.in.end(), small) &&
                         std::all_of(test.not_in.begin(), test.not_in.end(), small));
}

std::vector<NftRule> BlockBuilder::rules() {
  const Protocols protocols = protocols_of(list_, family_);
  for (const std::uint8_t number : protocols.named) static_cast<void>(views_of(number));
  static_cast<void>(views_of(protocols.other));
  std::map<std::uint8_t, std::string> chains;
  for (const std::uint8_t number : protocols.named) chains[number] = chain_from(number, 0);
  ProtocolWays ways = by_protocol(chains, chain_from(protocols.other, 0));
  if (ways.map) sets_.push_back(std::move(*ways.map));
  std::vector<NftRule> rules;
  for (Phrase& way : ways.ways) rules.push_back({std::move(way.expressions), {}});
  return rules;
}

const std::vector<BlockBuilder::View>& BlockBuilder::views_of(std::uint8_t protocol) {
  const auto [found, is_new] = views_.try_emplace(protocol);
  std::vector<View>& views = found->second;
  if (!is_new) return views;
  for (std::uint32_t slot = 0; slot < list_.slots.size(); ++slot) {
    View view;
    view.simple = list_.slots[slot].kind == Slot::Kind::Final;
    for (const Atom* atom : atoms_[slot]) {
      Reach reach = reach_of(*atom, protocol);
      if (reach.is_empty()) continue;
      const auto& [number, test, rest] = atom->item;
      view.always = view.always || is_certain(*atom, reach);
      view.simple = view.simple && rest == kNothing && (test == kNothing || groupable_[test]);
      view.entries.push_back({slot, test, std::move(reach.ranges)});
    }
    if (view.simple) simple_ += view.entries.size();
    views.push_back(std::move(view));
  }
  return views;
}

// What the slots from one on say of packets of a protocol, in order.
std::string BlockBuilder::chain_from(std::uint8_t protocol, std::uint32_t first) {
  const auto [known, is_new] = known_.try_emplace({protocol, first});
  if (!is_new) return known->second;
  const std::vector<View>& views = views_of(protocol);
  Chain chain;
  Run run;
  const auto next_tier = [&](std::uint32_t slot) {
    const std::uint32_t tier = list_.slots[slot].tier;
    while (slot < list_.slots.size() && list_.slots[slot].tier == tier) ++slot;
    return slot;
  };
  for (std::uint32_t number = first; number < list_.slots.size();) {
    const View& view = views[number];
    const Slot& slot = list_.slots[number++];
    if (view.entries.empty()) continue;
    if (view.simple && !view.always) {
      run.insert(run.end(), view.entries.begin(), view.entries.end());
      continue;
    }
    add_run(chain, protocol, std::exchange(run, {}));
    const std::vector<Phrase> alternatives =
        view.always ? std::vector<Phrase>{Phrase{}} : matches_.phrases(*slot.rule);
    if (slot.kind == Slot::Kind::Log) {
      chains_.add_log(chain, *slot.rule, slot.comment, alternatives);
      continue;
    }
    Phrase then;
    if (slot.kind == Slot::Kind::Pass) {
      then = just(Count{slot.id});
      const std::uint32_t behind = next_tier(number - 1);
      if (view.always)
        number = behind;
      else
        then += go_to(chain_from(protocol, behind));
    } else {
      then = go_to(chains_.verdict(slot.id, list_.direction, slot.allows, slot.comment));
    }
    for (const Phrase& match : alternatives) chain.rules.push_back({(match + then).expressions, slot.comment});
    if (slot.kind == Slot::Kind::Final && view.always) break;
  }
  return known_[{protocol, first}] = chains_.named_by_content('c', std::move(chain));
}

void BlockBuilder::add_run(Chain& chain, std::uint8_t protocol, const Run& run) {
  if (!run.empty()) add_part(chain, protocol, run, {0, run.size()});
}

// Halved until it keeps to its share.
void BlockBuilder::add_part(Chain& chain, std::uint8_t protocol, const Run& run, Part part) {
  const auto [from, to] = part;
  if (to - from <= costs_.smallest_block) {
    for (std::size_t i = from; i < to; ++i)
      if (i == from || run[i].slot != run[i - 1].slot) add_single(chain, run[i].slot);
    return;
  }
  std::vector<std::uint32_t> domain;
  for (std::size_t i = from; i < to; ++i)
    if (run[i].test != kNothing)
      for (const auto* sets : {&list_.tests[run[i].test].in, &list_.tests[run[i].test].not_in})
        domain.insert(domain.end(), sets->begin(), sets->end());
  const auto own = group_addresses(program_, domain, family_, share(costs_.groups, to - from));
  auto block = own ? planned(run, part, *own) : std::nullopt;
  // The groups of all are no fewer than its own, but made once.
  if (!own && shared_groups() != nullptr) block = planned(run, part, *shared_groups());
  if (!block) {
    const std::size_t half = from + (to - from) / 2;
    add_part(chain, protocol, run, {from, half});
    add_part(chain, protocol, run, {half, to});
    return;
  }
  grouped_.insert(domain.begin(), domain.end());
  if (!block->cells.empty()) chain.rules.push_back(made(protocol, *block));
}

void BlockBuilder::add_single(Chain& chain, std::uint32_t number) {
  const Slot& slot = list_.slots[number];
  const Phrase then = go_to(chains_.verdict(slot.id, list_.direction, slot.allows, slot.comment));
  for (const Phrase& match : matches_.phrases(*slot.rule))
    chain.rules.push_back({(match + then).expressions, slot.comment});
}

// Of all sets that any block may ask: where blocks ask for the same large sets, one map serves them all.
const AddressGroups* BlockBuilder::shared_groups() {
  if (!shared_) {
    std::vector<std::uint32_t> domain;
    for (std::size_t test = 0; test < list_.tests.size(); ++test)
      if (groupable_[test])
        for (const auto* sets : {&list_.tests[test].in, &list_.tests[test].not_in})
          domain.insert(domain.end(), sets->begin(), sets->end());
    shared_ = group_addresses(program_, std::move(domain), family_, costs_.groups);
  }
  return *shared_ ? &**shared_ : nullptr;
}

std::size_t BlockBuilder::share(std::size_t of, std::size_t rules) const {
  return static_cast<std::size_t>(static_cast<double>(of) * static_cast<double>(rules) /
                                  static_cast<double>(std::max<std::size_t>(simple_, 1)));
}

// nullopt: more than the part's share of what the class may cost.
std::optional<BlockBuilder::Block> BlockBuilder::planned(const Run& run, Part part, const AddressGroups& groups) {
  Block block{&groups, {}, {}};
  std::vector<std::vector<std::uint32_t>> lists;
  if (!list_ports(run, part, block, lists)) return std::nullopt;
  const std::size_t rules = part.second - part.first;
  std::vector<bool> wanted(list_.tests.size());
  for (std::size_t i = part.first; i < part.second; ++i)
    if (run[i].test != kNothing) wanted[run[i].test] = true;
  const auto hold = tests_by_group(groups, list_.tests, wanted, share(costs_.items, rules));
  if (!hold) return std::nullopt;
  std::vector<std::vector<std::uint32_t>> groups_by_test(list_.tests.size());
  std::vector<std::uint32_t> all;
  for (std::uint32_t group = 0; group < hold->size(); ++group) {
    for (const std::uint32_t test : (*hold)[group]) groups_by_test[test].push_back(group);
    all.push_back(group);
  }
  const std::size_t limit = share(costs_.block_cells, rules), visits = share(costs_.items, rules);
  std::vector<std::uint32_t> decided_in(hold->size(), kNothing);  // the list
  std::size_t visited = 0;
  for (std::uint32_t list = 0; list < lists.size(); ++list)
    for (const std::uint32_t entry : lists[list]) {
      const auto& groups_of_it = run[entry].test == kNothing ? all : groups_by_test[run[entry].test];
      for (const std::uint32_t group : groups_of_it)
        if (std::exchange(decided_in[group], list) != list) block.cells.push_back({list, group, run[entry].slot});
      visited += groups_of_it.size();
      if (block.cells.size() > limit || visited > visits) return std::nullopt;
    }
  return block;
}

// Cuts the ports so that within each range the same entries match; `lists`: those entries, in order.
bool BlockBuilder::list_ports(const Run& run, Part part, Block& block,
                              std::vector<std::vector<std::uint32_t>>& lists) {
  std::map<std::uint32_t, std::vector<std::uint32_t>> begins, ends;
  std::set<std::uint32_t> cuts;
  for (std::size_t i = part.first; i < part.second; ++i)
    for (const PortRange& range : run[i].ranges) {
      begins[range.first].push_back(static_cast<std::uint32_t>(i));
      ends[std::uint32_t{range.last} + 1].push_back(static_cast<std::uint32_t>(i));
      cuts.insert({range.first, std::uint32_t{range.last} + 1});
    }
  const std::size_t budget = share(costs_.items, part.second - part.first);
  std::size_t visited = 0;
  std::map<std::vector<std::uint32_t>, std::uint32_t> known;
  std::multiset<std::uint32_t> active;
  for (auto cut = cuts.begin(); cut != cuts.end() && *cut <= kLastPort; ++cut) {
    for (const std::uint32_t i : ends[*cut]) active.erase(active.find(i));
    active.insert(begins[*cut].begin(), begins[*cut].end());
    std::vector<std::uint32_t> list;
    std::set<std::uint32_t> tests;
    for (const std::uint32_t i : active) {
      if (++visited > budget) return false;
      if (tests.insert(run[i].test).second) list.push_back(i);
      if (run[i].test == kNothing) break;
    }
    if (list.empty()) continue;
    const auto next = std::next(cut);
    const std::uint32_t last = next == cuts.end() ? kLastPort : *next - 1;
    const auto number = known.try_emplace(list, static_cast<std::uint32_t>(lists.size())).first->second;
    if (number == lists.size()) lists.push_back(std::move(list));
    const auto first = static_cast<std::uint16_t>(*cut);
    if (!block.ports.empty() && block.ports.back().second == number && block.ports.back().first.last + 1 == first)
      block.ports.back().first.last = static_cast<std::uint16_t>(last);
    else
      block.ports.push_back({{first, static_cast<std::uint16_t>(last)}, number});
  }
  if (block.ports.size() == 1 && block.ports[0].first.first == 0 && block.ports[0].first.last == kLastPort)
    block.ports.clear();
  return true;
}

NftRule BlockBuilder::made(std::uint8_t protocol, const Block& block) {
  const bool by_port = !block.ports.empty();
  // Registers: the address, or before it the port; behind them the list's number, if any, and the group's.
  const std::uint32_t key = family_ == Family::V4 ? 1 : 4;
  Phrase phrase;
  if (by_port) phrase += load_port_key(protocol) + just(Lookup{port_map(block), 0, false, false, key});
  phrase += load_address(family_, peer_side(list_), 0) +
            just(Lookup{address_map(*block.groups), 0, false, false, by_port ? key + 1 : key});
  Set cells{.key_length = by_port ? 2 * kNumberBytes : kNumberBytes, .verdict_map = true};
  for (const Block::Cell& cell : block.cells) {
    const Slot& slot = list_.slots[cell.slot];
    Bytes bytes = by_port ? host_word(cell.list) : Bytes{};
    const Bytes group = host_word(cell.group);
    bytes.insert(bytes.end(), group.begin(), group.end());
    cells.elements.push_back(
        to_chain(std::move(bytes), chains_.verdict(slot.id, list_.direction, slot.allows, slot.comment)));
  }
  phrase += just(Lookup{kept('k', std::move(cells)), key, false, true});
  return {std::move(phrase.expressions), "rules in a block"};
}

std::string BlockBuilder::port_map(const Block& block) {
  Set set{.key_type = kTypePort, .key_length = 2, .interval = true, .data_length = kNumberBytes};
  for (const auto& [range, list] : block.ports) {
    set.elements.push_back(
        {.key = big_endian16(range.first), .verdict = std::nullopt, .data = host_word(list)});
    if (auto end = successor(big_endian16(range.last)))
      set.elements.push_back({std::move(*end), std::nullopt, true});
  }
  return kept('p', std::move(set));
}

std::string BlockBuilder::address_map(const AddressGroups& groups) {
  Set set{.key_type = family_ == Family::V4 ? kTypeIpv4 : kTypeIpv6,
          .key_length = family_ == Family::V4 ? 4u : 16u,
          .interval = true,
          .data_length = kNumberBytes};
  std::optional<std::uint32_t> before;
  for (const auto& [key, group] : begins_of(groups, family_)) {
    if (before == group) continue;
    if (before) set.elements.push_back({key, std::nullopt, true});
    set.elements.push_back({.key = key, .verdict = std::nullopt, .data = host_word(group)});
    before = group;
  }
  return kept('a', std::move(set));
}

// By content: what says the same is the same map, in every Program.
std::string BlockBuilder::kept(char kind, Set set) {
  set.name = std::string("b") + kind + "_" + hex(content_of_elements(set));
  std::string name = set.name;
  if (names_.insert(name).second) sets_.push_back(std::move(set));
  return name;
}

}  // namespace tierlog::dataplane::nftables
