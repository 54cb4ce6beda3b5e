// Recommended policies as YAML documents, in Calico's and in Kubernetes' form.
#include "query/recommend.h"

namespace tierlog::query {
namespace {

std::string yaml_text(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

// A label's value in a selector: values have no quotes in Kubernetes, topology files may be freer.
std::string selector_value(const std::string& value) {
  return value.find('\'') == std::string::npos ? "'" + value + "'" : "\"" + value + "\"";
}

std::string calico_selector(const PodSelector& selector) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : " && ") + part; };
  for (const auto& [key, value] : selector.labels) add(key + " == " + selector_value(value));
  for (const std::string& key : selector.absent) add("!has(" + key + ")");
  return text.empty() ? "all()" : text;
}

std::string kubernetes_selector(const PodSelector& selector, const std::string& indent) {
  if (selector.labels.empty() && selector.absent.empty()) return " {}\n";
  std::string text = "\n";
  if (!selector.labels.empty()) text += indent + "matchLabels:\n";
  for (const auto& [key, value] : selector.labels)
    text += indent + "  " + yaml_text(key) + ": " + yaml_text(value) + "\n";
  if (!selector.absent.empty()) text += indent + "matchExpressions:\n";
  for (const std::string& key : selector.absent)
    text += indent + "- {key: " + yaml_text(key) + ", operator: DoesNotExist}\n";
  return text;
}

// "web" of whatever a workload is called: names of objects are lower-case DNS names.
std::string object_name(const std::string& workload) {
  std::string name = "recommended-";
  for (const char c : workload) {
    const bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
    name += fits ? c : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : '-';
  }
  return name;
}

std::string calico_protocol(std::uint8_t proto) {
  switch (proto) {
    case protocol::kTcp:
      return "TCP";
    case protocol::kUdp:
      return "UDP";
    case protocol::kSctp:
      return "SCTP";
    case protocol::kUdpLite:
      return "UDPLite";
    case protocol::kIcmp:
      return "ICMP";
    case protocol::kIcmpV6:
      return "ICMPv6";
    default:
      return std::to_string(proto);
  }
}

std::string ports_text(const std::set<std::uint16_t>& ports) {
  std::string text;
  for (const std::uint16_t port : ports) text += (text.empty() ? "" : ", ") + std::to_string(port);
  return "[" + text + "]";
}

// ---- Calico ----------------------------------------------------------------------------------------------

class CalicoWriter {
 public:
  explicit CalicoWriter(std::string ns) : namespace_(std::move(ns)) {}

  std::string write(const WorkloadTraffic& traffic) {
    const std::string name = object_name(traffic.workload);
    std::string sets;
    std::string policy =
        "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: " + yaml_text(name) +
        "\n  namespace: " + yaml_text(namespace_) +
        "\nspec:\n  selector: " + yaml_text(calico_selector(traffic.selector)) +
        "\n  types: [Ingress, Egress]\n";
    policy += rules("ingress", name, traffic.ingress, sets) + rules("egress", name, traffic.egress, sets);
    return sets + policy;
  }

 private:
  std::string rules(const std::string& direction, const std::string& name, const AllowedRules& allowed,
                    std::string& sets) {
    if (allowed.empty()) return {};
    std::string text = "  " + direction + ":\n";
    int number = 0;
    for (const auto& [peer, protocols] : allowed) {
      std::string selects;
      if (peer.pods) {
        selects = "      selector: " + yaml_text(calico_selector(peer.selector)) + "\n";
        if (peer.peer_namespace != namespace_)
          selects += "      namespaceSelector: " +
                     yaml_text("kubernetes.io/metadata.name == " + selector_value(peer.peer_namespace)) + "\n";
      } else {
        const std::string set = name + "-" + direction + "-" + std::to_string(++number);
        sets += network_set(set, peer.addresses);
        selects = "      selector: " + yaml_text("tierlog.io/recommended == '" + set + "'") + "\n";
      }
      for (const auto& [proto, what] : protocols) text += protocol_rules(direction, proto, what, selects);
    }
    return text;
  }

