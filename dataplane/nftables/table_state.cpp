#include "dataplane/nftables/table_state.h"

#include <linux/netfilter.h>

#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/read_back.h"

namespace tierlog::dataplane::nftables {
namespace {

// Base chains are told by their names: the hook is no part of what a dump of rules shows.
bool is_base_chain(const std::string& name) {
  for (const char* start : {"out_", "in_"})
    if (name.rfind(start, 0) == 0) return true;
  for (const char* base : {"forward", "input", "output"})
    if (name == base || name == std::string("audit_") + base) return true;
  return false;
}

Element element_of(const std::pair<const ElementKey, std::string>& entry) {
  Element element{entry.first.key, std::nullopt, entry.first.interval_end};
  if (!entry.second.empty()) element.verdict = Verdict{VerdictKind::Jump, entry.second};
  return element;
}

constexpr const char* kFirstPacketLog = "rlog";

// As written, without repetitions: an interval's end stands where its neighbour may begin.
std::vector<Element> without_repetitions(const std::vector<Element>& elements) {
  std::set<ElementKey> seen;
  std::vector<Element> unique;
  unique.reserve(elements.size());
  for (const Element& element : elements)
    if (seen.insert({element.key, element.interval_end}).second) unique.push_back(element);
  return unique;
}

SetChange change_of(const std::string& name, const Elements& now, const Elements& wanted) {
  SetChange change{name, {}, {}};
  for (const auto& entry : now) {
    const auto found = wanted.find(entry.first);
    if (found == wanted.end() || found->second != entry.second) change.gone.push_back(element_of(entry));
  }
  for (const auto& entry : wanted) {
    const auto found = now.find(entry.first);
    if (found == now.end() || found->second != entry.second) change.added.push_back(element_of(entry));
  }
  return change;
}

}  // namespace

Elements elements_of(const Set& set) {
  Elements elements;
  for (const Element& element : set.elements)
    elements.emplace(ElementKey{element.key, element.interval_end},
                     element.verdict ? element.verdict->chain : "");
  return elements;
}

Result<TableState> read_table(NetfilterSocket& socket, std::uint8_t family) {
  TableState state;
  state.family = family;
  TL_ASSIGN(const auto chains, read_chains(socket, family));
  TL_ASSIGN(const auto seals, read_seals(socket, family));
  for (const std::string& chain : chains) {
    const auto found = seals.find(chain);
    state.chains[chain] = content_of_seals(found == seals.end() ? std::vector<std::string>{} : found->second);
  }
  TL_ASSIGN(const auto sets, read_sets(socket, family));
  for (const auto& [name, filled_by_packets] : sets) {
    Elements& elements = state.sets[name];
    if (filled_by_packets) continue;
    TL_ASSIGN(const auto read, read_elements(socket, name, family));
    for (const Element& element : read)
      elements.emplace(ElementKey{element.key, element.interval_end},
                       element.verdict ? element.verdict->chain : "");
  }
  TL_ASSIGN(const auto counters, read_counter_objects(socket, family));
  for (const NamedCounter& counter : counters) state.counters.insert(counter.name);
  return state;
}

TableChange plan(const TableState& state, const TableObjects& wanted) {
  TableChange change;
  for (const std::string& counter : wanted.counters)
    if (state.counters.count(counter) == 0) change.new_counters.push_back(counter);
  std::set<std::string> sets;
  for (const Set& set : wanted.sets) {
    if (!sets.insert(set.name).second) continue;
    const auto known = state.sets.find(set.name);
    if (known == state.sets.end()) {
      change.new_sets.push_back(&set);
    } else if (!set.metered) {
      auto difference = change_of(set.name, known->second, elements_of(set));
      if (set.name == kFirstPacketLog) change.silenced = std::exchange(difference.gone, {});
      if (!difference.gone.empty() || !difference.added.empty())
        change.set_changes.push_back(std::move(difference));
    }
  }
  for (const auto& [name, elements] : state.sets)
    if (sets.count(name) == 0) change.gone_sets.push_back(name);
  std::set<std::string> chains;
  for (const Chain& chain : wanted.chains) {
    chains.insert(chain.name);
    const auto known = state.chains.find(chain.name);
    if (known != state.chains.end()) {
      if (known->second != content_of(chain)) change.rewritten.push_back(&chain);
    } else {
      (chain.hook ? change.new_base_chains : change.new_chains).push_back(&chain);
    }
  }
  for (const auto& [name, content] : state.chains)
    if (chains.count(name) == 0)
      (is_base_chain(name) ? change.gone_base_chains : change.gone_chains).push_back(name);
  return change;
}

Standing standing_of(const TableObjects& wanted) {
  Standing standing;
  for (const Chain& chain : wanted.chains) standing.chains.insert(chain.name);
  for (const Set& set : wanted.sets) {
    standing.sets.insert(set.name);
    if (set.name == kFirstPacketLog) standing.first_packets = elements_of(set);
  }
  return standing;
}

TableChange plan_sweep(const TableState& state, const Standing& standing) {
  TableChange change;
  for (const auto& [name, content] : state.chains)
    if (standing.chains.count(name) == 0 && !is_base_chain(name)) change.gone_chains.push_back(name);
  for (const auto& [name, elements] : state.sets)
    if (standing.sets.count(name) == 0)
      change.gone_sets.push_back(name);
    else if (name == kFirstPacketLog)
      change.silenced = change_of(name, elements, standing.first_packets).gone;
  return change;
}

void put_prepare(Batch& batch, const TableState& state, const TableChange& change,
                 const std::map<std::string, CounterValue>& values) {
  batch.set_table(state.family);
  for (const std::string& counter : change.new_counters) {
    const auto known = values.find(counter);
    const CounterValue value = known == values.end() ? CounterValue{} : known->second;
    add_counter(batch, counter, value.packets, value.bytes);
  }
  // A map's elements may name chains of this batch, which may look up sets of it.
  for (const Set* set : change.new_sets) add_set(batch, *set);
  for (const Chain* chain : change.new_chains) add_chain(batch, *chain);
  for (const Chain* chain : change.new_chains) add_rules(batch, *chain);
  for (const Set* set : change.new_sets) add_elements(batch, set->name, without_repetitions(set->elements));
}

void put_undo(Batch& batch, const TableState& state, const TableChange& change) {
  batch.set_table(state.family);
  for (const Chain* chain : change.new_chains) flush_chain(batch, chain->name);
  for (const Set* set : change.new_sets) delete_set(batch, set->name);
  for (const Chain* chain : change.new_chains) delete_chain(batch, chain->name);
}

void put_flip(Batch& batch, const TableState& state, const TableChange& change) {
  batch.set_table(state.family);
  for (const SetChange& set : change.set_changes) {
    delete_elements(batch, set.set, set.gone);
    add_elements(batch, set.set, set.added);
  }
  for (const Chain* chain : change.rewritten) {
    flush_chain(batch, chain->name);
    add_rules(batch, *chain);
  }
  for (const Chain* chain : change.new_base_chains) {
    add_chain(batch, *chain);
    add_rules(batch, *chain);
  }
  for (const std::string& name : change.gone_base_chains) {
    flush_chain(batch, name);
    delete_chain(batch, name);
  }
}

void put_sweep(Batch& batch, const TableState& state, const TableChange& change) {
  batch.set_table(state.family);
  delete_elements(batch, kFirstPacketLog, change.silenced);
  for (const std::string& name : change.gone_chains) flush_chain(batch, name);
  for (const std::string& name : change.gone_sets) delete_set(batch, name);
  for (const std::string& name : change.gone_chains) delete_chain(batch, name);
}

void did_prepare(TableState& state, const TableChange& change) {
  state.counters.insert(change.new_counters.begin(), change.new_counters.end());
  for (const Set* set : change.new_sets)
    state.sets[set->name] = set->metered ? Elements{} : elements_of(*set);
  for (const Chain* chain : change.new_chains) state.chains[chain->name] = content_of(*chain);
}

void did_undo(TableState& state, const TableChange& change) {
  for (const Set* set : change.new_sets) state.sets.erase(set->name);
  for (const Chain* chain : change.new_chains) state.chains.erase(chain->name);
}

void did_flip(TableState& state, const TableChange& change) {
  for (const SetChange& set : change.set_changes) {
    Elements& elements = state.sets[set.set];
    for (const Element& element : set.gone) elements.erase({element.key, element.interval_end});
    for (const Element& element : set.added)
      elements.emplace(ElementKey{element.key, element.interval_end},
                       element.verdict ? element.verdict->chain : "");
  }
  for (const auto* chains : {&change.rewritten, &change.new_base_chains})
    for (const Chain* chain : *chains) state.chains[chain->name] = content_of(*chain);
  for (const std::string& name : change.gone_base_chains) state.chains.erase(name);
}

void did_sweep(TableState& state, const TableChange& change) {
  for (const Element& element : change.silenced)
    state.sets[kFirstPacketLog].erase({element.key, element.interval_end});
  for (const std::string& name : change.gone_chains) state.chains.erase(name);
  for (const std::string& name : change.gone_sets) state.sets.erase(name);
}

}  // namespace tierlog::dataplane::nftables
