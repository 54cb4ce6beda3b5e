#include "daemon/mismatch_cases.h"

#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "policy/evaluate.h"

namespace tierlog::daemon {
namespace {

using Json = nlohmann::ordered_json;

Json addresses_of(const std::vector<IpAddr>& addresses) {
  Json list = Json::array();
  for (const IpAddr& address : addresses) list.push_back(address.to_string());
  return list;
}

Json labels_of(const policy::Labels& labels) {
  Json object = Json::object();
  for (const auto& [key, value] : labels) object[key] = value;
  return object;
}

Json pod_of(const policy::Endpoint& endpoint) {
  Json pod{{"name", endpoint.name},
           {"namespace", endpoint.endpoint_namespace},
           {"labels", labels_of(endpoint.labels)},
           {"ips", addresses_of(endpoint.addresses)}};
  Json ports = Json::array();
  for (const policy::NamedPort& port : endpoint.ports) {
    std::string protocol_name = protocol::name(port.protocol);
    std::transform(protocol_name.begin(), protocol_name.end(), protocol_name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    ports.push_back({{"name", port.name}, {"protocol", protocol_name}, {"port", port.port}});
  }
  if (!ports.empty()) pod["ports"] = ports;
  if (!endpoint.service_account.empty()) pod["serviceAccount"] = endpoint.service_account;
  if (!endpoint.node.empty()) pod["node"] = endpoint.node;
  if (endpoint.host_network) pod["hostNetwork"] = true;
  return pod;
}

Json set_of(const policy::NetworkSet& set) {
  Json nets = Json::array();
  for (const Cidr& net : set.nets) nets.push_back(net.to_string());
  Json metadata{{"name", set.name}, {"labels", labels_of(set.labels)}};
  if (!set.set_namespace.empty()) metadata["namespace"] = set.set_namespace;
  return {{"apiVersion", "projectcalico.org/v3"},
          {"kind", set.set_namespace.empty() ? "GlobalNetworkSet" : "NetworkSet"},
          {"metadata", metadata},
          {"spec", {{"nets", nets}}}};
}

Json topology_of(const policy::Cluster& cluster) {
  Json topology{{"namespaces", Json::array()}, {"pods", Json::array()}};
  for (const auto& [name, object] : cluster.namespaces)
    topology["namespaces"].push_back({{"name", name}, {"labels", labels_of(object.labels)}});
  for (const policy::Endpoint& endpoint : cluster.endpoints) topology["pods"].push_back(pod_of(endpoint));
  for (const policy::NodeObject& node : cluster.nodes)
    topology["nodes"].push_back(
        {{"name", node.name}, {"labels", labels_of(node.labels)}, {"ips", addresses_of(node.addresses)}});
  for (const policy::NetworkSet& set : cluster.network_sets) topology["networksets"].push_back(set_of(set));
  for (const policy::ServiceAccountObject& account : cluster.service_accounts)
    topology["serviceAccounts"].push_back(
        {{"name", account.name}, {"namespace", account.account_namespace}, {"labels", labels_of(account.labels)}});
  return topology;
}

Json check_of(const logger::Disagreement& found) {
  const dataplane::VerdictEvent& event = found.event;
  const auto end_of = [&](const IpAddr& address) -> Json {
    const policy::Endpoint* pod = found.program->known(address);
    return pod == nullptr ? Json{{"ip", address.to_string()}} : Json{{"pod", pod->display()}};
  };
  Json check{{"from", end_of(event.source)}, {"to", end_of(event.destination)}};
  check["protocol"] = event.protocol == protocol::kTcp    ? Json("TCP")
                      : event.protocol == protocol::kUdp  ? Json("UDP")
                      : event.protocol == protocol::kSctp ? Json("SCTP")
                                                          : Json(event.protocol);
  if (protocol::has_ports(event.protocol)) {
    check["port"] = event.destination_port;
    if (event.source_port != 0) check["sourcePort"] = event.source_port;
  } else if (protocol::is_icmp(event.protocol)) {
    check["icmpType"] = event.icmp_type;
    check["icmpCode"] = event.icmp_code;
  }
  check["expect"] = event.kind == dataplane::EventKind::Allowed ? "allow" : "deny";
  return check;
}

bool says_something(const std::string& document) {
  std::istringstream lines(document);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first != std::string::npos && line[first] != '#') return true;
  }
  return false;
}

// Each document as an item of a list.
void add_documents(const std::string& text, std::string& into) {
  std::vector<std::string> documents(1);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("---", 0) == 0)
      documents.emplace_back();
    else if (line.rfind("...", 0) != 0)
      documents.back() += "    " + line + "\n";
  }
  for (const std::string& document : documents)
    if (says_something(document)) into += "  -\n" + document;
}

}  // namespace

std::string mismatch_case(const logger::Disagreement& found, std::span<const policy::SourceText> policies,
                          const std::string& id) {
  std::string text =
      "# The kernel decided: " + found.kernel + "\n# The evaluator decides: " + found.evaluator +
      "\n# `tierlog test` tells whether they still differ, `tierlog test --via nftables` who is right.\n";
  text += "id: " + id + "\n";
  text += "topology: " + topology_of(*found.program->cluster).dump() + "\n";
  text += "policies:\n";
  std::string items;
  for (const policy::SourceText& source : policies) add_documents(source.text, items);
  text += items.empty() ? "  []\n" : items;
  return text + "checks:\n  - " + check_of(found).dump() + "\n";
}

MismatchCases::MismatchCases(const std::string& state_folder) : folder_(state_folder + "/mismatches") {
  const auto names = names_in(folder_);
  if (!names) return;
  for (const std::string& name : *names) paths_.push_back(folder_ + "/" + name);
}

Result<std::string> MismatchCases::keep(const logger::Disagreement& found,
                                        std::span<const policy::SourceText> policies) {
  if (paths_.size() >= kMost) return std::string();
  if (!known_.insert(found.kernel + "\n" + found.evaluator).second) return std::string();
  if (::mkdir(folder_.c_str(), 0700) < 0 && errno != EEXIST)
    return fail(Error::from_errno(errno, "make", folder_));
  const std::string id = "mismatch-" + std::to_string(to_ns(found.event.time));
  const std::string path = folder_ + "/" + id + ".yaml";
  std::ofstream file(path, std::ios::trunc);
  file << mismatch_case(found, policies, id);
  file.close();
  if (!file) return fail(Error::from_errno(errno, "write", path));
  paths_.push_back(path);
  return path;
}

}  // namespace tierlog::daemon
