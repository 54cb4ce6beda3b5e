#include "policy/resolve.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <type_traits>
#include <utility>

#include "policy/label_source.h"
#include "policy/program.h"

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

PopulationMemory::Signature signature_of(const Labels& labels, const std::vector<Selector>& by_name) {
  PopulationMemory::Signature signature{labels, {}};
  signature.first.erase(label::kName);
  for (const Selector& selector : by_name) signature.second.push_back(selector.matches(labels));
  return signature;
}

bool same(const NamespaceObject& a, const NamespaceObject& b) {
  return a.name == b.name && a.labels == b.labels;
}

bool same_namespaces(const Cluster& a, const Cluster& b) {
  return std::equal(a.namespaces.begin(), a.namespaces.end(), b.namespaces.begin(), b.namespaces.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first && same(x.second, y.second); });
}

// Finds endpoints of before again. Those that come or go do so between others that stay in order.
class Before {
 public:
  explicit Before(const PopulationMemory& memory) : memory_(memory) {}

  // Its group; kNone: it is new or not as it was.
  std::uint32_t group_of(const Endpoint& endpoint) {
    if (!memory_.cluster) return kNone;
    const auto& endpoints = memory_.cluster->endpoints;
    constexpr std::size_t kGone = 8;  // in a row
    for (std::size_t i = next_; i < std::min(endpoints.size(), next_ + kGone); ++i)
      if (endpoints[i] == endpoint) {
        next_ = i + 1;
        return memory_.group_of[i];
      }
    // One of that name stands here, but is another now.
    if (next_ < endpoints.size() && endpoints[next_].name == endpoint.name &&
        endpoints[next_].endpoint_namespace == endpoint.endpoint_namespace)
      ++next_;
    return kNone;
  }

 private:
  const PopulationMemory& memory_;
  std::size_t next_ = 0;
};

std::string label_key(const std::string& label, const std::string& value) {
  std::string key;
  key.reserve(label.size() + 1 + value.size());
  return key.append(label).append(1, '=').append(value);  // no label has a "="
}

// FNV-1a.
class Digest {
 public:
  template <typename T>
    requires std::has_unique_object_representations_v<T>
  void add(const T& value) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(&value);
    for (std::size_t i = 0; i < sizeof value; ++i) value_ = (value_ ^ bytes[i]) * 0x100000001b3ull;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325ull;
};

}  // namespace

Population::Population(std::shared_ptr<const Cluster> cluster, const PolicySet& policies, PopulationMemory* memory)
    : cluster_(std::move(cluster)), memory_(memory == nullptr ? own_ : *memory) {
  add_groups(policies);
}

void Population::forget_what_changed(const PolicySet& policies, const std::vector<Selector>& by_name) {
  std::vector<std::string> names;
  for (const Selector& selector : by_name) names.push_back(selector.canonical());
  const auto empty = static_cast<std::size_t>(std::count_if(
      memory_.groups.begin(), memory_.groups.end(), [](const Group& group) { return group.endpoints.empty() && group.hosts.empty(); }));
  constexpr std::size_t kSlack = 1000;  // groups that nobody is in any more
  const bool good = memory_.cluster && names == memory_.name_selectors && 2 * empty <= memory_.groups.size() + kSlack &&
                    same_namespaces(*memory_.cluster, *cluster_) &&
                    memory_.cluster->service_accounts == cluster_->service_accounts &&
                    std::equal(memory_.namespaces.begin(), memory_.namespaces.end(), policies.namespaces.begin(),
                               policies.namespaces.end(), same);
  if (good) {
    // What nobody asked for the last time.
    const auto unused = [this](const auto& entry) { return entry.second.used < memory_.run; };
    std::erase_if(memory_.selected, unused);
    std::erase_if(memory_.members, unused);
    ++memory_.run;
    return;
  }
  memory_ = {};
  memory_.namespaces = policies.namespaces;
  memory_.name_selectors = std::move(names);
}

void Population::add_groups(const PolicySet& policies) {
  const LabelSource source(*cluster_, policies.namespaces);
  const std::vector<Selector> by_name = name_selectors(policies);
  forget_what_changed(policies, by_name);
  for (Group& group : memory_.groups) {
    group.endpoints.clear();
    group.sets.clear();
    group.hosts.clear();
  }
  const auto group_of = [&](const Labels& labels) {
    const auto [entry, is_new] =
        memory_.known.emplace(signature_of(labels, by_name), static_cast<std::uint32_t>(memory_.groups.size()));
    if (is_new) memory_.groups.push_back({labels, {}, {}, {}});
    return entry->second;
  };
  Before before(memory_);
  std::vector<std::uint32_t> groups(cluster_->endpoints.size(), kNone);
  for (std::uint32_t i = 0; i < groups.size(); ++i) {
    const Endpoint& endpoint = cluster_->endpoints[i];
    groups[i] = before.group_of(endpoint);
    if (endpoint.host_network) continue;
    if (groups[i] == kNone) groups[i] = group_of(source.of(endpoint));
    memory_.groups[groups[i]].endpoints.push_back(i);
  }
  for (std::uint32_t i = 0; i < cluster_->host_endpoints.size(); ++i)
    memory_.groups[group_of(effective_labels(cluster_->host_endpoints[i]))].hosts.push_back(i);
  memory_.group_of = std::move(groups);
  memory_.cluster = cluster_;
  std::set<std::pair<std::string, std::string>> from_policies;
  for (const NetworkSet& set : policies.network_sets) {
    from_policies.emplace(set.set_namespace, set.name);
    memory_.groups[group_of(source.of(set))].sets.push_back(&set);
  }
  for (const NetworkSet& set : cluster_->network_sets)
    if (!from_policies.contains({set.set_namespace, set.name}))
      memory_.groups[group_of(source.of(set))].sets.push_back(&set);
}

