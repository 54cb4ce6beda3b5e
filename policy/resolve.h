// policy/resolve.h - who is selected by what, and which policies each endpoint is asked by.
//
//   PolicySet + Cluster --[Population, resolve]--> compile.h
// Endpoints and network sets that no selector in use can tell apart form one group, and a selector is
// evaluated once for each group that has the labels it asks for: the cost follows distinct labels and distinct
// selectors, not pods and rules.
// A host-network pod is no endpoint of policies and belongs to no group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "policy/cluster.h"
#include "policy/model.h"

namespace tierlog::policy {

struct PopulationGroup {
  Labels labels;                         // effective labels of one of them, good for all
  std::vector<std::uint32_t> endpoints;  // into the cluster's endpoints, ascending
  std::vector<const NetworkSet*> sets;
  std::vector<std::uint32_t> hosts;      // into the cluster's host endpoints, ascending
};

// What one Population found out, for the next one: an endpoint that is as it was is in the group it was in,
// a selector is evaluated for new groups only, and members are gathered anew where a group of theirs changed.
struct PopulationMemory {
  using Signature = std::pair<Labels, std::vector<bool>>;  // equal = no selector in use gives different answers

  // What the rest is good for; anything else begins anew.
  std::shared_ptr<const Cluster> cluster;
  std::vector<NamespaceObject> namespaces;
  std::vector<std::string> name_selectors;

  std::vector<std::uint32_t> group_of;  // by endpoint of `cluster`
  std::map<Signature, std::uint32_t> known;
  std::vector<PopulationGroup> groups;
  // Groups by what their labels say, ascending: whom a selector can match at all.
  std::unordered_map<std::string, std::vector<std::uint32_t>> by_label;  // by label_key() in resolve.cpp
  std::size_t labels_indexed = 0;                                        // groups that stand there
  struct Selected {
    std::vector<std::uint32_t> groups;
    std::size_t looked_at = 0;  // groups that were evaluated
    std::uint64_t used = 0;     // in which run
  };
  std::unordered_map<std::string, Selected> selected;  // by canonical text
  struct Members {
    std::uint64_t content = 0;  // of the groups they are from
    std::vector<Cidr> members;
    std::uint64_t used = 0;
  };
  std::unordered_map<std::string, Members> members;  // by canonical text
  std::uint64_t run = 0;
};

class Population {
 public:
  using Group = PopulationGroup;

  // The arguments must outlive it. Only all() and selectors that stand in `policies` may be asked for.
  // `memory`: of the Population before, if there was one.
  Population(std::shared_ptr<const Cluster> cluster, const PolicySet& policies, PopulationMemory* memory = nullptr);

  const std::vector<Group>& groups() const { return memory_.groups; }
  // Groups whose labels match, ascending. Kept: asking again costs a look-up.
  const std::vector<std::uint32_t>& selected(const Selector& selector);
  const Cluster& cluster() const { return *cluster_; }
  // Equal = the same addresses in the groups that match. Sets of addresses are remembered beside it.
  std::uint64_t content(const Selector& selector);
  PopulationMemory::Members& remembered(const Selector& selector) {
    PopulationMemory::Members& members = memory_.members[selector.canonical()];
    members.used = memory_.run;
    return members;
  }

 private:
  void forget_what_changed(const PolicySet& policies, const std::vector<Selector>& by_name);
  void add_groups(const PolicySet& policies);
  std::vector<std::uint32_t> candidates(const Selector& selector, std::size_t from);

  std::shared_ptr<const Cluster> cluster_;
  PopulationMemory own_;
  PopulationMemory& memory_;
  std::vector<std::uint64_t> contents_;  // of groups
};

// The members of a group that have addresses, each once: endpoints, then host endpoints.
template <typename Each>
void for_each_member(const Cluster& cluster, const Population::Group& group, const Each& each) {
  for (const std::uint32_t i : group.endpoints) each(cluster.endpoints[i].addresses, cluster.endpoints[i].ports);
  for (const std::uint32_t i : group.hosts)
    each(cluster.host_endpoints[i].addresses, cluster.host_endpoints[i].ports);
}

// The policies that are asked for one group, as indices into the ordered list, staged ones included.
struct Asked {
  std::vector<std::uint32_t> ingress;
  std::vector<std::uint32_t> egress;
  // Of host endpoints only (Stage); the two above are what their nodes get and send themselves.
  std::vector<std::uint32_t> forward_ingress, forward_egress;
  std::vector<std::uint32_t> pre_dnat;
  std::vector<std::uint32_t> untracked_ingress, untracked_egress;
};

// One entry a group. `ordered`: in evaluation order over all tiers.
std::vector<Asked> resolve(Population& population, const std::vector<const Policy*>& ordered);

}  // namespace tierlog::policy
