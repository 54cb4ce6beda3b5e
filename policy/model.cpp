#include "policy/model.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <tuple>

namespace tierlog::policy {
namespace {

// One "name=value;" of a canonical text. The length in front keeps values that hold "=" or ";" apart.
void put(std::string& text, std::string_view name, std::string_view value) {
  text += name;
  text += '[';
  text += std::to_string(value.size());
  text += "]=";
  text += value;
  text += ';';
}

// The parts sorted, without repetitions, joined by commas: the order in which a user lists them means
// nothing.
std::string joined(std::vector<std::string> parts) {
  std::sort(parts.begin(), parts.end());
  parts.erase(std::unique(parts.begin(), parts.end()), parts.end());
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ",") + part;
  return text;
}

void put_nets(std::string& text, const std::string& name, const std::vector<Cidr>& nets) {
  if (nets.empty()) return;
  std::vector<std::string> parts;
  for (const Cidr& net : nets) parts.push_back(net.to_string());
  put(text, name, joined(std::move(parts)));
}

void put_ports(std::string& text, const std::string& name, const std::vector<PortSpec>& ports) {
  if (ports.empty()) return;
  std::vector<std::string> parts;
  for (const PortSpec& port : ports)
    parts.push_back(port.named.empty() ? port.range.to_string() : "name " + port.named);
  put(text, name, joined(std::move(parts)));
}

void put_icmp(std::string& text, std::string_view name, const std::optional<IcmpSpec>& icmp) {
  if (!icmp) return;
  const auto number = [](const std::optional<std::uint8_t>& n) { return n ? std::to_string(*n) : "*"; };
  put(text, name, number(icmp->type) + "/" + number(icmp->code));
}

void put_peer(std::string& text, const std::string& side, const PeerSpec& peer) {
  put_nets(text, side + ".nets", peer.nets);
  put_nets(text, side + ".not_nets", peer.not_nets);
  put_ports(text, side + ".ports", peer.ports);
  put_ports(text, side + ".not_ports", peer.not_ports);
  if (peer.selector) put(text, side + ".selector", peer.selector->canonical());
  if (peer.not_selector) put(text, side + ".not_selector", peer.not_selector->canonical());
  if (peer.service) put(text, side + ".service", peer.service->service_namespace + "/" + peer.service->name);
  if (peer.nodes) put(text, side + ".nodes", peer.nodes->canonical());
  if (peer.relation)
    put(text, side + (peer.relation->differs ? ".not_same_labels" : ".same_labels"),
        joined(peer.relation->labels));
}

std::string sort_name(const Policy& policy) {
  return policy.key.name + "/" + policy.key.policy_namespace + "/" + std::string(name(policy.key.kind));
}

}  // namespace

std::optional<LogRate> LogRate::parse(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos || slash + 2 != text.size()) return std::nullopt;
  LogRate rate;
  const auto [end, error] = std::from_chars(text.data(), text.data() + slash, rate.messages);
  if (error != std::errc() || end != text.data() + slash || rate.messages == 0 || rate.messages > 1'000'000)
    return std::nullopt;
  switch (text.back()) {
    case 's':
      rate.seconds = 1;
      return rate;
    case 'm':
      rate.seconds = 60;
      return rate;
    case 'h':
      rate.seconds = 3600;
      return rate;
    case 'd':
      rate.seconds = 86400;
      return rate;
    default:
      return std::nullopt;
  }
}

std::string LogRate::to_string() const {
  const char* unit = seconds == 60 ? "/m" : seconds == 3600 ? "/h" : seconds == 86400 ? "/d" : "/s";
  return std::to_string(messages) + unit;
}

std::string_view name(Action action) {
  switch (action) {
    case Action::Allow:
      return "Allow";
    case Action::Deny:
      return "Deny";
    case Action::Pass:
      return "Pass";
    case Action::Log:
      return "Log";
  }
  return "";
}

std::string_view name(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::NetworkPolicy:
      return "NetworkPolicy";
    case PolicyKind::GlobalNetworkPolicy:
      return "GlobalNetworkPolicy";
    case PolicyKind::StagedNetworkPolicy:
      return "StagedNetworkPolicy";
    case PolicyKind::StagedGlobalNetworkPolicy:
      return "StagedGlobalNetworkPolicy";
    case PolicyKind::StagedKubernetesNetworkPolicy:
      return "StagedKubernetesNetworkPolicy";
    case PolicyKind::KubernetesNetworkPolicy:
      return "KubernetesNetworkPolicy";
    case PolicyKind::AdminNetworkPolicy:
      return "AdminNetworkPolicy";
    case PolicyKind::BaselineAdminNetworkPolicy:
      return "BaselineAdminNetworkPolicy";
    case PolicyKind::ClusterNetworkPolicy:
      return "ClusterNetworkPolicy";
  }
  return "";
}

std::string_view short_name(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::NetworkPolicy:
      return "NP";
    case PolicyKind::GlobalNetworkPolicy:
      return "GNP";
    case PolicyKind::StagedNetworkPolicy:
      return "SNP";
    case PolicyKind::StagedGlobalNetworkPolicy:
      return "SGNP";
    case PolicyKind::StagedKubernetesNetworkPolicy:
      return "SKNP";
    case PolicyKind::KubernetesNetworkPolicy:
      return "KNP";
    case PolicyKind::AdminNetworkPolicy:
      return "ANP";
    case PolicyKind::BaselineAdminNetworkPolicy:
      return "BANP";
    case PolicyKind::ClusterNetworkPolicy:
      return "CNP";
  }
  return "";
}

bool is_staged(PolicyKind kind) {
  return kind == PolicyKind::StagedNetworkPolicy || kind == PolicyKind::StagedGlobalNetworkPolicy ||
         kind == PolicyKind::StagedKubernetesNetworkPolicy;
}

std::string MatchSpec::canonical() const {
  std::string text;
  if (protocol) put(text, "protocol", std::to_string(*protocol));
  if (not_protocol) put(text, "not_protocol", std::to_string(*not_protocol));
  if (family) put(text, "family", *family == Family::V4 ? "4" : "6");
  put_icmp(text, "icmp", icmp);
  put_icmp(text, "not_icmp", not_icmp);
  put_peer(text, "source", source);
  put_peer(text, "destination", destination);
  return text;
}

std::string Policy::display() const {
  return tier + "/" + key.policy_namespace + "/" + key.name;
}

std::vector<Tier> builtin_tiers() {
  return {{"kube-admin", 1000, Action::Pass, true, {}},
          {"default", 1'000'000, Action::Deny, true, {}},
          {"kube-baseline", 10'000'000, Action::Pass, true, {}}};
}

void sort_tiers(std::vector<Tier>& tiers) {
  // A missing order is +infinity, so "has an order" needs no key of its own.
  std::stable_sort(tiers.begin(), tiers.end(), [](const Tier& a, const Tier& b) {
    return std::make_tuple(!a.exists, a.order, std::cref(a.name)) <
           std::make_tuple(!b.exists, b.order, std::cref(b.name));
  });
}

bool evaluated_before(const Policy& a, const Policy& b) {
  if (a.order != b.order) return a.order < b.order;
  return sort_name(a) < sort_name(b);
}

}  // namespace tierlog::policy