// Groups from number `from` on that the selector may match: those that have the rarest of the values it asks for.
std::vector<std::uint32_t> Population::candidates(const Selector& selector, std::size_t from) {
  for (; memory_.labels_indexed < memory_.groups.size(); ++memory_.labels_indexed)
    for (const auto& [label, value] : memory_.groups[memory_.labels_indexed].labels)
      memory_.by_label[label_key(label, value)].push_back(static_cast<std::uint32_t>(memory_.labels_indexed));
  using Span = std::pair<std::vector<std::uint32_t>::const_iterator, std::vector<std::uint32_t>::const_iterator>;
  std::vector<Span> best;
  std::size_t fewest = memory_.groups.size() - from;
  bool narrowed = false;
  for (const Selector::Requirement& requirement : selector.requirements()) {
    std::vector<Span> spans;
    std::size_t count = 0;
    for (const std::string& value : *requirement.values) {
      const auto found = memory_.by_label.find(label_key(*requirement.label, value));
      if (found == memory_.by_label.end()) continue;
      const auto& groups = found->second;
      spans.emplace_back(std::lower_bound(groups.begin(), groups.end(), from), groups.end());
      count += static_cast<std::size_t>(spans.back().second - spans.back().first);
    }
    if (narrowed && count >= fewest) continue;
    narrowed = true;
    fewest = count;
    best = std::move(spans);
  }
  std::vector<std::uint32_t> result;
  result.reserve(fewest);
  for (const auto& [begin, end] : best) result.insert(result.end(), begin, end);
  if (best.size() > 1) std::sort(result.begin(), result.end());
  if (!narrowed)
    for (std::size_t group = from; group < memory_.groups.size(); ++group)
      result.push_back(static_cast<std::uint32_t>(group));
  return result;
}

const std::vector<std::uint32_t>& Population::selected(const Selector& selector) {
  PopulationMemory::Selected& entry = memory_.selected[selector.canonical()];
  entry.used = memory_.run;
  if (entry.looked_at == memory_.groups.size()) return entry.groups;
  for (const std::uint32_t group : candidates(selector, entry.looked_at))
    if (selector.matches(memory_.groups[group].labels)) entry.groups.push_back(group);
  entry.looked_at = memory_.groups.size();
  return entry.groups;
}

std::uint64_t Population::content(const Selector& selector) {
  if (contents_.empty())
    for (const Group& group : memory_.groups) {
      Digest digest;
      for (const std::uint32_t i : group.endpoints)
        for (const IpAddr& address : cluster_->endpoints[i].addresses) digest.add(Cidr::host(address));
      for (const std::uint32_t i : group.hosts)
        for (const IpAddr& address : cluster_->host_endpoints[i].addresses) digest.add(Cidr::host(address));
      for (const NetworkSet* set : group.sets)
        for (const Cidr& net : set->nets) digest.add(net);
      contents_.push_back(digest.value());
    }
  Digest digest;
  for (const std::uint32_t group : selected(selector)) {
    const Group& of = memory_.groups[group];
    if (!of.endpoints.empty() || !of.hosts.empty() || !of.sets.empty()) digest.add(contents_[group]);
  }
  return digest.value();
}

namespace {

void ask(const Policy& policy, std::uint32_t index, Asked& asked) {
  const auto add = [&](std::vector<std::uint32_t>& ingress, std::vector<std::uint32_t>& egress) {
    if (policy.applies_ingress) ingress.push_back(index);
    if (policy.applies_egress) egress.push_back(index);
  };
  if (policy.do_not_track) {
    add(asked.untracked_ingress, asked.untracked_egress);
  } else if (policy.pre_dnat) {
    if (policy.applies_ingress) asked.pre_dnat.push_back(index);
  } else {
    add(asked.ingress, asked.egress);
    if (policy.apply_on_forward) add(asked.forward_ingress, asked.forward_egress);
  }
}

}  // namespace

std::vector<Asked> resolve(Population& population, const std::vector<const Policy*>& ordered) {
  std::vector<Asked> asked(population.groups().size());
  for (std::uint32_t i = 0; i < ordered.size(); ++i) {
    const Policy& policy = *ordered[i];
    // A staged deletion or a policy that is still learning says nothing about a packet.
    if (is_staged(policy.key.kind) && policy.staged_action != StagedAction::Set) continue;
    for (const std::uint32_t group : population.selected(policy.subject)) ask(policy, i, asked[group]);
  }
  return asked;
}

}  // namespace tierlog::policy
