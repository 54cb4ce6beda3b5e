#!/usr/bin/env python3
"""Writes the Grafana dashboards beside this file: one line a panel, so that all of them look alike.

    deploy/grafana/dashboards.py [FOLDER]     FOLDER: where to (default: this file's)

A test compares what is committed with what this writes, and every metric and label of a query with a live scrape.
"""
import json
import os
import sys

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODE = 'cluster=~"$cluster",node=~"$node"'
AKS = 'Cluster=~"$cluster",NodeName=~"$node"'
POLICY = NODE + ',tier=~"$tier",policy=~"$policy"'
# The namespace that a policy is of; cluster-wide ones have none.
BOARD = POLICY + ',namespace=~"$namespace|"'


def variable(name, query, label, multi=True):
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE,
            "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1,
            "multi": multi, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def variables():
    of = "tierlog_policy_packets_total"
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        variable("cluster", "label_values(tierlog_build_info, cluster)", "Cluster"),
        variable("node", 'label_values(tierlog_build_info{cluster=~"$cluster"}, node)', "Node"),
        variable("namespace", f"label_values({of}{{{NODE}}}, namespace)", "Namespace"),
        variable("tier", f"label_values({of}{{{NODE}}}, tier)", "Tier"),
        variable("policy", f'label_values({of}{{{NODE},tier=~"$tier"}}, policy)', "Policy"),
    ]


def panel(kind, title, queries, unit="short", width=12, height=8, what="", **options):
    targets = [{"refId": chr(65 + i), "expr": expr, "legendFormat": legend, "datasource": DATASOURCE,
                "instant": kind in ("table", "stat"), "format": "table" if kind == "table" else "time_series"}
               for i, (expr, legend) in enumerate(queries)]
    made = {"type": kind, "title": title, "description": what, "datasource": DATASOURCE, "targets": targets,
            "gridPos": {"w": width, "h": height}, "options": options.pop("options", {}),
            "fieldConfig": {"defaults": {"unit": unit, "noValue": "none", **options.pop("defaults", {})},
                            "overrides": options.pop("overrides", [])}}
    if kind == "timeseries":
        made["options"] = {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
                           "tooltip": {"mode": "multi", "sort": "desc"}}
        made["fieldConfig"]["defaults"]["custom"] = {"fillOpacity": 10, "showPoints": "never",
                                                     **({"stacking": {"mode": "normal"}} if options.pop("stack", False) else {})}
    if kind == "table":
        made["transformations"] = [{"id": "merge", "options": {}},
                                   {"id": "organize", "options": {"excludeByName": {"Time": True}}}]
    return made


def dashboard(uid, title, what, panels):
    x = y = row = 0
    for number, one in enumerate(panels, 1):
        place = one["gridPos"]
        if x + place["w"] > 24:
            x, y, row = 0, y + row, 0
        place.update({"x": x, "y": y})
        one["id"] = number
        x, row = x + place["w"], max(row, place["h"])
    return {"uid": uid, "title": title, "description": what, "tags": ["tierlog"], "timezone": "browser", "editable": True,
            "schemaVersion": 38, "version": 1, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": variables()}, "panels": panels,
            "links": [{"type": "dashboards", "tags": ["tierlog"], "title": "Tierlog", "icon": "", "tooltip": "", "url": "",
                       "asDropdown": True, "targetBlank": False, "includeVars": True, "keepTime": True}]}


