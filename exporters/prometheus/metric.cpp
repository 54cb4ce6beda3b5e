#include "exporters/prometheus/metric.h"

#include <array>
#include <cstddef>

namespace tierlog::prometheus {
namespace {

using M = Metric;
using enum Type;

constexpr const char* kPolicyLabels = "tier policy policy_kind namespace direction action";
constexpr const char* kRuleLabels = "tier policy policy_kind direction rule rule_id action";
constexpr const char* kPod = "namespace workload pod";
constexpr const char* kPodWay = "namespace workload pod direction";

constexpr std::array kSpecs{
    Spec{M::BuildInfo, "tierlog_build_info", Gauge, Life::None, "version dataplane enforcement",
         "Which program answers; always 1."},
    Spec{M::Ready, "tierlog_ready", Gauge, Life::None, "",
         "1 when a good policy set is in force, as /readyz says."},
    Spec{M::PolicyPackets, "tierlog_policy_packets_total", Counter, Life::Records, kPolicyLabels,
         "Packets of the flows that the policy decided: allowed ones both ways as conntrack counted them, "
         "denied ones "
         "each."},
    Spec{M::PolicyBytes, "tierlog_policy_bytes_total", Counter, Life::Records, kPolicyLabels,
         "L3 bytes of the same packets."},
    Spec{M::PolicyConnections, "tierlog_policy_connections_total", Counter, Life::Records, kPolicyLabels,
         "Connections that the policy allowed; of denied flows none is counted."},
    Spec{M::PolicyVerdicts, "tierlog_policy_verdicts_total", Counter, Life::Index, kPolicyLabels,
         "Packets that the kernel's counters of the policy's rules counted: allow the first packets of "
         "connections, "
         "deny each packet, pass and log what matched."},
    Spec{M::PolicyLastHit, "tierlog_policy_last_hit_timestamp_seconds", Gauge, Life::None,
         "tier policy policy_kind namespace",
         "When the policy last decided something; absent when it never did."},
    Spec{M::PolicyEndpoints, "tierlog_policy_endpoints", Gauge, Life::None,
         "tier policy policy_kind namespace", "Endpoints that the policy selects."},
    Spec{M::PolicyStagedDenied, "tierlog_policy_staged_denied_packets_total", Counter, Life::Index,
         "tier policy policy_kind namespace", "Packets that the staged policy would have denied."},
    Spec{M::DeniedPackets, "tierlog_denied_packets_total", Counter, Life::Records,
         "tier policy direction from_namespace to_namespace",
         "Denied packets by the namespaces of both sides (empty: no pod); beyond the limit of series in "
         "\"other\"."},
    Spec{M::DeniedBytes, "tierlog_denied_bytes_total", Counter, Life::Records,
         "tier policy direction from_namespace to_namespace", "L3 bytes of the same packets."},
    Spec{M::RuleVerdicts, "tierlog_rule_verdicts_total", Counter, Life::Index, kRuleLabels,
         "Packets that the kernel counted for one rule (metrics.rules: true)."},
    Spec{M::RuleVerdictBytes, "tierlog_rule_verdict_bytes_total", Counter, Life::Index, kRuleLabels,
         "L3 bytes of the same packets (metrics.rules: true)."},
    Spec{M::RuleRecorded, "tierlog_rule_recorded_packets_total", Counter, Life::Index, kRuleLabels,
         "What of tierlog_rule_verdicts_total is in records, for rules that decide (metrics.rules: true)."},
    Spec{M::RuleLastHit, "tierlog_rule_last_hit_timestamp_seconds", Gauge, Life::None, kRuleLabels,
         "When the rule last decided something (metrics.rules: true)."},
    Spec{M::PodForwardPackets, "tierlog_pod_forward_packets_total", Counter, Life::Records, kPodWay,
         "Packets of allowed connections, as seen from the pod: egress what it sent, ingress what it got."},
    Spec{M::PodForwardBytes, "tierlog_pod_forward_bytes_total", Counter, Life::Records, kPodWay,
         "L3 bytes of the same packets."},
    Spec{M::PodDropPackets, "tierlog_pod_drop_packets_total", Counter, Life::Records, kPodWay,
         "Packets from (egress) or to (ingress) the pod that its policies denied."},
    Spec{M::PodDropBytes, "tierlog_pod_drop_bytes_total", Counter, Life::Records, kPodWay,
         "L3 bytes of the same packets."},
    Spec{M::PodConnections, "tierlog_pod_connections_total", Counter, Life::Records, kPodWay,
         "Connections that the pod opened (egress) or took (ingress) and that were allowed."},
    Spec{M::PodReset, "tierlog_pod_connections_reset_total", Counter, Life::Records, kPodWay,
         "Of those, TCP connections that one side broke off after they stood."},
    Spec{M::PodRefused, "tierlog_pod_connections_refused_total", Counter, Life::Records, kPodWay,
         "Of those, TCP connections that were answered by a reset and nothing else: nobody listens."},
    Spec{M::PodUnanswered, "tierlog_pod_connections_unanswered_total", Counter, Life::Records, kPodWay,
         "Of those, connections that nothing ever came back on."},
    Spec{M::PodRetransmissions, "tierlog_pod_tcp_retransmissions_total", Counter, Life::Kept, kPod,
         "TCP segments that the pod's sockets sent again (needs BPF)."},
    Spec{M::PodRtt, "tierlog_pod_tcp_rtt_seconds_total", Counter, Life::Kept, kPod,
         "Sum of the smoothed round trip times that the pod's TCP sockets had when they closed (needs BPF); "
         "divide "
         "by tierlog_pod_tcp_rtt_samples_total."},
    Spec{M::PodRttSamples, "tierlog_pod_tcp_rtt_samples_total", Counter, Life::Kept, kPod,
         "How many sockets that sum is of (needs BPF)."},
    Spec{M::Endpoints, "tierlog_endpoints", Gauge, Life::None, "state",
         "Endpoints: \"enforced\" in this node's kernel, \"known\" elsewhere."},
    Spec{M::PolicySyncs, "tierlog_policy_syncs_total", Counter, Life::Kept, "",
         "How often a policy set or a change of pods came into force."},
    Spec{M::PolicySyncFailed, "tierlog_policy_sync_failed", Gauge, Life::None, "",
         "1 when the policy files are not what is in force; the last good set is."},
    Spec{M::PolicySyncFailures, "tierlog_policy_sync_failures_total", Counter, Life::Kept, "",
         "How often a policy set could not be put in force."},
    Spec{M::PolicySyncDuration, "tierlog_policy_sync_duration_seconds", Gauge, Life::None, "",
         "How long the last reading and applying of the policy files took."},
    Spec{M::PolicyInForceSince, "tierlog_policy_in_force_timestamp_seconds", Gauge, Life::None, "",
         "Since when the policy texts in force are."},
    Spec{M::PolicyRevision, "tierlog_policy_revision", Gauge, Life::None, "",
         "Number of the Program in force."},
    Spec{M::VerdictRate, "tierlog_verdicts_per_second", Gauge, Life::None, "",
         "Verdicts that the kernel counted between the last two readings, by second."},
    Spec{M::EventLag, "tierlog_event_lag_seconds", Gauge, Life::None, "",
         "From the oldest event of the last batch to its being visible in the flow index."},
    Spec{M::BooksKernel, "tierlog_books_kernel_packets_total", Counter, Life::Index, "",
         "Verdict packets that the kernel counted for rules that decide."},
    Spec{M::BooksRecorded, "tierlog_books_recorded_packets_total", Counter, Life::Index, "",
         "Verdict packets that records tell."},
    Spec{M::BooksUnattributed, "tierlog_books_unattributed_packets_total", Counter, Life::Index, "cause",
         "Verdict packets that no record tells, by declared cause."},
    Spec{M::BooksOpen, "tierlog_books_open_packets", Gauge, Life::None, "",
         "Kernel less recorded less unattributed, summed over rules: what is on its way to a record."},
    Spec{M::Losses, "tierlog_losses_total", Counter, Life::Kept, "cause",
         "What readers and sets in the kernel say of themselves, each in its own unit (docs/limits.md)."},
    Spec{M::Mismatches, "tierlog_attribution_mismatch_total", Counter, Life::Kept, "",
         "First packets that the evaluator decides differently than the kernel did: a defect of Tierlog."},
    Spec{M::Backlog, "tierlog_store_backlog_records", Gauge, Life::None, "",
         "Records that wait for the flow index."},
    Spec{M::BacklogAggregated, "tierlog_store_aggregated_records_total", Counter, Life::Kept, "",
         "Records that were put together while they waited."},
    Spec{M::BacklogRefused, "tierlog_store_refused_batches_total", Counter, Life::Kept, "",
         "Batches that the flow index did not take at once."},
    Spec{M::StoreBytes, "tierlog_store_bytes", Gauge, Life::None, "", "Size of the flow index with its log."},
    Spec{M::StoreRecords, "tierlog_store_records_total", Counter, Life::Index, "",
         "Records that were ever written."},
    Spec{M::StoreOldest, "tierlog_store_oldest_timestamp_seconds", Gauge, Life::None, "",
         "End of the oldest record."},
    Spec{M::ExportDelivered, "tierlog_export_delivered_records_total", Counter, Life::Index, "export",
         "Records that the receiver acknowledged or that were passed over."},
    Spec{M::ExportWaiting, "tierlog_export_waiting_records", Gauge, Life::None, "export",
         "Records that the receiver has not acknowledged yet."},
    Spec{M::ExportAge, "tierlog_export_age_seconds", Gauge, Life::None, "export",
         "Age of the oldest record that waits; 0 when none does."},
    Spec{M::ExportSkipped, "tierlog_export_skipped_records_total", Counter, Life::Kept, "export",
         "Records that fit no message."},
    Spec{M::ExportFailing, "tierlog_export_failing", Gauge, Life::None, "export",
         "1 while the receiver takes nothing: `tierlog status` says why."},
    Spec{M::ExportSent, "tierlog_export_sent_records_total", Counter, Life::Kept, "export",
         "Records that passed the filter and arrived."},
    Spec{M::ExportSentBytes, "tierlog_export_sent_bytes_total", Counter, Life::Kept, "export",
         "Bytes of messages that arrived, as they went out."},
    Spec{M::ExportSentMessages, "tierlog_export_sent_messages_total", Counter, Life::Kept, "export",
         "Messages that arrived: chunks, or pieces of a file."},
    Spec{M::ExportExpired, "tierlog_export_expired_records_total", Counter, Life::Kept, "export",
         "Records that retention took before the export looked at them."},
    Spec{M::ExportRetries, "tierlog_export_retries_total", Counter, Life::Kept, "export",
         "Attempts after a failure."},
    Spec{M::ExportFailures, "tierlog_export_failures_total", Counter, Life::Kept, "export cause",
         "Attempts that failed, by cause (docs/exporting.md)."},
    Spec{M::Repairs, "tierlog_repairs_total", Counter, Life::Kept, "what",
         "What somebody else switched off or took away and the daemon restored."},
    Spec{M::Connections, "tierlog_living_connections_total", Counter, Life::Kept, "outcome",
         "What became of living connections at policy changes."},
    Spec{M::SeriesLimit, "tierlog_metrics_series_limit_reached", Gauge, Life::None, "kind",
         "1 when further series of this kind are summed up in \"other\" because of metrics.max_series."},
    Spec{M::ScrapeDuration, "tierlog_scrape_duration_seconds", Gauge, Life::None, "",
         "How long making this answer took."},
    Spec{M::KappieForwardCount, "kappie_forward_count", Counter, Life::Kernel, "Direction NodeName Cluster",
         "Total forwarded packet count."},
    Spec{M::KappieForwardBytes, "kappie_forward_bytes", Counter, Life::Kernel, "Direction NodeName Cluster",
         "Total forwarded byte count."},
    Spec{M::KappieDropCount, "kappie_drop_count", Counter, Life::Mixed, "Reason Direction NodeName Cluster",
         "Total dropped packet count."},
    Spec{M::KappieDropBytes, "kappie_drop_bytes", Counter, Life::Mixed, "Reason Direction NodeName Cluster",
         "Total dropped byte count."},
    Spec{M::KappieTcpState, "kappie_tcp_state", Gauge, Life::None, "State NodeName Cluster",
         "TCP active socket count by TCP state."},
    Spec{M::KappieTcpRemote, "kappie_tcp_connection_remote", Gauge, Life::None,
         "Address Port NodeName Cluster", "TCP active socket count by remote address."},
    Spec{M::KappieTcpStats, "kappie_tcp_connection_stats", Counter, Life::Kernel,
         "Statistic NodeName Cluster", "TCP connection statistics."},
    Spec{M::KappieTcpFlags, "kappie_tcp_flag_counters", Counter, Life::Kept, "Flag NodeName Cluster",
         "TCP packets count by flag."},
    Spec{M::KappieIpStats, "kappie_ip_connection_stats", Counter, Life::Kernel, "Statistic NodeName Cluster",
         "IP connection statistics."},
    Spec{M::KappieUdpStats, "kappie_udp_connection_stats", Counter, Life::Kernel,
         "Statistic NodeName Cluster", "UDP connection statistics."},
    Spec{M::KappieUdpSockets, "kappie_udp_active_sockets", Gauge, Life::None, "NodeName Cluster",
         "UDP active socket count."},
    Spec{M::KappieInterfaceStats, "kappie_interface_stats", Counter, Life::Kernel,
         "InterfaceName Statistic NodeName Cluster", "Interface statistics."},
    Spec{M::NodeForwardPackets, "tierlog_node_forward_packets_total", Counter, Life::Kernel, "direction",
         "Packets that the node's uplinks received (ingress) and sent (egress)."},
    Spec{M::NodeForwardBytes, "tierlog_node_forward_bytes_total", Counter, Life::Kernel, "direction",
         "Bytes that the node's uplinks received (ingress) and sent (egress)."},
    Spec{M::NodeDropPackets, "tierlog_node_drop_packets_total", Counter, Life::Mixed, "reason direction",
         "Packets that were dropped in the node's network namespace: \"policy\" by the policies' rules, "
         "everything "
         "else with the kernel's own reason."},
    Spec{M::NodeDropBytes, "tierlog_node_drop_bytes_total", Counter, Life::Mixed, "reason direction",
         "Bytes of the same packets."},
    Spec{M::NodeTcpSockets, "tierlog_node_tcp_sockets", Gauge, Life::None, "state",
         "TCP sockets of the node by state, IPv4 and IPv6."},
    Spec{M::NodeTcpRemote, "tierlog_node_tcp_remote_sockets", Gauge, Life::None, "address port",
         "TCP sockets of the node by remote address and port, the largest ones; the rest in \"other\"."},
    Spec{M::NodeTcpStats, "tierlog_node_tcp_statistics_total", Counter, Life::Kernel, "statistic",
         "TCP counters of the kernel (/proc/net/snmp, /proc/net/netstat TcpExt)."},
    Spec{M::NodeTcpFlags, "tierlog_node_tcp_flag_packets_total", Counter, Life::Kept, "flag",
         "TCP packets at the node's uplinks, both ways, by flag that they carry (needs BPF)."},
    Spec{M::NodeIpStats, "tierlog_node_ip_statistics_total", Counter, Life::Kernel, "statistic",
         "IP counters of the kernel (/proc/net/snmp, /proc/net/netstat IpExt, /proc/net/snmp6)."},
    Spec{M::NodeUdpStats, "tierlog_node_udp_statistics_total", Counter, Life::Kernel, "statistic",
         "UDP counters of the kernel (/proc/net/snmp, /proc/net/snmp6)."},
    Spec{M::NodeUdpSockets, "tierlog_node_udp_sockets", Gauge, Life::None, "",
         "UDP sockets of the node, IPv4 and IPv6."},
    Spec{M::NodeInterfaceStats, "tierlog_node_interface_statistics_total", Counter, Life::Kernel,
         "interface statistic",
         "Counters of the node's interfaces (rtnetlink) and of their drivers (ethtool)."},
    Spec{M::NodeDropSource, "tierlog_node_drop_source_info", Gauge, Life::None, "source",
         "Where drop reasons come from: \"kfree_skb\" (the tracepoint, by BPF) or \"proc\"; always 1."},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < kSpecs.size(); ++i)
    if (static_cast<std::size_t>(kSpecs[i].metric) != i) return false;
  return kSpecs.size() == static_cast<std::size_t>(M::Count_);
}
static_assert(in_order());

struct Section {
  Metric first;
  const char* title;
  const char* text;
};

constexpr Section kSections[] = {
    {M::BuildInfo, "The program", ""},
    {M::PolicyPackets, "What policies decided",
     "Labels hold names of policies and namespaces, never "
     "addresses or "
     "ports. Where no policy decided, `policy` is empty and `tier` too. Of an end of tier, `policy` is the "
     "last policy "
     "that was asked."},
    {M::PodForwardPackets, "Pods",
     "Of the pods that this node enforces. `metrics.max_series` bounds how many pods have series of their "
     "own: the "
     "others are summed up under `pod=\"other\"`."},
    {M::Endpoints, "The daemon and its books",
     "For every rule that decides holds: kernel = recorded + unattributed + "
     "open."},
    {M::KappieForwardCount, "The node, in the names of AKS Network Observability",
     "Names and labels of its documentation, so that its Grafana dashboards work. `metrics.labels: snake` "
     "writes the "
     "labels as its agent does (`direction`, `reason`, `state`, `statistic_name`, `interface_name`, "
     "`node_name`, …). "
     "These names do not pass `promtool check metrics` (`_count` belongs to histograms there, labels in "
     "camel case); "
     "they are the only exception. They are typed for what they are: counters where they only grow. In "
     "OpenMetrics, "
     "where a counter must end in `_total`, those are of type `unknown`."},
    {M::NodeForwardPackets, "The node, in modern form",
     "The same quantities with suffixes and types as Prometheus "
     "wants them."},
};

constexpr const char* kLives =
    "\n## Lives of counters\n\n"
    "No counter steps back to a value other than 0 when the daemon starts again, after `kill -9` neither: "
    "Prometheus "
    "would take what was there before for new. The column *life* says why:\n\n"
    "| life | what becomes of it at a start |\n|---|---|\n"
    "| records | Sums of all records that were ever written, behind a cursor; both in `metrics.json` beside "
    "`state.db`. After a kill the sums go on from there, and nothing is told until they are complete. They "
    "begin anew "
    "when the file is deleted. |\n"
    "| index | Kept in the flow index (the cursor of an export: in `state.db`) and told from there. |\n"
    "| kept | Counted by the daemon or its BPF programs. An answer's counts are in `counters.json` before it "
    "goes out; "
    "a start goes on from there. What was counted after the last answer (the daemon asks itself every half "
    "minute, and "
    "at its end) is lost by a kill. After a power failure, or where the file could not be written, they "
    "begin with "
    "0. |\n"
    "| kernel | The kernel's own counters: they begin with 0 at a boot, those of an interface when it is "
    "made. |\n"
    "| index, kept | What rules denied is of the flow index, other reasons are kept; where reasons come from "
    "`/proc`, "
    "the kernel's. |\n\n"
    "A power failure may take the last moments of the flow index, and of counters that live by it.\n";

const char* life_of(const Spec& spec) {
  switch (spec.life) {
    case Life::Records:
      return "records";
    case Life::Index:
      return "index";
    case Life::Kept:
      return "kept";
    case Life::Kernel:
      return "kernel";
    case Life::Mixed:
      return "index, kept";
    case Life::None:
      break;
  }
  return "–";
}

std::string row(const Spec& spec) {
  std::string labels;
  for (const std::string_view label : label_names(spec))
    labels += (labels.empty() ? "`" : ", `") + std::string(label) + "`";
  return std::string("| `") + spec.name + "` | " + (spec.type == Counter ? "counter" : "gauge") + " | " +
         life_of(spec) + " | " + (labels.empty() ? "–" : labels) + " | " + spec.help + " |\n";
}

}  // namespace

