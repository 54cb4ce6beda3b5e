#include "dataplane/nftables/build_classes.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>

#include "dataplane/nftables/build_blocks.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/elements.h"
#include "dataplane/nftables/expr.h"
#include "dataplane/nftables/traffic_maps.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Match;
using policy::PeerMatch;

constexpr std::uint32_t kGroupBytes = sizeof(Content);

constexpr std::uint32_t kWholeRule = kNothing - 1;  // an Item's rest in a plain list
constexpr std::size_t kFewPorts = 2;                // up to here compared one after another
// Each conditional Pass of a short list is a chain deeper; the kernel follows 15 in all.
constexpr std::size_t kPasses = 4;

bool asks_nothing(const PeerMatch& peer) {
  return peer.in_sets.empty() && peer.not_in_sets.empty() && !peer.restricts_ports() && peer.not_ports.empty() &&
         !peer.not_port_set && !peer.service_ports;
}

bool asks_nothing(const Match& match) {
  return !match.never && !match.protocol && !match.not_protocol && !match.family && !match.icmp && !match.not_icmp &&
         asks_nothing(match.source) && asks_nothing(match.destination);
}

bool is_certain(const policy::ProgramRule& rule) {
  return std::any_of(rule.any_of.begin(), rule.any_of.end(), [](const Match& match) { return asks_nothing(match); });
}

// Tiers that some packets leave by a Pass and others do not.
std::size_t passing_tiers(const ClassList& list) {
  std::set<std::uint32_t> tiers;
  for (const Slot& slot : list.slots)
    if (slot.kind == Slot::Kind::Pass && slot.rule != nullptr && !is_certain(*slot.rule)) tiers.insert(slot.tier);
  return tiers.size();
}

Bytes bytes_of(Content content) {
  Bytes bytes(sizeof content);
  std::memcpy(bytes.data(), &content, sizeof content);
  return bytes;
}

Content content_of_items(const ItemList& items) {
  return content_of(std::string_view(reinterpret_cast<const char*>(items.data()), items.size() * sizeof(Item)));
}

std::string family_digit(Family family) {
  return family == Family::V4 ? "4_" : "6_";
}

}  // namespace

std::vector<Set> ClassBuilder::take_sets() {
  return std::exchange(sets_, {});
}

void ClassBuilder::keep(Set set) {
  if (kept_.insert(set.name).second) sets_.push_back(std::move(set));
}

std::string ClassBuilder::add(const policy::EndpointClass& endpoint_class) {
  const ClassList list = flatten(program_, endpoint_class);
  for (const Slot& slot : list.slots) chains_.count(slot.id);
  if (list.matches <= costs_.plain_matches && passing_tiers(list) <= kPasses) return plain(list).chain;
  Chain chain;
  const auto prepared4 = prepare(list, Family::V4), prepared6 = prepare(list, Family::V6);
  if ((!prepared4 || !prepared6) && passing_tiers(list) > kPasses) return plain(list).chain;
  const auto v4 = prepared4 ? by_traffic(*prepared4) : in_blocks(list, Family::V4);
  auto v6 = prepared6 ? by_traffic(*prepared6) : in_blocks(list, Family::V6);
  const auto same = [](const NftRule& a, const NftRule& b) { return seal_of(a) == seal_of(b); };
  if (!std::equal(v4.begin(), v4.end(), v6.begin(), v6.end(), same))
    for (const NftRule& rule : v4) {
      Phrase phrase = family_is(Family::V4);
      phrase.expressions.insert(phrase.expressions.end(), rule.expressions.begin(), rule.expressions.end());
      chain.rules.push_back({std::move(phrase.expressions), rule.comment});
    }
  std::move(v6.begin(), v6.end(), std::back_inserter(chain.rules));
  return chains_.named_by_content('c', std::move(chain));
}

