// lab/case_ebpf.h - policy test cases through the eBPF programs, with real packets.
#pragma once

#include <vector>

#include "base/result.h"
#include "lab/case_packets.h"

namespace tierlog::lab {

Result<std::vector<CaseResult>> run_ebpf(const std::vector<PolicyCase>& cases, const PacketRun& run = {});

}  // namespace tierlog::lab
