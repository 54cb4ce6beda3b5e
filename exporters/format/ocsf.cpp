// OCSF 1.3, class 4001 network activity, with the profile security_control.
#include <nlohmann/json.hpp>

#include "exporters/format/record_format.h"
#include "store/record_json.h"

namespace tierlog::exporters {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kClass = 4001;

struct Named {
  int id;
  const char* name;
};

std::int64_t milliseconds_of(WallTime time) {
  return std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
}

Named activity_of(const store::FlowRecord& record) {
  if (record.action == store::Verdict::Deny) return {5, "Refuse"};
  if (record.ct_state == "new") return {1, "Open"};
  switch (record.end_reason) {
    case store::EndReason::Finished: return {2, "Close"};
    case store::EndReason::TimedOut: return {2, "Close"};
    case store::EndReason::Reset: return {3, "Reset"};
    case store::EndReason::Unanswered: return {4, "Fail"};
    case store::EndReason::None: break;
  }
  return {6, "Traffic"};
}

Named disposition_of(const store::FlowRecord& record) {
  if (record.reason == Reason::Audit) return {17, "Logged"};
  return record.action == store::Verdict::Allow ? Named{1, "Allowed"} : Named{2, "Blocked"};
}

Named action_of(const store::FlowRecord& record) {
  if (record.reason == Reason::Audit) return {3, "Observed"};
  return record.action == store::Verdict::Allow ? Named{1, "Allowed"} : Named{2, "Denied"};
}

bool is_inside(store::PeerKind kind) {
  return kind == store::PeerKind::Pod || kind == store::PeerKind::Node;
}

Named direction_of(const store::FlowRecord& record) {
  if (is_inside(record.src.kind) && is_inside(record.dst.kind)) return {3, "Lateral"};
  return record.direction == Direction::Ingress ? Named{1, "Inbound"} : Named{2, "Outbound"};
}

Json endpoint_of(const store::Peer& peer, const std::optional<std::uint16_t>& port) {
  Json endpoint;
  endpoint["ip"] = peer.ip.to_string();
  if (port) endpoint["port"] = *port;
  if (!peer.name.empty())
    endpoint["name"] = peer.peer_namespace.empty() ? peer.name : peer.peer_namespace + "/" + peer.name;
  endpoint["type_id"] = 99;
  endpoint["type"] = name(peer.kind);
  if (!peer.workload.empty()) endpoint["instance_uid"] = peer.workload;
  return endpoint;
}

void put(Json& json, const char* key, const Named& value, const char* id_key) {
  json[id_key] = value.id;
  json[key] = value.name;
}

Json traffic_of(const store::FlowRecord& record) {
  Json traffic = Json::object();
  const auto both = [&](const char* sum, const char* in, const char* out, const std::optional<std::uint64_t>& came,
                        const std::optional<std::uint64_t>& went) {
    if (!came && !went) return;
    traffic[sum] = came.value_or(0) + went.value_or(0);
    traffic[in] = came.value_or(0);
    traffic[out] = went.value_or(0);
  };
  both("packets", "packets_in", "packets_out", record.packets_in, record.packets_out);
  both("bytes", "bytes_in", "bytes_out", record.bytes_in, record.bytes_out);
  return traffic;
}

Json connection_of(const store::FlowRecord& record) {
  Json connection;
  connection["protocol_num"] = record.proto;
  connection["protocol_name"] = protocol::name(record.proto);
  const bool v4 = record.src.ip.family == Family::V4;
  put(connection, "protocol_ver", v4 ? Named{4, "Internet Protocol version 4 (IPv4)"}
                                     : Named{6, "Internet Protocol version 6 (IPv6)"}, "protocol_ver_id");
  put(connection, "direction", direction_of(record), "direction_id");
  return connection;
}

}  // namespace

Json to_ocsf(const store::FlowRecord& record, const store::Origin& origin) {
  const Named activity = activity_of(record);
  Json json;
  json["class_uid"] = kClass;
  json["class_name"] = "Network Activity";
  json["category_uid"] = 4;
  json["category_name"] = "Network Activity";
  put(json, "activity_name", activity, "activity_id");
  json["type_uid"] = kClass * 100 + activity.id;
  json["type_name"] = std::string("Network Activity: ") + activity.name;
  json["severity_id"] = 1;
  json["severity"] = "Informational";
  json["time"] = milliseconds_of(record.start);
  json["start_time"] = milliseconds_of(record.start);
  json["end_time"] = milliseconds_of(record.end);
  json["duration"] = milliseconds_of(record.end) - milliseconds_of(record.start);
  json["count"] = std::max<std::uint64_t>(1, record.connections.value_or(record.verdict_packets));
  put(json, "status", record.action == store::Verdict::Allow ? Named{1, "Success"} : Named{2, "Failure"}, "status_id");
  json["status_detail"] = name(record.reason);
  put(json, "action", action_of(record), "action_id");
  put(json, "disposition", disposition_of(record), "disposition_id");
  json["metadata"] = {{"version", "1.3.0"},
                      {"uid", record.id},
                      {"profiles", Json::array({"security_control"})},
                      {"log_name", "flows"},
                      {"product", {{"name", "Tierlog"}, {"vendor_name", "Tierlog"}, {"version", TIERLOG_VERSION}}}};
  json["device"] = {{"hostname", origin.node}, {"type_id", 1}, {"type", "Server"}};
  json["src_endpoint"] = endpoint_of(record.src, record.src_port);
  json["dst_endpoint"] = endpoint_of(record.dst, record.dst_port);
  json["connection_info"] = connection_of(record);
  json["traffic"] = traffic_of(record);
  if (record.rule != RuleId::None) json["firewall_rule"]["uid"] = std::to_string(number(record.rule));
  if (!record.policy.empty()) {
    json["firewall_rule"]["name"] = record.policy + (record.rule_index ? "[" + std::to_string(*record.rule_index) + "]" : "");
    json["firewall_rule"]["category"] = record.tier;
    json["policy"] = {{"name", record.policy}, {"group", {{"name", record.tier}}},
                      {"version", std::to_string(record.policy_revision)}};
  }
  const Json own = store::to_json(record, origin);
  Json& rest = json["unmapped"];
  for (const char* key : {"cluster", "reporter", "direction", "policy_kind", "logged_by", "trace", "staged", "src_labels",
                          "dst_labels", "dst_service", "dst_nat_ip", "dst_nat_port", "src_nat_ip", "src_nat_port",
                          "icmp_type", "icmp_code", "verdict_packets", "tcp_flags", "ct_state", "end_reason"})
    if (own.contains(key) && !own[key].is_null()) rest[key] = own[key];
  return json;
}

}  // namespace tierlog::exporters
