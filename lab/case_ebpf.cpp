#include "lab/case_ebpf.h"

#include <utility>

#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/events.h"

namespace tierlog::lab {
namespace {

using dataplane::ebpf::EbpfBackend;
using dataplane::ebpf::EbpfEvents;

Result<PacketPlane> open_ebpf() {
  PacketPlane plane;
  TL_ASSIGN(auto backend, EbpfBackend::open({}));
  TL_ASSIGN(auto events, EbpfEvents::open(backend->programs().events(), backend->programs().losses()));
  plane.ready = events->fd();
  plane.forget = [flows = backend.get()] { return flows->forget_flows(); };
  plane.backend = std::move(backend);
  plane.events = std::move(events);
  return plane;
}

}  // namespace

Result<std::vector<CaseResult>> run_ebpf(const std::vector<PolicyCase>& cases, const PacketRun& run) {
  return run_packets(cases, open_ebpf, run);
}

}  // namespace tierlog::lab
