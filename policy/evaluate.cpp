#include "policy/evaluate.h"

#include <algorithm>
#include <array>
#include <utility>

#include "policy/host_way.h"
#include "policy/match_packet.h"

namespace tierlog::policy {
namespace {

constexpr std::size_t kReasonsShown = 3;

StepResult result_of(Action action) {
  switch (action) {
    case Action::Allow:
      return StepResult::Allowed;
    case Action::Deny:
      return StepResult::Denied;
    case Action::Pass:
      return StepResult::Passed;
    case Action::Log:
      break;
  }
  return StepResult::Logged;
}

bool matches(const Program& program, const ProgramRule& rule, const Packet& packet) {
  return std::any_of(rule.any_of.begin(), rule.any_of.end(),
                     [&](const Match& match) { return !first_mismatch(program, match, packet); });
}

// Why none of the rule's alternatives matches: each reason once, the first few of them.
std::string why_not(const Program& program, const ProgramRule& rule, const Packet& packet) {
  std::vector<std::string> reasons;
  for (const Match& match : rule.any_of)
    if (const auto mismatch = first_mismatch(program, match, packet)) {
      std::string reason = why(program, match, packet, *mismatch);
      if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end())
        reasons.push_back(std::move(reason));
    }
  std::string text;
  for (std::size_t i = 0; i < reasons.size() && i < kReasonsShown; ++i)
    text += (text.empty() ? "" : "; ") + reasons[i];
  if (reasons.size() > kReasonsShown)
    text += "; and " + std::to_string(reasons.size() - kReasonsShown) + " more";
  return text;
}

// One packet on its way through one class.
class Walk {
 public:
  Walk(const Program& program, const Packet& packet, Detail detail, DirectionVerdict& verdict)
      : program_(program), packet_(packet), full_(detail == Detail::Full), verdict_(verdict) {}

  // False when nobody decided.
  bool run(const EndpointClass& endpoint_class) {
    has_ends_ = endpoint_class.has_ends();
    for (const ClassTier& tier : endpoint_class.tiers)
      if (walk_tier(tier) == Next::Decided) return true;
    if (!has_ends_) return false;
    add({kNone,
         kNone,
         std::nullopt,
         endpoint_class.fallback,
         result_of(endpoint_class.fallback_action),
         false,
         true,
         {}});
    if (full_) verdict_.trace.back().why = fallback_text(endpoint_class.fallback);
    decide(endpoint_class.fallback, endpoint_class.fallback_action, false);
    return true;
  }

 private:
  enum class Next : std::uint8_t { Policy, Tier, Decided };

  Next walk_tier(const ClassTier& tier);
  Next walk_policy(const ClassTier& tier, std::uint32_t index);
  Next apply(const ProgramRule& rule, bool staged);
  void walk_end(const EndOfTier& end);
  void staged_end(const ClassTier& tier);

  void add(TraceStep step) { verdict_.trace.push_back(std::move(step)); }
  void decide(RuleId id, Action action, bool logged) {
    verdict_.rule = id;
    verdict_.action = action;
    if (logged) verdict_.logged_by.push_back(id);
  }
  static std::string fallback_text(RuleId id) {
    const ReservedRule* rule = find_reserved(id);
    if (rule != nullptr && rule->reason == Reason::Host) return "no policy decided and no profile allows";
    return rule != nullptr && rule->reason == Reason::NoPolicy
               ? "no policy selects the endpoint"
               : "every tier passed, the namespace's profile allows";
  }

