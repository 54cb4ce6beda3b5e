// dataplane/nftables/table_state.h - what one of our tables holds, and the way from there to what it must.
//
//   kernel --read_table--> [TableState] + TableObjects --plan--> [TableChange] --> batches of backend.h
//
// The state is kept as a mirror: a replacement costs what changes, not what is there.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/elements.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {


struct TableState {
  std::uint8_t family = 0;
  std::map<std::string, Content> chains;
  std::map<std::string, Elements> sets;  // of those that packets fill: no elements
  std::set<std::string> counters;
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

TableChange plan(const TableState& state, const TableObjects& wanted);

// What a later sweep leaves standing: names only, the objects themselves are large.
struct Standing {
  std::set<std::string> chains, sets;
  std::map<std::string, Elements> late;  // sets whose elements go with the sweep
};
Standing standing_of(const TableObjects& wanted);
TableChange plan_sweep(const TableState& state, const Standing& standing);

// The three steps as messages of one table, and what each did to the mirror once it is committed.
// `values`: where counters that come back go on.
void put_prepare(Batch& batch, const TableState& state, const TableChange& change,
                 const std::map<std::string, CounterValue>& values = {});
void put_undo(Batch& batch, const TableState& state, const TableChange& change);  // of prepare
void put_flip(Batch& batch, const TableState& state, const TableChange& change);
void put_sweep(Batch& batch, const TableState& state, const TableChange& change);
void did_prepare(TableState& state, const TableChange& change);
void did_undo(TableState& state, const TableChange& change);
void did_flip(TableState& state, const TableChange& change);
void did_sweep(TableState& state, const TableChange& change);

}  // namespace tierlog::dataplane::nftables
