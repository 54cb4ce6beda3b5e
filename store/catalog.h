// store/catalog.h - what the daemon enforces, as rows beside the flows: the board, rules, counters.
//
//   daemon/ --[Catalog, RuleCount…]--> store/flow_store.h --> views policy_activity, rules, endpoints, loss
//
// So that every listing works from the SQLite file alone, without a daemon.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "policy/labels.h"

namespace tierlog::store {

struct TierRow {
  std::string name;
  std::optional<double> order;  // nullopt = after all others
  std::string default_action;   // "Deny" or "Pass"
  int position = 0;             // in evaluation order
};

struct PolicyRow {
  std::string display;  // "tier/ns/name"
  std::string tier, kind, short_kind, policy_namespace, name;
  std::optional<double> order;
  int position = 0;  // in evaluation order over all tiers
  std::uint32_t revision = 1;
  std::uint32_t endpoints_selected = 0;
  bool staged = false;
  std::string selector;
  std::string source;  // FILE:LINE
};

// A rule, end of tier or reserved id.
struct RuleRow {
  RuleId id{};
  std::string policy;  // display; empty for reserved ids
  std::string policy_kind, tier, policy_namespace, policy_name;
  std::vector<std::string> also_policies;  // end of tier: all policies that were asked (displays)
  Direction direction{};
  std::optional<int> rule_index;  // -1 = end of tier, nullopt = reserved
  std::string action;             // Allow, Deny, Pass, Log
  std::string reason;             // policy, end-of-tier, no-policy, …
  std::uint32_t revision = 0;
  std::string text;    // one line for people
  std::string source;  // FILE:LINE:COL
};

struct EndpointRow {
  std::string endpoint_namespace, name, node, interface, workload;
  policy::Labels labels;
  std::vector<std::string> addresses;
  bool enforced = false;
  std::vector<std::string> ingress_policies, egress_policies;  // displays, in order
};

// One state of what is enforced. Rules of earlier catalogs stay known (records refer to them) but are
// marked as no longer live; tiers, policies and endpoints are replaced.
struct Catalog {
  std::uint64_t revision = 0;
  WallTime since{};
  std::vector<TierRow> tiers;
  std::vector<PolicyRow> policies;
  std::vector<RuleRow> rules;
  std::vector<EndpointRow> endpoints;
};

// What the kernel counted for a rule, cumulative since the counter was made. The store adds the earlier
// lives of a counter: a value below the one before means that it began anew.
struct RuleCount {
  RuleId id{};
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
};

// What could not be attributed or was lost, cumulative by cause; values that begin anew as in RuleCount.
struct LossCount {
  std::string cause;  // nflog-gap, enobufs, deny-set-full, undecodable, unknown-rule, …
  RuleId rule{};      // None: not known which
  std::uint64_t packets = 0;
};

}  // namespace tierlog::store