// Each rule as it is written, in order.
ClassBuilder::Target ClassBuilder::plain(const ClassList& list) {
  ItemList items;
  for (std::uint32_t slot = 0; slot < list.slots.size(); ++slot) {
    const policy::ProgramRule* rule = list.slots[slot].rule;
    const bool always = rule == nullptr || is_certain(*rule);
    items.push_back({slot, kNothing, always ? kNothing : kWholeRule});
  }
  Context context;
  context.list = &list;
  return emit(context, restricted(list, items, {}));
}

std::unique_ptr<ClassBuilder::Prepared> ClassBuilder::prepare(const ClassList& list, Family family) {
  auto lists = traffic_lists(list, family, costs_.items);
  if (!lists) return nullptr;
  auto prepared = std::make_unique<Prepared>();
  prepared->lists = std::move(*lists);
  prepared->context.list = &list;
  prepared->context.family = family;
  return make_groups(prepared->context, prepared->lists, prepared->groups) ? std::move(prepared) : nullptr;
}

std::vector<NftRule> ClassBuilder::in_blocks(const ClassList& list, Family family) {
  BlockBuilder blocks(program_, matches_, chains_, costs_, list, family);
  std::vector<NftRule> rules = blocks.rules();
  for (Set& set : blocks.take_sets()) keep(std::move(set));
  grouped_.insert(blocks.grouped().begin(), blocks.grouped().end());
  return rules;
}

// The rules that find the list of a packet of one family.
std::vector<NftRule> ClassBuilder::by_traffic(Prepared& prepared) {
  const TrafficLists& lists = prepared.lists;
  std::vector<std::string> chains;
  for (const ItemList& items : lists.lists) chains.push_back(emit(prepared.context, items).chain);
  std::vector<Phrase> ways;
  std::map<std::uint8_t, std::string> otherwise;
  for (const auto& [number, of_protocol] : lists.protocols) {
    PortTargets ports;
    for (const PortList& port : of_protocol.ports) ports.push_back({{port.first, port.last}, chains[port.list]});
    by_port(ways, number, ports);
    otherwise[number] = chains[of_protocol.otherwise];
  }
  for (Phrase& way : ways_by_protocol(otherwise, chains[lists.others])) ways.push_back(std::move(way));
  std::vector<NftRule> rules;
  for (Phrase& way : ways) rules.push_back({std::move(way.expressions), {}});
  return rules;
}

std::vector<Phrase> ClassBuilder::ways_by_protocol(const std::map<std::uint8_t, std::string>& chains,
                                                   const std::string& others) {
  ProtocolWays result = by_protocol(chains, others);
  if (result.map) keep(std::move(*result.map));
  return std::move(result.ways);
}

void ClassBuilder::by_port(std::vector<Phrase>& ways, std::uint8_t number, const PortTargets& ports) {
  const Phrase start = protocol_is(number) + load_port_key(number);
  if (ports.size() <= kFewPorts) {
    for (const auto& [range, chain] : ports) {
      Phrase way = start;
      if (range.first == range.last)
        way += Compare{0, NFT_CMP_EQ, big_endian16(range.first)};
      else
        way += just(Compare{0, NFT_CMP_GTE, big_endian16(range.first)}) +
               just(Compare{0, NFT_CMP_LTE, big_endian16(range.last)});
      ways.push_back(way + go_to(chain));
    }
    return;
  }
  // Single ports in a hash: that look-up costs the same for any number of them.
  PortTargets single, wide;
  for (const auto& port : ports) (port.first.first == port.first.last ? single : wide).push_back(port);
  for (const auto* some : {&single, &wide})
    if (!some->empty())
      ways.push_back(start + just(Lookup{port_map(*some, some == &wide), 0, false, true}));
}

std::string ClassBuilder::port_map(const PortTargets& ports, bool ranges) {
  Set set{.key_type = kTypePort, .key_length = 2, .interval = ranges, .verdict_map = true};
  std::string meaning;
  for (const auto& [range, chain] : ports) {
    set.elements.push_back(to_chain(big_endian16(range.first), chain));
    if (ranges)
      if (auto end = successor(big_endian16(range.last)))
        set.elements.push_back({std::move(*end), std::nullopt, true});
    meaning += std::to_string(range.first) + "-" + std::to_string(range.last) + " " + chain + " ";
  }
  set.name = (ranges ? "p_r" : "p_s") + hex(content_of(meaning));
  std::string name = set.name;
  keep(std::move(set));
  return name;
}

