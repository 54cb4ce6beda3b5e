#include "policy/compile.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "policy/compile_match.h"
#include "policy/label_source.h"
#include "policy/resolve.h"
#include "policy/set_table.h"

namespace tierlog::policy {
namespace {

// All tiers that policies name, in evaluation order.
std::vector<Tier> ordered_tiers(const PolicySet& policies) {
  std::vector<Tier> tiers = policies.tiers;
  const auto has = [&](const std::string& name) {
    return std::any_of(tiers.begin(), tiers.end(), [&](const Tier& tier) { return tier.name == name; });
  };
  for (const Tier& tier : builtin_tiers())
    if (!has(tier.name)) tiers.push_back(tier);
  for (const Policy& policy : policies.policies)
    if (!has(policy.tier)) tiers.push_back({policy.tier, kNoOrder, Action::Deny, false, policy.source});
  sort_tiers(tiers);
  return tiers;
}

// Length in front of each part, so that no two lists of parts read the same.
std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += std::to_string(part.size()) + ":" + part + ",";
  return text;
}

std::string canonical_rule(const Policy& policy, const PolicyRule& rule) {
  std::vector<std::string> matches;
  for (const MatchSpec& match : rule.any_of) matches.push_back(match.canonical());
  std::sort(matches.begin(), matches.end());
  const std::string types = std::string(policy.applies_ingress ? "i" : "") +
                            (policy.applies_egress ? "e" : "") + (policy.apply_on_forward ? "f" : "") +
                            (policy.pre_dnat ? "d" : "") + (policy.do_not_track ? "u" : "");
  return joined({std::string(name(rule.action)), policy.subject.canonical(), types, joined(matches)});
}

Match impossible(const MatchSpec& spec, SetTable& sets) {
  Match match = compile_match(spec, sets);
  match.never = true;
  return match;
}

// An address of a node stands for the interface that says it is its own, else for "*" of that node.
void add_host_addresses(Program& program) {
  const Cluster& cluster = *program.cluster;
  const auto own = [&](std::uint32_t index, const std::vector<IpAddr>& addresses) {
    for (const IpAddr& address : addresses) program.host_by_address.emplace(address, index);
  };
  for (const bool of_node : {false, true})
    for (std::uint32_t i = 0; i < program.hosts.size(); ++i) {
      const HostEndpoint& host = cluster.host_endpoints[program.hosts[i].endpoint];
      if (!of_node) own(i, host.addresses);
      if (!of_node || (!host.addresses.empty() && host.interface != "*")) continue;
      for (const NodeObject& node : cluster.nodes)
        if (node.name == host.node) own(i, node.addresses);
    }
}

// One compilation. The steps fill program_ in the order of compile().
class Compiler {
 public:
  Compiler(const PolicySet& policies, std::shared_ptr<const Cluster> cluster, const CompileOptions& options)
      : policies_(policies),
        options_(options),
        population_(cluster, policies, options.memory == nullptr ? nullptr : &options.memory->population),
        sets_(population_, program_) {
    program_.revision = options.revision;
    program_.failsafes = options.failsafes;
    program_.cluster = std::move(cluster);
  }

  Result<Program> run(RuleIdRegistry& ids) {
    add_tiers();
    add_policies();
    add_classes();
    add_addresses();
    TL_TRY(assign(ids));
    return std::move(program_);
  }

 private:
  using EndKey = std::tuple<std::uint32_t, Direction, std::vector<std::uint32_t>>;
  using ClassKey = std::tuple<Direction, std::vector<std::uint32_t>, Stage, RuleId>;

  void add_tiers();
  void add_policies();
  void add_policy(const Policy& policy, LogDecisions decisions);
  std::vector<std::uint32_t> add_rules(const Policy& policy, Direction direction, LogDecisions decisions);
  void add_classes();
  void add_hosts(const std::vector<Asked>& asked);
  void add_host(const HostEndpoint& host, std::uint32_t index, const Asked& asked);
  // `fallback`: what decides after the last tier; None: as of a pod.
  std::uint32_t class_of(Direction direction, const std::vector<std::uint32_t>& asked,
                         Stage stage = Stage::Local, RuleId fallback = RuleId::None);
  EndpointClass make_class(Direction direction, const std::vector<std::uint32_t>& asked, Stage stage);
  std::uint32_t end_of(std::uint32_t tier, Direction direction, const std::vector<std::uint32_t>& asked);
  void add_addresses();
  bool is_enforced(const Endpoint& endpoint) const;
  std::vector<RuleKey> keys() const;
  Result<std::vector<RuleIdentity>> identify(RuleIdRegistry& ids);
  Result<void> assign(RuleIdRegistry& ids);

