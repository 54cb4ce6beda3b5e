// dataplane/nftables/traffic_maps.h - the parts of maps that lead a packet by protocol, port and address.
//
//   build_classes.h, build_blocks.h --> rules and Sets
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/nftables/class_list.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {

Element to_chain(Bytes key, const std::string& chain);
// What maps of ports look up, into register 0: a destination port, of ICMP type and code.
Phrase load_port_key(std::uint8_t protocol);
// The address that a class's rules ask for.
Side peer_side(const ClassList& list);

// Rules that lead each protocol to its chain, and the map they ask; without one where all go to `others`.
struct ProtocolWays {
  std::vector<Phrase> ways;
  std::optional<Set> map;
};
ProtocolWays by_protocol(const std::map<std::uint8_t, std::string>& chains, const std::string& others);

}  // namespace tierlog::dataplane::nftables
