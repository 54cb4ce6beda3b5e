// dataplane/nftables/table_state.h - what one of our tables holds, and the way from there to what it must.
//
//   kernel --read_table--> [TableState] + TableObjects --plan--> [TableChange] --> batches of backend.h
//
// The state is kept as a mirror: a replacement costs what changes, not what is there.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/elements.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {

struct TableState {
  std::uint8_t family = 0;
  struct KnownChain {
    Content content = 0;
    std::uint64_t wanted_by = 0;  // the latest plan that wants it
  };
  std::unordered_map<std::string, KnownChain> chains;
  std::unordered_map<std::string, Elements> sets;  // of those that packets fill: no elements
  std::unordered_set<std::string> counters;
  std::uint64_t plans = 0;
};

Result<TableState> read_table(NetfilterSocket& socket, std::uint8_t family);

struct SetChange {
  std::string set;
  std::vector<Element> gone, added;
  Elements after;  // of the flip
};
SetChange change_of(const std::string& name, const Elements& now, const Elements& wanted);

struct CounterValue {
  std::uint64_t packets = 0, bytes = 0;
};
using RetiredCounters = std::unordered_map<std::string, CounterValue>;

// Pointers are into the TableObjects that was planned for.
struct TableChange {
  std::vector<std::string> new_counters;
  std::vector<const Set*> new_sets;
  std::vector<const Chain*> new_chains;       // without a hook: nobody can reach them yet
  std::vector<const Chain*> new_base_chains;  // in force as soon as they exist
  std::vector<const Chain*> rewritten;
  std::vector<SetChange> set_changes;
  std::vector<std::string> gone_base_chains;
  // For the sweep. Of some maps even the elements: a packet on its way under an old rule is still to be told,
  // and one of an address that has gone is still in its group.
  std::vector<std::string> gone_chains, gone_sets;
  std::vector<SetChange> late;

  bool flips() const {
    return !new_base_chains.empty() || !rewritten.empty() || !set_changes.empty() ||
           !gone_base_chains.empty();
  }
  bool sweeps() const { return !gone_chains.empty() || !gone_sets.empty() || !late.empty(); }
};

// Notes in the state which chains are wanted.
TableChange plan(TableState& state, const TableObjects& wanted);

// What a flip leaves for the sweep: points into nothing.
struct Leftover {
  std::vector<std::string> chains, sets;
  std::vector<SetChange> late;
};
Leftover leftover_of(TableChange change);
// Without what has gone from the table meanwhile.
TableChange plan_sweep(const TableState& state, Leftover leftover);

// The three steps as messages of one table, and what each did to the mirror once it is committed.
// `values`: where counters that come back go on.
void put_prepare(Batch& batch, const TableState& state, const TableChange& change,
                 const RetiredCounters& values = {});
void put_undo(Batch& batch, const TableState& state, const TableChange& change);  // of prepare
void put_flip(Batch& batch, const TableState& state, const TableChange& change);
void put_sweep(Batch& batch, const TableState& state, const TableChange& change);
void did_prepare(TableState& state, const TableChange& change);
void did_undo(TableState& state, const TableChange& change);
void did_flip(TableState& state, const TableChange& change);
void did_sweep(TableState& state, const TableChange& change);

}  // namespace tierlog::dataplane::nftables
