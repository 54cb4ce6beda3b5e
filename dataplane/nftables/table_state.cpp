#include "dataplane/nftables/table_state.h"

#include <linux/netfilter.h>

#include <algorithm>
#include <iterator>
#include <string_view>

#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/read_back.h"

namespace tierlog::dataplane::nftables {
namespace {

// Base chains are told by their names: the hook is no part of what a dump of rules shows.
bool is_base_chain(const std::string& name) {
  for (const char* start : {"out_", "in_"})
    if (name.rfind(start, 0) == 0) return true;
  for (const char* base : {"forward", "input", "output", "dnat_pre", "raw_pre", "raw_out"})
    if (name == base || name == std::string("audit_") + base) return true;
  return false;
}

// The outcomes of address groups.
bool is_late(const std::string& set) {
  return set[0] == 'k' && versioned_name(set);
}

// Takes what goes with the sweep out of the flip: `after` still has it.
void keep_until_sweep(TableChange& change, SetChange& difference) {
  std::vector<Element> late, stays;
  for (Element& element : difference.gone) {
    const bool replaced = std::binary_search(difference.added.begin(), difference.added.end(), element, by_key);
    (replaced ? stays : late).push_back(std::move(element));
  }
  difference.gone = std::move(stays);
  if (late.empty()) return;
  std::vector<Element> both;
  std::merge(difference.after.begin(), difference.after.end(), late.begin(), late.end(), std::back_inserter(both), by_key);
  change.late.push_back({difference.set, std::move(late), {}, std::exchange(difference.after, std::move(both))});
}

}  // namespace

SetChange change_of(const std::string& name, const Elements& now, const Elements& wanted) {
  SetChange change{name, {}, {}, wanted};
  auto old = now.begin();
  auto next = wanted.begin();
  while (old != now.end() || next != wanted.end()) {
    if (next == wanted.end() || (old != now.end() && by_key(*old, *next))) {
      change.gone.push_back(*old++);
    } else if (old == now.end() || by_key(*next, *old)) {
      change.added.push_back(*next++);
    } else {
      if (!same_value(*old, *next)) {
        change.gone.push_back(*old);
        change.added.push_back(*next);
      }
      ++old, ++next;
    }
  }
  return change;
}

Result<TableState> read_table(NetfilterSocket& socket, std::uint8_t family) {
  TableState state;
  state.family = family;
  TL_ASSIGN(const auto chains, read_chains(socket, family));
  TL_ASSIGN(const auto seals, read_seals(socket, family));
  for (const std::string& chain : chains) {
    const auto found = seals.find(chain);
    state.chains[chain].content =
        content_of_seals(found == seals.end() ? std::vector<std::string>{} : found->second);
  }
  TL_ASSIGN(const auto sets, read_sets(socket, family));
  for (const auto& [name, filled_by_packets] : sets) {
    Elements& elements = state.sets[name];
    if (filled_by_packets) continue;
    TL_ASSIGN(auto read, read_elements(socket, name, family));
    elements = sorted(std::move(read));
  }
  TL_ASSIGN(const auto counters, read_counter_objects(socket, family));
  for (const NamedCounter& counter : counters) state.counters.insert(counter.name);
  return state;
}

TableChange plan(TableState& state, const TableObjects& wanted) {
  TableChange change;
  for (const std::string& counter : wanted.counters)
    if (state.counters.count(counter) == 0) change.new_counters.push_back(counter);
  std::unordered_set<std::string_view> sets(wanted.sets.size());
  for (const Set& set : wanted.sets) {
    if (!sets.insert(set.name).second) continue;
    const auto known = state.sets.find(set.name);
    if (known == state.sets.end()) {
      change.new_sets.push_back(&set);
    } else if (!set.metered && !known->second.shares(set.elements)) {
      auto difference = change_of(set.name, known->second, sorted(set.elements));
      if (is_late(set.name)) keep_until_sweep(change, difference);
      if (!difference.gone.empty() || !difference.added.empty())
        change.set_changes.push_back(std::move(difference));
    }
  }
  for (const auto& [name, elements] : state.sets)
    if (sets.count(name) == 0) change.gone_sets.push_back(name);
  const std::uint64_t now = ++state.plans;
  for (const Chain& chain : wanted.chains) {
    const auto known = state.chains.find(chain.name);
    if (known != state.chains.end()) {
      known->second.wanted_by = now;
      if (known->second.content != content_of(chain)) change.rewritten.push_back(&chain);
    } else {
      (chain.hook ? change.new_base_chains : change.new_chains).push_back(&chain);
    }
  }
  for (const auto& [name, known] : state.chains)
    if (known.wanted_by != now)
      (is_base_chain(name) ? change.gone_base_chains : change.gone_chains).push_back(name);
  return change;
}

Leftover leftover_of(TableChange change) {
  return {std::move(change.gone_chains), std::move(change.gone_sets), std::move(change.late)};
}

TableChange plan_sweep(const TableState& state, Leftover leftover) {
  TableChange change;
  change.gone_chains = std::move(leftover.chains);
  change.gone_sets = std::move(leftover.sets);
  change.late = std::move(leftover.late);
  const auto is_in = [](const auto& names) {
    return [&names](const std::string& name) { return names.count(name) == 0; };
  };
  std::erase_if(change.gone_chains, is_in(state.chains));
  std::erase_if(change.gone_sets, is_in(state.sets));
  std::erase_if(change.late, [&](const SetChange& set) { return state.sets.count(set.set) == 0; });
  return change;
}

void put_prepare(Batch& batch, const TableState& state, const TableChange& change,
                 const RetiredCounters& values) {
  batch.set_table(state.family);
  batch.reserve(change.new_counters.size() + 3 * change.new_chains.size());
  for (const std::string& counter : change.new_counters) {
    const auto known = values.find(counter);
    const CounterValue value = known == values.end() ? CounterValue{} : known->second;
    add_counter(batch, counter, value.packets, value.bytes);
  }
  // A map's elements may name chains of this batch, which may look up sets of it.
  for (const Set* set : change.new_sets) add_set(batch, *set);
  for (const Chain* chain : change.new_chains) add_chain(batch, *chain);
  for (const Chain* chain : change.new_chains) add_rules(batch, *chain);
  for (const Set* set : change.new_sets) add_elements(batch, set->name, sorted(set->elements));
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
  for (const SetChange& set : change.late) delete_elements(batch, set.set, set.gone);
  // A chain takes its rules with it, but not while rules of another lead to it. Those of rule ids are the
  // most by far, and only rules that are flushed lead to them.
  for (const std::string& name : change.gone_chains)
    if (!is_verdict_chain(name)) flush_chain(batch, name);
  for (const std::string& name : change.gone_sets) delete_set(batch, name);
  for (const bool verdicts : {true, false})
    for (const std::string& name : change.gone_chains)
      if (is_verdict_chain(name) == verdicts) delete_chain(batch, name);
}

void did_prepare(TableState& state, const TableChange& change) {
  state.counters.insert(change.new_counters.begin(), change.new_counters.end());
  for (const Set* set : change.new_sets)
    state.sets[set->name] = set->metered ? Elements{} : sorted(set->elements);
  for (const Chain* chain : change.new_chains) state.chains[chain->name].content = content_of(*chain);
}

void did_undo(TableState& state, const TableChange& change) {
  for (const Set* set : change.new_sets) state.sets.erase(set->name);
  for (const Chain* chain : change.new_chains) state.chains.erase(chain->name);
}

void did_flip(TableState& state, const TableChange& change) {
  for (const SetChange& set : change.set_changes) state.sets[set.set] = set.after;
  for (const auto* chains : {&change.rewritten, &change.new_base_chains})
    for (const Chain* chain : *chains) state.chains[chain->name].content = content_of(*chain);
  for (const std::string& name : change.gone_base_chains) state.chains.erase(name);
}

void did_sweep(TableState& state, const TableChange& change) {
  for (const SetChange& set : change.late)
    if (const auto known = state.sets.find(set.set); known != state.sets.end()) known->second = set.after;
  for (const std::string& name : change.gone_chains) state.chains.erase(name);
  for (const std::string& name : change.gone_sets) state.sets.erase(name);
}

}  // namespace tierlog::dataplane::nftables
