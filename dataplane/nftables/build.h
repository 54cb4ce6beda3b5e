// dataplane/nftables/build.h - Program -> the nftables objects that enforce it. Pure, needs no kernel.
//
//   policy/program.h --[build]--> ruleset.h --> encode.h, backend.h
//
// Two tables: `inet tierlog` judges packets (build_program, build_skeleton), `netdev tierlog` guards each
// pod's interface against frames that would escape that judgement (build_guard).
//
// Names say what may happen to an object (docs/architecture.md, "The tables"):
//   r<id> g<id> l<id>    chains that depend on a rule id alone
//   c<content> a<content>  class chains: never changed, another content is another chain
//   epe_ epi_<endpoint>  content is what a flip replaces
//   s4_ s6_ w4_ w6_ n4_ n6_<meaning>_<version>   address and port sets: members change one by one where
//                        that is safe, else a new version is made and the chains that use it with it
//   p_<content>          port ranges; ports and protocols to the lists of a class
//   m4_ m6_ i4_ i6_ k4_ k6_<meaning>_<version>   address to group, net to group, group to outcome
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dataplane/nftables/ruleset.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

// How a class becomes chains and maps (build_classes.h): where look-ups begin and where they end. Tests move
// these to reach every form with few rules.
struct ClassCosts {
  std::size_t plain_matches = 12;   // up to here a class is one chain of rules
  std::size_t short_list = 8;       // up to here a list is a chain of rules
  std::size_t largest_set = 16'384; // members; a larger one is looked up itself instead of in groups
  // At most, of one class and family; beyond, its rules stand in order, in blocks (build_blocks.h).
  std::size_t items = 8'000'000;    // visited while splitting it by traffic
  std::size_t groups = 1'000'000;   // addresses, ranges and their memberships
  std::size_t cells = 262'144;      // about 37 MB in the kernel
  std::size_t rules = 131'072;      // in its short lists
  std::size_t block_cells = 524'288; // of all its blocks
  std::size_t smallest_block = 16;  // rules; fewer stand one by one
};

struct TableOptions {
  std::uint16_t nflog_group = 4610;
  std::chrono::seconds deny_interval{10};  // a denied flow is logged once per interval
  std::chrono::seconds log_interval{10};   // the same for a flow that matched a Log rule
  policy::LogRate log_rate{1000, 1};       // messages of one Log rule, unless its policy says otherwise
  std::uint32_t deny_set_size = 65536;     // denied flows per family that are told apart
  enum class HostToPod : std::uint8_t { Allow, Policy } host_to_pod = HostToPod::Allow;
  // Audit: before all others, drops nothing, records what would have been.
  enum class Enforcement : std::uint8_t { Enforce, Audit } enforcement = Enforcement::Enforce;

  ClassCosts classes{};

  bool audits() const { return enforcement == Enforcement::Audit; }
};

// What the back end turns on and off while the table lives.
struct Switches {
  // Endpoints ("ns/pod") that are older than our first start: what is mid-stream with them passes, counted.
  std::set<std::string> spared;
  // Some living connections are in doubt or cut: they are asked before `established` is.
  bool judge_living = false;
  std::vector<RuleId> revoked;  // ids whose connections are judged anew
  bool audits_some = false;     // of the Program: some endpoints are audited, others enforced
};

// How long an entry of the deny and log sets lives after its last packet.
std::chrono::seconds entry_lifetime(const TableOptions& options);

// What one table must hold, whole. Chains with a hook are base chains.
struct TableObjects {
  std::vector<std::string> counters;
  std::vector<Set> sets;
  std::vector<Chain> chains;
};

// The version of each set whose members may change, by its name without the version; 1 where absent.
using SetVersions = std::map<std::string, std::uint32_t>;

struct BuildCache;  // build_cache.h

// Both tables for one Program; `options` and `switches` decide about the parts that no policy changes;
// `cache`: what the build before left, for the parts that say the same.
TableObjects build_program(const policy::Program& program, const SetVersions& versions,
                           const TableOptions& options, const Switches& switches, BuildCache* cache = nullptr);
TableObjects build_guard(const policy::Program& program, const TableOptions& options);
// The chain that judges what an interface sends.
std::string guard_chain_name(const std::string& interface);

// Table `inet tierlog_hold`: drops what opens a connection from or to these endpoints.
TableObjects build_hold(const policy::Program& program);

// Names that both build and read-back use.
std::string endpoint_chain_name(Direction direction, const std::string& endpoint);  // "epi_<16 hex>"
std::string counter_name(RuleId id);  // "c_0000002a"
std::optional<RuleId> counter_id(const std::string& name);
// Messages of a Log rule that were sent: what its limits let through.
std::string message_counter_name(RuleId id);  // "m_0000002a"
std::optional<RuleId> message_counter_id(const std::string& name);
// The rule that any of these counters, or of build_host.h's, belongs to.
std::optional<RuleId> counted_rule(const std::string& name);
// Frames that a reserved rule dropped and no flow record can describe: not IP.
std::string frame_counter_name(RuleId id);  // "f_00000018"
std::optional<RuleId> frame_counter_id(const std::string& name);
// "s4_<meaning>_<version>" -> "s4_<meaning>" and the version; nullopt for what has no version.
struct VersionedName {
  std::string base;
  std::uint32_t version = 0;
};
std::optional<VersionedName> versioned_name(const std::string& name);
inline constexpr const char* kOverflowCounter = "c_overflow";
inline constexpr const char* kHeldCounter = "c_held";

}  // namespace tierlog::dataplane::nftables
