// dataplane/nftables/build.h - Program -> the nftables objects that enforce it. Pure, needs no kernel.
//
//   policy/program.h --[build]--> ruleset.h --> encode.h, backend.h
//
// Three lives (docs/architecture.md, "The table"):
//   skeleton      made once: base chains, dispatch, deny chain, deny and log sets, reserved rules
//   rule chains   r<id> g<id> l<id>: depend on the id alone, shared by all generations
//   generation    classes, address and port sets: c<class>t<tier>_<gen>, s<set>v<4|6>_<gen>, p<n>_<gen>
// plus two chains per endpoint whose content is what a flip replaces.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "dataplane/nftables/ruleset.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

struct TableOptions {
  std::uint16_t nflog_group = 4610;
  std::chrono::seconds deny_interval{10};  // a denied flow is logged once per interval
  std::chrono::seconds log_interval{10};   // the same for a flow that matched a Log rule
  std::uint32_t deny_set_size = 65536;     // denied flows per family that are told apart
  enum class HostToPod : std::uint8_t { Allow, Policy } host_to_pod = HostToPod::Allow;
};

// How long an entry of the deny and log sets lives after its last packet.
std::chrono::seconds entry_lifetime(const TableOptions& options);

struct Skeleton {
  std::vector<RuleId> counters;
  std::vector<std::string> plain_counters;
  std::vector<Set> sets;
  std::vector<Chain> chains;  // base chains last
};
Skeleton build_skeleton(const TableOptions& options);

struct EndpointChain {
  Chain chain;           // epe_… or epi_…
  std::string endpoint;  // "ns/pod", for messages
};

struct ProgramObjects {
  std::vector<RuleId> counters;
  std::vector<Chain> rule_chains;
  std::vector<Element> first_packet_log;  // of map rlog
  std::vector<Set> sets;
  std::vector<Chain> class_chains;
  std::vector<EndpointChain> endpoint_chains;
  // Dispatch: name of map or set -> its elements.
  std::map<std::string, std::vector<Element>> dispatch;
};
ProgramObjects build_program(const policy::Program& program, std::uint64_t generation,
                             const TableOptions& options);

// Names that both build and read-back use.
std::string counter_name(RuleId id);  // "c_0000002a"
std::optional<RuleId> counter_id(const std::string& name);
bool is_generation_object(const std::string& name, std::uint64_t* generation);  // "…_<gen>"
inline constexpr const char* kOverflowCounter = "c_overflow";

}  // namespace tierlog::dataplane::nftables
