// policy/load_kinds.h - inside of the loader: what load.cpp and the readers of the API families share.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/fields.h"
#include "policy/cluster.h"
#include "policy/fields.h"
#include "policy/model.h"

namespace tierlog::policy {

// Where the objects of one load are collected.
struct LoadContext {
  PolicySet set;
  ClusterObjects objects;
  Diagnostics findings;
  std::map<std::string, SourceRef> seen;  // "kind namespace/name" -> first place
};

// What an object's metadata says. `valid` is false when it has no usable name: nothing is added to the set
// then, but its spec is still read for its findings.
struct Meta {
  bool valid = false;
  std::string name;
  std::string object_namespace;  // empty for cluster-wide kinds
  Labels labels;
  LogDecisions log_decisions = LogDecisions::None;
  bool audited = false;
  std::string log_label;
  std::optional<LogRate> log_rate;
  SourceRef source;  // of the object
};

// What a kind's metadata may say.
struct MetaRules {
  std::string kind;  // as findings call it: "NetworkPolicy"
  bool namespaced = false;
  bool has_log = false;        // tierlog.io/log
  bool has_log_label = false;  // tierlog.io/log-label, and log-rate
  bool has_enforcement = false;  // tierlog.io/enforcement
  bool name_has_dots = true;
};

// Reads metadata, accepts apiVersion, kind and status, and finds a second object of the same name.
Meta read_meta(yaml::Fields& object, const MetaRules& rules, LoadContext& context);
// The annotations of a policy's metadata, or of a rule's.
void read_annotations(yaml::Fields& metadata, const MetaRules& rules, Meta& meta);
// The map `spec`; its absence is a finding.
const yaml::Node* require_spec(yaml::Fields& object);
// "default" when absent; the older names of the built-in tiers become the newer ones.
std::string read_tier_name(yaml::Fields& spec);
std::string builtin_tier_name(const std::string& name);
// A policy with key and source filled in from its metadata.
Policy start_policy(PolicyKind kind, const Meta& meta);
// Reads the list of rules `key`, each by `read`, up to the limit.
template <typename Read>
std::vector<PolicyRule> read_rules(yaml::Fields& spec, std::string_view key, Read read) {
  std::vector<PolicyRule> rules;
  const auto items = spec.list(key);
  if (items.size() > limit::kRules)
    spec.findings().error(items[limit::kRules]->place,
                          std::string(key) + " has " + std::to_string(items.size()) +
                              " rules; expected at most " + std::to_string(limit::kRules));
  for (std::size_t i = 0; i < items.size(); ++i) {
    PolicyRule rule = read(*items[i]);
    rule.index = static_cast<int>(i);
    rule.source = items[i]->place;
    rules.push_back(std::move(rule));
  }
  return rules;
}
// The list of policy types; `types` or `policyTypes`. Empty when absent.
struct ReadTypes {
  bool given = false;
  bool ingress = false;
  bool egress = false;
};
ReadTypes read_types(yaml::Fields& spec, std::string_view key);

// "Deny tcp from role == 'web' to port 5432".
std::string rule_text(Action action, const std::vector<MatchSpec>& any_of);

using KindReader = void (*)(const yaml::Node& object, LoadContext& context);
struct KindRow {
  std::vector<std::string> api_versions;
  std::string kind;
  KindReader read;
};
std::vector<KindRow> calico_kinds();
std::vector<KindRow> kubernetes_kinds();
std::vector<KindRow> admin_kinds();
std::vector<KindRow> core_kinds();
std::vector<KindRow> host_kinds();

// The Kubernetes policy's spec into `policy`: used for the staged kind too. `extra`: legal fields beside it.
void read_kubernetes_spec(yaml::Fields& spec, Policy& policy);

}  // namespace tierlog::policy
