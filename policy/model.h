// policy/model.h - what the policy files say, in one normal form for all kinds.
//
//   YAML/JSON --load.h--> [PolicySet] --resolve.h--> who is asked --compile.h--> Program
//
// The loader turns every accepted API into the same Policy: selectors combined with namespace and
// service-account limits into one Selector over effective labels (policy/labels.h), Kubernetes peers
// and ports into alternatives of one rule. Nothing here knows endpoints, sets of addresses or kernels.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "base/ids.h"
#include "base/net_types.h"
#include "policy/labels.h"
#include "policy/selector.h"

namespace tierlog::policy {

enum class Action : std::uint8_t { Allow, Deny, Pass, Log };
std::string_view name(Action action);  // "Allow", "Deny", "Pass", "Log"

enum class PolicyKind : std::uint8_t {
  NetworkPolicy,                 // Calico, namespaced
  GlobalNetworkPolicy,
  StagedNetworkPolicy,
  StagedGlobalNetworkPolicy,
  StagedKubernetesNetworkPolicy,
  KubernetesNetworkPolicy,       // networking.k8s.io/v1
  AdminNetworkPolicy,
  BaselineAdminNetworkPolicy,
  ClusterNetworkPolicy,
};
std::string_view name(PolicyKind kind);        // as the record's policy_kind
std::string_view short_name(PolicyKind kind);  // NP, GNP, SNP, SGNP, SKNP, KNP, ANP, BANP, CNP
bool is_staged(PolicyKind kind);

inline constexpr double kNoOrder = std::numeric_limits<double>::infinity();

// A port of a rule: a range, or the name of a port that endpoints declare.
struct PortSpec {
  PortRange range;
  std::string named;  // non-empty: a name, `range` is unused

  bool operator==(const PortSpec&) const = default;
};

struct IcmpSpec {
  std::optional<std::uint8_t> type;
  std::optional<std::uint8_t> code;  // only together with a type

  bool operator==(const IcmpSpec&) const = default;
};

// A Kubernetes Service named by a rule.
struct ServiceSpec {
  std::string service_namespace;
  std::string name;

  bool operator==(const ServiceSpec&) const = default;
};

// Namespaces compared with the one of the pod that the policy is about: all of these labels are there on
// both sides, with the same values, or (`differs`) with at least one other.
struct NamespaceRelation {
  std::vector<std::string> labels;
  bool differs = false;

  bool operator==(const NamespaceRelation&) const = default;
};

// One side of a rule. All fields are ANDed, the items of one list are ORed; an empty list or missing
// optional does not restrict.
struct PeerSpec {
  std::vector<Cidr> nets;
  std::vector<Cidr> not_nets;
  std::vector<PortSpec> ports;
  std::vector<PortSpec> not_ports;
  // Over effective labels; matches addresses of known endpoints and network sets only. It already
  // contains the namespace and service-account limits.
  std::optional<Selector> selector;
  // Negates the packet match: unknown addresses match too.
  std::optional<Selector> not_selector;
  std::optional<ServiceSpec> service;
  // Over the labels of nodes: matches the nodes' own addresses.
  std::optional<Selector> nodes;
  // Limits `selector` further, each subject of the policy to other namespaces.
  std::optional<NamespaceRelation> relation;
  // What the user wrote, for people ("role == 'api'"); empty when there is no selector.
  // That of `nodes` stands in selector_text.
  std::string selector_text;
  std::string not_selector_text;

  bool operator==(const PeerSpec&) const = default;
};

// One conjunction of criteria.
struct MatchSpec {
  std::optional<std::uint8_t> protocol;
  std::optional<std::uint8_t> not_protocol;
  std::optional<Family> family;  // ipVersion
  std::optional<IcmpSpec> icmp;
  std::optional<IcmpSpec> not_icmp;
  PeerSpec source;
  PeerSpec destination;

