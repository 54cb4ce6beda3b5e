#include "lab/case_nftables.h"

#include <utility>

#include "dataplane/nftables/backend.h"
#include "dataplane/nftables/nflog.h"

namespace tierlog::lab {
namespace {

using dataplane::nftables::NflogSource;
using dataplane::nftables::NftablesBackend;

Result<PacketPlane> open_nftables() {
  PacketPlane plane;
  TL_ASSIGN(plane.backend, NftablesBackend::open({}));
  TL_ASSIGN(auto events, NflogSource::open(dataplane::nftables::TableOptions{}.nflog_group));
  plane.ready = events->fd();
  plane.events = std::move(events);
  return plane;
}

}  // namespace

Result<std::vector<CaseResult>> run_nftables(const std::vector<PolicyCase>& cases, const PacketRun& run) {
  return run_packets(cases, open_nftables, run);
}

}  // namespace tierlog::lab