bool ClassBuilder::is_long(const ClassList& list, const ItemList& items) const {
  if (items.size() > costs_.short_list) return true;
  std::set<std::uint32_t> passing;
  for (const Item& item : items)
    if (list.slots[item.slot].kind == Slot::Kind::Pass && item.test != kNothing)
      passing.insert(list.slots[item.slot].tier);
  return passing.size() > kPasses;
}

bool ClassBuilder::make_groups(Context& context, const TrafficLists& lists,
                               std::optional<AddressGroups>& groups) {
  std::vector<const ItemList*> long_ones;
  std::size_t rules = 0;
  for (const ItemList& items : lists.lists)
    if (is_long(*context.list, items))
      long_ones.push_back(&items);
    else
      rules += items.size();
  if (rules > costs_.rules) return false;
  const auto& tests = context.list->tests;
  const auto too_large = [&](std::uint32_t set) { return program_.sets[set].members.size() > costs_.largest_set; };
  std::vector<bool> wanted(tests.size());
  for (const ItemList* items : long_ones)
    for (const Item& item : *items)
      if (item.test != kNothing) wanted[item.test] = true;
  std::vector<std::uint32_t> domain;
  for (std::size_t test = 0; test < tests.size(); ++test) {
    const auto& [in, not_in] = tests[test];
    wanted[test] = wanted[test] && std::none_of(in.begin(), in.end(), too_large) &&
                   std::none_of(not_in.begin(), not_in.end(), too_large);
    if (!wanted[test]) continue;
    domain.insert(domain.end(), in.begin(), in.end());
    domain.insert(domain.end(), not_in.begin(), not_in.end());
  }
  if (domain.empty()) {
    for (const ItemList* items : long_ones) rules += items->size();
    return rules <= costs_.rules;
  }
  grouped_.insert(domain.begin(), domain.end());
  groups = group_addresses(program_, std::move(domain), *context.family, costs_.groups);
  if (!groups) return false;
  context.groups = &*groups;
  context.grouped_tests = std::move(wanted);
  auto hold = tests_by_group(*groups, tests, context.grouped_tests, costs_.items);
  if (!hold) return false;
  context.tests_by_group = std::move(*hold);
  context.groups_by_test.resize(tests.size());
  for (std::uint32_t group = 0; group < context.tests_by_group.size(); ++group)
    for (const std::uint32_t test : context.tests_by_group[group]) context.groups_by_test[test].push_back(group);
  find_changes(context, lists);
  return count_cells(context, long_ones) <= costs_.cells;
}

// A port's list beside that of its protocol's other ports.
void ClassBuilder::find_changes(Context& context, const TrafficLists& lists) const {
  for (const auto& [number, of_protocol] : lists.protocols) {
    const ItemList& base = lists.lists[of_protocol.otherwise];
    for (const PortList& port : of_protocol.ports) {
      const ItemList& items = lists.lists[port.list];
      if (!is_long(*context.list, items)) continue;
      const Content content = content_of_items(items);
      if (context.changes.count(content) != 0) continue;
      if (auto changes = changes_between(context, base, items)) context.changes.emplace(content, std::move(*changes));
    }
  }
}

// nullopt: they differ for everybody.
std::optional<ClassBuilder::Changes> ClassBuilder::changes_between(const Context& context, const ItemList& base,
                                                                   const ItemList& items) const {
  Changes changes{&base, {}, {}};
  std::set_symmetric_difference(base.begin(), base.end(), items.begin(), items.end(),
                                std::back_inserter(changes.items));
  std::set<std::uint32_t> tests;
  for (const Item& item : changes.items) {
    if (item.test == kNothing || !context.grouped_tests[item.test]) return std::nullopt;
    tests.insert(item.test);
  }
  std::set<std::uint32_t> groups;
  for (const std::uint32_t test : tests)
    groups.insert(context.groups_by_test[test].begin(), context.groups_by_test[test].end());
  if (groups.count(0) != 0) return std::nullopt;
  changes.groups.assign(groups.begin(), groups.end());
  return changes;
}

