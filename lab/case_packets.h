// lab/case_packets.h - policy test cases with real packets through a data plane.
//
//   PolicyCase --> Program --> data plane in a Wire (lab/case_wire.h) --packets--> arrived or not
//                                 `--verdict events, deny counts--> logger/ --> flow index --> who decided
// Cases whose pods have the same addresses share one Wire. Every case's rules get ids that no case had
// before, so that a record can only be of this case. Who decided is what the flow index tells; that the
// evaluator names the same rule is checked beside it, for every packet.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "dataplane/backend.h"
#include "dataplane/events.h"
#include "lab/cases.h"

namespace tierlog::lab {

// A data plane in the calling thread's network namespace, with empty tables.
struct PacketPlane {
  std::unique_ptr<dataplane::Backend> backend;
  std::unique_ptr<dataplane::EventSource> events;
  int ready = -1;  // of the events: readable when some wait; borrowed
  std::function<Result<void>()> forget{};  // connections that the kernel's own table does not know
};
using OpenPlane = std::function<Result<PacketPlane>()>;

struct PacketRun {
  std::function<void(std::size_t)> progress;  // gets the number of cases that are done
  // Changes what the kernel is given, and only that: with it a run must fail. For tests of the test.
  std::function<void(policy::Program&)> plant;
  // How long the flow index may take to tell of every packet that was denied or allowed.
  std::chrono::milliseconds patience{10'000};
};

// Results in the order of the cases.
// Errors: Refused without the needed capabilities; what goes wrong later is told by the cases concerned.
Result<std::vector<CaseResult>> run_packets(const std::vector<PolicyCase>& cases, const OpenPlane& open,
                                            const PacketRun& run = {});

}  // namespace tierlog::lab