def rate(metric, labels, by):
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def node_overview():
    return dashboard("tierlog-node", "Tierlog / Node overview", "The node's network, in the names of AKS Network Observability.", [
        panel("timeseries", "Forwarded bytes", [(rate("kappie_forward_bytes", AKS, "NodeName, Direction"), "{{NodeName}} {{Direction}}")], "Bps"),
        panel("timeseries", "Forwarded packets", [(rate("kappie_forward_count", AKS, "NodeName, Direction"), "{{NodeName}} {{Direction}}")], "pps"),
        panel("timeseries", "Dropped packets by reason", [(rate("kappie_drop_count", AKS, "Reason, Direction"), "{{Reason}} {{Direction}}")], "pps", stack=True,
              what="policy: denied by a policy; capitals: the kernel's own reason."),
        panel("timeseries", "Dropped bytes by reason", [(rate("kappie_drop_bytes", AKS, "Reason, Direction"), "{{Reason}} {{Direction}}")], "Bps", stack=True),
        panel("timeseries", "TCP sockets by state", [(f"sum by (State) (kappie_tcp_state{{{AKS}}})", "{{State}}")], stack=True),
        panel("timeseries", "TCP packets by flag", [(rate("kappie_tcp_flag_counters", AKS, "Flag"), "{{Flag}}")], "pps"),
        panel("timeseries", "TCP retransmissions and failures", [(rate("kappie_tcp_connection_stats", AKS + ',Statistic=~"RetransSegs|AttemptFails|EstabResets|TCPTimeouts|ListenDrops"', "Statistic"), "{{Statistic}}")], "ops"),
        panel("timeseries", "UDP errors", [(rate("kappie_udp_connection_stats", AKS + ',Statistic=~".*(Errors|NoPorts)"', "Statistic"), "{{Statistic}}")], "ops"),
        panel("timeseries", "IP errors", [(rate("kappie_ip_connection_stats", AKS + ',Statistic=~".*(Discards|Errors|NoRoutes|Fails)"', "Statistic"), "{{Statistic}}")], "ops"),
        panel("timeseries", "UDP sockets", [(f"sum by (NodeName) (kappie_udp_active_sockets{{{AKS}}})", "{{NodeName}}")]),
        panel("table", "Largest remote sides", [(f"topk(20, sum by (Address, Port) (kappie_tcp_connection_remote{{{AKS}}}))", "")]),
        panel("timeseries", "Interface errors and drops", [(rate("kappie_interface_stats", AKS + ',Statistic=~"(rx|tx)_(errors|dropped)"', "InterfaceName, Statistic"), "{{InterfaceName}} {{Statistic}}")], "pps"),
        panel("table", "Pods that retransmit most", [(f"topk(15, sum by (namespace, workload, pod) (rate(tierlog_pod_tcp_retransmissions_total{{{NODE}}}[5m])))", "")]),
        panel("timeseries", "Round trip time by workload", [(f"sum by (namespace, workload) (rate(tierlog_pod_tcp_rtt_seconds_total{{{NODE}}}[5m])) / sum by (namespace, workload) (rate(tierlog_pod_tcp_rtt_samples_total{{{NODE}}}[5m]))", "{{namespace}}/{{workload}}")], "s",
              what="Mean of what TCP sockets had measured when they closed."),
        panel("timeseries", "Pod traffic", [(rate("tierlog_pod_forward_bytes_total", NODE, "namespace, workload, direction"), "{{namespace}}/{{workload}} {{direction}}")], "Bps"),
        panel("timeseries", "Refused, reset and unanswered connections", [
            (rate("tierlog_pod_connections_refused_total", NODE, "namespace, workload"), "{{namespace}}/{{workload}} refused"),
            (rate("tierlog_pod_connections_reset_total", NODE, "namespace, workload"), "{{namespace}}/{{workload}} reset"),
            (rate("tierlog_pod_connections_unanswered_total", NODE, "namespace, workload"), "{{namespace}}/{{workload}} unanswered")], "cps"),
    ])