  const PolicySet& policies_;
  const CompileOptions& options_;
  Population population_;
  Program program_;
  SetTable sets_;
  std::vector<const Policy*> ordered_;  // as program_.policies
  std::vector<std::string> canonical_;  // as program_.rules
  std::map<std::string, std::uint32_t> tier_index_;
  std::map<EndKey, std::uint32_t> end_index_;
  std::map<ClassKey, std::uint32_t> class_index_;
};

void Compiler::add_tiers() {
  for (const Tier& tier : ordered_tiers(policies_)) {
    tier_index_.emplace(tier.name, static_cast<std::uint32_t>(program_.tiers.size()));
    program_.tiers.push_back({tier.name, tier.order, tier.default_action, tier.exists});
  }
}

void Compiler::add_policies() {
  for (const Policy& policy : policies_.policies) ordered_.push_back(&policy);
  std::stable_sort(ordered_.begin(), ordered_.end(), [&](const Policy* a, const Policy* b) {
    const auto tier_a = tier_index_.at(a->tier), tier_b = tier_index_.at(b->tier);
    return tier_a != tier_b ? tier_a < tier_b : evaluated_before(*a, *b);
  });
  const LabelSource source(*program_.cluster, policies_.namespaces);
  for (const Policy* policy : ordered_) {
    LogDecisions decisions = policy->log_decisions;
    if (policy->key.kind == PolicyKind::KubernetesNetworkPolicy)
      decisions = policy::joined(decisions, source.log_decisions(policy->key.policy_namespace));
    add_policy(*policy, decisions);
  }
}

void Compiler::add_policy(const Policy& policy, LogDecisions decisions) {
  ProgramPolicy compiled;
  compiled.key = policy.key;
  compiled.display = policy.display();
  compiled.tier = tier_index_.at(policy.tier);
  compiled.order = policy.order;
  compiled.staged = is_staged(policy.key.kind);
  compiled.applies_ingress = policy.applies_ingress;
  compiled.applies_egress = policy.applies_egress;
  compiled.log_denied_end = logs(decisions, Action::Deny);
  compiled.subject_text = policy.subject_text;
  compiled.source = policy.source;
  if (policy.applies_ingress) compiled.ingress = add_rules(policy, Direction::Ingress, decisions);
  if (policy.applies_egress) compiled.egress = add_rules(policy, Direction::Egress, decisions);
  for (const std::uint32_t group : population_.selected(policy.subject))
    compiled.endpoints_selected += static_cast<std::uint32_t>(population_.groups()[group].endpoints.size() +
                                                              population_.groups()[group].hosts.size());
  program_.policies.push_back(std::move(compiled));
}

std::vector<std::uint32_t> Compiler::add_rules(const Policy& policy, Direction direction,
                                               LogDecisions decisions) {
  std::vector<std::uint32_t> indices;
  for (const PolicyRule& rule : direction == Direction::Ingress ? policy.ingress : policy.egress) {
    ProgramRule compiled;
    compiled.direction = direction;
    compiled.action = rule.action;
    compiled.index = rule.index;
    compiled.policy = static_cast<std::uint32_t>(program_.policies.size());
    for (const MatchSpec& match : rule.any_of) {
      const auto expanded = expand_relation(match, direction, population_);
      for (const MatchSpec& part : expanded) compiled.any_of.push_back(compile_match(part, sets_));
      if (expanded.empty()) compiled.any_of.push_back(impossible(match, sets_));
    }
    compiled.log_decision = logs(decisions, rule.action);
    compiled.log_label = rule.log_label;
    compiled.log_rate = rule.log_rate;
    compiled.text = rule.text;
    compiled.source = rule.source;
    indices.push_back(static_cast<std::uint32_t>(program_.rules.size()));
    program_.rules.push_back(std::move(compiled));
    canonical_.push_back(canonical_rule(policy, rule));
  }
  return indices;
}

bool Compiler::is_enforced(const Endpoint& endpoint) const {
  return !endpoint.host_network && (options_.scope == CompileOptions::Scope::All || endpoint.local);
}

void Compiler::add_classes() {
  const auto& endpoints = program_.cluster->endpoints;
  const LabelSource source(*program_.cluster, policies_.namespaces);
  const std::vector<Asked> asked = resolve(population_, ordered_);
  std::vector<std::uint32_t> group_of(endpoints.size(), kNone);
  for (std::uint32_t group = 0; group < asked.size(); ++group)
    for (const std::uint32_t i : population_.groups()[group].endpoints) group_of[i] = group;
  std::map<std::uint32_t, ProgramEndpoint> by_group;
  for (std::uint32_t i = 0; i < endpoints.size(); ++i) {
    if (!is_enforced(endpoints[i])) continue;
    const auto [entry, is_new] = by_group.try_emplace(group_of[i]);
    if (is_new) {
      entry->second.ingress_class = class_of(Direction::Ingress, asked[group_of[i]].ingress);
      entry->second.egress_class = class_of(Direction::Egress, asked[group_of[i]].egress);
    }
    entry->second.endpoint = i;
    entry->second.audited = source.audited(endpoints[i].endpoint_namespace);
    program_.endpoints.push_back(entry->second);
  }
  add_hosts(asked);
}

void Compiler::add_hosts(const std::vector<Asked>& asked) {
  const auto& hosts = program_.cluster->host_endpoints;
  std::vector<std::uint32_t> group_of(hosts.size(), kNone);
  for (std::uint32_t group = 0; group < asked.size(); ++group)
    for (const std::uint32_t i : population_.groups()[group].hosts) group_of[i] = group;
  for (const bool wild : {false, true})
    for (std::uint32_t i = 0; i < hosts.size(); ++i)
      if ((hosts[i].interface == "*") == wild &&
          (options_.scope == CompileOptions::Scope::All || hosts[i].local))
        add_host(hosts[i], i, asked[group_of[i]]);
}

void Compiler::add_host(const HostEndpoint& host, std::uint32_t index, const Asked& asked) {
  const auto local = [&](Direction direction, const std::vector<std::uint32_t>& policies) {
    const bool ingress = direction == Direction::Ingress;
    const RuleId open = ingress ? reserved::kProfileIngress : reserved::kProfileEgress;
    const RuleId closed = ingress ? reserved::kHostDefaultIngress : reserved::kHostDefaultEgress;
    return class_of(direction, policies, Stage::Local, host.open ? open : closed);
  };
  const auto staged_only = [&](std::uint32_t i) { return program_.policies[i].staged; };
  const auto where_asked = [&](Direction direction, const std::vector<std::uint32_t>& policies, Stage stage) {
    if (std::all_of(policies.begin(), policies.end(), staged_only)) return kNone;
    return class_of(direction, policies, stage,
                    direction == Direction::Ingress ? reserved::kProfileIngress : reserved::kProfileEgress);
  };
  ProgramHost compiled;
  compiled.endpoint = index;
  compiled.ingress_class = local(Direction::Ingress, asked.ingress);
  compiled.egress_class = local(Direction::Egress, asked.egress);
  compiled.forward_ingress = where_asked(Direction::Ingress, asked.forward_ingress, Stage::Forward);
  compiled.forward_egress = where_asked(Direction::Egress, asked.forward_egress, Stage::Forward);
  compiled.pre_dnat = where_asked(Direction::Ingress, asked.pre_dnat, Stage::PreDnat);
  compiled.untracked_ingress = where_asked(Direction::Ingress, asked.untracked_ingress, Stage::Untracked);
  compiled.untracked_egress = where_asked(Direction::Egress, asked.untracked_egress, Stage::Untracked);
  program_.hosts.push_back(compiled);
}

std::uint32_t Compiler::class_of(Direction direction, const std::vector<std::uint32_t>& asked, Stage stage,
                                 RuleId fallback) {
  const auto next = static_cast<std::uint32_t>(program_.classes.size());
  const auto [entry, is_new] = class_index_.emplace(ClassKey(direction, asked, stage, fallback), next);
  if (!is_new) return entry->second;
  EndpointClass& made = program_.classes.emplace_back(make_class(direction, asked, stage));
  if (fallback == RuleId::None) return next;
  made.fallback = fallback;
  made.fallback_action = find_reserved(fallback)->allows ? Action::Allow : Action::Deny;
  return next;
}

EndpointClass Compiler::make_class(Direction direction, const std::vector<std::uint32_t>& asked, Stage stage) {
  EndpointClass result;
  result.direction = direction;
  result.stage = stage;
  for (const std::uint32_t index : asked) {
    const std::uint32_t tier = program_.policies[index].tier;
    if (result.tiers.empty() || result.tiers.back().tier != tier) result.tiers.push_back({tier, {}, kNone});
    result.tiers.back().policies.push_back(index);
  }
  bool selected = false;
  for (ClassTier& tier : result.tiers) {
    if (!result.has_ends()) break;
    tier.end = end_of(tier.tier, direction, tier.policies);
    selected = selected || tier.end != kNone;
  }
  if (direction == Direction::Ingress)
    result.fallback = selected ? reserved::kProfileIngress : reserved::kNoPolicyIngress;
  else
    result.fallback = selected ? reserved::kProfileEgress : reserved::kNoPolicyEgress;
  return result;
}

std::uint32_t Compiler::end_of(std::uint32_t tier, Direction direction,
                               const std::vector<std::uint32_t>& asked) {
  std::vector<std::uint32_t> enforced;
  for (const std::uint32_t index : asked)
    if (!program_.policies[index].staged) enforced.push_back(index);
  if (enforced.empty()) return kNone;
  const auto next = static_cast<std::uint32_t>(program_.ends.size());
  const auto [entry, is_new] = end_index_.emplace(EndKey(tier, direction, enforced), next);
  if (is_new)
    program_.ends.push_back({RuleId::None, tier, direction, program_.tiers[tier].default_action, enforced});
  return entry->second;
}

void Compiler::add_addresses() {
  const auto& endpoints = program_.cluster->endpoints;
  // Enforced ones first: where an address is in two places, it is the local one that packets reach.
  for (std::uint32_t i = 0; i < program_.endpoints.size(); ++i)
    for (const IpAddr& address : endpoints[program_.endpoints[i].endpoint].addresses) {
      program_.enforced_by_address.emplace(address, i);
      program_.endpoint_by_address.emplace(address, program_.endpoints[i].endpoint);
    }
  add_host_addresses(program_);
  for (std::uint32_t i = 0; i < endpoints.size(); ++i)
    // A host-network pod has the node's address, which is not its own.
    if (!endpoints[i].host_network)
      for (const IpAddr& address : endpoints[i].addresses) program_.endpoint_by_address.emplace(address, i);
}

std::vector<RuleKey> Compiler::keys() const {
  std::vector<RuleKey> result;
  for (std::size_t i = 0; i < program_.rules.size(); ++i) {
    const ProgramRule& rule = program_.rules[i];
    const ProgramPolicy& policy = program_.policies[rule.policy];
    result.push_back({RuleKey::Kind::Rule, policy.key, program_.tiers[policy.tier].name, rule.direction,
                      rule.index, canonical_[i]});
  }
  for (const EndOfTier& end : program_.ends) {
    std::vector<std::string> parts{std::string(name(end.action))};
    for (const std::uint32_t index : end.policies) {
      const ProgramPolicy& policy = program_.policies[index];
      parts.push_back(std::string(name(policy.key.kind)) + " " + policy.display);
    }
    result.push_back({RuleKey::Kind::EndOfTier, program_.policies[end.policies.back()].key,
                      program_.tiers[end.tier].name, end.direction, -1, joined(parts)});
  }
  return result;
}

// Asks the registry for what is not known yet. What nobody asks for any more is forgotten.
Result<std::vector<RuleIdentity>> Compiler::identify(RuleIdRegistry& ids) {
  std::vector<RuleKey> all = keys();
  if (options_.memory == nullptr) return ids.identify(all);
  auto& known = options_.memory->identities;
  std::vector<RuleIdentity> identities(all.size());
  std::vector<std::string> texts;
  std::vector<std::size_t> missing;
  std::vector<RuleKey> asked;
  for (std::size_t i = 0; i < all.size(); ++i) {
    texts.push_back(all[i].text());
    if (const auto found = known.find(texts.back()); found != known.end()) {
      identities[i] = found->second;
    } else {
      missing.push_back(i);
      asked.push_back(std::move(all[i]));
    }
  }
  if (!missing.empty()) {
    TL_ASSIGN(const auto made, ids.identify(asked));
    for (std::size_t i = 0; i < missing.size(); ++i) identities[missing[i]] = made[i];
  }
  if (missing.empty() && known.size() == all.size()) return identities;
  known.clear();
  for (std::size_t i = 0; i < texts.size(); ++i) known.emplace(std::move(texts[i]), identities[i]);
  return identities;
}

Result<void> Compiler::assign(RuleIdRegistry& ids) {
  auto identities = identify(ids);
  if (!identities) return fail(identities.error().in("rule ids"));
  const auto rules = static_cast<std::uint32_t>(program_.rules.size());
  for (std::uint32_t i = 0; i < rules; ++i) {
    const RuleIdentity& identity = (*identities)[i];
    ProgramPolicy& policy = program_.policies[program_.rules[i].policy];
    program_.rules[i].id = identity.id;
    policy.revision = std::max(policy.revision, identity.revision);
    program_.by_id.emplace(identity.id, RuleRef{RuleRef::Kind::Rule, i});
  }
  for (std::uint32_t i = 0; i < program_.ends.size(); ++i) {
    program_.ends[i].id = (*identities)[rules + i].id;
    program_.by_id.emplace(program_.ends[i].id, RuleRef{RuleRef::Kind::EndOfTier, i});
  }
  for (const ReservedRule& rule : reserved_rules())
    program_.by_id.emplace(rule.id, RuleRef{RuleRef::Kind::Reserved, kNone});
  return {};
}

}  // namespace

Result<Program> compile(const PolicySet& policies, std::shared_ptr<const Cluster> cluster,
                        RuleIdRegistry& ids, const CompileOptions& options) {
  return Compiler(policies, std::move(cluster), options).run(ids);
}

}  // namespace tierlog::policy
