// dataplane/nftables/build_skeleton.h - what table `inet tierlog` holds whatever the policies say.
//
// Base chains, dispatch, the shared deny chain, the reserved rules. The maps and sets that a Program fills
// are here without elements.
#pragma once

#include "dataplane/nftables/build.h"

namespace tierlog::dataplane::nftables {

std::string midstream_chain_name(Direction direction, bool spares);
TableObjects build_skeleton(const TableOptions& options, const Switches& switches);

}  // namespace tierlog::dataplane::nftables
