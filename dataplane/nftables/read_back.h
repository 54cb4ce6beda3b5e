// dataplane/nftables/read_back.h - what the kernel holds of our table: for adoption, counters, denied flows.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/backend.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/ruleset.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {

// The layout text of the table's user data ("" when it has none); nullopt when there is no such table.
Result<std::optional<std::string>> read_table_layout(NetfilterSocket& socket,
                                                     std::uint8_t family = NFPROTO_INET);
Result<std::set<std::string>> read_chains(NetfilterSocket& socket, std::uint8_t family = NFPROTO_INET);
// Names, and whether packets fill them.
Result<std::map<std::string, bool>> read_sets(NetfilterSocket& socket, std::uint8_t family = NFPROTO_INET);
// The seals of each chain's rules, in order; a rule without one gives "".
Result<std::map<std::string, std::vector<std::string>>> read_seals(NetfilterSocket& socket,
                                                                   std::uint8_t family = NFPROTO_INET);

struct NamedCounter {
  std::string name;
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};
Result<std::vector<NamedCounter>> read_counter_objects(NetfilterSocket& socket,
                                                       std::uint8_t family = NFPROTO_INET,
                                                       const char* table = kTable);
// Keys and, of a verdict map, the chain each goes to.
Result<std::vector<Element>> read_elements(NetfilterSocket& socket, const std::string& set,
                                           std::uint8_t family = NFPROTO_INET);
// Appends the entries of deny4 or deny6.
Result<void> read_denied_set(NetfilterSocket& socket, const std::string& set, std::uint8_t family,
                             Nanoseconds lifetime, std::vector<DeniedCount>& into);

}  // namespace tierlog::dataplane::nftables
