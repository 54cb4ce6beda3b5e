// exporters/prometheus/health.h - what the daemon's loop tells of itself at intervals, for /metrics and the
// probes.
//
//   daemon/ --[Health]--> collector.h
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"

namespace tierlog::prometheus {

struct ExportHealth {
  std::string name;
  std::int64_t delivered_sequence = 0;
  std::int64_t kept_sequence = 0;  // where a start after a kill would go on
  std::uint64_t skipped = 0;
  bool failing = false;
  // Since the daemon started.
  std::uint64_t sent_records = 0, sent_bytes = 0, sent_messages = 0, expired = 0, retries = 0;
  std::vector<std::pair<std::string, std::uint64_t>> failures{};  // by cause; each is there with 0
};

struct Health {
  Nanoseconds made_at{};  // boottime
  std::string dataplane, enforcement;
  bool ready = false;          // a good policy set is in force
  bool in_sync = false;        // it is what the files say
  std::string why_not_synced;  // empty: it is
  WallTime in_force_since{};
  std::uint64_t revision = 0;
  std::uint64_t syncs = 0, sync_failures = 0;
  Nanoseconds sync_duration{};
  double verdicts_per_second = 0;
  Nanoseconds event_lag{};
  std::uint64_t backlog_records = 0, backlog_aggregated = 0, backlog_refused = 0;
  std::uint64_t store_bytes = 0, store_records = 0;
  std::vector<ExportHealth> exports;
  std::vector<std::string> causes;  // all that verdicts can be unattributed by: each is there with 0
  std::vector<std::pair<std::string, std::uint64_t>> losses;       // by cause, without a rule
  std::vector<std::pair<std::string, std::uint64_t>> repairs;      // by what
  std::vector<std::pair<std::string, std::uint64_t>> connections;  // by outcome
};

}  // namespace tierlog::prometheus
