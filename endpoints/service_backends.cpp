#include "endpoints/service_backends.h"

#include <algorithm>
#include <set>
#include <utility>

namespace tierlog::endpoints {
namespace {

bool selects(const Service& service, const policy::Endpoint& pod) {
  return !service.selector.empty() && pod.endpoint_namespace == service.service_namespace && !pod.host_network &&
         std::all_of(service.selector.begin(), service.selector.end(), [&](const auto& wanted) {
           const auto label = pod.labels.find(wanted.first);
           return label != pod.labels.end() && label->second == wanted.second;
         });
}

std::uint16_t target_of(const ServicePort& port, const policy::Endpoint& pod) {
  if (port.target_name.empty()) return port.target;
  for (const policy::NamedPort& named : pod.ports)
    if (named.name == port.target_name && named.protocol == port.protocol) return named.port;
  return 0;
}

// The Service that a packet is sent to, and the number of its port; no number: it has no such port.
std::optional<std::pair<const Service*, std::optional<std::size_t>>> service_of(std::span<const Service> services,
                                                                                const policy::Packet& packet) {
  if (!protocol::has_ports(packet.protocol)) return std::nullopt;
  for (const Service& service : services) {
    if (std::find(service.cluster_ips.begin(), service.cluster_ips.end(), packet.destination) ==
        service.cluster_ips.end())
      continue;
    for (std::size_t i = 0; i < service.ports.size(); ++i)
      if (service.ports[i].protocol == packet.protocol && service.ports[i].port == packet.destination_port)
        return std::pair{&service, std::optional(i)};
    return std::pair{&service, std::optional<std::size_t>()};
  }
  return std::nullopt;
}

// The address after `address`, within the prefix as long as it has one.
IpAddr next_of(IpAddr address) {
  for (std::size_t at = (address.bits() + 7u) / 8u; at-- > 0;)
    if (++address.bytes[at] != 0) break;
  return address;
}

}  // namespace

std::vector<ServiceEntry> entries_of(const Service& service, const std::vector<IpAddr>& node) {
  std::vector<ServiceEntry> entries;
  for (std::size_t i = 0; i < service.ports.size(); ++i) {
    const ServicePort& port = service.ports[i];
    for (const IpAddr& address : service.cluster_ips) entries.push_back({address, port.port, i});
    if (!service.node_port || port.node_port == 0) continue;
    for (const IpAddr& address : node) entries.push_back({address, port.node_port, i});
  }
  return entries;
}

std::vector<IpAddr> addresses_of_node(const policy::Cluster& cluster, std::string_view name) {
  for (const policy::NodeObject& known : cluster.nodes)
    if (known.name == name) return known.addresses;
  return {};
}

std::vector<ServiceBackend> backends_of(const Service& service, std::size_t port, Family family,
                                        const policy::Cluster& cluster) {
  std::vector<ServiceBackend> found;
  for (const policy::Endpoint& pod : cluster.endpoints) {
    if (!selects(service, pod)) continue;
    const std::uint16_t target = target_of(service.ports[port], pod);
    const auto address = std::find_if(pod.addresses.begin(), pod.addresses.end(),
                                      [&](const IpAddr& one) { return one.family == family; });
    if (target != 0 && address != pod.addresses.end()) found.emplace_back(*address, target);
  }
  for (const Service::Backend& backend : service.backends)
    if (backend.port == port && backend.address.family == family) found.emplace_back(backend.address, backend.target);
  return found;
}

std::optional<IpAddr> resolve_who(const policy::Cluster& cluster, std::span<const Service> services,
                                  std::string_view who, Family wanted) {
  if (const auto found = policy::resolve_who(cluster, who, wanted)) return found;
  for (const Service& service : services) {
    if (service.display() != who || service.cluster_ips.empty()) continue;
    const auto same = std::find_if(service.cluster_ips.begin(), service.cluster_ips.end(),
                                   [&](const IpAddr& one) { return one.family == wanted; });
    return same == service.cluster_ips.end() ? service.cluster_ips.front() : *same;
  }
  return std::nullopt;
}

policy::Explanation explain(const policy::Program& program, const policy::Packet& packet,
                            std::span<const Service> services, policy::NodesReach nodes) {
  const auto met = service_of(services, packet);
  if (!met) return policy::explain(program, packet, nodes);
  const auto& [service, port] = *met;
  policy::ExplainedService told{service->display(), packet.destination, packet.destination_port, port.has_value(), {}};
  std::optional<policy::Explanation> shown;
  const auto backends = port ? backends_of(*service, *port, packet.destination.family, *program.cluster)
                             : std::vector<ServiceBackend>();
  for (const auto& [address, target] : backends) {
    policy::Packet behind = packet;
    behind.destination = address;
    behind.destination_port = target;
    policy::Explanation explanation = policy::explain(program, behind, nodes);
    told.backends.push_back({address, target, explanation.destination_name, explanation.action});
    const bool worse = shown && shown->action != policy::Action::Deny && explanation.action == policy::Action::Deny;
    if (!shown || worse) shown = std::move(explanation);
  }
  if (!shown) shown = policy::explain(program, packet, nodes);
  shown->service = std::move(told);
  return std::move(*shown);
}

void assign_cluster_ips(Topology& topology) {
  std::vector<Cidr> cidrs = topology.lab.service_cidrs;
  if (cidrs.empty()) cidrs = {*Cidr::parse("10.96.0.0/16"), *Cidr::parse("fd00:96::/112")};
  std::set<IpAddr> taken;
  for (const Service& service : topology.services) taken.insert(service.cluster_ips.begin(), service.cluster_ips.end());
  for (Service& service : topology.services) {
    if (service.headless || !service.cluster_ips.empty()) continue;
    for (const Family family : {Family::V4, Family::V6}) {
      const auto cidr = std::find_if(cidrs.begin(), cidrs.end(),
                                     [&](const Cidr& one) { return one.address.family == family; });
      if (!topology.lab.has(family) || cidr == cidrs.end()) continue;
      IpAddr address = next_of(cidr->address);
      while (taken.count(address) != 0) address = next_of(address);
      taken.insert(address);
      service.cluster_ips.push_back(address);
    }
  }
}

}  // namespace tierlog::endpoints
