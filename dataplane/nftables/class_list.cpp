#include "dataplane/nftables/class_list.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <unordered_map>

#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Action;
using policy::kNone;
using policy::Match;
using policy::PeerMatch;
using policy::Program;

constexpr std::uint16_t kLastPort = 0xffff;
constexpr std::array<std::uint8_t, 6> kKeyed{protocol::kTcp,     protocol::kUdp,  protocol::kSctp,
                                             protocol::kUdpLite, protocol::kIcmp, protocol::kIcmpV6};

bool is_empty(const PeerMatch& peer) {
  return peer.in_sets.empty() && peer.not_in_sets.empty() && !peer.restricts_ports() && peer.not_ports.empty() &&
         !peer.not_port_set && !peer.service_ports;
}

// Unambiguous text of what a rest says.
std::string key_of(const Match& match) {
  std::string key;
  const auto put = [&](const char* name, const auto& values, const auto& text) {
    key += name;
    for (const auto& value : values) key += text(value) + ",";
  };
  for (const PeerMatch* peer : {&match.source, &match.destination}) {
    const auto number = [](std::uint32_t n) { return std::to_string(n); };
    const auto range = [](const PortRange& r) { return std::to_string(r.first) + "-" + std::to_string(r.last); };
    put("i", peer->in_sets, number);
    put("n", peer->not_in_sets, number);
    put("p", peer->ports, range);
    put("P", peer->not_ports, range);
    for (const auto& set : {peer->port_set, peer->not_port_set, peer->service_ports})
      key += set ? "s" + std::to_string(*set) : "-";
    key += ";";
  }
  return key;
}

class Flattener {
 public:
  Flattener(const Program& program, ClassList& into) : program_(program), into_(into) {}

  void add_rule(const policy::ProgramPolicy& policy, const policy::ProgramRule& rule, std::uint32_t tier) {
    Slot slot{Slot::Kind::Final, rule.id, tier, rule.action == Action::Allow, &rule,
              policy.display + "[" + std::to_string(rule.index) + "] " + to_hex(rule.id)};
    if (rule.action == Action::Log) slot.kind = Slot::Kind::Log;
    if (rule.action == Action::Pass) slot.kind = Slot::Kind::Pass;
    const auto number = add_slot(std::move(slot));
    into_.matches += rule.any_of.size();
    for (const Match& match : rule.any_of) add_match(number, match);
  }

  std::uint32_t add_slot(Slot slot) {
    into_.slots.push_back(std::move(slot));
    return static_cast<std::uint32_t>(into_.slots.size() - 1);
  }

  void add_unconditional(Slot slot) { into_.atoms.push_back({{add_slot(std::move(slot))}, true, true, nullptr, false}); }

 private:
  void add_match(std::uint32_t slot, const Match& match) {
    if (match.never) return;
    const bool ingress = into_.direction == Direction::Ingress;
    Atom atom;
    atom.match = &match;
    const PeerMatch& peer = ingress ? match.source : match.destination;
    atom.v4 = is_in(match, Family::V4);
    atom.v6 = is_in(match, Family::V6);
    if (!atom.v4 && !atom.v6) return;
    atom.item.slot = slot;
    atom.item.test = test_of(peer);
    Match rest;
    rest.source = match.source;
    rest.destination = match.destination;
    PeerMatch& judged = ingress ? rest.source : rest.destination;
    judged.in_sets.clear();
    judged.not_in_sets.clear();
    rest.destination.ports.clear();
    rest.destination.not_ports.clear();
    const auto named = rest.destination.port_set;
    rest.destination.port_set.reset();
    if (!named || !match.destination.ports.empty()) add(atom, rest);
    if (!named) return;
    atom.by_name = true;
    rest.destination.port_set = named;
    add(atom, rest);
  }

  void add(Atom atom, const Match& rest) {
    if (!is_empty(rest.source) || !is_empty(rest.destination)) {
      const auto [found, is_new] =
          rest_index_.try_emplace(key_of(rest), static_cast<std::uint32_t>(into_.rests.size()));
      if (is_new) into_.rests.push_back(rest);
      atom.item.rest = found->second;
    }
    into_.atoms.push_back(atom);
  }

