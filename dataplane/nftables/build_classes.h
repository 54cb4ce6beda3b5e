// dataplane/nftables/build_classes.h - an endpoint class -> chains and maps whose cost does not grow with it.
//
//   class_list.h, address_groups.h --[ClassBuilder]--> chains c…, maps p_… m4_… i4_… k4_…
//
// Few rules stay one chain of rules. More: protocol and port lead to the list of what can still match. A
// short list is a chain; a long one is the address's group, and for each group the chain of its outcome.
// Figures and the cost model: docs/decisions/0014-classes-by-look-ups.md.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
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

class ClassBuilder {
 public:
  ClassBuilder(const policy::Program& program, MatchBuilder& matches, RuleChains& chains,
               const ClassCosts& costs = {})
      : program_(program), matches_(matches), chains_(chains), costs_(costs) {}

  // The name of the chain that judges the class.
  std::string add(const policy::EndpointClass& endpoint_class);
  std::vector<Set> take_sets();
  // Sets whose members are in the maps: another member is another map, or another form of the class.
  const std::set<std::uint32_t>& grouped() const { return grouped_; }

 private:
  struct Target {
    std::string chain;
    std::size_t depth = 0;  // chains below it, rule chains not counted
  };
  // A long list as another one that differs for some groups only: rules about all ports are in the list of
  // every port, and are made once.
  struct Changes {
    const ItemList* base = nullptr;
    ItemList items;                     // that only one of the two has
    std::vector<std::uint32_t> groups;  // ascending; for all others, and for addresses in none, both say the same
  };
  // One class in one family, or (without a family) as one chain for both.
  struct Context {
    const ClassList* list = nullptr;
    std::optional<Family> family;
    const AddressGroups* groups = nullptr;
    std::vector<std::vector<std::uint32_t>> tests_by_group;  // that hold
    std::vector<std::vector<std::uint32_t>> groups_by_test;  // the same the other way round
    std::vector<bool> grouped_tests;                         // that the groups answer
    std::map<Content, Changes> changes;                      // by the content of the list
    std::map<const ItemList*, Content> base_meanings;        // of the lists that changes refer to
    std::map<Content, Target> known;
  };
  Target plain(const ClassList& list);
  // What is known of a class in one family before anything of it is made.
  struct Prepared {
    TrafficLists lists;
    std::optional<AddressGroups> groups;
    Context context;
  };
  std::unique_ptr<Prepared> prepare(const ClassList& list, Family family);  // nullptr: it costs too much
  std::vector<NftRule> by_traffic(Prepared& prepared);
  // false: the class would cost more than it may.
  bool make_groups(Context& context, const TrafficLists& lists, std::optional<AddressGroups>& groups);
  void find_changes(Context& context, const TrafficLists& lists) const;
  std::optional<Changes> changes_between(const Context& context, const ItemList& base, const ItemList& items) const;
  std::size_t count_cells(const Context& context, const std::vector<const ItemList*>& lists) const;
  ItemList outcome(const Context& context, const ItemList& items, std::uint32_t group,
                   const std::vector<std::vector<std::uint32_t>>& by_test,
                   const std::vector<std::uint32_t>& always) const;
  bool is_long(const ClassList& list, const ItemList& items) const;
  Target emit(Context& context, const ItemList& items);
  Target emit_chain(Context& context, const ItemList& items);
  Target emit_groups(Context& context, const ItemList& items, const Changes* changes);
  std::vector<Phrase> phrases_of(const Context& context, const Item& item);
  std::string meaning_of(const Context& context, const ItemList& items);
  std::string meaning_of(Context& context, const Changes& changes);
  std::string host_map(const Context& context);
  std::string range_map(const Context& context);
  using PortTargets = std::vector<std::pair<PortRange, std::string>>;
  std::vector<NftRule> in_blocks(const ClassList& list, Family family);
  std::vector<Phrase> ways_by_protocol(const std::map<std::uint8_t, std::string>& chains, const std::string& others);
  void by_port(std::vector<Phrase>& ways, std::uint8_t number, const PortTargets& ports);
  std::string port_map(const PortTargets& ports, bool ranges);
  void keep(Set set);

  const policy::Program& program_;
  MatchBuilder& matches_;
  RuleChains& chains_;
  const ClassCosts costs_;
  std::set<std::uint32_t> grouped_;
  std::set<std::string> kept_;
  std::vector<Set> sets_;
};

}  // namespace tierlog::dataplane::nftables
