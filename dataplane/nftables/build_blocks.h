// dataplane/nftables/build_blocks.h - a class that is too much to be taken apart: its rules in order, in blocks.
//
//   ClassList --[BlockBuilder]--> a chain a protocol, maps b…   (build_classes.h, where its own way costs too much)
//
// Rules that ask for the peer's address and the port alone stand in blocks: port -> list, address -> group, and
// (list, group) -> the rule that matches first, three look-ups in one rule of the chain. A miss goes on to the
// next. Between blocks stand the rules that ask for more, log, or pass, as they are written. A block has as many
// rules as its share of the class's cells allows: R rules nested in one another cost R/B look-ups and R*B cells.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/nftables/address_groups.h"
#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_match.h"
#include "dataplane/nftables/class_list.h"
#include "dataplane/nftables/rule_chains.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

// One class in one family.
class BlockBuilder {
 public:
  BlockBuilder(const policy::Program& program, MatchBuilder& matches, RuleChains& chains, const ClassCosts& costs,
               const ClassList& list, Family family);

  // Of a chain that judges the family's packets.
  std::vector<NftRule> rules();
  std::vector<Set> take_sets() { return std::move(sets_); }
  // Sets whose members are in the maps.
  const std::set<std::uint32_t>& grouped() const { return grouped_; }

 private:
  // A rule that a block can hold, or a part of it: one test of the address, some ports.
  struct Entry {
    std::uint32_t slot = 0;
    std::uint32_t test = kNothing;
    std::vector<PortRange> ranges;
  };
  // A slot as one protocol sees it.
  struct View {
    std::vector<Entry> entries;  // empty: none of its packets
    bool simple = false;         // may stand in a block
    bool always = false;         // matches whatever comes
  };
  // What a block is, before it is made.
  struct Block {
    const AddressGroups* groups = nullptr;
    std::vector<std::pair<PortRange, std::uint32_t>> ports;  // to the number of a list; empty: one for all
    struct Cell {
      std::uint32_t list, group, slot;
    };
    std::vector<Cell> cells;
  };
  using Run = std::vector<Entry>;
  using Part = std::pair<std::size_t, std::size_t>;  // of a run: from, to

  const std::vector<View>& views_of(std::uint8_t protocol);
  std::string chain_from(std::uint8_t protocol, std::uint32_t slot);
  void add_run(Chain& chain, std::uint8_t protocol, const Run& run);
  void add_part(Chain& chain, std::uint8_t protocol, const Run& run, Part part);
  void add_single(Chain& chain, std::uint32_t slot);
  std::optional<Block> planned(const Run& run, Part part, const AddressGroups& groups);
  bool list_ports(const Run& run, Part part, Block& block, std::vector<std::vector<std::uint32_t>>& lists);
  NftRule made(std::uint8_t protocol, const Block& block);
  std::string port_map(const Block& block);
  std::string address_map(const AddressGroups& groups);
  const AddressGroups* shared_groups();
  std::size_t share(std::size_t of, std::size_t rules) const;
  std::string kept(char kind, Set set);

  const policy::Program& program_;
  MatchBuilder& matches_;
  RuleChains& chains_;
  const ClassCosts& costs_;
  const ClassList& list_;
  const Family family_;
  std::vector<std::vector<const Atom*>> atoms_;   // by slot
  std::vector<bool> groupable_;                   // tests
  std::map<std::uint8_t, std::vector<View>> views_;
  std::size_t simple_ = 0;                        // of all protocols
  std::map<std::pair<std::uint8_t, std::uint32_t>, std::string> known_;  // chains from a slot on
  std::optional<std::optional<AddressGroups>> shared_;
  std::set<std::string> names_;
  std::vector<Set> sets_;
  std::set<std::uint32_t> grouped_;
};

}  // namespace tierlog::dataplane::nftables
