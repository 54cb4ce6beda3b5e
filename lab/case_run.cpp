// One case through the evaluator, and the comparison that every kind of run shares.
#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "lab/cases.h"
#include "policy/compile.h"

namespace tierlog::lab {
namespace {

using policy::Action;
using policy::DirectionVerdict;
using policy::Program;

std::string_view word(Action action) {
  return action == Action::Allow ? "allow" : "deny";
}

// "platform/ns/name" is meant by "name", "ns/name" and by itself.
bool names_policy(const std::string& display, const std::string& wanted) {
  return display == wanted || display.ends_with("/" + wanted);
}

std::string text(const std::optional<std::string>& value) {
  return value.value_or("none");
}

void compare_direction(std::string_view direction, const std::optional<Action>& expected,
                       const std::optional<Action>& observed, std::vector<std::string>& problems) {
  if (!expected || !observed || *expected == *observed) return;
  problems.push_back(std::string(direction) + " alone: expected " + std::string(word(*expected)) + ", got " +
                     std::string(word(*observed)));
}

void compare_decider(const ExpectedDecider& expected, const std::optional<Decider>& observed,
                     std::vector<std::string>& problems) {
  if (!observed) {
    problems.push_back("decides: nobody was seen to decide");
    return;
  }
  const auto differs = [&](std::string_view what, const std::string& wanted, const std::string& got) {
    problems.push_back("decides." + std::string(what) + ": expected " + wanted + ", got " + got);
  };
  if (expected.direction != observed->direction)
    differs("direction", std::string(name(expected.direction)), std::string(name(observed->direction)));
  if (expected.tier && expected.tier != observed->tier) differs("tier", *expected.tier, text(observed->tier));
  if (expected.policy && !(observed->policy && names_policy(*observed->policy, *expected.policy)))
    differs("policy", *expected.policy, text(observed->policy));
  if (expected.rule && expected.rule != observed->rule)
    differs("rule", std::to_string(*expected.rule),
            observed->rule ? std::to_string(*observed->rule) : "none");
}

Decider decider_of(const Program& program, const DirectionVerdict& verdict) {
  Decider decider{verdict.direction, {}, {}, {}, verdict.rule};
  const policy::RuleRef& ref = program.by_id.at(verdict.rule);
  if (ref.kind == policy::RuleRef::Kind::Rule) {
    const policy::ProgramRule& rule = program.rules[ref.index];
    const policy::ProgramPolicy& policy = program.policies[rule.policy];
    decider.tier = program.tiers[policy.tier].name;
    decider.policy = policy.display;
    decider.rule = rule.index;
  } else if (ref.kind == policy::RuleRef::Kind::EndOfTier) {
    const policy::EndOfTier& end = program.ends[ref.index];
    decider.tier = program.tiers[end.tier].name;
    decider.policy = program.policies[end.policies.back()].display;
    decider.rule = -1;
  }
  return decider;
}

bool by_policy(const Program& program, const std::optional<DirectionVerdict>& verdict) {
  return verdict && program.by_id.at(verdict->rule).kind != policy::RuleRef::Kind::Reserved;
}

// The direction whose decision is reported: of a denial the denying one, of an allow the one that the
// case asks about, else ingress if a policy applied there, else egress. Where both deny, the asked one.
const DirectionVerdict* reported(const Program& program, const policy::Evaluation& evaluation,
                                 const Check& check) {
  const auto gives_verdict = [&](const std::optional<DirectionVerdict>& verdict) {
    return verdict && verdict->action == evaluation.action;
  };
  const auto& asked =
      check.decides && check.decides->direction == Direction::Egress ? evaluation.egress : evaluation.ingress;
  if (check.decides && gives_verdict(asked)) return &*asked;
  if (evaluation.action == Action::Deny)
    return gives_verdict(evaluation.egress) ? &*evaluation.egress : &*evaluation.ingress;
  if (by_policy(program, evaluation.ingress) || !evaluation.egress)
    return evaluation.ingress ? &*evaluation.ingress : nullptr;
  return &*evaluation.egress;
}

void add_trace(const Program& program, const std::optional<DirectionVerdict>& verdict,
               std::vector<TraceLine>& lines) {
  if (!verdict) return;
  for (const policy::TraceStep& step : verdict->trace)
    lines.push_back({verdict->direction, step.tier == policy::kNone ? "" : program.tiers[step.tier].name,
                     step.policy == policy::kNone ? "" : program.policies[step.policy].display,
                     step.rule_index, step.result, step.staged});
}

// Where no policy judges an end, it allows.
Action alone(const std::optional<DirectionVerdict>& verdict) {
  return verdict ? verdict->action : Action::Allow;
}

Observed observe(const Program& program, const Check& check) {
  Observed observed;
  const auto packet = packet_of(*program.cluster, check);
  if (!packet) {
    observed.error = check.from.text() + " and " + check.to.text() + " have no addresses of one family";
    return observed;
  }
  const policy::Evaluation evaluation =
      evaluate(program, *packet, policy::Detail::Summary, policy::Directions::Both);
  observed.verdict = evaluation.action == Action::Allow ? CheckVerdict::Allow : CheckVerdict::Deny;
  observed.egress = alone(evaluation.egress);
  observed.ingress = alone(evaluation.ingress);
  if (const DirectionVerdict* verdict = reported(program, evaluation, check))
    observed.decides = decider_of(program, *verdict);
  add_trace(program, evaluation.egress, observed.trace);
  if (observed.egress == Action::Allow) add_trace(program, evaluation.ingress, observed.trace);
  return observed;
}

}  // namespace

std::string_view name(CheckVerdict verdict) {
  switch (verdict) {
    case CheckVerdict::Allow:
      return "allow";
    case CheckVerdict::Deny:
      return "deny";
    case CheckVerdict::Refused:
      return "refused";
    case CheckVerdict::Error:
      break;
  }
  return "error";
}

CheckResult judge(std::size_t index, const Check& check, Observed observed) {
  CheckResult result{index, check, std::move(observed), false, {}};
  const Observed& seen = result.observed;
  if (name(seen.verdict) != word(check.expect))
    result.problems.push_back("expected " + std::string(word(check.expect)) + ", got " +
                              std::string(name(seen.verdict)) +
                              (seen.error.empty() ? "" : ": " + seen.error));
  compare_direction("egress", check.egress, seen.egress, result.problems);
  compare_direction("ingress", check.ingress, seen.ingress, result.problems);
  if (check.decides && seen.verdict != CheckVerdict::Error)
    compare_decider(*check.decides, seen.decides, result.problems);
  result.passed = result.problems.empty();
  return result;
}

CaseResult run_model(const PolicyCase& test_case) {
  const auto begin = std::chrono::steady_clock::now();
  CaseResult result{test_case.id, test_case.file, test_case.skipped, false, {}, {}};
  if (test_case.skipped) return result;
  policy::MemoryRuleIds ids;
  // Ids in memory do not fail.
  const Program program =
      *compile(test_case.policies, std::make_shared<policy::Cluster>(test_case.topology.cluster), ids);
  for (std::size_t i = 0; i < test_case.checks.size(); ++i)
    result.checks.push_back(judge(i, test_case.checks[i], observe(program, test_case.checks[i])));
  result.passed = std::all_of(result.checks.begin(), result.checks.end(),
                              [](const CheckResult& check) { return check.passed; });
  result.took = std::chrono::steady_clock::now() - begin;
  return result;
}

}  // namespace tierlog::lab
