#include <algorithm>

#include "policy/load_kinds.h"

namespace tierlog::policy {
namespace {

template <typename Items, typename Print>
std::string listed(const Items& items, std::string_view separator, Print print) {
  std::string text;
  for (const auto& item : items) {
    if (!text.empty()) text += separator;
    text += print(item);
  }
  return text;
}

std::string nets_text(const std::vector<Cidr>& nets) {
  return listed(nets, ", ", [](const Cidr& net) { return net.to_string(); });
}

std::string ports_text(const std::vector<PortSpec>& ports) {
  return listed(ports, ", ", [](const PortSpec& port) {
    return port.named.empty() ? port.range.to_string() : port.named;
  });
}

// The address part of one side: "role == 'api' and 10.0.0.0/8 except 10.1.0.0/16".
std::string address_text(const PeerSpec& peer) {
  std::vector<std::string> parts;
  if (peer.nodes && peer.selector_text.empty()) parts.emplace_back("any node");
  if (!peer.selector_text.empty()) parts.push_back(peer.selector_text);
  if (!peer.not_selector_text.empty()) parts.push_back("not (" + peer.not_selector_text + ")");
  const std::string not_nets = nets_text(peer.not_nets);
  if (!peer.nets.empty())
    parts.push_back(nets_text(peer.nets) + (not_nets.empty() ? "" : " except " + not_nets));
  else if (!not_nets.empty())
    parts.push_back("not in " + not_nets);
  if (peer.service) parts.push_back("service " + peer.service->service_namespace + "/" + peer.service->name);
  return listed(parts, " and ", [](const std::string& part) { return part; });
}

std::string port_part(const PeerSpec& peer) {
  std::string text;
  if (!peer.ports.empty()) text += "port " + ports_text(peer.ports);
  if (!peer.not_ports.empty())
    text += (text.empty() ? "not port " : " not port ") + ports_text(peer.not_ports);
  return text;
}

std::string icmp_text(const IcmpSpec& icmp) {
  std::string text;
  if (icmp.type) text += " type " + std::to_string(*icmp.type);
  if (icmp.code) text += " code " + std::to_string(*icmp.code);
  return text;
}

std::string protocol_text(const MatchSpec& match) {
  std::string text;
  if (match.protocol) text += protocol::name(*match.protocol);
  if (match.not_protocol) text += (text.empty() ? "not " : " not ") + protocol::name(*match.not_protocol);
  if (match.icmp) text += icmp_text(*match.icmp);
  if (match.not_icmp) text += " not" + icmp_text(*match.not_icmp);
  if (match.family) text += (text.empty() ? "ipv" : " ipv") + std::to_string(static_cast<int>(*match.family));
  return text;
}

// Distinct texts in order of appearance; empty when one alternative does not restrict.
template <typename Print>
std::vector<std::string> distinct(const std::vector<MatchSpec>& matches, Print print) {
  std::vector<std::string> texts;
  for (const MatchSpec& match : matches) {
    std::string text = print(match);
    if (text.empty()) return {};
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) texts.push_back(std::move(text));
  }
  return texts;
}

std::string or_text(const std::vector<std::string>& texts) {
  return listed(texts, " or ", [](const std::string& text) { return text; });
}

std::string join_words(const std::string& a, const std::string& b) {
  return a.empty() || b.empty() ? a + b : a + " " + b;
}

}  // namespace

std::string rule_text(Action action, const std::vector<MatchSpec>& any_of) {
  const auto protocols = distinct(any_of, protocol_text);
  const auto ports = distinct(any_of, [](const MatchSpec& m) { return port_part(m.destination); });
  const auto services = distinct(
      any_of, [](const MatchSpec& m) { return join_words(protocol_text(m), port_part(m.destination)); });
  std::string text(name(action));
  // Several protocols have ports of their own each: "tcp port 80 or udp port 53".
  const bool together = protocols.size() <= 1 && ports.size() <= 1;
  text = join_words(text, together ? or_text(protocols) : or_text(services));
  const std::string from = or_text(distinct(
      any_of, [](const MatchSpec& m) { return join_words(address_text(m.source), port_part(m.source)); }));
  std::string to = or_text(distinct(any_of, [](const MatchSpec& m) { return address_text(m.destination); }));
  if (together) to = join_words(to, or_text(ports));
  if (!from.empty()) text += " from " + from;
  if (!to.empty()) text += " to " + to;
  return text;
}

}  // namespace tierlog::policy
