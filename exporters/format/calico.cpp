// The names of Calico's flow logs, so that dashboards made for them work.
#include <nlohmann/json.hpp>

#include "exporters/format/record_format.h"

namespace tierlog::exporters {
namespace {

using Json = nlohmann::ordered_json;

std::int64_t seconds_of(WallTime time) {
  return std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
}

const char* kind_name(store::PeerKind kind) {
  switch (kind) {
    case store::PeerKind::Pod: return "wep";
    case store::PeerKind::Node: return "hep";
    case store::PeerKind::NetworkSet: return "ns";
    case store::PeerKind::Private:
    case store::PeerKind::Public: break;
  }
  return "net";
}

std::string or_dash(const std::string& text) {
  return text.empty() ? "-" : text;
}

// What replicas have in common: "web-7c9f-*".
std::string aggregated_name(const store::Peer& peer) {
  if (peer.kind == store::PeerKind::Private) return "pvt";
  if (peer.kind == store::PeerKind::Public) return "pub";
  if (peer.kind != store::PeerKind::Pod || peer.workload.empty() || peer.workload == peer.name)
    return or_dash(peer.name);
  const auto dash = peer.name.rfind('-');
  return dash == std::string::npos || dash < peer.workload.size() ? peer.workload + "-*"
                                                                   : peer.name.substr(0, dash) + "-*";
}

void add_peer(Json& json, const std::string& side, const store::Peer& peer,
              const std::optional<std::uint16_t>& port) {
  json[side + "_ip"] = peer.ip.to_string();
  json[side + "_name"] = or_dash(peer.name);
  json[side + "_name_aggr"] = aggregated_name(peer);
  json[side + "_namespace"] = or_dash(peer.peer_namespace);
  json[side + "_port"] = port ? Json(*port) : Json();
  json[side + "_type"] = kind_name(peer.kind);
  Json labels = Json::array();
  for (const auto& [key, value] : peer.labels) labels.push_back(key + "=" + value);
  json[side + "_labels"] = {{"labels", std::move(labels)}};
}

// "tier/namespace/name" as Calico writes it: "namespace/tier.name", "tier.name" for a policy of the cluster.
std::string calico_policy(const std::string& display, bool kubernetes, bool staged) {
  const auto first = display.find('/');
  const auto second = first == std::string::npos ? first : display.find('/', first + 1);
  if (second == std::string::npos) return display;
  const std::string tier = display.substr(0, first);
  const std::string space = display.substr(first + 1, second - first - 1);
  std::string name = display.substr(second + 1);
  // As newer ones are named; objects that already have the tier's name in front keep it once.
  if (!name.starts_with(tier + ".")) name = tier + "." + (staged ? "staged:" : "") + name;
  if (kubernetes) name = "knp." + name;
  return space.empty() ? name : space + "/" + name;
}

std::string all_policies_entry(std::size_t place, const std::string& tier, const std::string& policy,
                               std::string_view action, std::optional<int> rule) {
  return std::to_string(place) + "|" + tier + "|" + policy + "|" + std::string(action) + "|" +
         (rule ? std::to_string(*rule) : "-");
}

// The policies that gave an answer, in order; those that were asked and had none are not part of it.
Json policies_of(const store::FlowRecord& record) {
  Json all = Json::array(), enforced = Json::array(), pending = Json::array();
  std::string tier, last;
  for (const store::TraceEntry& entry : record.trace) {
    if (entry.direction != record.direction) continue;
    if (entry.tier != tier) last.clear();
    tier = entry.tier;
    if (!entry.policy.empty()) last = entry.policy;
    const bool answers = entry.result == "allow" || entry.result == "deny" || entry.result == "pass";
    if (!answers) continue;
    const bool at_end = entry.policy.empty();
    const bool kubernetes = entry.policy == record.policy && record.policy_kind == "KubernetesNetworkPolicy";
    const std::string text =
        all_policies_entry(enforced.size(), entry.tier, calico_policy(at_end ? last : entry.policy, kubernetes, false),
                           entry.result, at_end ? std::optional(-1) : entry.rule_index);
    all.push_back(text);
    enforced.push_back(text);
  }
  if (enforced.empty() && record.policy.empty()) {
    const std::string& space =
        record.direction == Direction::Ingress ? record.dst.peer_namespace : record.src.peer_namespace;
    const std::string text = all_policies_entry(0, "__PROFILE__", "__PROFILE__.kns." + or_dash(space),
                                                name(record.action), 0);
    all.push_back(text);
    enforced.push_back(text);
  }
  for (const store::StagedVerdict& staged : record.staged) {
    const std::string text =
        all_policies_entry(all.size(), staged.policy.substr(0, staged.policy.find('/')),
                           calico_policy(staged.policy, false, true), name(staged.action), staged.rule_index.value_or(-1));
    all.push_back(text);
    pending.push_back(text);
  }
  return {{"all_policies", std::move(all)},
          {"enforced_policies", std::move(enforced)},
          {"pending_policies", std::move(pending)}};
}

}  // namespace

Json to_calico(const store::FlowRecord& record, const store::Origin& origin) {
  const bool at_source = record.reporter == store::Reporter::Source;
  const auto or_zero = [](const std::optional<std::uint64_t>& value) { return value.value_or(0); };
  Json json;
  json["id"] = record.id;
  json["start_time"] = seconds_of(record.start);
  json["end_time"] = seconds_of(record.end);
  json["cluster"] = origin.cluster;
  json["host"] = origin.node;
  json["reporter"] = name(record.reporter);
  json["action"] = name(record.action);
  add_peer(json, "source", record.src, record.src_port);
  add_peer(json, "dest", record.dst, record.dst_port);
  const auto slash = record.dst_service.find('/');
  const bool service = slash != std::string::npos;
  json["dest_service_namespace"] = service ? record.dst_service.substr(0, slash) : "-";
  json["dest_service_name"] = service ? record.dst_service.substr(slash + 1) : "-";
  json["dest_service_port_num"] = service && record.translation && record.translation->destination_port != 0
                                      ? Json(record.translation->destination_port)
                                      : Json();
  json["proto"] = protocol::name(record.proto);
  json["policies"] = policies_of(record);
  // Calico counts as the reporting end sees it: what came to it is "in".
  json["packets_in"] = or_zero(at_source ? record.packets_in : record.packets_out);
  json["packets_out"] = or_zero(at_source ? record.packets_out : record.packets_in);
  json["bytes_in"] = or_zero(at_source ? record.bytes_in : record.bytes_out);
  json["bytes_out"] = or_zero(at_source ? record.bytes_out : record.bytes_in);
  json["num_flows"] = std::max<std::uint64_t>(1, or_zero(record.connections));
  json["num_flows_started"] = record.action == store::Verdict::Deny ? 1 : or_zero(record.connections);
  json["num_flows_completed"] = record.action == store::Verdict::Deny || record.ct_state == "closed" ? 1 : 0;
  json["nat_outgoing_ports"] = record.translation && record.translation->source_port != 0
                                   ? Json::array({record.translation->source_port})
                                   : Json::array();
  return json;
}

}  // namespace tierlog::exporters
