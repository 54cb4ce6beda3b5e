#include "cli/items.h"

#include <nlohmann/json.hpp>

#include "store/record_json.h"

namespace tierlog::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

std::string item_of(const store::FlowRecord& record, const store::Origin& origin) {
  return dump(store::to_json(record, origin));
}

std::string item_of(const store::FlowGroup& group, const store::Origin& origin) {
  Json item = store::to_json(group.newest, origin);
  item["start_time"] = format_rfc3339(group.first);
  item["end_time"] = format_rfc3339(group.last);
  item["verdict_packets"] = group.packets;
  item["packets_out"] = group.packets;
  item["bytes_out"] = group.bytes;
  item["records"] = group.records;
  return dump(item);
}

std::string item_of(const store::PolicyActivity& activity) {
  const store::PolicyRow& policy = activity.policy;
  return dump(Json{
      {"tier", policy.tier},
      {"tier_order", activity.tier_order == "-" ? Json() : Json::parse(activity.tier_order, nullptr, false)},
      {"policy", policy.display},
      {"policy_kind", policy.kind},
      {"policy_namespace", or_null(policy.policy_namespace)},
      {"policy_name", policy.name},
      {"short_kind", policy.short_kind},
      {"policy_order", or_null(policy.order)},
      {"position", policy.position},
      {"policy_revision", policy.revision},
      {"staged", policy.staged},
      {"selector", policy.selector},
      {"endpoints_selected", policy.endpoints_selected},
      {"allowed", activity.allowed},
      {"denied", activity.denied},
      {"passed", activity.passed},
      {"logged", activity.logged},
      {"staged_denied", activity.staged_denied},
      {"last_hit_time", activity.last_hit ? Json(format_rfc3339(*activity.last_hit)) : Json()},
      {"source", or_null(policy.source)}});
}

std::string item_of(const store::RuleActivity& activity) {
  const store::RuleRow& rule = activity.rule;
  return dump(Json{{"rule_id", number(rule.id)},
                   {"rule_hex", to_hex(rule.id)},
                   {"tier", or_null(rule.tier)},
                   {"policy", or_null(rule.policy)},
                   {"policy_kind", or_null(rule.policy_kind)},
                   {"policy_namespace", or_null(rule.policy_namespace)},
                   {"policy_name", or_null(rule.policy_name)},
                   {"also_policies", rule.also_policies},
                   {"direction", name(rule.direction)},
                   {"rule_index", or_null(rule.rule_index)},
                   {"action", rule.action},
                   {"reason", rule.reason},
                   {"policy_revision", rule.revision == 0 ? Json() : Json(rule.revision)},
                   {"text", rule.text},
                   {"live", activity.live},
                   {"kernel_packets", activity.kernel_packets},
                   {"kernel_bytes", activity.kernel_bytes},
                   {"recorded_packets", activity.recorded_packets},
                   {"unattributed", activity.unattributed},
                   {"suppressed", activity.suppressed},
                   {"source", or_null(rule.source)}});
}

std::string item_of(const store::EndpointRow& endpoint) {
  return dump(Json{{"namespace", endpoint.endpoint_namespace},
                   {"name", endpoint.name},
                   {"node", or_null(endpoint.node)},
                   {"interface", or_null(endpoint.interface)},
                   {"addresses", endpoint.addresses},
                   {"workload", or_null(endpoint.workload)},
                   {"labels", endpoint.labels},
                   {"enforced", endpoint.enforced},
                   {"ingress_policies", endpoint.ingress_policies},
                   {"egress_policies", endpoint.egress_policies}});
}

std::string item_of(const Diagnostic& finding) {
  return dump(Json{{"severity", finding.severity == Severity::Error ? "error" : "warning"},
                   {"file", finding.place.file},
                   {"line", finding.place.line == 0 ? Json() : Json(finding.place.line)},
                   {"column", finding.place.column == 0 ? Json() : Json(finding.place.column)},
                   {"message", finding.message}});
}

std::string item_of(const lab::Lab& lab) {
  Json hosts = Json::array();
  for (const lab::LabHost& host : lab.hosts()) {
    Json addresses = Json::array();
    for (const IpAddr& address : host.addresses) addresses.push_back(address.to_string());
    hosts.push_back(Json{{"name", host.name}, {"addresses", std::move(addresses)}});
  }
  Json nodes = Json::array();
  for (const lab::LabNode& node : lab.nodes())
    nodes.push_back(Json{{"name", node.name}, {"database", node.database}, {"socket", node.socket}});
  return dump(Json{{"name", lab.name()},
                   {"folder", lab.folder()},
                   {"database", lab.database()},
                   {"socket", lab.socket()},
                   {"nodes", std::move(nodes)},
                   {"hosts", std::move(hosts)}});
}

}  // namespace tierlog::cli
