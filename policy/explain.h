// policy/explain.h - an evaluation with every name resolved: what `tierlog explain` shows.
//
//   evaluate.h --> [Explanation] --explain_json.h--> control socket, --output json --> cli/ (the picture)
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "policy/evaluate.h"

namespace tierlog::policy {

struct ExplainedStep {
  std::string tier;
  std::string policy;             // display "tier/ns/name"; empty = end of the tier, or the fallback
  std::string policy_kind;        // short: NP, GNP, KNP …
  std::optional<int> rule_index;  // -1 = end of tier; nullopt = fallback or a policy without rules here
  std::string action;             // Allow, Deny, Pass, Log: what the rule says
  StepResult result{};
  bool staged = false;
  bool decides = false;
  RuleId rule{};
  std::uint32_t revision = 0;  // of the policy
  std::string why;             // "matched", "source is not role == 'api'"
  std::string text;            // the rule in one line
  std::string source;          // FILE:LINE
};

struct ExplainedDirection {
  Direction direction{};
  std::string endpoint;  // "tenant-01/db"
  Action action{};
  Reason reason{};                         // policy, end-of-tier, no-policy, profile
  std::vector<std::string> tiers;          // all that were come to, in order, skipped ones included
  std::vector<std::string> skipped_tiers;  // those in which no policy selects the endpoint
  std::vector<ExplainedStep> steps;        // in evaluation order; staged ones included
};

// The packet was sent to the address of a Service: each of the backends that it may meet.
struct ExplainedService {
  struct Backend {
    IpAddr address;
    std::uint16_t port = 0;
    std::string name;  // as Explanation::destination_name
    Action action{};
  };
  std::string name;  // "ns/service"
  IpAddr address;
  std::uint16_t port = 0;
  bool has_port = true;           // false: the Service has no such port
  std::vector<Backend> backends;  // none: the packet is judged as it stands
};

struct Explanation {
  Packet packet;  // behind the translation
  std::string source_name, destination_name;  // "tenant-02/web", or "outside 203.0.113.9"
  Action action{};
  // Absent when that end is no enforced endpoint (or egress already denied).
  std::optional<ExplainedDirection> egress, ingress;
  // What a host endpoint says of a forwarded packet, before and behind the two.
  std::optional<ExplainedDirection> host_ingress, host_egress;
  std::optional<ExplainedService> service;
  // The node reaches its own pod whatever policies say (host_to_pod: allow): what they alone would say.
  std::optional<ExplainedDirection> by_policies_alone;
};

// Whose addresses may reach a pod whatever policies say: those of Program::host_addresses, or each node's own
// pods.
enum class NodesReach : std::uint8_t { AsProgram, OwnPods };

Explanation explain(const Program& program, const Packet& packet, NodesReach nodes = NodesReach::AsProgram);
// "ns/pod" or an address -> the address to explain with, of the wanted family when a pod has both.
// Nothing when there is no such pod.
std::optional<IpAddr> resolve_who(const Cluster& cluster, std::string_view who, Family wanted = Family::V4);

}  // namespace tierlog::policy
