// policy/resolve.h - who is selected by what, and which policies each endpoint is asked by.
//
//   PolicySet + Cluster --[Population, resolve]--> compile.h
// Endpoints and network sets that no selector in use can tell apart form one group, and a selector is
// evaluated once per group: the cost follows distinct labels and distinct selectors, not pods and rules.
// A host-network pod is no endpoint of policies and belongs to no group.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "policy/cluster.h"
#include "policy/model.h"

namespace tierlog::policy {

class Population {
 public:
  struct Group {
    Labels labels;                         // effective labels of one of them, good for all
    std::vector<std::uint32_t> endpoints;  // into the cluster's endpoints, ascending
    std::vector<const NetworkSet*> sets;
  };

  // Both arguments must outlive it. Only all() and selectors that stand in `policies` may be asked for.
  Population(const Cluster& cluster, const PolicySet& policies);

  const std::vector<Group>& groups() const { return groups_; }
  // Groups whose labels match, ascending. Kept: asking again costs a look-up.
  const std::vector<std::uint32_t>& selected(const Selector& selector);
  const Cluster& cluster() const { return cluster_; }

 private:
  void add_groups(const PolicySet& policies);

  const Cluster& cluster_;
  std::vector<Group> groups_;
  std::unordered_map<std::string, std::vector<std::uint32_t>> selected_;  // by canonical text
};

// The policies that are asked for one group, as indices into the ordered list, staged ones included.
struct Asked {
  std::vector<std::uint32_t> ingress;
  std::vector<std::uint32_t> egress;
};

// One entry a group. `ordered`: in evaluation order over all tiers.
std::vector<Asked> resolve(Population& population, const std::vector<const Policy*>& ordered);

}  // namespace tierlog::policy