def policy_board():
    per = "tier, policy, policy_kind, namespace"
    return dashboard("tierlog-policies", "Tierlog / Policy board", "What each policy allows, denies, passes and logs.", [
        panel("stat", "Policies", [(f"count(count by (policy) (tierlog_policy_endpoints{{{BOARD}}}))", "")], width=6, height=4),
        panel("stat", "Select no endpoint", [(f"count(sum by (policy) (tierlog_policy_endpoints{{{BOARD}}}) == 0) or vector(0)", "")], width=6, height=4),
        panel("stat", "Denied now", [(f'sum(rate(tierlog_policy_packets_total{{{BOARD},action="deny"}}[5m]))', "")], "pps", width=6, height=4),
        panel("stat", "Allowed now", [(f'sum(rate(tierlog_policy_connections_total{{{BOARD},action="allow"}}[5m]))', "")], "cps", width=6, height=4),
        panel("table", "The board", [
            (f"sum by ({per}) (tierlog_policy_endpoints{{{BOARD}}})", ""),
            (f'sum by ({per}) (increase(tierlog_policy_connections_total{{{BOARD},action="allow"}}[$__range]))', ""),
            (f'sum by ({per}) (increase(tierlog_policy_packets_total{{{BOARD},action="deny"}}[$__range]))', ""),
            (f'sum by ({per}) (increase(tierlog_policy_verdicts_total{{{BOARD},action="pass"}}[$__range]))', ""),
            (f'sum by ({per}) (increase(tierlog_policy_verdicts_total{{{BOARD},action="log"}}[$__range]))', ""),
            (f"max by ({per}) (tierlog_policy_last_hit_timestamp_seconds{{{BOARD}}}) * 1000", "")], width=24, height=12,
            what="Endpoints, allowed connections, denied packets, passed, logged, last hit.",
            overrides=[{"matcher": {"id": "byName", "options": f"Value #{letter}"}, "properties": [{"id": "displayName", "value": name}, {"id": "unit", "value": unit}]}
                       for letter, name, unit in (("A", "selects", "short"), ("B", "allowed", "short"), ("C", "denied", "short"), ("D", "passed", "short"), ("E", "logged", "short"), ("F", "last hit", "dateTimeFromNow"))]),
        panel("timeseries", "Denied by policy", [(rate("tierlog_policy_packets_total", BOARD + ',action="deny"', "policy"), "{{policy}}")], "pps", stack=True),
        panel("timeseries", "Allowed connections by policy", [(rate("tierlog_policy_connections_total", BOARD + ',action="allow"', "policy"), "{{policy}}")], "cps", stack=True),
        panel("timeseries", "Bytes by policy", [(rate("tierlog_policy_bytes_total", BOARD, "policy, action"), "{{policy}} {{action}}")], "Bps"),
        panel("timeseries", "Staged policies would deny", [(rate("tierlog_policy_staged_denied_packets_total", BOARD, "policy"), "{{policy}}")], "pps"),
        panel("table", "Nothing has hit in 30 days", [(f"(time() - max by ({per}) (tierlog_policy_last_hit_timestamp_seconds{{{BOARD}}})) > 30 * 86400", "")], "s", width=24),
    ])


def denied_explorer():
    denied = POLICY + ',from_namespace=~"$namespace|"'
    return dashboard("tierlog-denied", "Tierlog / Denied traffic", "Who is denied what, by policy and namespace; the flows themselves: tierlog denied.", [
        panel("timeseries", "Denied by tier", [(rate("tierlog_denied_packets_total", denied, "tier"), "{{tier}}")], "pps", stack=True),
        panel("timeseries", "Denied by policy", [(rate("tierlog_denied_packets_total", denied, "policy"), "{{policy}}")], "pps", stack=True),
        panel("table", "From namespace to namespace", [(f"topk(50, sum by (from_namespace, to_namespace, policy, direction) (increase(tierlog_denied_packets_total{{{denied}}}[$__range])))", "")], width=24, height=10,
              what="An empty namespace is no pod: an address outside. \"other\" is what metrics.max_series left out."),
        panel("timeseries", "Denied bytes by pair", [(f"topk(10, {rate('tierlog_denied_bytes_total', denied, 'from_namespace, to_namespace')})", "{{from_namespace}} to {{to_namespace}}")], "Bps"),
        panel("table", "Pods that are denied most", [(f"topk(25, sum by (namespace, workload, pod, direction) (increase(tierlog_pod_drop_packets_total{{{NODE}}}[$__range])))", "")]),
        panel("timeseries", "By no policy", [(f'sum by (reason, direction) (rate(tierlog_node_drop_packets_total{{{NODE},reason!="policy"}}[$__rate_interval]))', "{{reason}} {{direction}}")], "pps",
              what="Lower case: Tierlog's reserved rules (spoofed, mid-stream, …). Capitals: the kernel."),
        panel("timeseries", "Denied bytes of pods", [(rate("tierlog_pod_drop_bytes_total", NODE, "namespace, workload"), "{{namespace}}/{{workload}}")], "Bps"),
    ])


