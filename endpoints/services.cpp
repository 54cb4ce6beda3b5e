#include "endpoints/services.h"

#include <algorithm>
#include <optional>
#include <string>

#include "policy/fields.h"

namespace tierlog::endpoints {
namespace {

using policy::Cluster;
using policy::Endpoint;
using policy::EndpointPort;
using policy::ServiceObject;
using yaml::Fields;
using yaml::Node;

// A port of a Service: where it leads on each backend.
struct TargetPort {
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t number = 0;
  std::string name;  // of a pod's port; empty: the number
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

std::optional<TargetPort> read_target(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a Service's port", findings);
  fields.string("name");
  fields.require("port");
  const auto number = fields.integer("port", 1, 65535);
  const auto protocol = policy::read_port_protocol(fields, "protocol");
  const Node* target = fields.get("targetPort");
  if (!number || !protocol) return std::nullopt;
  TargetPort port{*protocol, static_cast<std::uint16_t>(*number), {}};
  if (target == nullptr) return port;
  const auto read = policy::read_port(*target, findings);
  if (!read) return std::nullopt;
  port.name = read->named;
  port.number = read->range.first;
  return port;
}

void add_backend(ServiceObject& service, const Endpoint& pod, const std::vector<TargetPort>& ports) {
  for (const IpAddr& address : pod.addresses) {
    service.addresses.push_back(address);
    for (const TargetPort& port : ports) {
      if (port.name.empty()) service.ports.push_back({address, port.protocol, port.number});
      for (const policy::NamedPort& declared : pod.ports)
        if (!port.name.empty() && declared.name == port.name && declared.protocol == port.protocol)
          service.ports.push_back({address, port.protocol, declared.port});
    }
  }
}

void read_service(const Node& node, Cluster& cluster, Diagnostics& findings) {
  Fields fields(node, "a service", findings);
  const auto name = fields.require_string("name");
  const auto in = fields.require_string("namespace");
  fields.require("selector");
  const policy::Labels selector = policy::read_labels(fields, "selector");
  std::vector<TargetPort> ports;
  for (const Node* item : fields.list("ports"))
    if (const auto port = read_target(*item, findings)) ports.push_back(*port);
  if (!name || !in || selector.empty()) return;
  ServiceObject& service = service_named(cluster, *in, *name);
  for (const Endpoint& pod : cluster.endpoints) {
    const auto has = [&](const auto& wanted) {
      const auto found = pod.labels.find(wanted.first);
      return found != pod.labels.end() && found->second == wanted.second;
    };
    if (pod.endpoint_namespace == *in && std::all_of(selector.begin(), selector.end(), has))
      add_backend(service, pod, ports);
  }
}

// Addresses of one endpoint of a slice; none when it is not ready.
std::vector<IpAddr> read_slice_endpoint(const Node& node, Diagnostics& findings) {
  Fields fields(node, "an endpoint of a slice", findings);
  fields.accept({"hostname", "nodeName", "targetRef", "zone", "hints", "deprecatedTopology"});
  std::vector<IpAddr> addresses;
  for (const Node* item : fields.list("addresses"))
    if (const auto address = policy::read_address(*item, findings)) addresses.push_back(*address);
  const Node* conditions = fields.map("conditions");
  const Node* ready = conditions != nullptr ? conditions->find("ready") : nullptr;
  if (ready != nullptr && ready->as_bool() == false) addresses.clear();
  return addresses;
}

std::optional<TargetPort> read_slice_port(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a port of a slice", findings);
  fields.accept({"appProtocol"});
  fields.string("name");
  const auto number = fields.integer("port", 1, 65535);
  const auto protocol = policy::read_port_protocol(fields, "protocol");
  if (!number || !protocol) return std::nullopt;
  return TargetPort{*protocol, static_cast<std::uint16_t>(*number), {}};
}

void read_slice(const Node& node, Cluster& cluster, Diagnostics& findings) {
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
  std::vector<TargetPort> ports;
  for (const Node* item : fields.list("ports"))
    if (const auto port = read_slice_port(*item, findings)) ports.push_back(*port);
  std::vector<IpAddr> addresses;
  for (const Node* item : fields.list("endpoints"))
    for (const IpAddr& address : read_slice_endpoint(*item, findings)) addresses.push_back(address);
  if (of.empty()) {
    findings.error(node.place,
                   "an EndpointSlice of no Service; expected the label kubernetes.io/service-name");
    return;
  }
  ServiceObject& service = service_named(cluster, in, of);
  for (const IpAddr& address : addresses) {
    service.addresses.push_back(address);
    for (const TargetPort& port : ports) service.ports.push_back({address, port.protocol, port.number});
  }
}

}  // namespace

void read_services(Fields& topology, Cluster& cluster) {
  for (const Node* item : topology.list("services")) read_service(*item, cluster, topology.findings());
  for (const Node* item : topology.list("endpointSlices")) read_slice(*item, cluster, topology.findings());
  for (ServiceObject& service : cluster.services) {
    sort_unique(service.addresses);
    sort_unique(service.ports);
  }
}

}  // namespace tierlog::endpoints
