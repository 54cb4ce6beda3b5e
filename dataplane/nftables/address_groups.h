// dataplane/nftables/address_groups.h - addresses that no set of a domain tells apart, as groups.
//
//   sets of a class's long lists --[group_addresses]--> address -> group: two look-ups decide any list
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/net_types.h"
#include "dataplane/nftables/class_list.h"
#include "dataplane/nftables/content.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

struct AddressGroups {
  Content domain = 0;  // the same for the same sets, whatever their members
  struct Group {
    Content id = 0;  // by which sets it is in: the same in every Program
    std::vector<std::uint32_t> sets;  // ascending, into Program::sets
  };
  std::vector<Group> groups;  // [0]: the addresses that are in none
  struct Host {
    IpAddr address;
    std::uint32_t group = 0;
  };
  std::vector<Host> hosts;  // ascending; single addresses that are members, their nets considered
  struct Range {
    IpAddr first, last;
    std::uint32_t group = 0;
  };
  std::vector<Range> ranges;  // ascending, apart; of nets alone
};

// Of one family. nullopt: more than `budget` (addresses, ranges and their memberships together).
std::optional<AddressGroups> group_addresses(const policy::Program& program, std::vector<std::uint32_t> sets,
                                             Family family, std::size_t budget);

// Which tests hold for the addresses of each group, ascending; only `wanted` ones are asked. nullopt: more
// than `budget` questions.
std::optional<std::vector<std::vector<std::uint32_t>>> tests_by_group(const AddressGroups& groups,
                                                                      const std::vector<AddressTest>& tests,
                                                                      const std::vector<bool>& wanted,
                                                                      std::size_t budget);

}  // namespace tierlog::dataplane::nftables
