// daemon/plane.h - the data plane that the configuration names, opened: what applies Programs, what tells of
// verdicts, who knows the connections.
//
//   config.h --[open_plane]--> Plane: Backend, EventSource, ConnectionSource --> world.h, recorder.h,
//   living.h
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "daemon/config.h"
#include "dataplane/backend.h"
#include "dataplane/connection_source.h"
#include "dataplane/conntrack.h"
#include "dataplane/events.h"
#include "dataplane/nftables/backend.h"
#include "dataplane/nftables/label_watch.h"
#include "dataplane/nftables/watch.h"
#include "endpoints/services.h"
#include "policy/program.h"

namespace tierlog::dataplane::ebpf {
class EbpfBackend;
}

namespace tierlog::daemon {

struct Plane {
  std::string name;    // "nftables" or "ebpf"
  std::string notice;  // why it is not another one; empty: it is what was asked for
  std::unique_ptr<dataplane::Backend> backend;
  std::unique_ptr<dataplane::EventSource> events;
  int events_fd = -1;  // borrowed
  std::unique_ptr<dataplane::ConnectionSource> connections;
  // Of nftables only: connections are judged by labels in the kernel's own table.
  dataplane::nftables::NftablesBackend* tables = nullptr;
  dataplane::Conntrack* conntrack = nullptr;
  dataplane::ebpf::EbpfBackend* programs = nullptr;  // of ebpf only
  std::unique_ptr<dataplane::nftables::TableWatch> watch;  // only where nothing else protects the tables
  std::unique_ptr<dataplane::nftables::LabelWatch> labels;
  bool adopted = false;
  std::string taken_over;  // of maps of another version: what was, and what could not be; empty: there were none
  // What was there: above which no rule id may begin anew, and interfaces that were enforced.
  RuleId highest_found{};
  std::set<std::string> found_interfaces;

  bool is_nftables() const { return tables != nullptr; }
  // Somebody else may change what is ours without the kernel refusing it: it must be looked after.
  bool unprotected() const { return tables == nullptr || !tables->owned(); }
};

// Where Services lead, for programs that see packets before they are translated: by their own addresses, and by their
// ports of `node`. Does nothing for nftables.
Result<void> tell_services(const Plane& plane, const std::vector<endpoints::Service>& services,
                           const policy::Program& program, const std::string& node);
// Errors: Refused, with what the kernel lacks.
Result<Plane> open_plane(const Config& config);
// What the other data plane left in the kernel goes, now that this one is in force. Returns what that was.
Result<std::vector<std::string>> remove_other(const Plane& plane);
// What both left. Errors: Refused.
Result<std::vector<std::string>> remove_all_planes();

}  // namespace tierlog::daemon
