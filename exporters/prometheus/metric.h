// exporters/prometheus/metric.h - the one table of metrics: names, types, help and labels of all that
// /metrics tells. The exposition, docs/metrics.md and the tests of dashboards and rules read it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tierlog::prometheus {

enum class Type : std::uint8_t { Counter, Gauge };

// What becomes of a counter when the daemon starts again, after `kill -9` too.
enum class Life : std::uint8_t {
  None,     // a gauge
  Records,  // sums of records behind a cursor (tally.h): as if nothing had been
  Index,    // kept in the flow index or state.db, and told from there
  Kept,     // counted by the daemon or its BPF programs, written down before it is told (ledger.h)
  Kernel,   // the kernel's own: begins anew when the machine does, or what it is of
  Mixed,    // by label: what rules denied as Index, what BPF programs saw as Kept
};

// In the table's order, which is the order of the answer.
enum class Metric : std::uint8_t {
  BuildInfo,
  Ready,
  // what policies decided
  PolicyPackets,
  PolicyBytes,
  PolicyConnections,
  PolicyVerdicts,
  PolicyLastHit,
  PolicyEndpoints,
  PolicyStagedDenied,
  DeniedPackets,
  DeniedBytes,
  RuleVerdicts,
  RuleVerdictBytes,
  RuleRecorded,
  RuleLastHit,
  // pods
  PodForwardPackets,
  PodForwardBytes,
  PodDropPackets,
  PodDropBytes,
  PodConnections,
  PodReset,
  PodRefused,
  PodUnanswered,
  PodRetransmissions,
  PodRtt,
  PodRttSamples,
  // the daemon
  Endpoints,
  PolicySyncs,
  PolicySyncFailed,
  PolicySyncFailures,
  PolicySyncDuration,
  PolicyInForceSince,
  PolicyRevision,
  VerdictRate,
  EventLag,
  BooksKernel,
  BooksRecorded,
  BooksUnattributed,
  BooksOpen,
  Losses,
  Mismatches,
  Backlog,
  BacklogAggregated,
  BacklogRefused,
  StoreBytes,
  StoreRecords,
  StoreOldest,
  ExportDelivered,
  ExportWaiting,
  ExportAge,
  ExportSkipped,
  ExportFailing,
  ExportSent,
  ExportSentBytes,
  ExportSentMessages,
  ExportExpired,
  ExportRetries,
  ExportFailures,
  Repairs,
  Connections,
  SeriesLimit,
  ScrapeDuration,
  // the node, in the names of AKS Network Observability and in modern form
  KappieForwardCount,
  KappieForwardBytes,
  KappieDropCount,
  KappieDropBytes,
  KappieTcpState,
  KappieTcpRemote,
  KappieTcpStats,
  KappieTcpFlags,
  KappieIpStats,
  KappieUdpStats,
  KappieUdpSockets,
  KappieInterfaceStats,
  NodeForwardPackets,
  NodeForwardBytes,
  NodeDropPackets,
  NodeDropBytes,
  NodeTcpSockets,
  NodeTcpRemote,
  NodeTcpStats,
  NodeTcpFlags,
  NodeIpStats,
  NodeUdpStats,
  NodeUdpSockets,
  NodeInterfaceStats,
  NodeDropSource,
  Count_,
};

struct Spec {
  Metric metric;
  const char* name;
  Type type;
  Life life;
  const char* labels;  // separated by blanks; `node` and `cluster` are added to all tierlog_ metrics
  const char* help;
};

std::span<const Spec> specs();
const Spec& spec_of(Metric metric);
std::vector<std::string_view> label_names(const Spec& spec);
bool is_kappie(const Spec& spec);

// docs/metrics.md, whole.
std::string metrics_page();

}  // namespace tierlog::prometheus
