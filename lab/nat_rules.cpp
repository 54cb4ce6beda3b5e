#include <algorithm>
#include <sstream>

#include "lab/services.h"

namespace tierlog::lab {
namespace {

// kube-proxy's default --iptables-masquerade-bit.
constexpr const char* kMark = "0x4000";

struct Backend {
  IpAddr address;
  std::uint16_t port = 0;
  bool here = false;  // on the node that the rules are for
};

class Rules {
 public:
  Rules(const LabState& state, const NodeState& node, Family family)
      : state_(state), node_(node), family_(family), ip_(family == Family::V4 ? "ip" : "ip6") {}
  std::string text();

 private:
  using Elements = std::vector<std::string>;
  void add_service(std::size_t number);
  void add_port(const endpoints::Service& service, const endpoints::ServicePort& port, const std::string& id,
                const std::vector<Backend>& backends);
  void add_choice(const std::string& chain, const endpoints::Service& service,
                  const std::vector<std::pair<std::string, Backend>>& targets);
  std::vector<Backend> backends_of(const endpoints::Service& service, std::size_t port) const;
  std::vector<Backend> selected(const endpoints::Service& service, const endpoints::ServicePort& port) const;
  bool on_this_node(const IpAddr& address) const;
  std::string set(const char* name, const std::vector<IpAddr>& addresses) const;
  std::string map(const char* name, const char* key, const Elements& elements) const;
  std::string base_chains() const;
  std::vector<IpAddr> pods() const;
  std::vector<IpAddr> nodes() const;

