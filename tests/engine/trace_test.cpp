// The way of a packet, step by step: what is said at either level of detail, staged policies, logging.
#include "tests/engine/world.h"

namespace tierlog::policy::test {
namespace {

// "tier policy[rule] result", "staged …", "… <-" for the deciding step.
std::string line(const Program& program, const TraceStep& step) {
  std::string text = step.staged ? "staged " : "";
  text += step.tier == kNone ? "-" : program.tiers[step.tier].name;
  text += " " + (step.policy == kNone ? "-" : program.policies[step.policy].key.name);
  text += "[" + (step.rule_index ? std::to_string(*step.rule_index) : "") + "] ";
  text += name(step.result);
  return text + (step.decides ? " <-" : "");
}

std::vector<std::string> lines(const Program& program, const DirectionVerdict& verdict) {
  std::vector<std::string> result;
  for (const TraceStep& step : verdict.trace) result.push_back(line(program, step));
  return result;
}

using Lines = std::vector<std::string>;

class Trace : public testing::Test {
 protected:
  Trace() {
    world.pod("default", "server", {"10.0.0.2"});
    world.tier("early", 1, Action::Pass);
  }
  DirectionVerdict ingress(Detail detail, std::uint16_t destination_port = 80) {
    program = world.compile();
    return *evaluate(program, tcp("203.0.113.9", "10.0.0.2", destination_port), detail).ingress;
  }
  void stage(Policy& policy) { policy.key.kind = PolicyKind::StagedGlobalNetworkPolicy; }

