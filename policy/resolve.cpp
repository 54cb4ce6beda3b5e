#include "policy/resolve.h"

#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "policy/label_source.h"

namespace tierlog::policy {
namespace {

bool is_label_character(char c) {
  return ('0' <= c && c <= '9') || ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z') || c == '_' || c == '.' ||
         c == '/' || c == '-';
}

// Whether the selector may look at the one label that differs between the pods of a workload. Takes a
// value of that spelling for a use as well, which costs time and is not wrong.
bool tells_names_apart(const std::string& canonical) {
  const std::string_view name = label::kName;
  for (auto at = canonical.find(name); at != std::string::npos; at = canonical.find(name, at + 1)) {
    const bool starts = at == 0 || !is_label_character(canonical[at - 1]);
    const auto end = at + name.size();
    if (starts && (end == canonical.size() || !is_label_character(canonical[end]))) return true;
  }
  return false;
}

// Selectors that tell names apart, each once.
std::vector<Selector> name_selectors(const PolicySet& policies) {
  std::map<std::string, Selector> found;
  const auto look_at = [&](const Selector& selector) {
    if (tells_names_apart(selector.canonical())) found.emplace(selector.canonical(), selector);
  };
  const auto look_at_peer = [&](const PeerSpec& peer) {
    if (peer.selector) look_at(*peer.selector);
    if (peer.not_selector) look_at(*peer.not_selector);
  };
  for (const Policy& policy : policies.policies) {
    look_at(policy.subject);
    for (const auto* rules : {&policy.ingress, &policy.egress})
      for (const PolicyRule& rule : *rules)
        for (const MatchSpec& match : rule.any_of) {
          look_at_peer(match.source);
          look_at_peer(match.destination);
        }
  }
  std::vector<Selector> selectors;
  for (auto& [canonical, selector] : found) selectors.push_back(selector);
  return selectors;
}

// Equal signature = no selector in use gives different answers.
using Signature = std::pair<Labels, std::vector<bool>>;

Signature signature_of(const Labels& labels, const std::vector<Selector>& by_name) {
  Signature signature{labels, {}};
  signature.first.erase(label::kName);
  for (const Selector& selector : by_name) signature.second.push_back(selector.matches(labels));
  return signature;
}

}  // namespace

Population::Population(const Cluster& cluster, const PolicySet& policies) : cluster_(cluster) {
  add_groups(policies);
}

void Population::add_groups(const PolicySet& policies) {
  const LabelSource source(cluster_, policies.namespaces);
  const std::vector<Selector> by_name = name_selectors(policies);
  std::map<Signature, std::uint32_t> known;
  const auto group_of = [&](const Labels& labels) -> Group& {
    const auto [entry, is_new] =
        known.emplace(signature_of(labels, by_name), static_cast<std::uint32_t>(groups_.size()));
    if (is_new) groups_.push_back({labels, {}, {}});
    return groups_[entry->second];
  };
  for (std::uint32_t i = 0; i < cluster_.endpoints.size(); ++i) {
    const Endpoint& endpoint = cluster_.endpoints[i];
    if (!endpoint.host_network) group_of(source.of(endpoint)).endpoints.push_back(i);
  }
  std::set<std::pair<std::string, std::string>> from_policies;
  for (const NetworkSet& set : policies.network_sets) {
    from_policies.emplace(set.set_namespace, set.name);
    group_of(source.of(set)).sets.push_back(&set);
  }
  for (const NetworkSet& set : cluster_.network_sets)
    if (!from_policies.contains({set.set_namespace, set.name})) group_of(source.of(set)).sets.push_back(&set);
}

const std::vector<std::uint32_t>& Population::selected(const Selector& selector) {
  const auto [entry, is_new] = selected_.try_emplace(selector.canonical());
  if (is_new)
    for (std::uint32_t i = 0; i < groups_.size(); ++i)
      if (selector.matches(groups_[i].labels)) entry->second.push_back(i);
  return entry->second;
}

std::vector<Asked> resolve(Population& population, const std::vector<const Policy*>& ordered) {
  std::vector<Asked> asked(population.groups().size());
  for (std::uint32_t i = 0; i < ordered.size(); ++i) {
    const Policy& policy = *ordered[i];
    // A staged deletion or a policy that is still learning says nothing about a packet.
    if (is_staged(policy.key.kind) && policy.staged_action != StagedAction::Set) continue;
    for (const std::uint32_t group : population.selected(policy.subject)) {
      if (policy.applies_ingress) asked[group].ingress.push_back(i);
      if (policy.applies_egress) asked[group].egress.push_back(i);
    }
  }
  return asked;
}

}  // namespace tierlog::policy
