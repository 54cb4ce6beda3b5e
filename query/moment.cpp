#include "query/moment.h"

#include <algorithm>

#include "policy/not_ready.h"

namespace tierlog::query {

Result<KnownRuleIds> KnownRuleIds::of(store::FlowReader& reader) {
  TL_ASSIGN(auto known, reader.rule_keys());
  return KnownRuleIds(std::move(known));
}

Result<std::vector<policy::RuleIdentity>> KnownRuleIds::identify(const std::vector<policy::RuleKey>& keys) {
  std::vector<policy::RuleIdentity> identities;
  for (const policy::RuleKey& key : keys) {
    const auto [entry, is_new] = known_.try_emplace(store::key_hash(key.text()));
    if (is_new) entry->second = {RuleId{next_++}, 0};
    identities.push_back(entry->second);
  }
  return identities;
}

Result<policy::PolicySet> policies_of(store::FlowReader& reader, const store::PolicySetRow& set) {
  TL_ASSIGN(const auto texts, reader.policy_texts(set.id));
  policy::Loaded loaded = policy::load_texts(texts);
  if (loaded.findings.has_errors())
    return fail(ErrorCode::Corrupt, "this program finds mistakes in the policies of " +
                                        format_for_people(set.since) + ":\n" + loaded.findings.to_string());
  return std::move(loaded.set);
}

Result<Past> past_at(store::FlowReader& reader, WallTime at) {
  TL_ASSIGN(const auto sets, reader.policy_sets());
  if (sets.empty())
    return fail(ErrorCode::NotFound, "the flow index keeps no policies yet: no tierlogd has written any");
  const auto later = std::upper_bound(
      sets.begin(), sets.end(), at, [](WallTime t, const store::PolicySetRow& set) { return t < set.since; });
  if (later == sets.begin())
    return fail(ErrorCode::NotFound, "what was in force at " + format_for_people(at) +
                                         " is not known: the kept history begins at " +
                                         format_for_people(sets.front().since) + " UTC");
  Past past;
  past.set = *std::prev(later);
  TL_ASSIGN(past.policies, policies_of(reader, past.set));
  TL_ASSIGN(const auto versions, reader.object_versions(at, at));
  auto cluster = std::make_shared<policy::Cluster>();
  for (const store::ObjectVersion& version : versions) TL_TRY(store::add_object(*cluster, version));
  if (past.policies.objects) {
    TL_ASSIGN(const store::Origin here, reader.origin());
    cluster->host_endpoints = past.policies.objects->host_endpoints;
    for (policy::HostEndpoint& host : cluster->host_endpoints) host.local = host.node == here.node;
  }
  past.cluster = std::move(cluster);
  return past;
}

Result<policy::Program> program_of(store::FlowReader& reader, const Past& past) {
  TL_ASSIGN(KnownRuleIds ids, KnownRuleIds::of(reader));
  TL_ASSIGN(auto program,
            policy::compile(past.policies, past.cluster, ids,
                            {.scope = policy::CompileOptions::Scope::Local, .revision = past.set.revision}));
  program.host_addresses.insert(past.set.host_addresses.begin(), past.set.host_addresses.end());
  if (!past.set.ready) policy::deny_everything(program);
  return program;
}

}  // namespace tierlog::query
