// dataplane/nftables/build_skeleton.h - what table `inet tierlog` holds whatever the policies say.
//
// Base chains, dispatch, the shared deny chain, the reserved rules. The maps and sets that a Program fills
// are here without elements.
#pragma once

#include "dataplane/nftables/build.h"

namespace tierlog::dataplane::nftables {

std::string midstream_chain_name(Direction direction, bool spares);
// Which parts host endpoints need.
struct HostHooks {
  bool local = false;
  bool forward = false;
  bool pre_dnat = false;
  bool untracked = false;
};
TableObjects build_skeleton(const TableOptions& options, const Switches& switches, const HostHooks& hosts = {});
// The hooks of what is audited on a node that enforces: they lead to audit_new_<hook> (build_audit.h).
std::vector<Chain> base_chains_before_others();

}  // namespace tierlog::dataplane::nftables
