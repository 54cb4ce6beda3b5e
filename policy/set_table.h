// policy/set_table.h - the address and port sets of one Program: equal meaning, one set.
//
//   selector, nets, named ports, service --[SetTable]--> index into Program::sets or port_sets
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "policy/model.h"
#include "policy/program.h"
#include "policy/resolve.h"

namespace tierlog::policy {

// Sorted, without duplicates, none inside another.
std::vector<Cidr> minimal(std::vector<Cidr> nets);

class SetTable {
 public:
  // Fills program.sets and program.port_sets; both arguments must outlive it.
  SetTable(Population& population, Program& program) : population_(population), program_(program) {}

  // Addresses of the endpoints and network sets that match.
  std::uint32_t of_selector(const Selector& selector, const std::string& text);
  // Addresses of the nodes whose labels match.
  std::uint32_t of_nodes(const Selector& selector, const std::string& text);
  std::uint32_t of_nets(const std::vector<Cidr>& nets);
  std::uint32_t of_service(const ServiceSpec& service);
  std::uint32_t ports_of_service(const ServiceSpec& service);
  // Ports of these names as the endpoints that match `selector` declare them (all endpoints without
  // one), of one protocol or any.
  std::uint32_t of_named_ports(std::vector<std::string> names, const std::optional<Selector>& selector,
                               std::optional<std::uint8_t> protocol);
  bool is_empty_port_set(std::uint32_t index) const { return program_.port_sets[index].members.empty(); }

 private:
  std::vector<Cidr> members_of(const Selector& selector);
  const ServiceObject* find(const ServiceSpec& service) const;

  Population& population_;
  Program& program_;
  std::unordered_map<std::string, std::uint32_t> by_key_, ports_by_key_;
};

// How a set was made, from its key: "source is not in 10.0.0.0/8" reads other than "is not role == 'x'".
enum class SetOrigin : std::uint8_t { Selector, Nets, Service };
SetOrigin origin_of(const AddressSet& set);

}  // namespace tierlog::policy
