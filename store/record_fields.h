// store/record_fields.h - the keys of a record with their values, in order: the one list that every form of a
// record is written from.
//
//   FlowRecord --write_record--> Out: JSON (record_json.cpp), msgpack (exporters/format/pack.h)
//
// An Out takes one value at a time:
//   text(key, std::string_view)            empty: null
//   number(key, integer or optional)       nullopt: null
//   labels(key, policy::Labels)            a map of texts
//   list(key, std::vector<Entry>)          of maps, each written by write_entry() with kEntryKeys<Entry> keys
// Keys are literals: their addresses live as long as the program.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "store/record.h"

namespace tierlog::store {

// A record may have so many keys; those that only some records have are counted, too.
inline constexpr std::size_t kMostRecordKeys = 64;

template <typename Entry>
inline constexpr std::uint32_t kEntryKeys = 0;
template <>
inline constexpr std::uint32_t kEntryKeys<LoggedBy> = 5;
template <>
inline constexpr std::uint32_t kEntryKeys<TraceEntry> = 5;
template <>
inline constexpr std::uint32_t kEntryKeys<StagedVerdict> = 3;

template <typename Out>
void write_entry(const LoggedBy& entry, Out& out) {
  out.text("policy", entry.policy);
  out.number("rule_index", entry.rule_index);
  out.number("rule_id", number(entry.rule));
  out.text("label", entry.label);
  out.number("suppressed", entry.suppressed);
}

template <typename Out>
void write_entry(const TraceEntry& entry, Out& out) {
  out.text("direction", name(entry.direction));
  out.text("tier", entry.tier);
  out.text("policy", entry.policy);
  out.number("rule_index", entry.rule_index);
  out.text("result", entry.result);
}

template <typename Out>
void write_entry(const StagedVerdict& entry, Out& out) {
  out.text("policy", entry.policy);
  out.text("action", name(entry.action));
  out.number("rule_index", entry.rule_index);
}

// Names of one side: {"src_kind", "src_namespace", …}.
struct SideKeys {
  const char *ip, *port, *kind, *peer_namespace, *pod, *workload, *labels, *nat_ip, *nat_port;
};
inline constexpr SideKeys kSource{"src_ip",       "src_port",   "src_kind",   "src_namespace", "src_pod",
                                  "src_workload", "src_labels", "src_nat_ip", "src_nat_port"};
inline constexpr SideKeys kDestination{"dst_ip",       "dst_port",   "dst_kind",   "dst_namespace", "dst_pod",
                                       "dst_workload", "dst_labels", "dst_nat_ip", "dst_nat_port"};

template <typename Out>
void write_side(const SideKeys& keys, const Peer& peer, std::optional<std::uint16_t> port, Out& out) {
  out.text(keys.ip, peer.ip.to_string());
  out.number(keys.port, port);
  out.text(keys.kind, name(peer.kind));
  out.text(keys.peer_namespace, peer.peer_namespace);
  out.text(keys.pod, peer.name);
  out.text(keys.workload, peer.workload);
  out.labels(keys.labels, peer.labels);
}

template <typename Out>
void write_translated(const SideKeys& keys, const std::optional<IpAddr>& address, std::uint16_t port, Out& out) {
  if (!address) return;
  out.text(keys.nat_ip, address->to_string());
  if (port != 0) out.number(keys.nat_port, port);
}

template <typename Out>
void write_record(const FlowRecord& record, const Origin& origin, Out& out) {
  const auto unless_none = [](std::uint32_t value) {
    return value == 0 ? std::nullopt : std::optional(value);
  };
  out.text("id", record.id);
  out.text("start_time", format_rfc3339(record.start));
  out.text("end_time", format_rfc3339(record.end));
  out.text("cluster", origin.cluster);
  out.text("node", origin.node);
  out.text("reporter", name(record.reporter));
  out.text("direction", name(record.direction));
  out.text("action", name(record.action));
  out.text("reason", name(record.reason));
  out.text("tier", record.tier);
  out.text("policy", record.policy);
  out.text("policy_kind", record.policy_kind);
  out.text("policy_namespace", record.policy_namespace);
  out.text("policy_name", record.policy_name);
  out.number("rule_index", record.rule_index);
  out.number("rule_id", unless_none(number(record.rule)));
  out.number("policy_revision", unless_none(record.policy_revision));
  out.list("logged_by", record.logged_by);
  out.list("trace", record.trace);
  out.list("staged", record.staged);
  out.text("proto", protocol::name(record.proto));
  write_side(kSource, record.src, record.src_port, out);
  write_side(kDestination, record.dst, record.dst_port, out);
  out.text("dst_service", record.dst_service);
  out.number("icmp_type", record.icmp_type);
  out.number("icmp_code", record.icmp_code);
  out.number("connections", record.connections);
  out.number("verdict_packets", record.verdict_packets);
  out.number("packets_out", record.packets_out);
  out.number("packets_in", record.packets_in);
  out.number("bytes_out", record.bytes_out);
  out.number("bytes_in", record.bytes_in);
  out.text("tcp_flags", record.tcp_flags);
  out.text("ct_state", record.ct_state);
  // Only where there is something to tell.
  if (record.end_reason != EndReason::None) out.text("end_reason", name(record.end_reason));
  if (record.translation) {
    write_translated(kDestination, record.translation->destination, record.translation->destination_port, out);
    write_translated(kSource, record.translation->source, record.translation->source_port, out);
  }
}

}  // namespace tierlog::store
