#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "exporters/prometheus/families.h"

namespace tierlog::prometheus {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

double seconds_of(WallTime time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

// Those that decide only allow or deny; rules also pass and log.
struct VerdictKey {
  std::string tier, policy, kind, policy_namespace;
  Direction direction{};
  std::string action;
  auto operator<=>(const VerdictKey&) const = default;
};

VerdictKey key_of(const store::RuleRow& rule) {
  return {rule.tier,      rule.policy,       rule.policy_kind, rule.policy_namespace,
          rule.direction, lower(rule.action)};
}

VerdictKey key_of(const PolicyKey& key) {
  return {key.tier, key.policy, key.kind, key.policy_namespace, key.direction, std::string(name(key.action))};
}

void sample(Exposition& out, const VerdictKey& key, std::uint64_t value) {
  out.sample({key.tier, key.policy, key.kind, key.policy_namespace, name(key.direction), key.action}, value);
}

void denied(Exposition& out, const Sums& sums, Metric metric, std::uint64_t DeniedSums::*what) {
  out.family(metric);
  for (const auto& [key, value] : sums.denied)
    out.sample({key.tier, key.policy, name(key.direction), key.from_namespace, key.to_namespace},
               value.*what);
}

}  // namespace

void policy_families(Exposition& out, const Index& index, const Sums& sums) {
  std::map<VerdictKey, PolicySums> decided;
  std::map<VerdictKey, std::uint64_t> verdicts;
  std::set<std::pair<std::string, std::string>> staged;  // they decide nothing
  for (const store::PolicyActivity& one : index.policies)
    if (one.policy.staged) staged.emplace(one.policy.display, one.policy.kind);
  for (const store::RuleActivity& activity : index.rules) {
    const VerdictKey key = key_of(activity.rule);
    if (staged.contains({key.policy, key.kind})) continue;
    if (activity.live || activity.kernel_packets > 0) verdicts[key] += activity.kernel_packets;
    // A policy that has decided nothing yet is there with 0.
    if (activity.live && (key.action == "allow" || key.action == "deny")) decided[key];
  }
  for (const auto& [key, value] : sums.policies) decided[key_of(key)] = value;
  const std::tuple<Metric, std::uint64_t PolicySums::*> of_records[] = {
      {Metric::PolicyPackets, &PolicySums::packets},
      {Metric::PolicyBytes, &PolicySums::bytes},
      {Metric::PolicyConnections, &PolicySums::connections}};
  for (const auto& [metric, what] : of_records) {
    out.family(metric);
    for (const auto& [key, value] : decided) sample(out, key, value.*what);
  }
  out.family(Metric::PolicyVerdicts);
  for (const auto& [key, packets] : verdicts) sample(out, key, packets);
  out.family(Metric::PolicyLastHit);
  for (const store::PolicyActivity& one : index.policies)
    if (one.last_hit)
      out.sample({one.policy.tier, one.policy.display, one.policy.kind, one.policy.policy_namespace},
                 seconds_of(*one.last_hit));
  out.family(Metric::PolicyEndpoints);
  for (const store::PolicyActivity& one : index.policies)
    out.sample({one.policy.tier, one.policy.display, one.policy.kind, one.policy.policy_namespace},
               std::uint64_t{one.policy.endpoints_selected});
  out.family(Metric::PolicyStagedDenied);
  for (const store::PolicyActivity& one : index.policies)
    if (one.policy.staged)
      out.sample({one.policy.tier, one.policy.display, one.policy.kind, one.policy.policy_namespace},
                 one.staged_denied);
  denied(out, sums, Metric::DeniedPackets, &DeniedSums::packets);
  denied(out, sums, Metric::DeniedBytes, &DeniedSums::bytes);
}

void rule_families(Exposition& out, const Index& index) {
  struct Labels {
    std::string rule, id, action;
  };
  std::vector<std::pair<const store::RuleActivity*, Labels>> rules;
  for (const store::RuleActivity& activity : index.rules) {
    const store::RuleRow& rule = activity.rule;
    if (!activity.live) continue;
    const std::string place = !rule.rule_index       ? rule.reason
                              : *rule.rule_index < 0 ? "end-of-tier"
                                                     : std::to_string(*rule.rule_index);
    rules.push_back({&activity, {place, to_hex(rule.id), lower(rule.action)}});
  }
  const auto add = [&](Metric metric, auto value_of) {
    out.family(metric);
    for (const auto& [activity, labels] : rules) {
      const store::RuleRow& rule = activity->rule;
      if (const std::optional<Value> value = value_of(*activity, labels))
        out.sample({rule.tier, rule.policy, rule.policy_kind, name(rule.direction), labels.rule, labels.id,
                    labels.action},
                   *value);
    }
  };
  using Activity = store::RuleActivity;
  add(Metric::RuleVerdicts,
      [](const Activity& a, const Labels&) { return std::optional<Value>(a.kernel_packets); });
  add(Metric::RuleVerdictBytes,
      [](const Activity& a, const Labels&) { return std::optional<Value>(a.kernel_bytes); });
  add(Metric::RuleRecorded, [](const Activity& a, const Labels& labels) {
    const bool decides = labels.action == "allow" || labels.action == "deny";
    return decides ? std::optional<Value>(a.recorded_packets) : std::nullopt;
  });
  add(Metric::RuleLastHit, [](const Activity& a, const Labels&) {
    return a.last_hit ? std::optional<Value>(seconds_of(*a.last_hit)) : std::nullopt;
  });
}

void pod_families(Exposition& out, const Sums& sums) {
  const std::tuple<Metric, std::uint64_t PodWay::*> families[] = {
      {Metric::PodForwardPackets, &PodWay::forward_packets},
      {Metric::PodForwardBytes, &PodWay::forward_bytes},
      {Metric::PodDropPackets, &PodWay::drop_packets},
      {Metric::PodDropBytes, &PodWay::drop_bytes},
      {Metric::PodConnections, &PodWay::connections},
      {Metric::PodReset, &PodWay::reset},
      {Metric::PodRefused, &PodWay::refused},
      {Metric::PodUnanswered, &PodWay::unanswered}};
  for (const auto& [metric, what] : families) {
    out.family(metric);
    for (const auto& [key, value] : sums.pods) {
      out.sample({key.pod_namespace, key.workload, key.pod, "ingress"}, value.ingress.*what);
      out.sample({key.pod_namespace, key.workload, key.pod, "egress"}, value.egress.*what);
    }
  }
}

}  // namespace tierlog::prometheus
