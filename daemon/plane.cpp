#include "daemon/plane.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/connections.h"
#include "dataplane/ebpf/events.h"
#include "dataplane/ebpf/remove.h"
#include "dataplane/nftables/nflog.h"
#include "dataplane/nftables/remove.h"

namespace tierlog::daemon {
namespace {

namespace ebpf = dataplane::ebpf;
namespace nft = dataplane::nftables;

std::chrono::seconds seconds_of(Nanoseconds duration) {
  return std::chrono::duration_cast<std::chrono::seconds>(duration);
}

nft::TableOptions table_options(const Config& config) {
  using nft::TableOptions;
  TableOptions options;
  options.log_rate = config.log_rate;
  options.nflog_group = config.nflog_group;
  options.deny_interval = seconds_of(config.deny_interval);
  options.log_interval = seconds_of(config.log_interval);
  options.enforcement = config.audits ? TableOptions::Enforcement::Audit : TableOptions::Enforcement::Enforce;
  options.host_to_pod =
      config.host_to_pod_by_policy ? TableOptions::HostToPod::Policy : TableOptions::HostToPod::Allow;
  return options;
}

nft::Features features(const Config& config) {
  const auto has = [&](const char* name) {
    return std::find(config.nftables_without.begin(), config.nftables_without.end(), name) ==
           config.nftables_without.end();
  };
  return {.owner = has("owner"), .egress_hook = has("egress-hook")};
}

Result<Plane> open_nftables(const Config& config) {
  Plane plane;
  plane.name = "nftables";
  TL_ASSIGN(auto tables, nft::NftablesBackend::open(table_options(config), features(config)));
  plane.tables = tables.get();
  plane.backend = std::move(tables);
  if (!plane.tables->owned()) {
    TL_ASSIGN(plane.watch, nft::TableWatch::open(plane.tables->port()));
  }
  TL_ASSIGN(plane.labels, nft::LabelWatch::open(plane.tables->port()));
  TL_ASSIGN(auto events, nft::NflogSource::open(config.nflog_group));
  plane.events_fd = events->fd();
  plane.events = std::move(events);
  TL_ASSIGN(auto conntrack, dataplane::Conntrack::open());
  plane.conntrack = conntrack.get();
  plane.connections = std::move(conntrack);
  plane.adopted = plane.tables->adopted();
  plane.highest_found = plane.tables->highest_found();
  plane.found_interfaces = plane.tables->found_interfaces();
  return plane;
}

// What the kernel tracks; nothing where it cannot.
Result<std::vector<dataplane::Connection>> connections_of_kernel() {
  std::vector<dataplane::Connection> found;
  auto conntrack = dataplane::Conntrack::open();
  if (!conntrack) return found;
  static_cast<void>((*conntrack)->dump([&](const dataplane::Connection& one) { found.push_back(one); }));
  return found;
}

Result<Plane> open_ebpf(const Config& config) {
  Plane plane;
  plane.name = "ebpf";
  ebpf::EbpfOptions options;
  options.spares_midstream = true;
  options.deny_interval = seconds_of(config.deny_interval);
  options.log_interval = seconds_of(config.log_interval);
  options.host_to_pod_by_policy = config.host_to_pod_by_policy;
  options.log_rate = config.log_rate;
  options.audits = config.audits;
  options.older = connections_of_kernel;
  options.limits = config.ebpf_limits;
  TL_ASSIGN(options.pins, ebpf::make_pin_folder());
  TL_ASSIGN(auto backend, ebpf::EbpfBackend::open(options));
  TL_ASSIGN(auto events, ebpf::EbpfEvents::open(backend->programs().events(), backend->programs().losses(),
                                                      backend->older_rings()));
  plane.connections = std::make_unique<ebpf::EbpfConnections>(*backend, *events);
  plane.events_fd = events->fd();
  plane.adopted = backend->adopted();
  plane.highest_found = backend->highest_found();
  plane.found_interfaces = backend->found_interfaces();
  plane.taken_over = backend->taken_over();
  plane.programs = backend.get();
  plane.backend = std::move(backend);
  plane.events = std::move(events);
  return plane;
}

}  // namespace

Result<Plane> open_plane(const Config& config) {
  if (config.dataplane == "nftables") return open_nftables(config);
  auto plane = open_ebpf(config);
  if (plane || config.dataplane == "ebpf") return plane;
  const std::string why = plane.error().message;
  TL_ASSIGN(Plane other, open_nftables(config));
  other.notice = "nftables instead of ebpf: " + why;
  return other;
}

Result<std::vector<std::string>> remove_other(const Plane& plane) {
  return plane.is_nftables() ? ebpf::remove_programs() : nft::remove_tables();
}

Result<std::vector<std::string>> remove_all_planes() {
  TL_ASSIGN(auto removed, nft::remove_tables());
  TL_ASSIGN(auto programs, ebpf::remove_programs());
  removed.insert(removed.end(), std::make_move_iterator(programs.begin()),
                 std::make_move_iterator(programs.end()));
  return removed;
}

}  // namespace tierlog::daemon
