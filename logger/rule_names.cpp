#include "logger/rule_names.h"

#include <cmath>

namespace tierlog::logger {
namespace {

using policy::EndOfTier;
using policy::Program;
using policy::ProgramPolicy;
using policy::ProgramRule;

std::optional<double> finite(double order) {
  return std::isfinite(order) ? std::optional<double>(order) : std::nullopt;
}

store::RuleRow reserved_row(const ReservedRule& rule) {
  store::RuleRow row;
  row.id = rule.id;
  row.direction = rule.direction;
  row.action = rule.allows ? "Allow" : "Deny";
  row.reason = name(rule.reason);
  row.text = row.action + " (" + row.reason + ")";
  return row;
}

void set_policy(store::RuleRow& row, const Program& program, const ProgramPolicy& policy) {
  row.policy = policy.display;
  row.policy_kind = name(policy.key.kind);
  row.tier = program.tiers[policy.tier].name;
  row.policy_namespace = policy.key.policy_namespace;
  row.policy_name = policy.key.name;
  row.revision = policy.revision;
}

store::RuleRow rule_row(const Program& program, const ProgramRule& rule) {
  store::RuleRow row;
  row.id = rule.id;
  set_policy(row, program, program.policies[rule.policy]);
  row.direction = rule.direction;
  row.rule_index = rule.index;
  row.action = name(rule.action);
  row.reason = name(Reason::Policy);
  row.text = rule.text;
  if (rule.action == policy::Action::Log && rule.log_rate)
    row.text += " (told at most " + rule.log_rate->to_string() + ")";
  row.source = rule.source.to_string();
  return row;
}

store::RuleRow end_row(const Program& program, const EndOfTier& end) {
  store::RuleRow row;
  row.id = end.id;
  set_policy(row, program, program.policies[end.policies.back()]);
  for (const std::uint32_t policy : end.policies)
    row.also_policies.push_back(program.policies[policy].display);
  row.direction = end.direction;
  row.rule_index = -1;
  row.action = name(end.action);
  row.reason = name(Reason::EndOfTier);
  row.text = "end of tier " + row.tier + ": " + row.action;
  return row;
}

std::vector<std::string> policies_of(const Program& program, std::uint32_t class_index) {
  std::vector<std::string> displays;
  for (const policy::ClassTier& tier : program.classes[class_index].tiers)
    for (const std::uint32_t policy : tier.policies) displays.push_back(program.policies[policy].display);
  return displays;
}

store::EndpointRow endpoint_row(const policy::Endpoint& endpoint) {
  store::EndpointRow row;
  row.endpoint_namespace = endpoint.endpoint_namespace;
  row.name = endpoint.name;
  row.node = endpoint.node;
  row.interface = endpoint.interface;
  row.workload = endpoint.workload;
  row.labels = endpoint.labels;
  for (const IpAddr& address : endpoint.addresses) row.addresses.push_back(address.to_string());
  return row;
}

}  // namespace

std::vector<store::RuleRow> rule_rows(const Program& program) {
  std::vector<store::RuleRow> rows;
  for (const ProgramRule& rule : program.rules) rows.push_back(rule_row(program, rule));
  for (const EndOfTier& end : program.ends) rows.push_back(end_row(program, end));
  for (const ReservedRule& rule : reserved_rules()) rows.push_back(reserved_row(rule));
  return rows;
}

store::Catalog make_catalog(const Program& program, WallTime since) {
  store::Catalog catalog;
  catalog.revision = program.revision;
  catalog.since = since;
  for (std::size_t i = 0; i < program.tiers.size(); ++i) {
    const policy::ProgramTier& tier = program.tiers[i];
    catalog.tiers.push_back(
        {tier.name, finite(tier.order), std::string(name(tier.default_action)), static_cast<int>(i)});
  }
  for (std::size_t i = 0; i < program.policies.size(); ++i) {
    const ProgramPolicy& policy = program.policies[i];
    catalog.policies.push_back({.display = policy.display,
                                .tier = program.tiers[policy.tier].name,
                                .kind = std::string(name(policy.key.kind)),
                                .short_kind = std::string(short_name(policy.key.kind)),
                                .policy_namespace = policy.key.policy_namespace,
                                .name = policy.key.name,
                                .order = finite(policy.order),
                                .position = static_cast<int>(i),
                                .revision = policy.revision,
                                .endpoints_selected = policy.endpoints_selected,
                                .staged = policy.staged,
                                .selector = policy.subject_text,
                                .source = policy.source.to_string()});
  }
  catalog.rules = rule_rows(program);
  std::vector<const policy::ProgramEndpoint*> enforced(program.cluster->endpoints.size(), nullptr);
  for (const policy::ProgramEndpoint& endpoint : program.endpoints) enforced[endpoint.endpoint] = &endpoint;
  for (std::size_t i = 0; i < enforced.size(); ++i) {
    store::EndpointRow row = endpoint_row(program.cluster->endpoints[i]);
    if (enforced[i] != nullptr) {
      row.enforced = true;
      row.ingress_policies = policies_of(program, enforced[i]->ingress_class);
      row.egress_policies = policies_of(program, enforced[i]->egress_class);
    }
    catalog.endpoints.push_back(std::move(row));
  }
  return catalog;
}

RuleNames::RuleNames() {
  for (const ReservedRule& rule : reserved_rules()) rows_[rule.id] = reserved_row(rule);
}

void RuleNames::learn(const Program& program) {
  for (store::RuleRow& row : rule_rows(program)) rows_[row.id] = std::move(row);
}

void RuleNames::learn(std::span<const store::RuleRow> rows) {
  for (const store::RuleRow& row : rows) rows_.emplace(row.id, row);
}

const store::RuleRow* RuleNames::find(RuleId id) const {
  const auto found = rows_.find(id);
  return found == rows_.end() ? nullptr : &found->second;
}

}  // namespace tierlog::logger
