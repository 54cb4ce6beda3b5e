// endpoints/service_backends.h - where a packet to a Service goes, and what is said of it.
//
//   Topology::services + Cluster --[backends_of]--> the eBPF programs, explain_service()
//
// Policies judge a connection to a Service behind its translation, by the backend that it met.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "endpoints/topology.h"
#include "policy/explain.h"

namespace tierlog::endpoints {

using ServiceBackend = std::pair<IpAddr, std::uint16_t>;

// Behind port number `port` of the Service: one address of the family for each pod that it selects, as an
// EndpointSlice has it, then those that were named by their address.
std::vector<ServiceBackend> backends_of(const Service& service, std::size_t port, Family family,
                                        const policy::Cluster& cluster);

// An address and port that the Service is dialled by: `port` number of it.
struct ServiceEntry {
  IpAddr address;
  std::uint16_t number = 0;
  std::size_t port = 0;
};
// By its own addresses and, where it has node ports, by those of `node`.
std::vector<ServiceEntry> entries_of(const Service& service, const std::vector<IpAddr>& node);
// Empty: nothing is known of such a node.
std::vector<IpAddr> addresses_of_node(const policy::Cluster& cluster, std::string_view name);

// "ns/pod", an address or, where no pod has that name, "ns/service" (its clusterIP); of the wanted family when
// there are both. Nothing when there is none.
std::optional<IpAddr> resolve_who(const policy::Cluster& cluster, std::span<const Service> services,
                                  std::string_view who, Family wanted = Family::V4);

// policy::explain, and for the address of a Service its explanation behind the translation: of the first backend
// that is denied, else of the first, with the verdicts of all in `service`.
policy::Explanation explain(const policy::Program& program, const policy::Packet& packet,
                            std::span<const Service> services,
                            policy::NodesReach nodes = policy::NodesReach::AsProgram);

// A clusterIP of each family of the lab for each Service that may have one and has none, from `lab.serviceCidrs` of
// the topology, in the order of the file: always the same ones.
void assign_cluster_ips(Topology& topology);

}  // namespace tierlog::endpoints
