#include "cli/explain_text.h"

#include <gtest/gtest.h>

#include <sstream>

namespace tierlog::cli {
namespace {

using policy::Action;
using policy::ExplainedDirection;
using policy::ExplainedStep;
using policy::Explanation;
using policy::StepResult;

ExplainedStep step(const char* tier, const char* policy_name, std::optional<int> index, const char* action,
                   StepResult result, const char* why, const char* source = "") {
  ExplainedStep s;
  s.tier = tier;
  s.policy = policy_name;
  s.rule_index = index;
  s.action = action;
  s.result = result;
  s.why = why;
  s.source = source;
  return s;
}

ExplainedStep deciding(ExplainedStep s) {
  s.decides = true;
  return s;
}

// The example of the documentation: egress allowed by the third tier, ingress denied by the second.
Explanation sample() {
  constexpr const char* kRestrict = "platform/tenant-01/tenant-01-restrict";
  ExplainedDirection egress{Direction::Egress,
                            "tenant-02/web",
                            Action::Allow,
                            Reason::Policy,
                            {"kube-admin", "security", "platform", "default"},
                            {"kube-admin", "platform"},
                            {}};
  egress.steps = {step("security", "security//egress-baseline", 0, "Pass", StepResult::Passed,
                       "matched: destination is a pod"),
                  deciding(step("default", "default/tenant-02/allow-egress", 0, "Allow", StepResult::Allowed,
                                "matched", "policies/40-tenants.yaml:31:5"))};
  ExplainedDirection ingress{
      Direction::Ingress, "tenant-01/db", Action::Deny, Reason::Policy, {"security", "platform"}, {}, {}};
  ExplainedStep staged =
      step("platform", "platform/tenant-01/tighten-db", 0, "Deny", StepResult::Denied, "matched");
  staged.staged = true;
  ingress.steps = {
      step("security", "security//quarantine", std::nullopt, "", StepResult::NoMatch, ""),
      step("security", "", -1, "Pass", StepResult::Passed, ""),
      staged,
      step("platform", kRestrict, 0, "Log", StepResult::Logged, "matched"),
      step("platform", kRestrict, 1, "Allow", StepResult::NoMatch, "source is not role == 'api'"),
      deciding(step("platform", kRestrict, 2, "Deny", StepResult::Denied, "matched",
                    "policies/30-platform.yaml:18:5"))};
  Explanation explanation;
  explanation.packet = {
      *IpAddr::parse("10.244.1.7"), *IpAddr::parse("10.244.1.9"), protocol::kTcp, 0, 5432, 0, 0};
  explanation.source_name = "tenant-02/web";
  explanation.destination_name = "tenant-01/db";
  explanation.action = Action::Deny;
  explanation.egress = egress;
  explanation.ingress = ingress;
  return explanation;
}

constexpr View kPlain{120, false, false};

TEST(ExplainText, ShowsBothDirectionsTierByTier) {
  EXPECT_EQ(explain_text(sample(), kPlain),
            R"(DENY  tenant-02/web (10.244.1.7) -> tenant-01/db (10.244.1.9) 5432/tcp

egress from tenant-02/web                                                       allow
  security  /egress-baseline              [0] Pass   matched: destination is a pod
  platform  (no policy selects it)
  default   tenant-02/allow-egress        [0] Allow  matched                    <- decides, policies/40-tenants.yaml:31
ingress to tenant-01/db                                                         DENY
  security  /quarantine                   no rule matched
            (end of tier)                 Pass
  platform  tenant-01/tenant-01-restrict  [0] Log    matched
                                          [1] Allow  source is not role == 'api'
                                          [2] Deny   matched                    <- decides, policies/30-platform.yaml:18
  staged    platform/tenant-01/tighten-db would deny   [0] Deny
)");
}

TEST(ExplainText, AServiceIsShownWithTheVerdictOfEachBackend) {
  Explanation explanation = sample();
  explanation.service = policy::ExplainedService{
      "tenant-01/db",
      *IpAddr::parse("fd00:96::1"),
      80,
      true,
      {{*IpAddr::parse("10.244.1.9"), 5432, "tenant-01/db", Action::Deny},
       {*IpAddr::parse("10.244.1.10"), 5432, "tenant-01/db-1", Action::Allow}}};
  EXPECT_EQ(explain_text(explanation, kPlain).substr(0, 300),
            (R"(DENY  tenant-02/web (10.244.1.7) -> tenant-01/db (10.244.1.9) 5432/tcp

Service tenant-01/db ([fd00:96::1]:80) leads to 2 backends:
  DENY  tenant-01/db 10.244.1.9:5432  (explained below)
  ALLOW tenant-01/db-1 10.244.1.10:5432

)" + explain_text(sample(), kPlain).substr(explain_text(sample(), kPlain).find("egress from")))
                .substr(0, 300));
  explanation.service->backends.clear();
  EXPECT_NE(explain_text(explanation, kPlain).find("has no backend: judged as it was sent"), std::string::npos);
  explanation.service->has_port = false;
  EXPECT_NE(explain_text(explanation, kPlain).find("has no such port: judged as it was sent"), std::string::npos);
}

TEST(ExplainText, NoLineIsLongerThanTheTerminal) {
  std::istringstream text(explain_text(sample(), kPlain));
  for (std::string line; std::getline(text, line);) EXPECT_LE(display_width(line), 120u) << line;
}

TEST(ExplainText, SumsUpManyRulesThatDidNotMatch) {
  Explanation explanation = sample();
  explanation.egress.reset();
  std::vector<ExplainedStep> steps;
  for (int i = 0; i < 20; ++i)
    steps.push_back(
        step("platform", "platform//many", i, "Allow", StepResult::NoMatch, "protocol is not udp"));
  steps.push_back(
      deciding(step("platform", "platform//many", 20, "Deny", StepResult::Denied, "matched", "a.yaml:9:1")));
  explanation.ingress->steps = steps;
  const std::string text = explain_text(explanation, kPlain);
  EXPECT_NE(text.find("20 rules did not match (-o wide shows each)"), std::string::npos) << text;
  EXPECT_EQ(text.find("[19]"), std::string::npos) << text;
  EXPECT_NE(text.find("[20] Deny"), std::string::npos) << text;
  EXPECT_NE(explain_text(explanation, {120, true, false}).find("[19] Allow"), std::string::npos);
}

TEST(ExplainText, EndOfTierDecides) {
  Explanation explanation = sample();
  explanation.egress.reset();
  explanation.ingress->reason = Reason::EndOfTier;
  explanation.ingress->steps = {
      step("platform", "platform/tenant-01/only-log", 0, "Log", StepResult::Logged, "matched"),
      deciding(step("platform", "", -1, "Deny", StepResult::Denied, ""))};
  const std::string text = explain_text(explanation, kPlain);
  EXPECT_NE(text.find("            (end of tier)"), std::string::npos) << text;
  EXPECT_NE(text.find("<- decides"), std::string::npos) << text;
}

TEST(ExplainText, NobodyEnforces) {
  Explanation explanation = sample();
  explanation.egress.reset();
  explanation.ingress.reset();
  explanation.action = Action::Allow;
  EXPECT_NE(explain_text(explanation, kPlain).find("neither end is an enforced pod"), std::string::npos);
}

TEST(ExplainText, IngressIsNotAskedAfterADenial) {
  Explanation explanation = sample();
  explanation.ingress.reset();
  explanation.egress->action = Action::Deny;
  EXPECT_NE(explain_text(explanation, kPlain).find("ingress to tenant-01/db: not asked"), std::string::npos);
}

TEST(ExplainText, WhatPoliciesAloneWouldSay) {
  Explanation explanation = sample();
  explanation.egress.reset();
  explanation.by_policies_alone = explanation.ingress;
  explanation.ingress->action = explanation.action = Action::Allow;
  explanation.ingress->reason = Reason::Host;
  explanation.ingress->tiers.clear();
  explanation.ingress->steps = {
      deciding(step("", "", std::nullopt, "Allow", StepResult::Allowed, "the node reaches its own pods"))};
  const std::string text = explain_text(explanation, kPlain);
  EXPECT_TRUE(text.starts_with("ALLOW  ")) << text;
  const auto decides = text.find("<- decides"),
             alone = text.find("by policies alone (host_to_pod: policy), ingress to tenant-01/db"),
             would = text.find("<- would decide, ");
  EXPECT_NE(decides, std::string::npos) << text;
  EXPECT_NE(alone, std::string::npos) << text;
  EXPECT_NE(would, std::string::npos) << text;
  EXPECT_LT(decides, alone);
  EXPECT_LT(alone, would);
  EXPECT_EQ(text.find("<- decides", decides + 1), std::string::npos) << text;
}

TEST(DecidingStep, IsTheDenial) {
  const Explanation explanation = sample();
  const ExplainedStep* found = deciding_step(explanation);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->policy, "platform/tenant-01/tenant-01-restrict");
  EXPECT_EQ(found->rule_index, 2);
}

}  // namespace
}  // namespace tierlog::cli
