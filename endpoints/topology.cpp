#include "endpoints/topology.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/fields.h"
#include "endpoints/services.h"
#include "policy/fields.h"
#include "policy/load.h"

namespace tierlog::endpoints {
namespace {

using policy::Cluster;
using policy::Endpoint;
using yaml::Fields;
using yaml::Node;

Family family_of(const IpAddr& address) {
  return address.family;
}
Family family_of(const Cidr& cidr) {
  return cidr.address.family;
}

// Reads one topology; remembers what was named already.
class Reader {
 public:
  explicit Reader(LoadedTopology& result) : result_(result), findings_(result.findings) {}

  void read(const Node& node);

 private:
  Cluster& cluster() { return result_.topology.cluster; }
  void read_namespace(const Node& node);
  void read_pod(const Node& node);
  void read_service_account(const Node& node);
  void read_node(const Node& node);
  void read_network_sets(Fields& topology);
  void read_host_endpoints(Fields& topology);
  void read_lab(Fields& topology);
  void read_family(const Node& node);
  void fill_lab_defaults();
  std::vector<IpAddr> read_addresses(Fields& fields);
  policy::NamedPort read_port(const Node& node);
  // A name that is a name and was not given to a `kind` before.
  std::optional<std::string> new_name(Fields& fields, const std::string& kind, const std::string& in = {},
                                      bool dots = true);
  std::string namespace_of(Fields& fields);
  void claim(const Endpoint& pod, const SourceRef& place);
  void warn_of_unknown_namespaces();

