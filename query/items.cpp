#include "query/items.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "store/record_json.h"

namespace tierlog::query {
namespace {

using Json = nlohmann::ordered_json;
using store::FlowSums;
using store::GroupQuery;
using store::GroupResult;
using store::Sums;

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

// "from-workload" -> "from_workload", as keys of records are written.
std::string key_of(std::string_view field) {
  std::string key(field);
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

Json sums_json(const Sums& sums) {
  return {
      {"records", sums.records}, {"connections", sums.connections}, {"denied_packets", sums.denied_packets},
      {"packets", sums.packets}, {"bytes_out", sums.bytes_out},     {"bytes_in", sums.bytes_in}};
}

Json bins_json(const GroupResult& result, const std::vector<Sums>& bins) {
  Json list = Json::array();
  for (std::size_t i = 0; i < bins.size(); ++i) {
    Json bin{{"time", format_rfc3339(result.from + static_cast<std::int64_t>(i) * result.bin)}};
    bin.update(sums_json(bins[i]));
    list.push_back(std::move(bin));
  }
  return list;
}

}  // namespace

double seconds_of(const GroupResult& result) {
  const double seconds = std::chrono::duration<double>(result.until - result.from).count();
  return std::max(seconds, 1.0);
}

std::string item_of(const GroupQuery& query, const GroupResult& result, const FlowSums& group) {
  Json item = Json::object();
  for (std::size_t i = 0; i < query.fields.size(); ++i)
    item[key_of(query.fields[i]->name)] = group.names[i].empty() ? Json() : Json(group.names[i]);
  item.update(sums_json(group.sums));
  item["first_time"] = format_rfc3339(group.first);
  item["last_time"] = format_rfc3339(group.last);
  if (query.rate) {
    const double seconds = seconds_of(result);
    item["connections_per_second"] = static_cast<double>(group.sums.connections) / seconds;
    item["denied_packets_per_second"] = static_cast<double>(group.sums.denied_packets) / seconds;
    item["bytes_per_second"] = static_cast<double>(group.sums.bytes_out + group.sums.bytes_in) / seconds;
  }
  if (query.bin) item["bins"] = bins_json(result, group.bins);
  return dump(item);
}

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

}  // namespace tierlog::query