  static std::string protocol_rules(const std::string& direction, std::uint8_t proto,
                                    const AllowedProtocol& what, const std::string& selects) {
    const std::string head = "  - action: Allow\n    protocol: " + calico_protocol(proto) + "\n";
    const std::string ports = what.ports.empty() ? "" : "      ports: " + ports_text(what.ports) + "\n";
    std::string ends;
    if (direction == "ingress") {
      ends = "    source:\n" + selects + (ports.empty() ? "" : "    destination:\n" + ports);
    } else {
      ends = "    destination:\n" + selects + ports;
    }
    if (what.icmp.empty()) return head + ends;
    std::string text;
    for (const auto& [type, code] : what.icmp)
      text += head + "    icmp: {type: " + std::to_string(type) + ", code: " + std::to_string(code) + "}\n" +
              ends;
    return text;
  }

  std::string network_set(const std::string& name, const std::set<IpAddr>& addresses) const {
    std::string text =
        "---\napiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata:\n  name: " + yaml_text(name) +
        "\n  namespace: " + yaml_text(namespace_) + "\n  labels: {tierlog.io/recommended: " + yaml_text(name) +
        "}\nspec:\n  nets:\n";
    for (const IpAddr& address : addresses) text += "  - " + yaml_text(Cidr::host(address).to_string()) + "\n";
    return text;
  }

  std::string namespace_;
};

// ---- Kubernetes ------------------------------------------------------------------------------------------

bool has_kubernetes_form(std::uint8_t proto) {
  return proto == protocol::kTcp || proto == protocol::kUdp || proto == protocol::kSctp;
}

class KubernetesWriter {
 public:
  KubernetesWriter(std::string ns, std::vector<std::string>& notes)
      : namespace_(std::move(ns)), notes_(notes) {}

  std::string write(const WorkloadTraffic& traffic) {
    return "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: " +
           yaml_text(object_name(traffic.workload)) + "\n  namespace: " + yaml_text(namespace_) +
           "\nspec:\n  podSelector:" + kubernetes_selector(traffic.selector, "    ") +
           "  policyTypes: [Ingress, Egress]\n" +
           rules("ingress", "from", traffic.workload, traffic.ingress) +
           rules("egress", "to", traffic.workload, traffic.egress);
  }

 private:
  std::string rules(const std::string& direction, const std::string& peers, const std::string& workload,
                    const AllowedRules& allowed) {
    std::string text;
    for (const auto& [peer, protocols] : allowed) {
      std::string ports;
      for (const auto& [proto, what] : protocols) {
        if (!has_kubernetes_form(proto)) {
          notes_.push_back(direction + " of " + namespace_ + "/" + workload + ": " + protocol::name(proto) +
                           " cannot be allowed by a Kubernetes NetworkPolicy and would be denied; --kind "
                           "calico can");
          continue;
        }
        for (const std::uint16_t port : what.ports)
          ports += "    - {protocol: " + calico_protocol(proto) + ", port: " + std::to_string(port) + "}\n";
      }
      if (ports.empty()) continue;
      text += "  - " + peers + ":\n" + peer_text(peer) + "    ports:\n" + ports;
    }
    return text.empty() ? text : "  " + direction + ":\n" + text;
  }

  std::string peer_text(const AllowedPeer& peer) const {
    std::string text;
    for (const IpAddr& address : peer.addresses)
      text += "    - ipBlock: {cidr: " + yaml_text(Cidr::host(address).to_string()) + "}\n";
    if (!peer.pods) return text;
    text = "    - podSelector:" + kubernetes_selector(peer.selector, "        ");
    if (peer.peer_namespace != namespace_)
      text += "      namespaceSelector:\n        matchLabels: {kubernetes.io/metadata.name: " +
              yaml_text(peer.peer_namespace) + "}\n";
    return text;
  }

  std::string namespace_;
  std::vector<std::string>& notes_;
};

}  // namespace

std::string to_yaml(const std::string& name_of_namespace, const std::vector<WorkloadTraffic>& workloads,
                    PolicyForm form, std::vector<std::string>& notes) {
  CalicoWriter calico(name_of_namespace);
  KubernetesWriter kubernetes(name_of_namespace, notes);
  std::string text;
  for (const WorkloadTraffic& traffic : workloads)
    text += form == PolicyForm::Calico ? calico.write(traffic) : kubernetes.write(traffic);
  return text;
}

}  // namespace tierlog::query
