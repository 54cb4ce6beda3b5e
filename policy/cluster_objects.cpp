#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "policy/cluster.h"

// Core objects among the policy files, put into the cluster.
namespace tierlog::policy {
namespace {

using Key = std::pair<std::string, std::string>;

void join(Labels& into, const Labels& labels) {
  for (const auto& [key, value] : labels) into[key] = value;
}

void join(std::vector<IpAddr>& into, const std::vector<IpAddr>& addresses) {
  for (const IpAddr& address : addresses)
    if (std::find(into.begin(), into.end(), address) == into.end()) into.push_back(address);
}

template <typename T>
void fill(T& value, const T& from) {
  if (value.empty()) value = from;
}

void add_pods(Cluster& cluster, const std::vector<Endpoint>& pods) {
  std::map<Key, std::size_t> known;
  for (std::size_t i = 0; i < cluster.endpoints.size(); ++i)
    known.emplace(Key(cluster.endpoints[i].endpoint_namespace, cluster.endpoints[i].name), i);
  for (const Endpoint& pod : pods) {
    const auto [entry, is_new] = known.emplace(Key(pod.endpoint_namespace, pod.name), cluster.endpoints.size());
    if (is_new) {
      cluster.endpoints.push_back(pod);
      continue;
    }
    Endpoint& endpoint = cluster.endpoints[entry->second];
    join(endpoint.labels, pod.labels);
    fill(endpoint.addresses, pod.addresses);
    fill(endpoint.ports, pod.ports);
    fill(endpoint.service_account, pod.service_account);
    fill(endpoint.node, pod.node);
    endpoint.host_network = endpoint.host_network || pod.host_network;
  }
}

void add_nodes(Cluster& cluster, const std::vector<NodeObject>& nodes) {
  for (const NodeObject& node : nodes) {
    const auto same = std::find_if(cluster.nodes.begin(), cluster.nodes.end(),
                                   [&](const NodeObject& other) { return other.name == node.name; });
    if (same == cluster.nodes.end()) {
      cluster.nodes.push_back(node);
      continue;
    }
    join(same->labels, node.labels);
    join(same->addresses, node.addresses);
  }
}

void add_accounts(Cluster& cluster, const std::vector<ServiceAccountObject>& accounts) {
  auto& known = cluster.service_accounts;
  for (const ServiceAccountObject& account : accounts) {
    const auto same = std::find_if(known.begin(), known.end(), [&](const ServiceAccountObject& other) {
      return other.name == account.name && other.account_namespace == account.account_namespace;
    });
    if (same == known.end())
      known.push_back(account);
    else
      join(same->labels, account.labels);
  }
}

bool selects(const SelectingService& service, const Endpoint& pod) {
  return pod.endpoint_namespace == service.service_namespace &&
         std::all_of(service.selector.begin(), service.selector.end(), [&](const auto& wanted) {
           const auto found = pod.labels.find(wanted.first);
           return found != pod.labels.end() && found->second == wanted.second;
         });
}

void add_backend(ServiceObject& service, const SelectingService& selecting, const Endpoint& pod) {
  for (const IpAddr& address : pod.addresses) {
    service.addresses.push_back(address);
    for (const SelectingService::Port& port : selecting.ports) {
      if (port.named.empty()) service.ports.push_back({address, port.protocol, port.number});
      for (const NamedPort& declared : pod.ports)
        if (!port.named.empty() && declared.name == port.named && declared.protocol == port.protocol)
          service.ports.push_back({address, port.protocol, declared.port});
    }
  }
}

void add_services(Cluster& cluster, const ClusterObjects& objects) {
  std::set<Key> known;
  for (const ServiceObject& service : cluster.services) known.emplace(service.service_namespace, service.name);
  for (const ServiceObject& service : objects.services)
    if (known.emplace(service.service_namespace, service.name).second) cluster.services.push_back(service);
  for (const SelectingService& selecting : objects.selecting_services) {
    if (!known.emplace(selecting.service_namespace, selecting.name).second) continue;
    ServiceObject service{selecting.service_namespace, selecting.name, {}, {}};
    for (const Endpoint& pod : cluster.endpoints)
      if (selects(selecting, pod)) add_backend(service, selecting, pod);
    cluster.services.push_back(std::move(service));
  }
}

}  // namespace

void add_objects(Cluster& cluster, const PolicySet& policies) {
  for (const NamespaceObject& object : policies.namespaces) {
    NamespaceObject& known = cluster.namespaces[object.name];
    known.name = object.name;
    join(known.labels, object.labels);
    if (object.log_decisions != LogDecisions::None) known.log_decisions = object.log_decisions;
    known.audited = known.audited || object.audited;
  }
  if (!policies.objects) return;
  const ClusterObjects& objects = *policies.objects;
  add_pods(cluster, objects.pods);
  add_nodes(cluster, objects.nodes);
  add_accounts(cluster, objects.service_accounts);
  add_services(cluster, objects);
  for (const HostEndpoint& host : objects.host_endpoints) {
    const auto same = std::find_if(cluster.host_endpoints.begin(), cluster.host_endpoints.end(),
                                   [&](const HostEndpoint& other) { return other.name == host.name; });
    if (same == cluster.host_endpoints.end())
      cluster.host_endpoints.push_back(host);
    else
      *same = host;
  }
}

}  // namespace tierlog::policy
