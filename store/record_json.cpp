#include "store/record_json.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace tierlog::store {
namespace {

using Json = nlohmann::ordered_json;

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

template <typename T>
Json value_or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json to_json_list(const std::vector<LoggedBy>& entries) {
  Json list = Json::array();
  for (const LoggedBy& entry : entries)
    list.push_back({{"policy", text_or_null(entry.policy)},
                    {"rule_index", entry.rule_index},
                    {"rule_id", number(entry.rule)},
                    {"label", text_or_null(entry.label)},
                    {"suppressed", entry.suppressed}});
  return list;
}

Json to_json_list(const std::vector<TraceEntry>& entries) {
  Json list = Json::array();
  for (const TraceEntry& entry : entries)
    list.push_back({{"direction", name(entry.direction)},
                    {"tier", text_or_null(entry.tier)},
                    {"policy", text_or_null(entry.policy)},
                    {"rule_index", value_or_null(entry.rule_index)},
                    {"result", entry.result}});
  return list;
}

Json to_json_list(const std::vector<StagedVerdict>& entries) {
  Json list = Json::array();
  for (const StagedVerdict& entry : entries)
    list.push_back({{"policy", text_or_null(entry.policy)},
                    {"action", name(entry.action)},
                    {"rule_index", value_or_null(entry.rule_index)}});
  return list;
}

void add_peer(Json& json, const std::string& side, const Peer& peer) {
  json[side + "_kind"] = name(peer.kind);
  json[side + "_namespace"] = text_or_null(peer.peer_namespace);
  json[side + "_pod"] = text_or_null(peer.name);
  json[side + "_workload"] = text_or_null(peer.workload);
  json[side + "_labels"] = Json::object();
  for (const auto& [key, value] : peer.labels) json[side + "_labels"][key] = value;
}

void add_translated(Json& json, const std::string& side, const std::optional<IpAddr>& address,
                    std::uint16_t port) {
  if (!address) return;
  json[side + "_nat_ip"] = address->to_string();
  if (port != 0) json[side + "_nat_port"] = port;
}

// Not UTF-8 (a label of a foreign source) must not make a record unwritable.
std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string read_text(const Json& json) {
  return json.is_null() ? std::string() : json.get<std::string>();
}

template <typename T>
std::optional<T> read_optional(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional<T>(json.get<T>());
}

LoggedBy read_logged_by(const Json& json) {
  return {read_text(json.at("policy")), json.at("rule_index").get<int>(),
          RuleId{json.at("rule_id").get<std::uint32_t>()}, read_text(json.at("label")),
          json.at("suppressed").get<std::uint64_t>()};
}

TraceEntry read_trace_entry(const Json& json) {
  const bool ingress = json.at("direction").get<std::string>() == name(Direction::Ingress);
  return {ingress ? Direction::Ingress : Direction::Egress, read_text(json.at("tier")),
          read_text(json.at("policy")), read_optional<int>(json.at("rule_index")),
          json.at("result").get<std::string>()};
}

StagedVerdict read_staged_verdict(const Json& json) {
  const bool allow = json.at("action").get<std::string>() == name(Verdict::Allow);
  return {read_text(json.at("policy")), allow ? Verdict::Allow : Verdict::Deny,
          read_optional<int>(json.at("rule_index"))};
}

template <typename T>
Result<std::vector<T>> parse_list(std::string_view text, T (*read)(const Json&)) {
  if (text == "[]") return std::vector<T>();
  try {
    std::vector<T> entries;
    for (const Json& item : Json::parse(text)) entries.push_back(read(item));
    return entries;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::Corrupt, std::string("flow index holds JSON that is not ours: ") + error.what());
  }
}

}  // namespace

std::string logged_by_text(const std::vector<LoggedBy>& entries) {
  return dump(to_json_list(entries));
}
std::string trace_text(const std::vector<TraceEntry>& entries) {
  return dump(to_json_list(entries));
}
std::string staged_text(const std::vector<StagedVerdict>& entries) {
  return dump(to_json_list(entries));
}

