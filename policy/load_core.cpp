#include <algorithm>
#include <set>
#include <utility>

#include "policy/load_kinds.h"

// v1 Pod, ServiceAccount, Node, Service and discovery.k8s.io/v1 EndpointSlice: who there is. Of these objects
// only what policies can ask for is read; the rest of them is not ours to check.
namespace tierlog::policy {
namespace {

using yaml::Fields;
using yaml::Node;

void accept_rest(Fields& fields) {
  for (const auto& entry : fields.node().entries) fields.accept({entry.first.text});
}

// Adds the address unless it is there.
void add_address(const Node& node, std::vector<IpAddr>& addresses, Diagnostics& findings) {
  const auto address = read_address(node, findings);
  if (address && std::find(addresses.begin(), addresses.end(), *address) == addresses.end())
    addresses.push_back(*address);
}

void read_container(const Node& node, Endpoint& pod, Diagnostics& findings) {
  Fields container(node, "a container", findings);
  accept_rest(container);
  for (const Node* item : container.list("ports")) {
    Fields fields(*item, "a container's port", findings);
    accept_rest(fields);
    NamedPort port;
    port.name = fields.string("name").value_or("");
    const auto number = fields.integer("containerPort", 1, 65535);
    const auto protocol = read_port_protocol(fields, "protocol");
    if (!number || !protocol || port.name.empty()) continue;
    port.port = static_cast<std::uint16_t>(*number);
    port.protocol = *protocol;
    pod.ports.push_back(std::move(port));
  }
}

// False when the pod has ended: its address may be another's already.
bool read_pod_status(Fields& object, Endpoint& pod) {
  const Node* node = object.map("status");
  if (node == nullptr) return true;
  Fields status(*node, "the pod's status", object.findings());
  accept_rest(status);
  for (const Node* item : status.list("podIPs")) {
    Fields ip(*item, "an item of podIPs", object.findings());
    if (const Node* text = ip.require("ip")) add_address(*text, pod.addresses, object.findings());
  }
  if (const Node* text = status.get("podIP")) add_address(*text, pod.addresses, object.findings());
  const std::string phase = status.string("phase").value_or("");
  return phase != "Succeeded" && phase != "Failed";
}

void read_pod(const Node& node, LoadContext& context) {
  Fields object(node, "a Pod", context.findings);
  const Meta meta = read_meta(object, {.kind = "Pod", .namespaced = true}, context);
  Endpoint pod;
  pod.endpoint_namespace = meta.object_namespace;
  pod.name = meta.name;
  pod.labels = meta.labels;
  pod.workload = workload_of(meta.name);
  if (const Node* spec_node = object.map("spec")) {
    Fields spec(*spec_node, "the pod's spec", context.findings);
    accept_rest(spec);
    pod.node = spec.string("nodeName").value_or("");
    pod.service_account = spec.string("serviceAccountName").value_or("");
    pod.host_network = spec.boolean("hostNetwork").value_or(false);
    for (const char* list : {"containers", "initContainers"})
      for (const Node* item : spec.list(list)) read_container(*item, pod, context.findings);
  }
  if (read_pod_status(object, pod) && meta.valid) context.objects.pods.push_back(std::move(pod));
}

void read_service_account(const Node& node, LoadContext& context) {
  Fields object(node, "a ServiceAccount", context.findings);
  const Meta meta = read_meta(object, {.kind = "ServiceAccount", .namespaced = true}, context);
  object.accept({"secrets", "imagePullSecrets", "automountServiceAccountToken"});
  if (meta.valid) context.objects.service_accounts.push_back({meta.object_namespace, meta.name, meta.labels});
}

void read_node(const Node& node, LoadContext& context) {
  Fields object(node, "a Node", context.findings);
  const Meta meta = read_meta(object, {.kind = "Node"}, context);
  object.accept({"spec"});
  NodeObject result{meta.name, meta.labels, {}};
  if (const Node* status_node = object.map("status")) {
    Fields status(*status_node, "the node's status", context.findings);
    accept_rest(status);
    for (const Node* item : status.list("addresses")) {
      Fields fields(*item, "an address of the node", context.findings);
      const std::string type = fields.string("type").value_or("");
      const Node* address = fields.require("address");
      if (address != nullptr && (type == "InternalIP" || type == "ExternalIP"))
        add_address(*address, result.addresses, context.findings);
    }
  }
  if (meta.valid) context.objects.nodes.push_back(std::move(result));
}

std::optional<SelectingService::Port> read_service_port(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a Service's port", findings);
  fields.accept({"name", "nodePort", "appProtocol"});
  fields.require("port");
  const auto number = fields.integer("port", 1, 65535);
  const auto protocol = read_port_protocol(fields, "protocol");
  const Node* target = fields.get("targetPort");
  if (!number || !protocol) return std::nullopt;
  SelectingService::Port port{*protocol, static_cast<std::uint16_t>(*number), {}};
  if (target == nullptr || target->as_int() == 0) return port;
  const auto read = read_port(*target, findings);
  if (!read) return std::nullopt;
  port.named = read->named;
  if (read->named.empty()) port.number = read->range.first;
  return port;
}

void read_service(const Node& node, LoadContext& context) {
  Fields object(node, "a Service", context.findings);
  const Meta meta = read_meta(object, {.kind = "Service", .namespaced = true}, context);
  const Node* spec_node = require_spec(object);
  if (spec_node == nullptr) return;
  Fields spec(*spec_node, "the Service's spec", context.findings);
  accept_rest(spec);
  SelectingService service{meta.object_namespace, meta.name, read_labels(spec, "selector"), {}};
  for (const Node* item : spec.list("ports"))
    if (auto port = read_service_port(*item, context.findings)) service.ports.push_back(std::move(*port));
  if (meta.valid && !service.selector.empty()) context.objects.selecting_services.push_back(std::move(service));
}

// Addresses of one endpoint of a slice, ready or not: to a rule that names the Service it belongs as long as it
// is there, as in Calico.
std::vector<IpAddr> read_slice_endpoint(const Node& node, Diagnostics& findings) {
  Fields fields(node, "an endpoint of a slice", findings);
  fields.accept({"hostname", "nodeName", "targetRef", "zone", "hints", "deprecatedTopology"});
  std::vector<IpAddr> addresses;
  for (const Node* item : fields.list("addresses")) add_address(*item, addresses, findings);
  fields.map("conditions");
  return addresses;
}

ServiceObject& service_named(std::vector<ServiceObject>& services, const std::string& in, const std::string& of) {
  for (ServiceObject& known : services)
    if (known.service_namespace == in && known.name == of) return known;
  return services.emplace_back(ServiceObject{in, of, {}, {}});
}

void read_slice(const Node& node, LoadContext& context) {
  Fields object(node, "an EndpointSlice", context.findings);
  const Meta meta = read_meta(object, {.kind = "EndpointSlice", .namespaced = true}, context);
  const auto type = object.choice("addressType", {"IPv4", "IPv6", "FQDN"});
  std::vector<EndpointPort> ports;
  for (const Node* item : object.list("ports")) {
    Fields fields(*item, "a port of a slice", context.findings);
    fields.accept({"name", "appProtocol"});
    const auto number = fields.integer("port", 1, 65535);
    const auto protocol = read_port_protocol(fields, "protocol");
    if (number && protocol) ports.push_back({{}, *protocol, static_cast<std::uint16_t>(*number)});
  }
  const auto items = object.list("endpoints");
  const auto of = meta.labels.find("kubernetes.io/service-name");
  if (type == std::size_t{2}) return;  // names are no addresses
  if (meta.valid && of == meta.labels.end())
    context.findings.error(node.place, "an EndpointSlice of no Service; expected the label kubernetes.io/service-name");
  if (!meta.valid || of == meta.labels.end()) return;
  ServiceObject& service = service_named(context.objects.services, meta.object_namespace, of->second);
  for (const Node* item : items)
    for (const IpAddr& address : read_slice_endpoint(*item, context.findings)) {
      service.addresses.push_back(address);
      for (const EndpointPort& port : ports) service.ports.push_back({address, port.protocol, port.port});
    }
}

}  // namespace

std::vector<KindRow> core_kinds() {
  return {{{"v1"}, "Pod", read_pod},
          {{"v1"}, "ServiceAccount", read_service_account},
          {{"v1"}, "Node", read_node},
          {{"v1"}, "Service", read_service},
          {{"discovery.k8s.io/v1"}, "EndpointSlice", read_slice}};
}

}  // namespace tierlog::policy