// At most: a group has a cell in each list that one of its sets stands in, or changes.
std::size_t ClassBuilder::count_cells(const Context& context, const std::vector<const ItemList*>& lists) const {
  std::vector<std::set<std::size_t>> by_test(context.list->tests.size());
  std::size_t cells = 0;
  for (std::size_t i = 0; i < lists.size(); ++i) {
    if (const auto changes = context.changes.find(content_of_items(*lists[i])); changes != context.changes.end()) {
      cells += changes->second.groups.size();
      continue;
    }
    for (const Item& item : *lists[i])
      if (item.test != kNothing && context.grouped_tests[item.test]) by_test[item.test].insert(i);
  }
  for (const auto& hold : context.tests_by_group) {
    std::set<std::size_t> in;
    for (const std::uint32_t test : hold) in.insert(by_test[test].begin(), by_test[test].end());
    cells += in.size();
    if (cells > costs_.cells) break;
  }
  return cells;
}

ClassBuilder::Target ClassBuilder::emit(Context& context, const ItemList& items) {
  const Item& first = items.front();
  const Slot& slot = context.list->slots[first.slot];
  if (slot.kind == Slot::Kind::Final && first.test == kNothing && first.rest == kNothing)
    return {chains_.verdict(slot.id, context.list->direction, slot.allows, slot.comment), 0};
  const Content content = content_of_items(items);
  if (const auto found = context.known.find(content); found != context.known.end()) return found->second;
  const bool by_groups =
      context.groups != nullptr && is_long(*context.list, items) &&
      std::any_of(items.begin(), items.end(), [&](const Item& item) {
        return item.test != kNothing && context.grouped_tests[item.test];
      });
  const auto changes = context.changes.find(content);
  Target target = by_groups ? emit_groups(context, items, changes == context.changes.end() ? nullptr : &changes->second)
                            : emit_chain(context, items);
  return context.known.emplace(content, std::move(target)).first->second;
}

ClassBuilder::Target ClassBuilder::emit_chain(Context& context, const ItemList& items) {
  const ClassList& list = *context.list;
  Chain chain;
  std::size_t below = 0;
  bool ended = false;
  for (std::size_t i = 0; i < items.size() && !ended;) {
    const Slot& slot = list.slots[items[i].slot];
    std::vector<Phrase> logged;
    bool always = false;
    for (const std::uint32_t number = items[i].slot; i < items.size() && items[i].slot == number && !always; ++i) {
      always = items[i].test == kNothing && items[i].rest == kNothing;
      std::vector<Phrase> alternatives = phrases_of(context, items[i]);
      if (slot.kind == Slot::Kind::Log) {
        if (always) logged.clear();
        std::move(alternatives.begin(), alternatives.end(), std::back_inserter(logged));
        continue;
      }
      Phrase then;
      if (slot.kind == Slot::Kind::Pass) {
        then = just(Count{slot.id});
        if (!always && !alternatives.empty()) {
          const Target next = emit(context, behind_pass(list, items, i));
          below = std::max(below, next.depth + 1);
          then += go_to(next.chain);
        }
      } else {
        then = go_to(chains_.verdict(slot.id, list.direction, slot.allows, slot.comment));
        ended = always;
      }
      for (const Phrase& match : alternatives) chain.rules.push_back({(match + then).expressions, slot.comment});
    }
    while (always && i < items.size() && items[i].slot == items[i - 1].slot) ++i;
    if (slot.kind == Slot::Kind::Log) chains_.add_log(chain, *slot.rule, slot.comment, logged);
  }
  return {chains_.named_by_content('c', std::move(chain)), below + 1};
}

