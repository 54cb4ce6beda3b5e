#include "exporters/prometheus/tally.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "exporters/prometheus/whole_file.h"

namespace tierlog::prometheus {
namespace {

using Json = nlohmann::json;

// Outside addresses come and go; what is remembered of them has bounds.
constexpr std::size_t kRemembered = 100'000;
constexpr int kVersion = 1;
// Sums that begin with a larger index begin at its end: reading it all would hold up the end of the daemon.
constexpr std::int64_t kMostAtFirst = 5'000'000;

Json to_json(const PodWay& way) {
  return {way.forward_packets, way.forward_bytes, way.drop_packets, way.drop_bytes,
          way.connections,     way.reset,         way.refused,      way.unanswered};
}

PodWay way_of(const Json& list) {
  return {list.at(0), list.at(1), list.at(2), list.at(3), list.at(4), list.at(5), list.at(6), list.at(7)};
}

Json to_json(const Sums& sums) {
  Json policies = Json::array(), denied = Json::array(), pods = Json::array();
  for (const auto& [key, value] : sums.policies)
    policies.push_back({key.tier, key.policy, key.kind, key.policy_namespace, static_cast<int>(key.direction),
                        static_cast<int>(key.action), value.packets, value.bytes, value.connections});
  for (const auto& [key, value] : sums.denied)
    denied.push_back({key.tier, key.policy, static_cast<int>(key.direction), key.from_namespace,
                      key.to_namespace, value.packets, value.bytes});
  for (const auto& [key, value] : sums.pods)
    pods.push_back({key.pod_namespace, key.workload, key.pod, to_json(value.ingress), to_json(value.egress)});
  return {{"version", kVersion},
          {"index", sums.index},
          {"cursor", sums.cursor},
          {"policies", policies},
          {"denied", denied},
          {"pods", pods}};
}

Sums sums_of(const Json& json) {
  Sums sums;
  sums.index = json.value("index", "");
  sums.cursor = json.at("cursor");
  for (const Json& row : json.at("policies"))
    sums.policies[{row.at(0), row.at(1), row.at(2), row.at(3), static_cast<Direction>(row.at(4).get<int>()),
                   static_cast<store::Verdict>(row.at(5).get<int>())}] = {row.at(6), row.at(7), row.at(8)};
  for (const Json& row : json.at("denied"))
    sums.denied[{row.at(0), row.at(1), static_cast<Direction>(row.at(2).get<int>()), row.at(3), row.at(4)}] =
        {row.at(5), row.at(6)};
  for (const Json& row : json.at("pods"))
    sums.pods[{row.at(0), row.at(1), row.at(2)}] = {way_of(row.at(3)), way_of(row.at(4))};
  return sums;
}

// The key's own sums while there is room, those of `other` later.
template <typename Map, typename Key>
typename Map::mapped_type& slot(Map& map, const Key& key, std::size_t room, const Key& other) {
  if (const auto found = map.find(key); found != map.end()) return found->second;
  return map[map.size() < room ? key : other];
}

}  // namespace

void PodWay::add(const PodWay& other) {
  forward_packets += other.forward_packets;
  forward_bytes += other.forward_bytes;
  drop_packets += other.drop_packets;
  drop_bytes += other.drop_bytes;
  connections += other.connections;
  reset += other.reset;
  refused += other.refused;
  unanswered += other.unanswered;
}

Tally::Tally(std::string file, std::size_t max_series) : file_(std::move(file)), max_series_(max_series) {
  load();
}

void Tally::load() {
  std::ifstream stream(file_);
  const Json json = Json::parse(stream, nullptr, false);
  if (!json.is_object() || json.value("version", 0) != kVersion) return;
  try {
    sums_ = sums_of(json);
    saved_ = sums_.cursor;
  } catch (const Json::exception&) {
    sums_ = {};
  }
}

Result<void> Tally::save() {
  if (sums_.cursor == saved_) return {};
  TL_TRY(write_whole(file_, to_json(sums_).dump(-1, ' ', false, Json::error_handler_t::replace), Durability::Power));
  saved_ = sums_.cursor;
  return {};
}

Result<const store::RuleNames*> Tally::rule(store::FlowReader& reader, std::int64_t reference) {
  const auto found = names_.rules.find(reference);
  if (found != names_.rules.end()) return &found->second;
  if (names_.rules.size() >= kRemembered) names_.rules.clear();
  TL_ASSIGN(auto names, reader.rule_names(reference));
  return &names_.rules.emplace(reference, std::move(names)).first->second;
}

Result<const PodKey*> Tally::pod(store::FlowReader& reader, std::int64_t reference) {
  const auto found = names_.pods.find(reference);
  if (found != names_.pods.end()) return &found->second;
  if (names_.pods.size() >= kRemembered) names_.pods.clear();
  TL_ASSIGN(auto peer, reader.peer(reference));
  PodKey key;
  if (peer.kind == store::PeerKind::Pod)
    key = {std::move(peer.peer_namespace), std::move(peer.workload), std::move(peer.name)};
  return &names_.pods.emplace(reference, std::move(key)).first->second;
}

Result<void> Tally::take(store::FlowReader& reader, const store::ScannedFlow& flow) {
  TL_ASSIGN(const store::RuleNames* rule, this->rule(reader, flow.rule));
  TL_ASSIGN(const PodKey* source, pod(reader, flow.src));
  const PodKey from = *source;  // the next look-up may forget it
  TL_ASSIGN(const PodKey* to, pod(reader, flow.dst));
  const bool denied = flow.action == store::Verdict::Deny;
  const bool at_source = flow.reporter == store::Reporter::Source;
  PolicySums& policy = sums_.policies[{rule->tier, rule->policy, rule->policy_kind, rule->policy_namespace,
                                       flow.direction, flow.action}];
  policy.packets += denied ? flow.verdict_packets : flow.packets_out + flow.packets_in;
  policy.bytes += flow.bytes;
  policy.connections += denied ? 0 : flow.connections;
  if (denied) {
    DeniedKey key{rule->tier, rule->policy, flow.direction, from.pod_namespace, to->pod_namespace};
    DeniedKey other{rule->tier, rule->policy, flow.direction, kOther, kOther};
    DeniedSums& sums = slot(sums_.denied, key, max_series_, other);
    sums.packets += flow.verdict_packets;
    sums.bytes += flow.bytes;
  }
  const PodKey& self = at_source ? from : *to;
  if (self.pod.empty()) return {};
  PodSums& pod = slot(sums_.pods, self, max_series_, PodKey{kOther, kOther, kOther});
  PodWay& opened = at_source ? pod.egress : pod.ingress;  // the connection's direction, seen from here
  if (denied) {
    opened.drop_packets += flow.verdict_packets;
    opened.drop_bytes += flow.bytes;
    return {};
  }
  pod.egress.forward_packets += at_source ? flow.packets_out : flow.packets_in;
  pod.egress.forward_bytes += at_source ? flow.bytes_out : flow.bytes_in;
  pod.ingress.forward_packets += at_source ? flow.packets_in : flow.packets_out;
  pod.ingress.forward_bytes += at_source ? flow.bytes_in : flow.bytes_out;
  opened.connections += flow.connections;
  // A reset as the only packet that came back: nobody listens.
  const bool broken = flow.end_reason == store::EndReason::Reset;
  opened.refused += broken && flow.packets_in <= 1 && flow.packets_out <= 1;
  opened.reset += broken && (flow.packets_in > 1 || flow.packets_out > 1);
  opened.unanswered += flow.end_reason == store::EndReason::Unanswered;
  return {};
}

void Tally::make_room(const std::set<PodKey>& there) {
  if (sums_.pods.size() < max_series_) return;
  std::erase_if(sums_.pods,
                [&](const auto& pod) { return pod.first.pod != kOther && !there.contains(pod.first); });
}

Result<void> Tally::catch_up(store::FlowReader& reader) {
  TL_ASSIGN(const std::int64_t last, reader.last_sequence());
  TL_ASSIGN(std::string index, reader.identity());
  // Sums from before there were identities.
  if (sums_.index.empty() && last >= sums_.cursor) sums_.index = index;
  if (index != sums_.index) {
    sums_.index = std::move(index);
    sums_.cursor = 0;
    names_ = {};
  } else if (last < sums_.cursor) {  // retention took all, or a power failure the newest
    sums_.cursor = last;
    names_ = {};
  }
  if (sums_.cursor == 0 && last > kMostAtFirst) sums_.cursor = last;
  if (last == sums_.cursor) return {};
  store::FlowQuery query;
  query.after_sequence = sums_.cursor;
  std::optional<Error> problem;
  std::int64_t highest = sums_.cursor;
  TL_TRY(reader.scan(query, [&](const store::ScannedFlow& flow) {
    if (problem) return;
    if (auto taken = take(reader, flow); !taken) {
      problem = taken.error();
      return;
    }
    highest = std::max(highest, flow.sequence);
  }));
  // Numbers come in order within one reading of the table.
  sums_.cursor = highest;
  if (problem) return fail(*problem);
  return {};
}

}  // namespace tierlog::prometheus