  LoadedTopology& result_;
  Diagnostics& findings_;
  std::map<std::string, SourceRef> names_;                    // "kind ns/name" -> first place
  std::map<IpAddr, std::string> owners_;                      // address -> pod
  std::vector<std::pair<std::string, SourceRef>> mentioned_;  // namespaces of pods
};

std::optional<std::string> Reader::new_name(Fields& fields, const std::string& kind, const std::string& in,
                                            bool dots) {
  const auto name = fields.require_string("name");
  if (!name) return std::nullopt;
  const SourceRef place = fields.node().find("name")->place;
  if (!policy::check_name(*name, dots, place, findings_)) return std::nullopt;
  const std::string shown = in.empty() ? *name : in + "/" + *name;
  const auto [first, is_new] = names_.emplace(kind + " " + shown, place);
  if (is_new) return name;
  findings_.error(place, "duplicate " + kind + " " + shown + "; expected it once (first in " +
                             first->second.to_string() + ")");
  return std::nullopt;
}

std::string Reader::namespace_of(Fields& fields) {
  const auto name = fields.require_string("namespace");
  if (!name) return {};
  const SourceRef place = fields.node().find("namespace")->place;
  if (policy::check_name(*name, false, place, findings_)) mentioned_.emplace_back(*name, place);
  return *name;
}

void Reader::read_namespace(const Node& node) {
  Fields fields(node, "a namespace", findings_);
  const auto name = new_name(fields, "namespace", {}, false);
  policy::NamespaceObject result;
  result.labels = policy::read_labels(fields, "labels");
  if (!name) return;
  result.name = *name;
  result.labels[policy::label::kKubernetesNamespaceName] = *name;
  cluster().namespaces[*name] = std::move(result);
}

std::vector<IpAddr> Reader::read_addresses(Fields& fields) {
  std::vector<IpAddr> addresses;
  for (const Node* item : fields.list("ips")) {
    const auto address = policy::read_address(*item, findings_);
    if (!address) continue;
    if (std::find(addresses.begin(), addresses.end(), *address) != addresses.end())
      findings_.error(item->place, item->text + " a second time; expected each address once");
    else
      addresses.push_back(*address);
  }
  const Node* single = fields.get("ip");
  const auto address = single != nullptr ? policy::read_address(*single, findings_) : std::nullopt;
  if (!address || std::find(addresses.begin(), addresses.end(), *address) != addresses.end())
    return addresses;
  if (fields.has("ips"))
    findings_.error(single->place, "ip is not among ips; expected one of them, or ips alone");
  addresses.push_back(*address);
  return addresses;
}

policy::NamedPort Reader::read_port(const Node& node) {
  Fields fields(node, "a port", findings_);
  policy::NamedPort port;
  port.name = fields.string("name").value_or("");
  fields.require("port");
  if (const auto number = fields.integer("port", 1, 65535)) port.port = static_cast<std::uint16_t>(*number);
  if (const auto protocol = policy::read_protocol(fields, "protocol")) {
    port.protocol = *protocol;
    if (!protocol::has_ports(*protocol))
      findings_.error(fields.place_of("protocol"), "protocol " + protocol::name(*protocol) +
                                                       " has no ports; expected TCP, UDP, SCTP or UDPLite");
  }
  return port;
}

// Two pods cannot have one address, unless it is their node's.
void Reader::claim(const Endpoint& pod, const SourceRef& place) {
  if (pod.host_network) return;
  for (const IpAddr& address : pod.addresses) {
    const auto [owner, is_new] = owners_.emplace(address, pod.display());
    if (!is_new)
      findings_.error(place, address.to_string() + " is the address of " + owner->second +
                                 " already; expected one that is free");
  }
}

void Reader::read_pod(const Node& node) {
  Fields fields(node, "a pod", findings_);
  Endpoint pod;
  pod.endpoint_namespace = namespace_of(fields);
  const auto name = new_name(fields, "pod", pod.endpoint_namespace);
  pod.name = name.value_or("");
  pod.labels = policy::read_labels(fields, "labels");
  pod.addresses = read_addresses(fields);
  for (const Node* item : fields.list("ports")) pod.ports.push_back(read_port(*item));
  pod.service_account = fields.string("serviceAccount").value_or("");
  pod.node = fields.string("node").value_or("");
  pod.host_network = fields.boolean("hostNetwork").value_or(false);
  pod.workload = policy::workload_of(pod.name);
  if (!name || pod.endpoint_namespace.empty()) return;
  claim(pod, fields.place_of(fields.has("ips") ? "ips" : "ip"));
  cluster().endpoints.push_back(std::move(pod));
}

void Reader::read_service_account(const Node& node) {
  Fields fields(node, "a service account", findings_);
  policy::ServiceAccountObject account;
  account.account_namespace = namespace_of(fields);
  const auto name = new_name(fields, "service account", account.account_namespace);
  account.labels = policy::read_labels(fields, "labels");
  if (!name) return;
  account.name = *name;
  cluster().service_accounts.push_back(std::move(account));
}

void Reader::read_node(const Node& node) {
  Fields fields(node, "a node", findings_);
  const auto name = new_name(fields, "node");
  policy::NodeObject result;
  result.labels = policy::read_labels(fields, "labels");
  result.addresses = read_addresses(fields);
  if (!name) return;
  result.name = *name;
  cluster().nodes.push_back(std::move(result));
}

void Reader::read_network_sets(Fields& topology) {
  const std::vector<const Node*> objects = topology.list("networksets");
  policy::Loaded loaded = policy::load_trees(objects);
  findings_.add(loaded.findings);
  for (const Node* object : objects) {
    const Node* kind = object->find("kind");
    if (kind != nullptr && kind->text != "NetworkSet" && kind->text != "GlobalNetworkSet")
      findings_.error(kind->place, "kind \"" + kind->text +
                                       "\" among networksets; expected NetworkSet or "
                                       "GlobalNetworkSet");
  }
  cluster().network_sets = std::move(loaded.set.network_sets);
}

void Reader::read_host_endpoints(Fields& topology) {
  const std::vector<const Node*> objects = topology.list("hostEndpoints");
  policy::Loaded loaded = policy::load_trees(objects);
  findings_.add(loaded.findings);
  for (const Node* object : objects) {
    const Node* kind = object->find("kind");
    if (kind != nullptr && kind->text != "HostEndpoint")
      findings_.error(kind->place, "kind \"" + kind->text + "\" among hostEndpoints; expected HostEndpoint");
  }
  if (loaded.set.objects) cluster().host_endpoints = loaded.set.objects->host_endpoints;
}

void Reader::read_lab(Fields& topology) {
  const Node* node = topology.map("lab");
  if (node == nullptr) return;
  Fields fields(*node, "lab", findings_);
  LabOptions& lab = result_.topology.lab;
  if (const auto choice = fields.choice("cni", {"ptp", "bridge"}))
    lab.cni = *choice == 0 ? LabOptions::Cni::Ptp : LabOptions::Cni::Bridge;
  const std::vector<std::string> dataplanes = {"nftables", "ebpf"};
  if (const auto choice = fields.choice("dataplane", dataplanes)) lab.dataplane = dataplanes[*choice];
  for (const Node* item : fields.list("families")) read_family(*item);
  for (const Node* item : fields.list("pod_cidrs"))
    if (const auto cidr = policy::read_cidr(*item, findings_, true)) lab.pod_cidrs.push_back(*cidr);
  for (const Node* item : fields.list("service_cidrs"))
    if (const auto cidr = policy::read_cidr(*item, findings_, true)) lab.service_cidrs.push_back(*cidr);
  for (const Node* item : fields.list("outside"))
    if (const auto address = policy::read_address(*item, findings_)) lab.outside.push_back(*address);
  lab.masquerade = fields.boolean("masquerade").value_or(false);
}

void Reader::read_family(const Node& node) {
  std::vector<Family>& families = result_.topology.lab.families;
  if (node.text == "ipv4")
    families.push_back(Family::V4);
  else if (node.text == "ipv6")
    families.push_back(Family::V6);
  else
    findings_.error(node.place, yaml::unknown_word("family", node.text, {"ipv4", "ipv6"}));
}

void Reader::fill_lab_defaults() {
  LabOptions& lab = result_.topology.lab;
  const auto fill = [&](auto& values, std::initializer_list<const char*> texts) {
    using Value = typename std::decay_t<decltype(values)>::value_type;
    if (!values.empty()) return;
    for (const char* text : texts)
      if (const Value value = *Value::parse(text); lab.has(family_of(value))) values.push_back(value);
  };
  fill(lab.pod_cidrs, {"10.244.0.0/24", "fd00:244::/64"});
  fill(lab.service_cidrs, {"10.96.0.0/16", "fd00:96::/112"});
  fill(lab.outside, {"203.0.113.9", "2001:db8:113::9"});
}

void Reader::warn_of_unknown_namespaces() {
  if (cluster().namespaces.empty()) return;
  std::vector<std::string> known;
  for (const auto& entry : cluster().namespaces) known.push_back(entry.first);
  std::set<std::string> told;
  for (const auto& [name, place] : mentioned_) {
    if (cluster().namespaces.count(name) > 0 || !told.insert(name).second) continue;
    const std::string near = nearest(name, known);
    findings_.warning(place, "namespace \"" + name + "\" is not among namespaces, so it has no labels" +
                                 (near.empty() ? "" : " (did you mean " + near + "?)"));
  }
}

void Reader::read(const Node& node) {
  Fields fields(node, "the topology", findings_);
  for (const Node* item : fields.list("namespaces")) read_namespace(*item);
  for (const Node* item : fields.list("pods")) read_pod(*item);
  for (const Node* item : fields.list("serviceAccounts")) read_service_account(*item);
  for (const Node* item : fields.list("nodes")) read_node(*item);
  read_network_sets(fields);
  read_host_endpoints(fields);
  read_lab(fields);
  fill_lab_defaults();
  result_.topology.services = read_services(fields, cluster());
  warn_of_unknown_namespaces();
  findings_.sort();
}

}  // namespace

bool LabOptions::has(Family family) const {
  return families.empty() || std::find(families.begin(), families.end(), family) != families.end();
}

LoadedTopology read_topology(const Node& node) {
  LoadedTopology result;
  Reader(result).read(node);
  return result;
}

namespace {

LoadedTopology from_documents(const yaml::Documents& documents, const std::string& name) {
  LoadedTopology result;
  if (documents.documents.size() == 1)
    result = read_topology(documents.documents.front());
  else if (!documents.findings.has_errors())
    result.findings.error({name, 0, 0}, std::to_string(documents.documents.size()) +
                                            " documents; expected one topology (see docs/topology.md)");
  result.findings.add(documents.findings);
  result.findings.sort();
  return result;
}

}  // namespace

LoadedTopology load_topology(const std::string& path) {
  return from_documents(yaml::parse_file(path), path);
}

LoadedTopology load_topology_text(std::string_view text, const std::string& name) {
  return from_documents(yaml::parse(text, name), name);
}

}  // namespace tierlog::endpoints
