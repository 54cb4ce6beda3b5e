// Where the Services of a topology lead, as the eBPF programs are told.
#include <algorithm>
#include <set>
#include <string>

#include "daemon/plane.h"
#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/layout.h"
#include "endpoints/service_backends.h"

namespace tierlog::daemon {
namespace {

using dataplane::ebpf::ServiceTarget;
using endpoints::Service;
using Backend = endpoints::ServiceBackend;

// What policies can know of an address, in words: the pod's labels and every net that is told apart.
std::string seen_as(const Backend& backend, const policy::Program& program) {
  std::string seen = std::to_string(backend.second);
  for (const policy::Endpoint& pod : program.cluster->endpoints) {
    if (std::find(pod.addresses.begin(), pod.addresses.end(), backend.first) == pod.addresses.end()) continue;
    seen += "|" + pod.endpoint_namespace + "|" + pod.service_account;
    for (const auto& [key, value] : pod.labels) seen += "|" + key + "=" + value;
    for (const policy::NamedPort& port : pod.ports) seen += "|" + port.name + ":" + std::to_string(port.port);
  }
  for (const auto& set : program.sets)
    for (const Cidr& net : set.members) {
      const bool single = net.prefix == net.address.bits();
      if (!single) seen += net.contains(backend.first) ? "1" : "0";
    }
  return seen;
}

std::vector<Backend> backends_of(const Service& service, std::size_t index, Family family,
                                 const policy::Program& program) {
  auto found = endpoints::backends_of(service, index, family, *program.cluster);
  if (found.size() <= TL_BACKENDS) return found;
  std::vector<Backend> told_apart;
  std::set<std::string> seen;
  for (const Backend& backend : found)
    if (seen.insert(seen_as(backend, program)).second) told_apart.push_back(backend);
  return told_apart;
}

}  // namespace

Result<void> tell_services(const Plane& plane, const std::vector<Service>& services, const policy::Program& program,
                           const std::string& node) {
  if (plane.programs == nullptr) return {};
  std::vector<ServiceTarget> targets;
  const std::vector<IpAddr> own = endpoints::addresses_of_node(*program.cluster, node);
  for (const Service& service : services)
    for (const endpoints::ServiceEntry& entry : endpoints::entries_of(service, own))
      targets.push_back({entry.address, service.ports[entry.port].protocol, entry.number,
                         backends_of(service, entry.port, entry.address.family, program)});
  return plane.programs->set_services(targets);
}

}  // namespace tierlog::daemon