  // Equal canonical text = the same criteria. Part of a rule's registry key: never changes its form.
  std::string canonical() const;
  bool operator==(const MatchSpec&) const = default;
};

// tierlog.io/log-rate: at most that many messages of one rule in that time.
struct LogRate {
  std::uint32_t messages = 0;
  std::uint32_t seconds = 1;

  // "10/s", "100/m", "5/h", "20/d"; nothing when `text` is no rate.
  static std::optional<LogRate> parse(std::string_view text);
  std::string to_string() const;
  bool operator==(const LogRate&) const = default;
};

struct PolicyRule {
  int index = 0;  // as the user counts: position in the policy's ingress or egress list
  Action action = Action::Allow;
  std::vector<MatchSpec> any_of;  // at least one; a rule matches when one of them does
  SourceRef source;               // of the rule in its file
  std::string log_label;          // tierlog.io/log-label
  std::optional<LogRate> log_rate;  // tierlog.io/log-rate
  std::string text;               // one line for people: "Deny tcp from role == 'web' to port 5432"
};

// tierlog.io/log on a Kubernetes policy or Namespace: which decisions count as logged.
enum class LogDecisions : std::uint8_t { None, Deny, Allow, All };

enum class StagedAction : std::uint8_t { Set, Delete, Learn, Ignore };

struct PolicyKey {
  PolicyKind kind{};
  std::string policy_namespace;  // empty for cluster-wide kinds
  std::string name;              // metadata.name verbatim

  auto operator<=>(const PolicyKey&) const = default;
};

struct Policy {
  PolicyKey key;
  std::string tier;          // "default" when not given
  double order = kNoOrder;   // smaller first
  Selector subject;          // over effective labels, namespace limits included
  std::string subject_text;  // what the user wrote
  bool applies_ingress = true;
  bool applies_egress = false;
  std::vector<PolicyRule> ingress;
  std::vector<PolicyRule> egress;
  LogDecisions log_decisions = LogDecisions::None;
  StagedAction staged_action = StagedAction::Set;
  // Where a GlobalNetworkPolicy is asked at host endpoints; the last two are asked there only.
  bool apply_on_forward = false;  // also of what the node forwards
  bool pre_dnat = false;          // before addresses are rewritten
  bool do_not_track = false;      // packet by packet, before any connection
  SourceRef source;

  // "tier/ns/name", cluster-wide "tier//name": how a policy is printed everywhere.
  std::string display() const;
};

struct Tier {
  std::string name;
  double order = kNoOrder;
  Action default_action = Action::Deny;  // Deny or Pass
  bool exists = true;                    // false: only named by policies
  SourceRef source;
};

struct NetworkSet {
  std::string set_namespace;  // empty: GlobalNetworkSet
  std::string name;
  Labels labels;
  std::vector<Cidr> nets;
  SourceRef source;
};

struct NamespaceObject {
  std::string name;
  Labels labels;  // always has kubernetes.io/metadata.name
  LogDecisions log_decisions = LogDecisions::None;
  bool audited = false;  // tierlog.io/enforcement: audit
};

struct ClusterObjects;  // policy/cluster.h

// Everything one load gave: one unit, applied whole or not at all.
struct PolicySet {
  std::vector<Tier> tiers;  // the built-in three always included (kube-admin, default, kube-baseline)
  std::vector<Policy> policies;
  std::vector<NetworkSet> network_sets;
  std::vector<NamespaceObject> namespaces;  // Namespace objects among the policy files
  std::shared_ptr<const ClusterObjects> objects;  // Pods, Nodes, HostEndpoints … among them; may be null
};

// The built-in tiers' names, orders and default actions; "adminnetworkpolicy" and
// "baselineadminnetworkpolicy" are accepted for kube-admin and kube-baseline.
std::vector<Tier> builtin_tiers();
// Sorts as they are evaluated: exists, has an order, order, name (bytes).
void sort_tiers(std::vector<Tier>& tiers);
// Sorts as evaluated inside one tier: order, then "name/namespace/kind".
bool evaluated_before(const Policy& a, const Policy& b);

}  // namespace tierlog::policy
