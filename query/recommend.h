// query/recommend.h - least-privilege policies for a namespace from what was recorded as allowed.
//
//   FlowHistory (replay.h) --> AllowedTraffic by workload --recommend_yaml.cpp--> policy YAML
//
// Pods are named by their labels, ports by numbers, what is no pod by its addresses: a NetworkSet of their
// own in Calico's form, ipBlocks in Kubernetes'.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "query/replay.h"

namespace tierlog::query {

enum class PolicyForm : std::uint8_t { Calico, Kubernetes };

// How pods of one workload are told from all others of their namespace.
struct PodSelector {
  policy::Labels labels;         // each must be there
  std::set<std::string> absent;  // none may be there

  auto operator<=>(const PodSelector&) const = default;
};

// Who is allowed: pods, or addresses when `pods` is false.
struct AllowedPeer {
  bool pods = false;
  std::string peer_namespace, workload;
  PodSelector selector;
  std::set<IpAddr> addresses;

  auto operator<=>(const AllowedPeer&) const = default;
};

// What of a protocol is allowed: ports, or ICMP types with codes, or all of it when both are empty.
struct AllowedProtocol {
  std::set<std::uint16_t> ports;
  std::set<std::pair<std::uint8_t, std::uint8_t>> icmp;

  auto operator<=>(const AllowedProtocol&) const = default;
};

using AllowedRules = std::map<AllowedPeer, std::map<std::uint8_t, AllowedProtocol>>;

struct WorkloadTraffic {
  std::string workload;
  PodSelector selector;
  AllowedRules ingress, egress;
};

struct Recommendation {
  std::string yaml;
  std::vector<std::string> notes;  // what the reader should know, a sentence each
  std::size_t policies = 0;
  Coverage coverage;
};

// Errors: NotFound when the namespace has no pod in the history and no record, with the nearest name.
Result<Recommendation> recommend(store::FlowReader& reader, const std::string& name_of_namespace,
                                 PolicyForm form, const store::FlowQuery& query);

// The policies as YAML documents; adds to `notes` what the form cannot express.
std::string to_yaml(const std::string& name_of_namespace, const std::vector<WorkloadTraffic>& workloads,
                    PolicyForm form, std::vector<std::string>& notes);

}  // namespace tierlog::query
