// The Elastic Common Schema, 8.x; what it has no names for stands under "tierlog".
#include <nlohmann/json.hpp>

#include "exporters/format/record_format.h"
#include "store/record_json.h"

namespace tierlog::exporters {
namespace {

using Json = nlohmann::ordered_json;

template <typename T>
void put(Json& json, const char* key, const std::optional<T>& value) {
  if (value) json[key] = *value;
}
void put(Json& json, const char* key, const std::string& value) {
  if (!value.empty()) json[key] = value;
}

Json side_of(const store::Peer& peer, const std::optional<std::uint16_t>& port,
             const std::optional<std::uint64_t>& packets, const std::optional<std::uint64_t>& bytes,
             const std::optional<IpAddr>& nat_ip, std::uint16_t nat_port) {
  Json side;
  side["ip"] = side["address"] = peer.ip.to_string();
  put(side, "port", port);
  put(side, "packets", packets);
  put(side, "bytes", bytes);
  if (nat_ip) {
    side["nat"]["ip"] = nat_ip->to_string();
    if (nat_port != 0) side["nat"]["port"] = nat_port;
  }
  return side;
}

Json own_side(const store::Peer& peer) {
  Json side;
  side["kind"] = name(peer.kind);
  put(side, "namespace", peer.peer_namespace);
  put(side, "pod", peer.name);
  put(side, "workload", peer.workload);
  Json labels = Json::object();
  for (const auto& [key, value] : peer.labels) labels[key] = value;
  side["labels"] = std::move(labels);
  return side;
}

Json event_of(const store::FlowRecord& record) {
  Json type = Json::array({"connection", record.action == store::Verdict::Allow ? "allowed" : "denied"});
  if (record.ct_state == "new") type.push_back("start");
  if (record.ct_state == "closed") type.push_back("end");
  Json event;
  event["id"] = record.id;
  event["kind"] = "event";
  event["category"] = Json::array({"network"});
  event["type"] = std::move(type);
  event["action"] = name(record.action);
  event["outcome"] = record.action == store::Verdict::Allow ? "success" : "failure";
  event["reason"] = name(record.reason);
  event["module"] = "tierlog";
  event["dataset"] = "tierlog.flow";
  event["start"] = format_rfc3339(record.start);
  event["end"] = format_rfc3339(record.end);
  event["duration"] = to_ns(record.end) - to_ns(record.start);
  return event;
}

Json network_of(const store::FlowRecord& record) {
  Json network;
  network["transport"] = record.proto == protocol::kIcmpV6 ? "ipv6-icmp" : protocol::name(record.proto);
  network["iana_number"] = std::to_string(record.proto);
  network["type"] = record.src.ip.family == Family::V4 ? "ipv4" : "ipv6";
  network["direction"] = name(record.direction);
  if (record.packets_out || record.packets_in)
    network["packets"] = record.packets_out.value_or(0) + record.packets_in.value_or(0);
  if (record.bytes_out || record.bytes_in)
    network["bytes"] = record.bytes_out.value_or(0) + record.bytes_in.value_or(0);
  return network;
}

}  // namespace

Json to_ecs(const store::FlowRecord& record, const store::Origin& origin) {
  static const store::Translation kNone{};
  const store::Translation& nat = record.translation ? *record.translation : kNone;
  Json json;
  json["@timestamp"] = format_rfc3339(record.start);
  json["ecs"] = {{"version", "8.11.0"}};
  json["event"] = event_of(record);
  json["network"] = network_of(record);
  json["source"] =
      side_of(record.src, record.src_port, record.packets_out, record.bytes_out, nat.source, nat.source_port);
  json["destination"] = side_of(record.dst, record.dst_port, record.packets_in, record.bytes_in, nat.destination,
                                nat.destination_port);
  Json rule;
  if (record.rule != RuleId::None) rule["id"] = std::to_string(number(record.rule));
  put(rule, "name", record.policy);
  put(rule, "category", record.policy_kind);
  put(rule, "ruleset", record.tier);
  if (record.policy_revision != 0) rule["version"] = std::to_string(record.policy_revision);
  json["rule"] = rule.is_null() ? Json::object() : std::move(rule);
  json["observer"] = {{"hostname", origin.node}, {"name", origin.node},     {"type", "firewall"},
                      {"vendor", "Tierlog"},     {"product", "tierlogd"},   {"version", TIERLOG_VERSION}};
  json["orchestrator"]["type"] = "kubernetes";
  json["orchestrator"]["cluster"]["name"] = origin.cluster;
  json["related"]["ip"] = Json::array({record.src.ip.to_string(), record.dst.ip.to_string()});
  const Json own = store::to_json(record, origin);
  Json& rest = json["tierlog"];
  for (const char* key : {"reporter", "policy_namespace", "policy_name", "rule_index", "logged_by", "trace", "staged",
                          "dst_service", "icmp_type", "icmp_code", "connections", "verdict_packets", "tcp_flags",
                          "ct_state", "end_reason"})
    if (own.contains(key) && !own[key].is_null()) rest[key] = own[key];
  rest["source"] = own_side(record.src);
  rest["destination"] = own_side(record.dst);
  return json;
}

}  // namespace tierlog::exporters