def books():
    return dashboard("tierlog-health", "Tierlog / Books and health", "Is every verdict accounted for, and does everything keep up?", [
        panel("stat", "Ready", [(f"min(tierlog_ready{{{NODE}}})", "")], width=4, height=4),
        panel("stat", "Out of sync", [(f"sum(tierlog_policy_sync_failed{{{NODE}}})", "")], width=4, height=4),
        panel("stat", "Endpoints enforced", [(f'sum(tierlog_endpoints{{{NODE},state="enforced"}})', "")], width=4, height=4),
        panel("stat", "Verdicts", [(f"sum(tierlog_verdicts_per_second{{{NODE}}})", "")], "ops", width=4, height=4),
        panel("stat", "Mismatches", [(f"sum(tierlog_attribution_mismatch_total{{{NODE}}})", "")], width=4, height=4),
        panel("stat", "Series limit reached", [(f"sum(tierlog_metrics_series_limit_reached{{{NODE}}})", "")], width=4, height=4),
        panel("timeseries", "Verdicts: kernel and records", [
            (rate("tierlog_books_kernel_packets_total", NODE, "node"), "{{node}} kernel"),
            (rate("tierlog_books_recorded_packets_total", NODE, "node"), "{{node}} recorded")], "pps"),
        panel("timeseries", "Unattributed by cause", [(f"sum by (node, cause) (increase(tierlog_books_unattributed_packets_total{{{NODE}}}[5m]))", "{{node}} {{cause}}")]),
        panel("timeseries", "On its way to a record", [(f"sum by (node) (tierlog_books_open_packets{{{NODE}}})", "{{node}}")]),
        panel("timeseries", "Losses", [(f"sum by (node, cause) (increase(tierlog_losses_total{{{NODE}}}[5m]))", "{{node}} {{cause}}")]),
        panel("timeseries", "Event lag", [(f"max by (node) (tierlog_event_lag_seconds{{{NODE}}})", "{{node}}")], "s"),
        panel("timeseries", "Flow index", [(f"sum by (node) (tierlog_store_bytes{{{NODE}}})", "{{node}} size")], "bytes"),
        panel("timeseries", "Records written", [
            (rate("tierlog_store_records_total", NODE, "node"), "{{node}}")], "ops"),
        panel("timeseries", "Backlog", [
            (f"sum by (node) (tierlog_store_backlog_records{{{NODE}}})", "{{node}} waiting"),
            (f"sum by (node) (increase(tierlog_store_aggregated_records_total{{{NODE}}}[5m]))", "{{node}} put together"),
            (f"sum by (node) (increase(tierlog_store_refused_batches_total{{{NODE}}}[5m]))", "{{node}} refused batches")]),
        panel("timeseries", "Exports: age of what waits", [(f"max by (node, export) (tierlog_export_age_seconds{{{NODE}}})", "{{node}} {{export}}")], "s"),
        panel("timeseries", "Exports: delivered and waiting", [
            (rate("tierlog_export_delivered_records_total", NODE, "node, export"), "{{node}} {{export}} delivered/s"),
            (f"sum by (node, export) (tierlog_export_waiting_records{{{NODE}}})", "{{node}} {{export}} waiting")]),
        panel("timeseries", "Policy syncs", [
            (f"sum by (node) (increase(tierlog_policy_syncs_total{{{NODE}}}[5m]))", "{{node}} done"),
            (f"sum by (node) (increase(tierlog_policy_sync_failures_total{{{NODE}}}[5m]))", "{{node}} failed"),
            (f"max by (node) (tierlog_policy_sync_duration_seconds{{{NODE}}})", "{{node}} seconds")]),
        panel("timeseries", "Living connections at policy changes", [(f"sum by (outcome) (increase(tierlog_living_connections_total{{{NODE}}}[5m]))", "{{outcome}}")]),
        panel("timeseries", "Repairs", [(f"sum by (node, what) (increase(tierlog_repairs_total{{{NODE}}}[10m]))", "{{node}} {{what}}")]),
        panel("timeseries", "Scrape", [(f"max by (node) (tierlog_scrape_duration_seconds{{{NODE}}})", "{{node}}")], "s"),
        panel("table", "Programs", [(f"max by (cluster, node, version, dataplane, enforcement) (tierlog_build_info{{{NODE}}})", "")], width=24),
    ])


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name, made in (("node-overview", node_overview()), ("policy-board", policy_board()), ("denied-traffic", denied_explorer()),
                       ("books-and-health", books())):
        with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
            json.dump(made, file, indent=1, sort_keys=True)
            file.write("\n")


if __name__ == "__main__":
    main()