  std::uint32_t test_of(const PeerMatch& peer) {
    if (peer.in_sets.empty() && peer.not_in_sets.empty()) return kNothing;
    AddressTest test{peer.in_sets, peer.not_in_sets};
    for (auto* sets : {&test.in, &test.not_in}) {
      std::sort(sets->begin(), sets->end());
      sets->erase(std::unique(sets->begin(), sets->end()), sets->end());
    }
    const auto [found, is_new] = test_index_.try_emplace(test, static_cast<std::uint32_t>(into_.tests.size()));
    if (is_new) into_.tests.push_back(std::move(test));
    return found->second;
  }

  // Members are sorted, IPv4 before IPv6.
  bool has_members(std::uint32_t set, Family family) const {
    const auto& members = program_.sets[set].members;
    if (members.empty()) return false;
    return (family == Family::V4 ? members.front() : members.back()).address.family == family;
  }

  bool is_in(const Match& match, Family family) const {
    if (match.family && *match.family != family) return false;
    for (const PeerMatch* peer : {&match.source, &match.destination})
      for (const std::uint32_t set : peer->in_sets)
        if (!has_members(set, family)) return false;
    return true;
  }

  const Program& program_;
  ClassList& into_;
  std::map<AddressTest, std::uint32_t> test_index_;
  std::unordered_map<std::string, std::uint32_t> rest_index_;
};

bool protocol_fits(const Match& match, std::uint8_t number) {
  if (match.protocol && *match.protocol != number) return false;
  if (match.not_protocol && *match.not_protocol == number) return false;
  if (match.icmp && !protocol::is_icmp(number)) return false;
  const bool wants_ports = match.source.restricts_ports() || match.destination.restricts_ports() ||
                           match.source.service_ports || match.destination.service_ports;
  return !wants_ports || protocol::has_ports(number);
}

PortRange icmp_range(const policy::IcmpSpec& icmp) {
  if (!icmp.type) return {0, kLastPort};
  const auto first = static_cast<std::uint16_t>(*icmp.type << 8);
  if (icmp.code) return {static_cast<std::uint16_t>(first + *icmp.code), static_cast<std::uint16_t>(first + *icmp.code)};
  return {first, static_cast<std::uint16_t>(first + 0xff)};
}

std::vector<PortRange> without(const std::vector<PortRange>& ranges, const std::vector<PortRange>& holes) {
  std::vector<PortRange> kept = ranges;
  for (const PortRange& hole : holes) {
    std::vector<PortRange> next;
    for (const PortRange& range : kept) {
      if (hole.last < range.first || range.last < hole.first) {
        next.push_back(range);
        continue;
      }
      if (range.first < hole.first) next.push_back({range.first, static_cast<std::uint16_t>(hole.first - 1)});
      if (hole.last < range.last) next.push_back({static_cast<std::uint16_t>(hole.last + 1), range.last});
    }
    kept = std::move(next);
  }
  return kept;
}

}  // namespace

bool is_keyed(std::uint8_t number) {
  return std::find(kKeyed.begin(), kKeyed.end(), number) != kKeyed.end();
}

bool Reach::is_all_ports() const {
  return ranges.size() == 1 && ranges[0].first == 0 && ranges[0].last == kLastPort;
}

Reach reach_of(const Atom& atom, std::uint8_t number) {
  const PortRange all{0, kLastPort};
  if (atom.match == nullptr) return {{all}, true};
  const Match& match = *atom.match;
  if (!protocol_fits(match, number)) return {};
  Reach reach{{all}, true};
  if (protocol::is_icmp(number)) {
    if (match.icmp) {
      reach.ranges = {icmp_range(*match.icmp)};
      reach.portless = !match.icmp->type;
    }
    if (match.not_icmp) {
      reach.ranges = without(reach.ranges, {icmp_range(*match.not_icmp)});
      reach.portless = reach.portless && match.not_icmp->type.has_value();
    }
  }
  if (protocol::has_ports(number)) {
    if (!match.destination.ports.empty() && !atom.by_name) reach.ranges = match.destination.ports;
    if (match.destination.restricts_ports()) reach.portless = false;
    reach.ranges = without(reach.ranges, match.destination.not_ports);
  }
  return reach;
}

