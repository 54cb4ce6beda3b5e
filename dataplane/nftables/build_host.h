// dataplane/nftables/build_host.h - host endpoints: what stands at the node's own interfaces.
//
//   Program.hosts --[HostBuilder]--> chains that build_skeleton's base chains jump to, and two hooks more
//
// host_in, host_out    what the node gets and sends itself (input, output)
// host_fi, host_fo     what it forwards through the interface, before and behind the pods (forward)
// dnat_pre             before addresses are rewritten (prerouting, mangle)
// raw_pre, raw_out     before any connection (prerouting, output, raw)
//
// An allowed packet of the last three stages goes on to others' judgement, so it is counted in a counter of
// its own (h_<id>) and told by whoever decides in the end; one that is denied is denied like any other.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_match.h"
#include "dataplane/nftables/build_skeleton.h"
#include "dataplane/nftables/rule_chains.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

HostHooks host_hooks(const policy::Program& program, const TableOptions& options);

// `first_chain`: of each class of stage Local.
void add_hosts(const policy::Program& program, const std::vector<std::string>& first_chain, MatchBuilder& matches,
               const TableOptions& options, RuleChains& rules, TableObjects& objects);

// "hi_<16 hex>", "ho_…": rewritten by a flip.
std::string host_chain_name(Direction direction, const std::string& host);
// "h_0000002a": packets that an early stage or a forwarding host endpoint let go on.
std::string passed_counter_name(RuleId id);

}  // namespace tierlog::dataplane::nftables