std::vector<Phrase> ClassBuilder::phrases_of(const Context& context, const Item& item) {
  const ClassList& list = *context.list;
  if (item.rest == kWholeRule) return matches_.phrases(*list.slots[item.slot].rule);
  Phrase start;
  if (item.test != kNothing) {
    const AddressTest& test = list.tests[item.test];
    if (!matches_.add_test(test.in, test.not_in, peer_side(list), *context.family, start)) return {};
  }
  if (item.rest == kNothing) return {start};
  std::vector<Phrase> all;
  for (const Phrase& rest : matches_.rest_phrases(list.rests[item.rest], *context.family)) all.push_back(start + rest);
  return all;
}

// The same for lists that say the same, whatever the numbers in their Program.
std::string ClassBuilder::meaning_of(const Context& context, const ItemList& items) {
  std::string meaning = hex(context.groups->domain);
  for (const Item& item : items) {
    const Slot& slot = context.list->slots[item.slot];
    meaning += " " + std::to_string(static_cast<int>(slot.kind)) + to_hex(slot.id) + "." + std::to_string(slot.tier);
    if (item.test != kNothing && context.grouped_tests[item.test]) {
      for (const auto* sets : {&context.list->tests[item.test].in, &context.list->tests[item.test].not_in}) {
        std::vector<Content> keys;
        for (const std::uint32_t set : *sets) keys.push_back(content_of(program_.sets[set].key));
        std::sort(keys.begin(), keys.end());
        meaning += "/";
        for (const Content key : keys) meaning += hex(key);
      }
      if (item.rest == kNothing) continue;
    }
    for (const Phrase& phrase : phrases_of(context, item)) meaning += "|" + seal_of({phrase.expressions, {}});
  }
  return meaning;
}

std::string ClassBuilder::meaning_of(Context& context, const Changes& changes) {
  const auto [base, is_new] = context.base_meanings.try_emplace(changes.base);
  if (is_new) base->second = content_of(meaning_of(context, *changes.base));
  return hex(base->second) + " but " + meaning_of(context, changes.items);
}

ItemList ClassBuilder::outcome(const Context& context, const ItemList& items, std::uint32_t group,
                               const std::vector<std::vector<std::uint32_t>>& by_test,
                               const std::vector<std::uint32_t>& always) const {
  std::vector<std::uint32_t> positions;
  for (const std::uint32_t test : context.tests_by_group[group])
    positions.insert(positions.end(), by_test[test].begin(), by_test[test].end());
  std::sort(positions.begin(), positions.end());
  ItemList left;
  std::uint32_t tier = kNothing;
  bool passes = false, skips = false;
  for (std::size_t p = 0, a = 0; p < positions.size() || a < always.size();) {
    const bool open = p == positions.size() || (a < always.size() && always[a] < positions[p]);
    Item item = items[open ? always[a++] : positions[p++]];
    if (!open) item.test = kNothing;
    const Slot& slot = context.list->slots[item.slot];
    if (std::exchange(tier, slot.tier) != slot.tier) passes = skips = false;
    if (skips) continue;
    left.push_back(item);
    // What stands behind a certain end is out of reach, unless a Pass leads around it.
    const bool certain = item.test == kNothing && item.rest == kNothing;
    if (slot.kind == Slot::Kind::Pass) (certain ? skips : passes) = true;
    if (slot.kind == Slot::Kind::Final && certain && !passes) break;
  }
  return restricted(*context.list, left, std::vector<Truth>(context.list->tests.size(), Truth::Open));
}