  const Program& program_;
  const Packet& packet_;
  const bool full_;
  bool has_ends_ = true;
  DirectionVerdict& verdict_;
  bool staged_decided_ = false;  // a staged policy of the current tier would have decided
};

Walk::Next Walk::walk_tier(const ClassTier& tier) {
  staged_decided_ = false;
  for (const std::uint32_t index : tier.policies) {
    const Next next = walk_policy(tier, index);
    if (next != Next::Policy) return next;
  }
  if (tier.end == kNone) {
    if (has_ends_) staged_end(tier);
    return Next::Tier;
  }
  const EndOfTier& end = program_.ends[tier.end];
  walk_end(end);
  return end.action == Action::Pass ? Next::Tier : Next::Decided;
}

Walk::Next Walk::walk_policy(const ClassTier& tier, std::uint32_t index) {
  const ProgramPolicy& policy = program_.policies[index];
  const auto& rules = policy.rules(verdict_.direction);
  bool any = false;
  for (const std::uint32_t rule_index : rules) {
    const ProgramRule& rule = program_.rules[rule_index];
    TraceStep step{tier.tier, index, rule.index, rule.id, StepResult::NoMatch, policy.staged, false, {}};
    if (!matches(program_, rule, packet_)) {
      if (!full_) continue;
      step.why = why_not(program_, rule, packet_);
      add(std::move(step));
      continue;
    }
    any = true;
    step.result = result_of(rule.action);
    step.decides = !policy.staged && (rule.action == Action::Allow || rule.action == Action::Deny);
    if (full_) step.why = "matched";
    add(std::move(step));
    const Next next = apply(rule, policy.staged);
    if (rule.action != Action::Log) return next;
  }
  if (full_ ? rules.empty() : !any)
    add({tier.tier, index, std::nullopt, RuleId::None, StepResult::NoMatch, policy.staged, false,
         full_ ? "it has no " + std::string(tierlog::name(verdict_.direction)) + " rules" : ""});
  return Next::Policy;
}

Walk::Next Walk::apply(const ProgramRule& rule, bool staged) {
  if (staged) {
    staged_decided_ = staged_decided_ || rule.action != Action::Log;
    return Next::Policy;
  }
  switch (rule.action) {
    case Action::Log:
      verdict_.logged_by.push_back(rule.id);
      return Next::Policy;
    case Action::Pass:
      return Next::Tier;
    case Action::Allow:
    case Action::Deny:
      break;
  }
  decide(rule.id, rule.action, rule.log_decision);
  return Next::Decided;
}

void Walk::walk_end(const EndOfTier& end) {
  const bool denies = end.action == Action::Deny;
  add({end.tier, kNone, -1, end.id, result_of(end.action), false, denies,
       full_ ? "no rule of the tier's policies matched" : ""});
  if (!denies) return;
  const bool logged = std::any_of(end.policies.begin(), end.policies.end(), [&](std::uint32_t index) {
    return program_.policies[index].log_denied_end;
  });
  decide(end.id, Action::Deny, logged);
}

// Enforced, the tier's staged policies would have made its default action apply.
void Walk::staged_end(const ClassTier& tier) {
  if (staged_decided_) return;
  add({tier.tier, tier.policies.back(), -1, RuleId::None, result_of(program_.tiers[tier.tier].default_action),
       true, false, full_ ? "no rule of the tier's staged policies matched" : ""});
}

bool is_to_itself(const Program& program, const Packet& packet) {
  const Endpoint* source = program.known(packet.source);
  return source != nullptr && source == program.known(packet.destination);
}

// A pod reaches itself whatever policies say.
DirectionVerdict self_verdict(Direction direction, Detail detail) {
  const RuleId id = direction == Direction::Ingress ? reserved::kSelfIngress : reserved::kSelfEgress;
  DirectionVerdict verdict{direction, Action::Allow, id, {}, {}};
  verdict.trace.push_back({kNone, kNone, std::nullopt, id, StepResult::Allowed, false, true,
                           detail == Detail::Full ? "a pod reaches itself" : ""});
  return verdict;
}

DirectionVerdict host_verdict(Detail detail) {
  DirectionVerdict verdict{Direction::Ingress, Action::Allow, reserved::kHostIngress, {}, {}};
  verdict.trace.push_back({kNone, kNone, std::nullopt, reserved::kHostIngress, StepResult::Allowed, false,
                           true, detail == Detail::Full ? "the node reaches its own pods" : ""});
  return verdict;
}

}  // namespace

std::string_view name(StepResult result) {
  switch (result) {
    case StepResult::NoMatch:
      return "no-match";
    case StepResult::Logged:
      return "log";
    case StepResult::Passed:
      return "pass";
    case StepResult::Allowed:
      return "allow";
    case StepResult::Denied:
      return "deny";
  }
  return "";
}

const DirectionVerdict* Evaluation::deciding() const {
  const std::array in_order{&host_ingress, &egress, &ingress, &host_egress};
  for (const auto* verdict : in_order)
    if (*verdict && (*verdict)->action == Action::Deny) return &**verdict;
  for (const auto* verdict : {&ingress, &egress, &host_ingress, &host_egress})
    if (*verdict) return &**verdict;
  return nullptr;
}

const DirectionVerdict* Evaluation::by(RuleId rule) const {
  for (const auto* verdict : {&ingress, &egress, &host_ingress, &host_egress})
    if (*verdict && (*verdict)->rule == rule) return &**verdict;
  return nullptr;
}

std::optional<DirectionVerdict> walk_class(const Program& program, std::uint32_t endpoint_class,
                                           const Packet& packet, Detail detail) {
  if (endpoint_class == kNone) return std::nullopt;
  DirectionVerdict verdict;
  verdict.direction = program.classes[endpoint_class].direction;
  verdict.asked = endpoint_class;
  if (!Walk(program, packet, detail, verdict).run(program.classes[endpoint_class])) return std::nullopt;
  return verdict;
}

DirectionVerdict evaluate_direction(const Program& program, const ProgramEndpoint& endpoint,
                                    Direction direction, const Packet& packet, Detail detail) {
  if (is_to_itself(program, packet)) return self_verdict(direction, detail);
  if (direction == Direction::Ingress && program.host_addresses.count(packet.source) != 0)
    return host_verdict(detail);
  return *walk_class(program, endpoint.class_of(direction), packet, detail);
}

Evaluation evaluate(const Program& program, const Packet& packet, Detail detail, Directions directions) {
  Evaluation result;
  const HostWay way = host_way(program, packet);
  bool denied = false;
  const auto take = [&](std::optional<DirectionVerdict>& into, std::optional<DirectionVerdict> verdict) {
    denied = denied || (verdict && verdict->action == Action::Deny);
    into = std::move(verdict);
  };
  const auto go_on = [&] { return !denied || directions == Directions::Both; };
  const ProgramEndpoint* destination = program.enforced(packet.destination);
  if (way.in != kNone)
    take(way.to_node ? result.ingress : result.host_ingress, host_says(program, way, Direction::Ingress, packet, detail));
  if (const ProgramEndpoint* source = program.enforced(packet.source); source != nullptr && go_on())
    take(result.egress, evaluate_direction(program, *source, Direction::Egress, packet, detail));
  // A denial that is only recorded ends nothing for those who are really judged.
  const bool only_recorded = program.audits(packet.source) && destination != nullptr && !destination->audited;
  if (destination != nullptr && (go_on() || only_recorded))
    take(result.ingress, evaluate_direction(program, *destination, Direction::Ingress, packet, detail));
  if (way.out != kNone && go_on())
    take(way.from_node ? result.egress : result.host_egress, host_says(program, way, Direction::Egress, packet, detail));
  result.action = denied ? Action::Deny : Action::Allow;
  return result;
}

}  // namespace tierlog::policy