std::string labels_text(const policy::Labels& labels) {
  Json json = Json::object();
  for (const auto& [key, value] : labels) json[key] = value;
  return dump(json);
}

std::string strings_text(const std::vector<std::string>& items) {
  return dump(Json(items));
}

Result<std::vector<LoggedBy>> parse_logged_by(std::string_view text) {
  return parse_list<LoggedBy>(text, read_logged_by);
}

Result<std::vector<TraceEntry>> parse_trace(std::string_view text) {
  return parse_list<TraceEntry>(text, read_trace_entry);
}

Result<std::vector<StagedVerdict>> parse_staged(std::string_view text) {
  return parse_list<StagedVerdict>(text, read_staged_verdict);
}

Result<std::vector<std::string>> parse_strings(std::string_view text) {
  return parse_list<std::string>(text, [](const Json& item) { return item.get<std::string>(); });
}

Result<policy::Labels> parse_labels(std::string_view text) {
  policy::Labels labels;
  if (text == "{}") return labels;
  try {
    const Json json = Json::parse(text);
    for (const auto& item : json.items()) labels.emplace(item.key(), item.value().get<std::string>());
    return labels;
  } catch (const nlohmann::json::exception& error) {
    return fail(ErrorCode::Corrupt,
                std::string("flow index holds labels that are not ours: ") + error.what());
  }
}

nlohmann::ordered_json to_json(const FlowRecord& record, const Origin& origin) {
  Json json;
  json["id"] = text_or_null(record.id);
  json["start_time"] = format_rfc3339(record.start);
  json["end_time"] = format_rfc3339(record.end);
  json["cluster"] = text_or_null(origin.cluster);
  json["node"] = text_or_null(origin.node);
  json["reporter"] = name(record.reporter);
  json["direction"] = name(record.direction);
  json["action"] = name(record.action);
  json["reason"] = name(record.reason);
  json["tier"] = text_or_null(record.tier);
  json["policy"] = text_or_null(record.policy);
  json["policy_kind"] = text_or_null(record.policy_kind);
  json["policy_namespace"] = text_or_null(record.policy_namespace);
  json["policy_name"] = text_or_null(record.policy_name);
  json["rule_index"] = value_or_null(record.rule_index);
  json["rule_id"] = record.rule == RuleId::None ? Json() : Json(number(record.rule));
  json["policy_revision"] = record.policy_revision == 0 ? Json() : Json(record.policy_revision);
  json["logged_by"] = to_json_list(record.logged_by);
  json["trace"] = to_json_list(record.trace);
  json["staged"] = to_json_list(record.staged);
  json["proto"] = protocol::name(record.proto);
  json["src_ip"] = record.src.ip.to_string();
  json["src_port"] = value_or_null(record.src_port);
  add_peer(json, "src", record.src);
  json["dst_ip"] = record.dst.ip.to_string();
  json["dst_port"] = value_or_null(record.dst_port);
  add_peer(json, "dst", record.dst);
  json["dst_service"] = text_or_null(record.dst_service);
  json["icmp_type"] = value_or_null(record.icmp_type);
  json["icmp_code"] = value_or_null(record.icmp_code);
  json["connections"] = value_or_null(record.connections);
  json["verdict_packets"] = record.verdict_packets;
  json["packets_out"] = value_or_null(record.packets_out);
  json["packets_in"] = value_or_null(record.packets_in);
  json["bytes_out"] = value_or_null(record.bytes_out);
  json["bytes_in"] = value_or_null(record.bytes_in);
  json["tcp_flags"] = text_or_null(record.tcp_flags);
  json["ct_state"] = text_or_null(record.ct_state);
  // Only where there is something to tell.
  if (record.end_reason != EndReason::None) json["end_reason"] = name(record.end_reason);
  if (record.translation) {
    add_translated(json, "dst", record.translation->destination, record.translation->destination_port);
    add_translated(json, "src", record.translation->source, record.translation->source_port);
  }
  return json;
}

}  // namespace tierlog::store