  World world;
  Program program;
};

TEST_F(Trace, FullNamesEveryRuleThatWasLookedAt) {
  world.policy("early", "", "a", 1).ingress =
      rules({rule(Action::Log), rule(Action::Deny, to_port(port(1)))});
  world.policy("early", "", "b", 2);
  world.policy("default", "", "c", 1).ingress =
      rules({rule(Action::Deny, to_port(port(2))), rule(Action::Allow), rule(Action::Deny)});
  const DirectionVerdict verdict = ingress(Detail::Full);
  EXPECT_EQ(lines(program, verdict),
            (Lines{"early a[0] log", "early a[1] no-match", "early b[] no-match", "early -[-1] pass",
                   "default c[0] no-match", "default c[1] allow <-"}));
  EXPECT_EQ(verdict.trace[1].why, "destination port is not 1");
  EXPECT_EQ(verdict.trace[2].why, "it has no ingress rules");
  EXPECT_EQ(verdict.trace[3].why, "no rule of the tier's policies matched");
  EXPECT_EQ(verdict.trace[5].why, "matched");
  EXPECT_EQ(verdict.trace[5].rule, verdict.rule);
}

TEST_F(Trace, SummaryNamesPoliciesAndTheRulesThatMatched) {
  world.policy("early", "", "a", 1).ingress =
      rules({rule(Action::Log), rule(Action::Deny, to_port(port(1)))});
  world.policy("early", "", "b", 2).ingress = rules({rule(Action::Deny, to_port(port(1)))});
  world.policy("default", "", "c", 1).ingress =
      rules({rule(Action::Deny, to_port(port(2))), rule(Action::Allow)});
  const DirectionVerdict verdict = ingress(Detail::Summary);
  EXPECT_EQ(lines(program, verdict),
            (Lines{"early a[0] log", "early b[] no-match", "early -[-1] pass", "default c[1] allow <-"}));
  for (const TraceStep& step : verdict.trace) EXPECT_EQ(step.why, "");
  EXPECT_EQ(verdict.trace[1].rule, RuleId::None);
}

TEST_F(Trace, ThePassedTiersEndIsNotAStep) {
  world.policy("early", "", "a", 1).ingress = rules({rule(Action::Pass)});
  world.policy("default", "", "b", 1);
  const DirectionVerdict verdict = ingress(Detail::Summary);
  EXPECT_EQ(lines(program, verdict),
            (Lines{"early a[0] pass", "default b[] no-match", "default -[-1] deny <-"}));
  EXPECT_EQ(verdict.action, Action::Deny);
}

TEST_F(Trace, TheFallbackIsTheLastStep) {
  const DirectionVerdict open = ingress(Detail::Full);
  EXPECT_EQ(lines(program, open), (Lines{"- -[] allow <-"}));
  EXPECT_EQ(open.trace[0].why, "no policy selects the endpoint");
  EXPECT_EQ(open.rule, reserved::kNoPolicyIngress);
  world.policy("early", "", "a", 1);
  const DirectionVerdict passed = ingress(Detail::Full);
  EXPECT_EQ(lines(program, passed), (Lines{"early a[] no-match", "early -[-1] pass", "- -[] allow <-"}));
  EXPECT_EQ(passed.trace[2].why, "every tier passed, the namespace's profile allows");
  EXPECT_EQ(passed.rule, reserved::kProfileIngress);
}

TEST_F(Trace, StagedPoliciesSayWhatTheyWouldDo) {
  Policy& staged = world.policy("default", "", "a", 1);
  staged.ingress = rules({rule(Action::Log), rule(Action::Deny), rule(Action::Allow)});
  stage(staged);
  world.policy("default", "", "b", 2).ingress = rules({rule(Action::Allow)});
  const DirectionVerdict verdict = ingress(Detail::Summary);
  EXPECT_EQ(lines(program, verdict),
            (Lines{"staged default a[0] log", "staged default a[1] deny", "default b[0] allow <-"}));
  EXPECT_TRUE(verdict.logged_by.empty()) << "a staged policy logs nothing";
}

TEST_F(Trace, ATierOfStagedPoliciesSaysWhatItsEndWouldDo) {
  Policy& first = world.policy("default", "", "a", 1);
  stage(first);
  Policy& last = world.policy("default", "", "b", 2);
  last.ingress = rules({rule(Action::Allow, to_port(port(1)))});
  stage(last);
  EXPECT_EQ(lines(program, ingress(Detail::Summary)),
            (Lines{"staged default a[] no-match", "staged default b[] no-match", "staged default b[-1] deny",
                   "- -[] allow <-"}));
  EXPECT_EQ(lines(program, ingress(Detail::Summary, 1)),
            (Lines{"staged default a[] no-match", "staged default b[0] allow", "- -[] allow <-"}));
}

TEST_F(Trace, OnlyAStagedPolicyThatIsSetIsEvaluated) {
  for (const StagedAction action : {StagedAction::Delete, StagedAction::Learn, StagedAction::Ignore}) {
    world.set.policies.clear();
    Policy& staged = world.policy("default", "", "a", 1);
    staged.staged_action = action;
    stage(staged);
    EXPECT_EQ(lines(program, ingress(Detail::Summary)), (Lines{"- -[] allow <-"}));
  }
}

TEST_F(Trace, LoggedByNamesEveryLogRuleOnTheWay) {
  world.policy("early", "", "a", 1).ingress =
      rules({rule(Action::Log), rule(Action::Log, to_port(port(1))), rule(Action::Pass)});
  world.policy("default", "", "b", 1).ingress = rules({rule(Action::Log), rule(Action::Deny)});
  const DirectionVerdict verdict = ingress(Detail::Summary);
  EXPECT_EQ(verdict.logged_by, (std::vector{program.rules[0].id, program.rules[3].id}));
}

TEST_F(Trace, IngressAfterADenialOnlyWhenAskedFor) {
  world.pod("default", "client", {"10.0.0.1"}, {{"role", "client"}});
  Policy& egress = world.policy("default", "", "a", 1, "role == 'client'");
  egress.applies_ingress = false;
  egress.applies_egress = true;
  program = world.compile();
  const Packet packet = tcp("10.0.0.1", "10.0.0.2", 80);
  EXPECT_FALSE(evaluate(program, packet).ingress);
  const Evaluation both = evaluate(program, packet, Detail::Summary, Directions::Both);
  ASSERT_TRUE(both.ingress);
  EXPECT_EQ(both.ingress->action, Action::Allow);
  EXPECT_EQ(both.action, Action::Deny);
  EXPECT_EQ(both.deciding()->direction, Direction::Egress);
}

TEST_F(Trace, StrangersAreJudgedByNobody) {
  program = world.compile();
  const Evaluation evaluation = evaluate(program, tcp("203.0.113.9", "203.0.113.10", 80));
  EXPECT_EQ(evaluation.action, Action::Allow);
  EXPECT_EQ(evaluation.deciding(), nullptr);
}

TEST_F(Trace, APodReachesItself) {
  world.cluster.endpoints[0].addresses.push_back(ip("10.0.0.3"));
  Policy& all = world.policy("default", "", "a", 1);
  all.applies_egress = true;
  program = world.compile();
  for (const char* own : {"10.0.0.2", "10.0.0.3"}) {
    const Evaluation evaluation = evaluate(program, tcp("10.0.0.2", own, 80));
    EXPECT_EQ(evaluation.egress->rule, reserved::kSelfEgress);
    EXPECT_EQ(evaluation.ingress->rule, reserved::kSelfIngress);
    EXPECT_EQ(evaluation.action, Action::Allow);
  }
}

}  // namespace
}  // namespace tierlog::policy::test
