#include "cli/explain_record.h"

#include <algorithm>

#include "query/replay.h"

namespace tierlog::cli {
namespace {

using policy::ExplainedDirection;
using policy::ExplainedStep;
using policy::StepResult;
using store::FlowRecord;
using store::RuleActivity;

std::string name_of(const store::Peer& peer) {
  switch (peer.kind) {
    case store::PeerKind::Pod:
      return peer.peer_namespace + "/" + peer.name;
    case store::PeerKind::Node:
      return "node " + peer.name;
    case store::PeerKind::NetworkSet:
      return "set " + peer.name + " " + peer.ip.to_string();
    default:
      return "outside " + peer.ip.to_string();
  }
}

StepResult result_of(const std::string& text) {
  for (const StepResult result :
       {StepResult::Logged, StepResult::Passed, StepResult::Allowed, StepResult::Denied})
    if (name(result) == text) return result;
  return StepResult::NoMatch;
}

std::string action_of(StepResult result) {
  switch (result) {
    case StepResult::Logged:
      return "Log";
    case StepResult::Passed:
      return "Pass";
    case StepResult::Allowed:
      return "Allow";
    case StepResult::Denied:
      return "Deny";
    case StepResult::NoMatch:
      return {};
  }
  return {};
}

std::string why_of(const store::TraceEntry& entry) {
  if (entry.policy.empty()) return "no rule of the tier's policies matched";
  return entry.rule_index ? "matched" : "no rule matched";
}

// The deciding rule is known by its id; another by its place in its policy's newest revision.
const store::RuleRow* rule_of(const std::vector<RuleActivity>& rules, const FlowRecord& record,
                              const store::TraceEntry& entry, bool decides) {
  const store::RuleRow* best = nullptr;
  for (const RuleActivity& known : rules) {
    if (decides && entry.direction == record.direction) {
      if (known.rule.id == record.rule) return &known.rule;
    } else if (known.rule.policy == entry.policy && known.rule.rule_index == entry.rule_index &&
               known.rule.direction == entry.direction &&
               (best == nullptr || best->revision < known.rule.revision)) {
      best = &known.rule;
    }
  }
  return best;
}

ExplainedStep step_of(const store::TraceEntry& entry) {
  ExplainedStep step;
  step.tier = entry.tier;
  step.policy = entry.policy;
  step.rule_index = entry.rule_index;
  step.result = result_of(entry.result);
  step.action = action_of(step.result);
  step.decides = step.result == StepResult::Allowed || step.result == StepResult::Denied;
  step.why = why_of(entry);
  return step;
}

// After the last tier, or where the kernel's own reasons decide, the trace ends without a decision.
ExplainedStep fallback_step(const FlowRecord& record, Direction direction) {
  const bool own = direction == record.direction;
  const bool denied = own && record.action == store::Verdict::Deny;
  ExplainedStep step;
  step.result = denied ? StepResult::Denied : StepResult::Allowed;
  step.action = action_of(step.result);
  step.decides = true;
  if (own) step.rule = record.rule;
  return step;
}

ExplainedDirection direction_of(const FlowRecord& record, Direction direction,
                                const std::vector<RuleActivity>& rules) {
  ExplainedDirection result;
  result.direction = direction;
  result.endpoint = name_of(direction == Direction::Egress ? record.src : record.dst);
  for (const store::TraceEntry& entry : record.trace) {
    if (entry.direction != direction) continue;
    ExplainedStep step = step_of(entry);
    if (const store::RuleRow* rule = rule_of(rules, record, entry, step.decides); rule != nullptr) {
      step.rule = rule->id;
      step.revision = rule->revision;
      step.text = rule->text;
      step.source = rule->source;
    }
    if (std::find(result.tiers.begin(), result.tiers.end(), step.tier) == result.tiers.end())
      result.tiers.push_back(step.tier);
    result.steps.push_back(std::move(step));
  }
  if (result.steps.empty() || !result.steps.back().decides)
    result.steps.push_back(fallback_step(record, direction));
  const ExplainedStep& last = result.steps.back();
  result.action = last.result == StepResult::Denied ? policy::Action::Deny : policy::Action::Allow;
  result.reason = direction == record.direction ? record.reason
                  : last.policy.empty()         ? Reason::NoPolicy
                                                : Reason::Policy;
  return result;
}

void add_staged(const FlowRecord& record, ExplainedDirection& direction) {
  for (const store::StagedVerdict& staged : record.staged) {
    ExplainedStep step;
    step.tier = staged.policy.substr(0, staged.policy.find('/'));
    step.policy = staged.policy;
    step.rule_index = staged.rule_index;
    step.result = staged.action == store::Verdict::Deny ? StepResult::Denied : StepResult::Allowed;
    step.action = action_of(step.result);
    step.staged = true;
    const auto at = std::find_if(direction.steps.begin(), direction.steps.end(),
                                 [&](const ExplainedStep& other) { return other.tier == step.tier; });
    direction.steps.insert(at, std::move(step));
  }
}

// The direction that the record tells of, and what came before it.
policy::Explanation cut_to(const FlowRecord& record, policy::Explanation explanation) {
  if (record.direction == Direction::Ingress || !explanation.egress) return explanation;
  explanation.ingress.reset();
  explanation.action = explanation.egress->action;
  return explanation;
}

// Whether the evaluation gave the verdict that the kernel gave.
bool agrees(const FlowRecord& record, const policy::Explanation& explanation) {
  const auto& told = record.direction == Direction::Egress ? explanation.egress : explanation.ingress;
  return told && std::any_of(told->steps.begin(), told->steps.end(), [&](const ExplainedStep& step) {
           return step.decides && !step.staged && step.rule == record.rule;
         });
}

}  // namespace

Result<RecordExplanation> explain_record(store::FlowReader& reader, const std::string& id) {
  TL_ASSIGN(const auto record, reader.record(id));
  if (!record)
    return fail(ErrorCode::NotFound,
                "no record has the id \"" + id + "\" (`tierlog flows -o jsonl` shows the ids)");
  RecordExplanation answer;
  auto past = query::past_at(reader, record->start);
  if (past) {
    TL_ASSIGN(const policy::Program program, query::program_of(reader, *past));
    answer.explanation = cut_to(*record, policy::explain(program, query::packet_of(*record)));
    answer.past = std::move(*past);
    if (agrees(*record, answer.explanation)) return answer;
    answer.notes.push_back("what is kept of that time gives another rule than the kernel did (0x" +
                           to_hex(record->rule) + "); shown is the record's own trace");
    answer.past.reset();
  } else {
    answer.notes.push_back(past.error().message + "; shown is the record's own trace");
  }
  TL_ASSIGN(answer.explanation, explain_trace(reader, *record));
  return answer;
}

Result<policy::Explanation> explain_trace(store::FlowReader& reader, const store::FlowRecord& record) {
  TL_ASSIGN(const auto rules, reader.rules({}, true));
  policy::Explanation explanation;
  explanation.packet = query::packet_of(record);
  explanation.source_name = name_of(record.src);
  explanation.destination_name = name_of(record.dst);
  explanation.action = record.action == store::Verdict::Deny ? policy::Action::Deny : policy::Action::Allow;
  for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
    const bool told = direction == record.direction || std::any_of(record.trace.begin(), record.trace.end(),
                                                                   [&](const store::TraceEntry& entry) {
                                                                     return entry.direction == direction;
                                                                   });
    if (!told) continue;
    ExplainedDirection explained = direction_of(record, direction, rules);
    if (direction == record.direction) add_staged(record, explained);
    (direction == Direction::Egress ? explanation.egress : explanation.ingress) = std::move(explained);
  }
  return explanation;
}

}  // namespace tierlog::cli