  const LabState& state_;
  const NodeState& node_;
  Family family_;
  std::string ip_;
  std::ostringstream chains_;
  Elements services_, node_ports_, empty_, empty_node_ports_;
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string target_text(const Backend& backend) {
  const std::string address = backend.address.to_string();
  const bool v6 = backend.address.family == Family::V6;
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(backend.port);
}

std::vector<IpAddr> Rules::pods() const {
  std::vector<IpAddr> found;
  for (const auto& pod : state_.pods) {
    if (pod.host_network()) continue;
    std::ranges::copy_if(pod.cni.addresses, std::back_inserter(found),
                         [&](const IpAddr& one) { return one.family == family_; });
  }
  return found;
}

std::vector<IpAddr> Rules::nodes() const {
  std::vector<IpAddr> found;
  for (const auto& node : state_.nodes) {
    std::ranges::copy_if(node.addresses, std::back_inserter(found),
                         [&](const IpAddr& one) { return one.family == family_; });
  }
  return found;
}

bool Rules::on_this_node(const IpAddr& address) const {
  return std::ranges::any_of(state_.pods, [&](const PodState& pod) {
    return pod.node == node_.name && std::ranges::find(pod.cni.addresses, address) != pod.cni.addresses.end();
  });
}

// One address of the family for each pod, as an EndpointSlice has it.
std::vector<Backend> Rules::selected(const endpoints::Service& service,
                                     const endpoints::ServicePort& port) const {
  std::vector<Backend> found;
  for (const auto& pod : state_.pods) {
    const bool all = std::ranges::all_of(service.selector, [&](const auto& wanted) {
      const auto label = pod.labels.find(wanted.first);
      return label != pod.labels.end() && label->second == wanted.second;
    });
    if (!all || !pod.name.starts_with(service.service_namespace + "/")) continue;
    const auto address = std::ranges::find(pod.cni.addresses, family_, &IpAddr::family);
    if (address == pod.cni.addresses.end()) continue;
    const auto named = std::ranges::find_if(pod.ports, [&](const policy::NamedPort& one) {
      return one.name == port.target_name && one.protocol == port.protocol;
    });
    if (port.target_name.empty()) {
      found.push_back({*address, port.target, pod.node == node_.name});
    } else if (named != pod.ports.end()) {
      found.push_back({*address, named->port, pod.node == node_.name});
    }
  }
  return found;
}

std::vector<Backend> Rules::backends_of(const endpoints::Service& service, std::size_t port) const {
  std::vector<Backend> found;
  if (!service.selector.empty()) found = selected(service, service.ports[port]);
  for (const auto& backend : service.backends) {
    if (backend.port != port || backend.address.family != family_) continue;
    found.push_back({backend.address, backend.target, on_this_node(backend.address)});
  }
  return found;
}

// Which backend: at random, or with affinity by the client's address.
void Rules::add_choice(const std::string& chain, const endpoints::Service& service,
                       const std::vector<std::pair<std::string, Backend>>& targets) {
  chains_ << "  chain " << chain << " {\n";
  if (targets.size() == 1) {
    chains_ << "    goto " << targets.front().first << "\n  }\n";
    return;
  }
  const std::string pick = service.affinity ? "jhash " + ip_ + " saddr" : std::string("numgen random");
  Elements cases;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    cases.push_back(std::to_string(i) + " : goto " + targets[i].first);
  }
  chains_ << "    " << pick << " mod " << targets.size() << " vmap { " << joined(cases) << " }\n  }\n";
}

void Rules::add_port(const endpoints::Service& service, const endpoints::ServicePort& port,
                     const std::string& id, const std::vector<Backend>& backends) {
  const std::string protocol = protocol::name(port.protocol);
  std::vector<std::pair<std::string, Backend>> all, local;
  for (std::size_t i = 0; i < backends.size(); ++i) {
    const std::string chain = "ep-" + id + "-" + std::to_string(i);
    // A backend that reaches itself would answer itself directly; it has to see another's address.
    chains_ << "  chain " << chain << " {\n    " << ip_ << " saddr " << backends[i].address.to_string()
            << " jump mark-for-masquerade\n    meta l4proto " << protocol << " dnat " << ip_ << " to "
            << target_text(backends[i]) << "\n  }\n";
    all.emplace_back(chain, backends[i]);
    if (backends[i].here) local.emplace_back(chain, backends[i]);
  }
  add_choice("choose-" + id, service, all);
  // To a clusterIP by who is no pod (a node, somebody outside): the answer has to come back here.
  chains_ << "  chain svc-" << id << " {\n    " << ip_
          << " saddr != @pods jump mark-for-masquerade\n    goto choose-" << id << "\n  }\n";
  if (!service.node_port) return;
  if (service.local_only && !local.empty()) add_choice("local-" + id, service, local);
  chains_ << "  chain ext-" << id << " {\n";
  if (service.local_only) {
    chains_ << "    " << ip_ << " saddr @pods goto choose-" << id << "\n    fib saddr type local goto svc-"
            << id << "\n    " << (local.empty() ? "drop" : "goto local-" + id) << "\n  }\n";
  } else {
    chains_ << "    jump mark-for-masquerade\n    goto choose-" << id << "\n  }\n";
  }
}

void Rules::add_service(std::size_t number) {
  const endpoints::Service& service = state_.services[number];
  for (std::size_t i = 0; i < service.ports.size(); ++i) {
    const auto& port = service.ports[i];
    const std::string id = std::to_string(number) + "-" + std::to_string(i);
    const std::string key = protocol::name(port.protocol) + " . ";
    const auto backends = backends_of(service, i);
    for (const auto& address : service.cluster_ips) {
      if (address.family != family_) continue;
      const std::string whole = address.to_string() + " . " + key + std::to_string(port.port);
      (backends.empty() ? empty_ : services_)
          .push_back(whole + (backends.empty() ? " : goto refuse" : " : goto svc-" + id));
    }
    if (service.node_port) {
      const std::string whole = key + std::to_string(port.node_port);
      (backends.empty() ? empty_node_ports_ : node_ports_)
          .push_back(whole + (backends.empty() ? " : goto refuse" : " : goto ext-" + id));
    }
    if (!backends.empty()) add_port(service, port, id, backends);
  }
}

std::string Rules::set(const char* name, const std::vector<IpAddr>& addresses) const {
  Elements texts;
  for (const auto& address : addresses) texts.push_back(address.to_string());
  return std::string("  set ") + name + " { type " + (family_ == Family::V4 ? "ipv4_addr;" : "ipv6_addr;") +
         (texts.empty() ? "" : " elements = { " + joined(texts) + " };") + " }\n";
}

std::string Rules::map(const char* name, const char* key, const Elements& elements) const {
  return std::string("  map ") + name + " { type " + key + " : verdict;" +
         (elements.empty() ? "" : " elements = { " + joined(elements) + " };") + " }\n";
}

std::string Rules::base_chains() const {
  const std::string to = "    " + ip_ + " daddr . meta l4proto . th dport vmap ";
  const std::string to_node = "    " + ip_ + " daddr @own meta l4proto . th dport vmap ";
  std::ostringstream out;
  out << "  chain dispatch {\n"
      << to << "@services\n"
      << to_node << "@node-ports\n  }\n"
      << "  chain refuse {\n    reject\n  }\n"
      << "  chain check {\n"
      << to << "@empty\n"
      << to_node << "@empty-node-ports\n  }\n"
      << "  chain mark-for-masquerade {\n    meta mark set meta mark or " << kMark << "\n  }\n";
  for (const char* hook : {"prerouting", "output"}) {
    out << "  chain nat-" << hook << " {\n    type nat hook " << hook
        << " priority -100; policy accept;\n    jump dispatch\n  }\n";
  }
  for (const char* hook : {"input", "forward", "output"}) {
    out << "  chain filter-" << hook << " {\n    type filter hook " << hook
        << " priority -110; policy accept;\n    ct state new jump check\n  }\n";
  }
  out << "  chain nat-postrouting {\n    type nat hook postrouting priority 100; policy accept;\n    meta "
         "mark & "
      << kMark << " == " << kMark << " meta mark set meta mark xor " << kMark << " masquerade\n";
  if (state_.masquerade) {
    out << "    " << ip_ << " saddr @pods " << ip_ << " daddr != @pods " << ip_
        << " daddr != @nodes masquerade\n";
  }
  out << "  }\n";
  return out.str();
}

std::string Rules::text() {
  for (std::size_t i = 0; i < state_.services.size(); ++i) add_service(i);
  const std::string name = ip_ + " " + kServiceTable;
  const char* address = family_ == Family::V4 ? "ipv4_addr . inet_proto . inet_service"
                                              : "ipv6_addr . inet_proto . inet_service";
  std::vector<IpAddr> own;
  std::ranges::copy_if(node_.addresses, std::back_inserter(own),
                       [&](const IpAddr& one) { return one.family == family_; });
  return "table " + name + " {}\ndelete table " + name + "\ntable " + name + " {\n" + set("pods", pods()) +
         set("nodes", nodes()) + set("own", own) + map("services", address, services_) +
         map("node-ports", "inet_proto . inet_service", node_ports_) + map("empty", address, empty_) +
         map("empty-node-ports", "inet_proto . inet_service", empty_node_ports_) + chains_.str() +
         base_chains() + "}\n";
}

}  // namespace

std::string nat_rules(const LabState& state, const NodeState& node, Family family) {
  return Rules(state, node, family).text();
}

}  // namespace tierlog::lab
