// lab/case_nftables.h - policy test cases with real packets through nftables (lab/case_packets.h).
#pragma once

#include <vector>

#include "base/result.h"
#include "lab/case_packets.h"

namespace tierlog::lab {

Result<std::vector<CaseResult>> run_nftables(const std::vector<PolicyCase>& cases, const PacketRun& run = {});

}  // namespace tierlog::lab
