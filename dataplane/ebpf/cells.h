// dataplane/ebpf/cells.h - a rule's matches as conjunctions that a bit position can stand for.
//
//   policy/program.h Match --[cells_of]--> Cell --> encode_class.h (rows), address_table.h (identities)
//
// A cell asks for at most one set an end: sets that must all hold the address are one Group, named by a
// number that means the same as long as the process lives. Named ports are (address, protocol, port), so they
// become groups of the addresses that have a port, with protocol and port beside them.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "policy/program.h"

namespace tierlog::dataplane::ebpf {

// Addresses of one set, or those of a port set that have one port.
struct Term {
  bool of_port_set = false;
  std::uint32_t set = 0;  // into sets or port_sets
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;

  auto operator<=>(const Term&) const = default;
};
// Addresses that are in all of them; sorted.
using Group = std::vector<Term>;

// Numbers for groups: by meaning, not by place in a Program, and never given twice.
class GroupNumbers {
 public:
  // Also notes that this Program uses it.
  std::uint32_t of(const policy::Program& program, Group group);
  const std::map<Group, std::uint32_t>& used() const { return used_; }
  void begin_program() { used_.clear(); }

 private:
  std::map<std::string, std::uint32_t> numbers_;
  std::map<Group, std::uint32_t> used_;
};

// What a packet may be in one port's place.
struct Ports {
  std::vector<PortRange> ports{{0, 65535}};  // of protocols with ports; sorted, disjoint
  std::vector<PortRange> icmp{{0, 65535}};   // type << 8 | code
  bool other = true;                         // protocols without any

  bool any() const;
  bool none() const { return ports.empty() && icmp.empty() && !other; }
  auto operator<=>(const Ports&) const = default;
};

using Protocols = std::bitset<512>;  // family (0: IPv4) << 8 | protocol

struct Cell {
  Protocols protocols;
  std::uint32_t source = 0, destination = 0;  // group; 0: any address
  std::vector<std::uint32_t> not_source, not_destination;
  Ports source_ports, destination_ports;
  std::uint32_t rule = 0;      // into rules
  std::uint32_t priority = 0;  // in its tier
};

// Nothing for a match that can match no packet.
std::vector<Cell> cells_of(const policy::Program& program, const policy::Match& match, GroupNumbers& groups);

}  // namespace tierlog::dataplane::ebpf