std::span<const Spec> specs() {
  return kSpecs;
}

const Spec& spec_of(Metric metric) {
  return kSpecs[static_cast<std::size_t>(metric)];
}

std::vector<std::string_view> label_names(const Spec& spec) {
  std::vector<std::string_view> names;
  std::string_view rest = spec.labels;
  while (!rest.empty()) {
    const auto end = rest.find(' ');
    names.push_back(rest.substr(0, end));
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  }
  return names;
}

bool is_kappie(const Spec& spec) {
  return std::string_view(spec.name).starts_with("kappie_");
}

std::string metrics_page() {
  std::string page =
      "# Metrics\n\n"
      "<!-- Written from the table in exporters/prometheus/metric.cpp: TIERLOG_WRITE_DOCS=1 "
      "build/dev/tests/prometheus_test --gtest_filter='*Page*' -->\n\n"
      "`http://127.0.0.1:9477/metrics` answers in the Prometheus text format, or in OpenMetrics when the "
      "request's "
      "`Accept` asks for it. Every metric that begins with `tierlog_` has the labels `node` and `cluster` "
      "beside its "
      "own. How to scrape, rules and dashboards: [monitoring.md](monitoring.md).\n";
  page += kLives;
  for (const Spec& spec : kSpecs) {
    for (const Section& section : kSections) {
      if (section.first != spec.metric) continue;
      page += std::string("\n## ") + section.title + "\n\n";
      if (*section.text != '\0') page += std::string(section.text) + "\n\n";
      page += "| metric | type | life | labels | what it tells |\n|---|---|---|---|---|\n";
    }
    page += row(spec);
  }
  return page;
}

}  // namespace tierlog::prometheus