ClassBuilder::Target ClassBuilder::emit_groups(Context& context, const ItemList& items, const Changes* changes) {
  const Family family = *context.family;
  std::vector<std::vector<std::uint32_t>> by_test(context.list->tests.size());
  std::vector<std::uint32_t> always;
  for (std::uint32_t i = 0; i < items.size(); ++i)
    if (items[i].test != kNothing && context.grouped_tests[items[i].test])
      by_test[items[i].test].push_back(i);
    else
      always.push_back(i);
  const Target rest =
      changes != nullptr ? emit(context, *changes->base) : emit(context, outcome(context, items, 0, by_test, always));
  Set cells{.key_length = kGroupBytes, .verdict_map = true};
  std::size_t below = rest.depth;
  const auto& groups = context.groups->groups;
  const auto add_cell = [&](std::uint32_t group) {
    const Target target = emit(context, outcome(context, items, group, by_test, always));
    if (target.chain == rest.chain) return;
    below = std::max(below, target.depth);
    cells.elements.push_back(to_chain(bytes_of(groups[group].id), target.chain));
  };
  if (changes != nullptr)
    for (const std::uint32_t group : changes->groups) add_cell(group);
  else
    for (std::uint32_t group = 1; group < groups.size(); ++group) add_cell(group);
  if (cells.elements.empty()) return rest;
  const std::string meaning = changes != nullptr ? meaning_of(context, *changes) : meaning_of(context, items);
  cells.name = matches_.versioned("k" + family_digit(family) + hex(content_of(meaning)));

  const std::uint32_t words = family == Family::V4 ? 1 : 4;
  const Phrase address = load_address(family, peer_side(*context.list), 0);
  const auto group_in = [&](const std::string& map) { return address + just(Lookup{map, 0, false, false, words}); };
  const Phrase decide = just(Lookup{cells.name, words, false, true});
  Chain chain;
  if (const std::string hosts = host_map(context); !hosts.empty()) {
    chain.rules.push_back({(group_in(hosts) + decide).expressions, "by group"});
    // A single address is in its nets' sets too, and its group says so: nets are for the others.
    if (!context.groups->ranges.empty())
      chain.rules.push_back({(group_in(hosts) + go_to(rest.chain)).expressions, "any other group"});
  }
  if (const std::string ranges = range_map(context); !ranges.empty())
    chain.rules.push_back({(group_in(ranges) + decide).expressions, "by group of nets"});
  chain.rules.push_back({go_to(rest.chain).expressions, "any other address"});
  keep(std::move(cells));
  return {chains_.named_by_content('c', std::move(chain)), below + 1};
}

std::string ClassBuilder::host_map(const Context& context) {
  if (context.groups->hosts.empty()) return {};
  const Family family = *context.family;
  std::string name = matches_.versioned("m" + family_digit(family) + hex(context.groups->domain));
  if (kept_.count(name) != 0) return name;
  Set set{.name = name,
          .key_type = family == Family::V4 ? kTypeIpv4 : kTypeIpv6,
          .key_length = family == Family::V4 ? 4u : 16u,
          .data_length = kGroupBytes};
  for (const AddressGroups::Host& host : context.groups->hosts)
    set.elements.push_back({.key = address_bytes(host.address),
                            .verdict = std::nullopt,
                            .data = bytes_of(context.groups->groups[host.group].id)});
  keep(std::move(set));
  return name;
}

std::string ClassBuilder::range_map(const Context& context) {
  if (context.groups->ranges.empty()) return {};
  const Family family = *context.family;
  std::string name = matches_.versioned("i" + family_digit(family) + hex(context.groups->domain));
  if (kept_.count(name) != 0) return name;
  Set set{.name = name,
          .key_type = family == Family::V4 ? kTypeIpv4 : kTypeIpv6,
          .key_length = family == Family::V4 ? 4u : 16u,
          .interval = true,
          .data_length = kGroupBytes};
  for (const AddressGroups::Range& range : context.groups->ranges) {
    set.elements.push_back({.key = address_bytes(range.first),
                            .verdict = std::nullopt,
                            .data = bytes_of(context.groups->groups[range.group].id)});
    if (auto end = successor(address_bytes(range.last)))
      set.elements.push_back({std::move(*end), std::nullopt, true});
  }
  keep(std::move(set));
  return name;
}

}  // namespace tierlog::dataplane::nftables