Protocols protocols_of(const ClassList& list, Family family) {
  Protocols protocols;
  for (const Atom& atom : list.atoms) {
    if (atom.match == nullptr || !(family == Family::V4 ? atom.v4 : atom.v6)) continue;
    for (const auto& number : {atom.match->protocol, atom.match->not_protocol})
      if (number) protocols.named.insert(*number);
  }
  protocols.other = 255;
  while (protocols.named.count(protocols.other) != 0 || is_keyed(protocols.other)) --protocols.other;
  protocols.named.insert(kKeyed.begin(), kKeyed.end());
  return protocols;
}

namespace {

// Takes what can never be reached out of a list. A test that a final rule has decided, before any
// conditional Pass of its tier could lead around it, is decided for good.
class Pruner {
 public:
  explicit Pruner(const ClassList& list) : list_(list) {}

  void add(const Item& item) {
    if (ended_) return;
    const Slot& slot = list_.slots[item.slot];
    if (slot.tier != tier_) {
      tier_ = slot.tier;
      in_tier_.clear();
      // Only a Pass leads on from a tier that ended for everybody else.
      if (stopped_ && !passes_) {
        ended_ = true;
        return;
      }
      stopped_ = skips_ = passes_ = false;
    }
    if (stopped_ || skips_) return;
    if (firm_.count(item.test) != 0 || in_tier_.count(item.test) != 0) return;
    if (slot.kind == Slot::Kind::Log && !kept_.empty() && kept_.back() == item) return;
    kept_.push_back(item);
    if (item.rest != kNothing || slot.kind == Slot::Kind::Log) {
      if (slot.kind == Slot::Kind::Pass) passes_ = true;
      return;
    }
    const bool always = item.test == kNothing;
    if (slot.kind == Slot::Kind::Pass) {
      if (always)
        skips_ = true;
      else
        in_tier_.insert(item.test);
      passes_ = passes_ || !always;
    } else if (always) {
      stopped_ = true;
      // Nothing leads to later tiers but this tier's own Pass rules.
    } else {
      (passes_ ? in_tier_ : firm_).insert(item.test);
    }
  }

  bool ended() const { return ended_ || (stopped_ && !passes_); }
  ItemList take() { return std::move(kept_); }

 private:
  const ClassList& list_;
  ItemList kept_;
  std::set<std::uint32_t> firm_, in_tier_;
  std::uint32_t tier_ = 0;
  bool stopped_ = false;  // an unconditional final: the rest of the tier is out of reach
  bool skips_ = false;    // an unconditional Pass
  bool passes_ = false;   // a conditional one
  bool ended_ = false;
};

class TrafficSplitter {
 public:
  TrafficSplitter(const ClassList& list, Family family, std::size_t budget)
      : list_(list), family_(family), budget_(budget) {
    for (const Atom& atom : list.atoms)
      if (family == Family::V4 ? atom.v4 : atom.v6) atoms_.push_back(&atom);
  }

  std::optional<TrafficLists> split() {
    const Protocols protocols = protocols_of(list_, family_);
    result_.others = of_protocol(protocols.other).otherwise;
    for (const std::uint8_t number : protocols.named) {
      ProtocolLists lists = of_protocol(number);
      if (over_budget_) return std::nullopt;
      if (lists.otherwise != result_.others || !lists.ports.empty())
        result_.protocols.emplace(number, std::move(lists));
    }
    return std::move(result_);
  }

 private:
  ProtocolLists of_protocol(std::uint8_t number) {
    const bool keyed = is_keyed(number);
    always_.clear();
    std::vector<std::size_t> portless;
    std::map<std::uint32_t, std::vector<std::size_t>> begins, ends;
    for (std::size_t i = 0; i < atoms_.size(); ++i) {
      const Reach reach = reach_of(*atoms_[i], number);
      if (reach.portless || (!keyed && !reach.ranges.empty())) portless.push_back(i);
      if (reach.is_all_ports()) {
        always_.push_back(i);
        continue;
      }
      for (const PortRange& range : reach.ranges) {
        begins[range.first].push_back(i);
        ends[std::uint32_t{range.last} + 1].push_back(i);
      }
    }
    ProtocolLists lists;
    lists.otherwise = listed(portless, {});
    if (!keyed || over_budget_) return lists;
    std::set<std::uint32_t> cuts{0};
    for (const auto& [at, which] : begins) cuts.insert(at);
    for (const auto& [at, which] : ends) cuts.insert(at);
    std::multiset<std::size_t> active;
    for (auto cut = cuts.begin(); cut != cuts.end() && *cut <= kLastPort && !over_budget_; ++cut) {
      for (const std::size_t i : ends[*cut]) active.erase(active.find(i));
      for (const std::size_t i : begins[*cut]) active.insert(i);
      const auto next = std::next(cut);
      const auto last = static_cast<std::uint16_t>(next == cuts.end() ? kLastPort : *next - 1);
      const std::uint32_t list = listed(always_, active);
      if (list == lists.otherwise) continue;
      const auto first = static_cast<std::uint16_t>(*cut);
      if (!lists.ports.empty() && lists.ports.back().list == list && lists.ports.back().last + 1 == first)
        lists.ports.back().last = last;
      else
        lists.ports.push_back({first, last, list});
    }
    return lists;
  }

