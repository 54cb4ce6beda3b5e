// lab/cases.h - policy test cases: what `tierlog test` reads, runs and prints.
//
//   *.yaml *.yml *.json --[load_cases]--> PolicyCase --[run_model]--> CaseResult --[to_json]--> -o json
// A case holds a small world (topology), whole policy objects and checks: who to whom, allow or deny,
// and optionally who decides. The format is the user's: docs/test-cases.md.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/ids.h"
#include "base/net_types.h"
#include "base/yaml.h"
#include "endpoints/topology.h"
#include "policy/evaluate.h"
#include "policy/model.h"

namespace tierlog::lab {

// One end of a check: a pod of the topology or an address.
struct CaseEnd {
  std::string pod;                // "ns/name"; empty for an address
  std::optional<IpAddr> address;  // of an {"ip": …}; a pod's is chosen by `packet_of`
  std::string text() const;       // "ns/name" or the address
};

// Who has to decide, as far as the case says.
struct ExpectedDecider {
  Direction direction{};
  std::optional<std::string> tier;
  std::optional<std::string> policy;  // name, ns/name or tier/ns/name
  std::optional<int> rule;            // -1: end of tier
};

struct Check {
  CaseEnd from, to;
  std::uint8_t protocol = protocol::kTcp;
  bool any_icmp = false;  // "ICMP" by name: ICMPv6 between IPv6 addresses
  std::uint16_t port = 0;
  std::optional<std::uint16_t> source_port;
  std::optional<std::uint8_t> icmp_type, icmp_code;
  policy::Action expect = policy::Action::Allow;  // Allow or Deny
  std::optional<policy::Action> ingress, egress;  // the verdict of one direction alone
  std::optional<ExpectedDecider> decides;
  SourceRef place;
};

struct PolicyCase {
  std::string id;
  std::string file;
  std::vector<std::string> required;   // `requires`: abilities
  std::optional<std::string> skipped;  // why it cannot be run; then only id and file are sure to be set
  endpoints::Topology topology;
  policy::PolicySet policies;
  std::vector<yaml::Node> policy_objects;  // as they stand in the file, for runs that write them out
  std::vector<Check> checks;
};

struct LoadedCases {
  std::vector<PolicyCase> cases;  // without those that have errors
  Diagnostics findings;           // with errors: the caller prints them and ends with 2
  std::size_t files = 0;
};

// Files, and folders (not recursive) in name order. A file holds one case, or several as YAML documents
// or one list.
LoadedCases load_cases(const std::vector<std::string>& paths);
LoadedCases load_cases_text(std::string_view text, const std::string& name);

// The packet a check stands for; nothing when an end has no address of a common family.
std::optional<policy::Packet> packet_of(const policy::Cluster& cluster, const Check& check);

enum class CheckVerdict : std::uint8_t { Allow, Deny, Refused, Error };
std::string_view name(CheckVerdict verdict);  // "allow", "deny", "refused", "error"

// Who decided. All of tier, policy, rule absent: no policy applied.
struct Decider {
  Direction direction{};
  std::optional<std::string> tier;
  std::optional<std::string> policy;  // display "tier/ns/name"
  std::optional<int> rule;            // -1: end of tier
  RuleId rule_id{};
};

struct TraceLine {
  Direction direction{};
  std::string tier, policy;  // empty: null
  std::optional<int> rule_index;
  policy::StepResult result{};
  bool staged = false;
};

// What a run saw of one check.
struct Observed {
  CheckVerdict verdict = CheckVerdict::Error;
  std::optional<policy::Action> ingress, egress;  // absent: the run cannot tell the direction alone
  std::optional<Decider> decides;
  std::vector<TraceLine> trace;
  std::string error;  // with CheckVerdict::Error
};

struct CheckResult {
  std::size_t index = 0;
  Check check;
  Observed observed;
  bool passed = false;
  std::vector<std::string> problems;  // "expected allow, got deny"; empty when passed
  // Why a run with packets could not send this one; it counts neither way.
  std::optional<std::string> skipped{};
};

struct CaseResult {
  std::string id, file;
  std::optional<std::string> skipped;
  bool passed = false;  // of a skipped case: false
  std::vector<CheckResult> checks;
  std::chrono::nanoseconds took{};
};

struct CaseResults {
  std::string via;  // "model", "nftables", "ebpf"
  std::vector<CaseResult> cases;
  std::size_t passed() const;
  std::size_t failed() const;
  std::size_t skipped() const;
};

// Compares what a run saw with what the case states: expect, ingress, egress, decides.
CheckResult judge(std::size_t index, const Check& check, Observed observed);
// One case through the evaluator.
CaseResult run_model(const PolicyCase& test_case);

// The shape of `tierlog test -o json`.
nlohmann::ordered_json to_json(const CaseResults& results);
// JUnit XML: a testsuite with a testcase each.
std::string to_junit(const CaseResults& results);

}  // namespace tierlog::lab
