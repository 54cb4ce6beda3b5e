#include "query/revisions.h"

#include <algorithm>
#include <map>

#include "query/moment.h"
#include "store/groups.h"

namespace tierlog::query {
namespace {

using policy::Policy;

std::vector<std::string> lines_of(const Policy& policy) {
  std::vector<std::string> lines = {"selector " +
                                    (policy.subject_text.empty() ? "all()" : policy.subject_text)};
  const auto add = [&](Direction direction, const std::vector<policy::PolicyRule>& rules, bool applies) {
    if (!applies) return;
    const std::string prefix(name(direction));
    if (rules.empty()) lines.push_back(prefix + " no rule: the end of the tier decides");
    for (const policy::PolicyRule& rule : rules)
      lines.push_back(prefix + "[" + std::to_string(rule.index) + "] " + rule.text);
  };
  add(Direction::Ingress, policy.ingress, policy.applies_ingress);
  add(Direction::Egress, policy.egress, policy.applies_egress);
  return lines;
}

// The longest common subsequence tells what stayed.
std::vector<RuleLine> difference(const std::vector<std::string>& before,
                                 const std::vector<std::string>& after) {
  const std::size_t n = before.size(), m = after.size();
  std::vector<std::vector<std::size_t>> common(n + 1, std::vector<std::size_t>(m + 1, 0));
  for (std::size_t i = n; i-- > 0;)
    for (std::size_t j = m; j-- > 0;)
      common[i][j] =
          before[i] == after[j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
  std::vector<RuleLine> lines;
  std::size_t i = 0, j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && before[i] == after[j]) {
      lines.push_back({' ', after[j]});
      ++i, ++j;
    } else if (i < n && (j == m || common[i + 1][j] >= common[i][j + 1])) {
      lines.push_back({'-', before[i++]});
    } else {
      lines.push_back({'+', after[j++]});
    }
  }
  return lines;
}

// The revision that the registry gave: of its rules' the highest.
Result<std::map<policy::PolicyKey, std::uint32_t>> numbers_of(const policy::PolicySet& policies,
                                                              KnownRuleIds& ids) {
  TL_ASSIGN(const auto program, policy::compile(policies, std::make_shared<const policy::Cluster>(), ids));
  std::map<policy::PolicyKey, std::uint32_t> numbers;
  for (const policy::ProgramPolicy& policy : program.policies) numbers[policy.key] = policy.revision;
  return numbers;
}

// What the records of its time say it decided.
Result<void> count(store::FlowReader& reader, Revision& revision) {
  using Field = store::FieldFilter::Field;
  store::GroupQuery query;
  query.flows.filters = {{Field::Policy, {revision.policy}, false},
                         {Field::PolicyKind, {revision.policy_kind}, false}};
  query.flows.since = revision.since;
  query.flows.until = revision.until;
  TL_ASSIGN(query.fields, store::parse_group_fields("reporter"));  // a policy decides for one side
  TL_ASSIGN(const auto sums, reader.groups(query));
  revision.allowed_connections = sums.total.sums.connections;
  revision.denied_packets = sums.total.sums.denied_packets;
  return {};
}

struct Known {
  std::vector<std::string> lines;
  std::size_t last = 0;  // its newest revision
};

}  // namespace

Result<std::vector<Revision>> revisions_of(store::FlowReader& reader,
                                           const std::vector<std::string>& displays) {
  TL_ASSIGN(const auto sets, reader.policy_sets());
  TL_ASSIGN(KnownRuleIds ids, KnownRuleIds::of(reader));
  std::vector<Revision> revisions;
  std::map<std::pair<std::string, std::string>, Known> known;
  for (const store::PolicySetRow& set : sets) {
    TL_ASSIGN(const auto policies, policies_of(reader, set));
    TL_ASSIGN(const auto numbers, numbers_of(policies, ids));
    std::map<std::pair<std::string, std::string>, const Policy*> now;
    for (const Policy& policy : policies.policies) {
      const std::string display = policy.display();
      if (std::find(displays.begin(), displays.end(), display) != displays.end())
        now[{display, std::string(policy::name(policy.key.kind))}] = &policy;
    }
    for (const auto& [key, policy] : now) {
      Known& before = known[key];
      std::vector<std::string> lines = lines_of(*policy);
      if (lines == before.lines) continue;
      if (!before.lines.empty() || before.last > 0) revisions[before.last - 1].until = set.since;
      const std::uint32_t number = numbers.at(policy->key);
      const bool again = number > 0 && std::any_of(revisions.begin(), revisions.end(), [&](const Revision& earlier) {
                           return earlier.policy == key.first && earlier.policy_kind == key.second &&
                                  earlier.number == number;
                         });
      Revision revision{key.first,
                        key.second,
                        number,
                        again,
                        set.since,
                        std::nullopt,
                        false,
                        difference(before.lines, lines),
                        0,
                        0};
      revisions.push_back(std::move(revision));
      before = {std::move(lines), revisions.size()};
    }
    for (auto& [key, before] : known) {
      if (before.lines.empty() || now.contains(key)) continue;
      revisions[before.last - 1].until = set.since;
      revisions.push_back(
          {key.first, key.second, 0, false, set.since, std::nullopt, true, difference(before.lines, {}), 0, 0});
      before = {{}, revisions.size()};
    }
  }
  for (Revision& revision : revisions)
    if (!revision.removed) TL_TRY(count(reader, revision));
  return revisions;
}

}  // namespace tierlog::query