  // Both are ascending.
  std::uint32_t listed(const std::vector<std::size_t>& always, const std::multiset<std::size_t>& some) {
    Pruner pruner(list_);
    auto a = always.begin();
    auto s = some.begin();
    while ((a != always.end() || s != some.end()) && !pruner.ended()) {
      const bool first = s == some.end() || (a != always.end() && *a < *s);
      pruner.add(atoms_[first ? *a++ : *s++]->item);
      if (++visited_ > budget_) over_budget_ = true;
    }
    ItemList items = pruner.take();
    const Content content =
        content_of(std::string_view(reinterpret_cast<const char*>(items.data()), items.size() * sizeof(Item)));
    const auto [found, is_new] = known_.try_emplace(content, static_cast<std::uint32_t>(result_.lists.size()));
    if (is_new) {
      result_.items += items.size();
      result_.lists.push_back(std::move(items));
    }
    return found->second;
  }

  const ClassList& list_;
  const Family family_;
  const std::size_t budget_;
  std::vector<const Atom*> atoms_;
  std::vector<std::size_t> always_;
  std::unordered_map<Content, std::uint32_t> known_;
  TrafficLists result_;
  std::size_t visited_ = 0;
  bool over_budget_ = false;
};

}  // namespace

ClassList flatten(const Program& program, const policy::EndpointClass& endpoint_class) {
  ClassList list;
  list.direction = endpoint_class.direction;
  Flattener flattener(program, list);
  std::uint32_t ordinal = 0;
  for (const policy::ClassTier& tier : endpoint_class.tiers) {
    if (tier.end == kNone) continue;
    for (const std::uint32_t index : tier.policies) {
      const policy::ProgramPolicy& policy = program.policies[index];
      if (policy.staged) continue;
      for (const std::uint32_t rule : policy.rules(endpoint_class.direction))
        flattener.add_rule(policy, program.rules[rule], ordinal);
    }
    const policy::EndOfTier& end = program.ends[tier.end];
    flattener.add_unconditional({end.action == Action::Pass ? Slot::Kind::Pass : Slot::Kind::Final, end.id, ordinal,
                                 end.action == Action::Allow, nullptr,
                                 program.tiers[end.tier].name + " end-of-tier " + to_hex(end.id)});
    ++ordinal;
  }
  flattener.add_unconditional({Slot::Kind::Final, endpoint_class.fallback, ordinal,
                               endpoint_class.fallback_action == Action::Allow, nullptr, "after the last tier"});
  return list;
}

std::optional<TrafficLists> traffic_lists(const ClassList& list, Family family, std::size_t budget) {
  return TrafficSplitter(list, family, budget).split();
}

ItemList restricted(const ClassList& list, const ItemList& items, const std::vector<Truth>& holds) {
  Pruner pruner(list);
  for (Item item : items) {
    if (item.test != kNothing) {
      const Truth truth = holds[item.test];
      if (truth == Truth::No) continue;
      if (truth == Truth::Yes) item.test = kNothing;
    }
    pruner.add(item);
    if (pruner.ended()) break;
  }
  return pruner.take();
}

ItemList behind_pass(const ClassList& list, const ItemList& items, std::size_t position) {
  const std::uint32_t tier = list.slots[items[position].slot].tier;
  Pruner pruner(list);
  for (std::size_t i = position + 1; i < items.size() && !pruner.ended(); ++i)
    if (list.slots[items[i].slot].tier != tier) pruner.add(items[i]);
  return pruner.take();
}

}  // namespace tierlog::dataplane::nftables
