#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "policy/program.h"

namespace tierlog::policy {
namespace {

// A value and its name, in the order in which they were given, joined by blanks.
class Line {
 public:
  explicit Line(std::string_view head) : text_(head) {}
  Line& add(std::string_view word) {
    if (!word.empty()) text_.append(" ").append(word);
    return *this;
  }
  Line& add(std::string_view word, std::string_view value) {
    return value.empty() ? *this : add(std::string(word) + " " + std::string(value));
  }
  void end(std::string& out) { out.append(text_).append("\n"); }

 private:
  std::string text_;
};

std::string order_text(double order) {
  if (std::isinf(order)) return "none";
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", order);
  return text;
}

template <typename Range, typename Text>
std::string listed(const Range& range, std::string_view separator, const Text& text) {
  std::string result;
  for (const auto& item : range) {
    if (!result.empty()) result += separator;
    result += text(item);
  }
  return result;
}

std::string ports_text(const std::vector<PortRange>& ranges, const std::optional<std::uint32_t>& set) {
  std::string text = listed(ranges, ",", [](const PortRange& range) { return range.to_string(); });
  if (set) text += (text.empty() ? "portset " : " or portset ") + std::to_string(*set);
  return text;
}

std::string icmp_text(const IcmpSpec& icmp) {
  return (icmp.type ? std::to_string(*icmp.type) : "*") + "/" +
         (icmp.code ? std::to_string(*icmp.code) : "*");
}

std::string peer_text(const PeerMatch& peer) {
  const auto sets = [](const std::vector<std::uint32_t>& indices) {
    return listed(indices, "&", [](std::uint32_t index) { return std::to_string(index); });
  };
  std::vector<std::string> parts;
  if (!peer.in_sets.empty()) parts.push_back("in set " + sets(peer.in_sets));
  if (!peer.not_in_sets.empty()) parts.push_back("not in set " + sets(peer.not_in_sets));
  if (peer.restricts_ports()) parts.push_back("port " + ports_text(peer.ports, peer.port_set));
  const std::string not_ports = ports_text(peer.not_ports, peer.not_port_set);
  if (!not_ports.empty()) parts.push_back("not port " + not_ports);
  if (peer.service_ports) parts.push_back("service portset " + std::to_string(*peer.service_ports));
  return listed(parts, " ", [](const std::string& part) { return part; });
}

std::string match_text(const Match& match) {
  Line line(match.never ? "{never" : "{");
  if (match.family) line.add(*match.family == Family::V4 ? "ipv4" : "ipv6");
  if (match.protocol) line.add(protocol::name(*match.protocol));
  if (match.not_protocol) line.add("not", protocol::name(*match.not_protocol));
  if (match.icmp) line.add("icmp", icmp_text(*match.icmp));
  if (match.not_icmp) line.add("not icmp", icmp_text(*match.not_icmp));
  line.add("from", peer_text(match.source)).add("to", peer_text(match.destination)).add("}");
  std::string text;
  line.end(text);
  text.pop_back();
  return text;
}

void dump_policies(const Program& program, std::string& out) {
  for (const ProgramTier& tier : program.tiers)
    Line("tier")
        .add(tier.name)
        .add("order", order_text(tier.order))
        .add(name(tier.default_action))
        .add(tier.exists ? "" : "(no object)")
        .end(out);
  for (const ProgramPolicy& policy : program.policies)
    Line("policy")
        .add(policy.display)
        .add(short_name(policy.key.kind))
        .add("order", order_text(policy.order))
        .add("revision", std::to_string(policy.revision))
        .add(policy.applies_ingress ? "ingress" : "")
        .add(policy.applies_egress ? "egress" : "")
        .add("selects", std::to_string(policy.endpoints_selected))
        .add(policy.log_denied_end ? "logs-denied-end" : "")
        .end(out);
}

void dump_rules(const Program& program, std::string& out) {
  for (const ProgramRule& rule : program.rules)
    Line("rule")
        .add(to_hex(rule.id))
        .add(program.policies[rule.policy].display)
        .add(short_name(program.policies[rule.policy].key.kind))
        .add(std::string(tierlog::name(rule.direction)) + "[" + std::to_string(rule.index) + "]")
        .add(name(rule.action))
        .add(rule.log_decision ? "logged" : "")
        .add("label", rule.log_label)
        .add(listed(rule.any_of, " or ", match_text))
        .end(out);
  const auto display = [&](std::uint32_t index) { return program.policies[index].display; };
  for (const EndOfTier& end : program.ends)
    Line("end")
        .add(to_hex(end.id))
        .add(tierlog::name(end.direction))
        .add("of", program.tiers[end.tier].name)
        .add(name(end.action))
        .add("after", listed(end.policies, ", ", display))
        .end(out);
}

void dump_sets(const Program& program, std::string& out) {
  const auto port_text = [](const EndpointPort& port) {
    return port.address.to_string() + " " + protocol::name(port.protocol) + " " + std::to_string(port.port);
  };
  const auto cidr_text = [](const Cidr& cidr) { return cidr.to_string(); };
  for (std::size_t i = 0; i < program.sets.size(); ++i)
    Line("set")
        .add(std::to_string(i))
        .add(program.sets[i].key + ":")
        .add(listed(program.sets[i].members, ", ", cidr_text))
        .end(out);
  for (std::size_t i = 0; i < program.port_sets.size(); ++i)
    Line("portset")
        .add(std::to_string(i))
        .add(program.port_sets[i].key + ":")
        .add(listed(program.port_sets[i].members, ", ", port_text))
        .end(out);
}

void dump_classes(const Program& program, std::string& out) {
  const auto display = [&](std::uint32_t index) { return program.policies[index].display; };
  const auto tier_text = [&](const ClassTier& tier) {
    const std::string end = tier.end == kNone ? "staged only" : "end " + to_hex(program.ends[tier.end].id);
    return program.tiers[tier.tier].name + " [" + listed(tier.policies, ", ", display) + "; " + end + "]";
  };
  for (std::size_t i = 0; i < program.classes.size(); ++i) {
    const EndpointClass& endpoint_class = program.classes[i];
    Line("class")
        .add(std::to_string(i))
        .add(tierlog::name(endpoint_class.direction))
        .add(listed(endpoint_class.tiers, " ", tier_text))
        .add("then " + to_hex(endpoint_class.fallback))
        .add(name(endpoint_class.fallback_action))
        .end(out);
  }
  for (const ProgramEndpoint& enforced : program.endpoints) {
    const Endpoint& endpoint = program.cluster->endpoints[enforced.endpoint];
    Line line("endpoint");
    line.add(endpoint.display())
        .add(listed(endpoint.addresses, ",", [](const IpAddr& address) { return address.to_string(); }))
        .add("ingress", std::to_string(enforced.ingress_class))
        .add("egress", std::to_string(enforced.egress_class));
    if (enforced.audited) line.add("audited");
    line.end(out);
  }
}

}  // namespace

std::string Program::dump() const {
  std::string out = "revision " + std::to_string(revision) + "\n";
  dump_policies(*this, out);
  dump_rules(*this, out);
  dump_sets(*this, out);
  dump_classes(*this, out);
  return out;
}

}  // namespace tierlog::policy
