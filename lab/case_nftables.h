// lab/case_nftables.h - policy test cases with real packets through nftables.
//
//   PolicyCase --> Program --> nftables in a Wire (lab/case_wire.h) --packets--> arrived or not
//                                 `--NFLOG, deny counts--> logger/ --> flow index --> who decided
// Cases whose pods have the same addresses share one Wire. Every case's rules get ids that no case had
// before, so that a record can only be of this case.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "lab/cases.h"

namespace tierlog::lab {

// Results in the order of the cases. `progress` gets the number of cases that are done.
// Errors: Refused without the needed capabilities; what goes wrong later is told by the cases concerned.
Result<std::vector<CaseResult>> run_nftables(const std::vector<PolicyCase>& cases,
                                             const std::function<void(std::size_t)>& progress = {});

}  // namespace tierlog::lab
