#include "endpoints/services.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "policy/fields.h"

namespace tierlog::endpoints {
namespace {

using policy::Cluster;
using policy::Endpoint;
using policy::EndpointPort;
using policy::ServiceObject;
using yaml::Fields;
using yaml::Node;

// A port of an EndpointSlice.
struct SlicePort {
  std::string name;
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t number = 0;
};

// What was given away already, to be told of twice.
struct Taken {
  std::map<std::string, SourceRef> names;
  std::map<IpAddr, std::string> addresses;
  std::map<std::pair<std::uint8_t, std::uint16_t>, std::string> node_ports;
};

// Several EndpointSlices may stand for one Service.
ServiceObject& service_named(Cluster& cluster, const std::string& in, const std::string& name) {
  for (ServiceObject& known : cluster.services)
    if (known.service_namespace == in && known.name == name) return known;
  return cluster.services.emplace_back(ServiceObject{in, name, {}, {}});
}

template <typename T>
void sort_unique(std::vector<T>& items) {
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
}

std::optional<ServicePort> read_service_port(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a Service's port", findings);
  ServicePort port;
  port.name = fields.string("name").value_or("");
  fields.require("port");
  const auto number = fields.integer("port", 1, 65535);
  const auto protocol = policy::read_port_protocol(fields, "protocol");
  const Node* target = fields.get("targetPort");
  port.node_port = static_cast<std::uint16_t>(fields.integer("nodePort", 1, 65535).value_or(0));
  if (!number || !protocol) return std::nullopt;
  port.port = static_cast<std::uint16_t>(*number);
  port.target = port.port;
  port.protocol = *protocol;
  if (target == nullptr) return port;
  const auto read = policy::read_port(*target, findings);
  if (!read) return std::nullopt;
  port.target_name = read->named;
  port.target = read->named.empty() ? read->range.first : std::uint16_t{0};
  return port;
}

void add_backend(ServiceObject& service, const Endpoint& pod, const std::vector<ServicePort>& ports) {
  for (const IpAddr& address : pod.addresses) {
    service.addresses.push_back(address);
    for (const ServicePort& port : ports) {
      if (port.target_name.empty()) service.ports.push_back({address, port.protocol, port.target});
      for (const policy::NamedPort& declared : pod.ports)
        if (!port.target_name.empty() && declared.name == port.target_name &&
            declared.protocol == port.protocol)
          service.ports.push_back({address, port.protocol, declared.port});
    }
  }
}

bool selects(const Service& service, const Endpoint& pod) {
  const auto has = [&](const auto& wanted) {
    const auto found = pod.labels.find(wanted.first);
    return found != pod.labels.end() && found->second == wanted.second;
  };
  return !service.selector.empty() && pod.endpoint_namespace == service.service_namespace &&
         std::all_of(service.selector.begin(), service.selector.end(), has);
}

void read_cluster_ip(const Node& item, Service& service, Taken& taken, Diagnostics& findings) {
  if (item.text == "None") {
    service.headless = true;
    return;
  }
  const auto address = policy::read_address(item, findings);
  if (!address) return;
  const auto [owner, is_new] = taken.addresses.emplace(*address, service.display());
  if (!is_new)
    findings.error(item.place, address->to_string() + " is the clusterIP of " + owner->second +
                                   " already; expected one that is free");
  else
    service.cluster_ips.push_back(*address);
}

void read_cluster_ips(Fields& fields, Service& service, Taken& taken) {
  const auto items = fields.list("clusterIPs");
  for (const Node* item : items) read_cluster_ip(*item, service, taken, fields.findings());
  const Node* single = fields.get("clusterIP");
  const bool repeated = single != nullptr && !items.empty() && items.front()->text == single->text;
  if (single != nullptr && !repeated) read_cluster_ip(*single, service, taken, fields.findings());
}

// Backends by address take every port of the Service at its target's number.
void read_backends(Fields& fields, Service& service) {
  for (const Node* item : fields.list("backends")) {
    const auto address = policy::read_address(*item, fields.findings());
    if (!address) continue;
    for (std::size_t i = 0; i < service.ports.size(); ++i) {
      if (service.ports[i].target_name.empty())
        service.backends.push_back({*address, i, service.ports[i].target});
      else
        fields.findings().error(item->place,
                                "a backend by address has no named ports; expected a number as "
                                "targetPort");
    }
  }
}

void read_ports(Fields& fields, Service& service, Taken& taken) {
  for (const Node* item : fields.list("ports")) {
    auto port = read_service_port(*item, fields.findings());
    if (!port) continue;
    if (port->node_port != 0) {
      const auto [owner, is_new] =
          taken.node_ports.emplace(std::pair(port->protocol, port->node_port), service.display());
      if (!is_new)
        fields.findings().error(item->place, "nodePort " + std::to_string(port->node_port) + " is that of " +
                                                 owner->second + " already; expected one that is free");
      if (!service.node_port)
        fields.findings().error(item->place,
                                "nodePort of a Service that is no NodePort; expected type: "
                                "NodePort, or no nodePort");
    }
    service.ports.push_back(std::move(*port));
  }
}

void resolve(const Service& service, Cluster& cluster) {
  ServiceObject& object = service_named(cluster, service.service_namespace, service.name);
  for (const Endpoint& pod : cluster.endpoints)
    if (selects(service, pod)) add_backend(object, pod, service.ports);
  for (const Service::Backend& backend : service.backends) {
    object.addresses.push_back(backend.address);
    object.ports.push_back({backend.address, service.ports[backend.port].protocol, backend.target});
  }
}

std::optional<Service> read_service(const Node& node, Taken& taken, Diagnostics& findings) {
  Fields fields(node, "a service", findings);
  Service service;
  const auto name = fields.require_string("name");
  const auto in = fields.require_string("namespace");
  service.name = name.value_or("");
  service.service_namespace = in.value_or("");
  service.selector = policy::read_labels(fields, "selector");
  if (const auto type = fields.choice("type", {"ClusterIP", "NodePort"})) service.node_port = *type == 1;
  if (const auto choice = fields.choice("externalTrafficPolicy", {"Cluster", "Local"}))
    service.local_only = *choice == 1;
  if (const auto choice = fields.choice("sessionAffinity", {"None", "ClientIP"}))
    service.affinity = *choice == 1;
  read_ports(fields, service, taken);
  read_cluster_ips(fields, service, taken);
  read_backends(fields, service);
  if (!name || !in) return std::nullopt;
  const auto [first, is_new] = taken.names.emplace(service.display(), node.find("name")->place);
  if (!is_new)
    findings.error(node.find("name")->place, "duplicate service " + service.display() +
                                                 "; expected it once (first in " + first->second.to_string() +
                                                 ")");
  return service;
}

struct SliceEndpoint {
  std::vector<IpAddr> addresses;
  bool ready = true;
};

SliceEndpoint read_slice_endpoint(const Node& node, Diagnostics& findings) {
  Fields fields(node, "an endpoint of a slice", findings);
  fields.accept({"hostname", "nodeName", "targetRef", "zone", "hints", "deprecatedTopology"});
  SliceEndpoint endpoint;
  for (const Node* item : fields.list("addresses"))
    if (const auto address = policy::read_address(*item, findings)) endpoint.addresses.push_back(*address);
  const Node* conditions = fields.map("conditions");
  const Node* ready = conditions != nullptr ? conditions->find("ready") : nullptr;
  endpoint.ready = ready == nullptr || ready->as_bool() != false;
  return endpoint;
}

std::optional<SlicePort> read_slice_port(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a port of a slice", findings);
  fields.accept({"appProtocol"});
  const std::string name = fields.string("name").value_or("");
  const auto number = fields.integer("port", 1, 65535);
  const auto protocol = policy::read_port_protocol(fields, "protocol");
  if (!number || !protocol) return std::nullopt;
  return SlicePort{name, *protocol, static_cast<std::uint16_t>(*number)};
}

// A slice's ports are those of the Service by name.
void add_to_service(std::vector<Service>& services, const std::string& in, const std::string& of,
                    const std::vector<IpAddr>& addresses, const std::vector<SlicePort>& ports) {
  for (Service& service : services) {
    if (service.service_namespace != in || service.name != of) continue;
    for (std::size_t i = 0; i < service.ports.size(); ++i)
      for (const SlicePort& port : ports)
        for (const IpAddr& address : addresses)
          if (port.name == service.ports[i].name && port.protocol == service.ports[i].protocol)
            service.backends.push_back({address, i, port.number});
  }
}

void read_slice(const Node& node, Cluster& cluster, std::vector<Service>& services, Diagnostics& findings) {
  Fields fields(node, "an EndpointSlice", findings);
  fields.accept({"apiVersion", "kind"});
  fields.choice("addressType", {"IPv4", "IPv6", "FQDN"});
  std::string in, of;
  if (const Node* metadata = fields.require("metadata")) {
    in = metadata->find("namespace") != nullptr ? metadata->find("namespace")->text : "default";
    const Node* labels = metadata->find("labels");
    const Node* owner = labels != nullptr ? labels->find("kubernetes.io/service-name") : nullptr;
    if (owner != nullptr) of = owner->text;
  }
  std::vector<SlicePort> ports;
  for (const Node* item : fields.list("ports"))
    if (const auto port = read_slice_port(*item, findings)) ports.push_back(*port);
  // A Service leads to those that are ready; to a rule that names it all of them belong, as in Calico.
  std::vector<IpAddr> addresses, ready;
  for (const Node* item : fields.list("endpoints")) {
    const SliceEndpoint endpoint = read_slice_endpoint(*item, findings);
    addresses.insert(addresses.end(), endpoint.addresses.begin(), endpoint.addresses.end());
    if (endpoint.ready) ready.insert(ready.end(), endpoint.addresses.begin(), endpoint.addresses.end());
  }
  if (of.empty()) {
    findings.error(node.place,
                   "an EndpointSlice of no Service; expected the label kubernetes.io/service-name");
    return;
  }
  ServiceObject& service = service_named(cluster, in, of);
  for (const IpAddr& address : addresses) {
    service.addresses.push_back(address);
    for (const SlicePort& port : ports) service.ports.push_back({address, port.protocol, port.number});
  }
  add_to_service(services, in, of, ready, ports);
}

}  // namespace

std::vector<Service> read_services(Fields& topology, Cluster& cluster) {
  std::vector<Service> services;
  Taken taken;
  for (const Node* item : topology.list("services")) {
    auto service = read_service(*item, taken, topology.findings());
    if (!service) continue;
    resolve(*service, cluster);
    services.push_back(std::move(*service));
  }
  for (const Node* item : topology.list("endpointSlices"))
    read_slice(*item, cluster, services, topology.findings());
  for (ServiceObject& service : cluster.services) {
    sort_unique(service.addresses);
    sort_unique(service.ports);
  }
  return services;
}

}  // namespace tierlog::endpoints
