// Policy test cases of upstream suites through the evaluator, where they are at hand.
//
// A run that cannot fail proves nothing, so each kind of expectation is also turned round.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "lab/cases.h"
#include "tests/policy/conformance.h"

namespace tierlog::lab {
namespace {

constexpr std::size_t kAtLeastPassed = 300;

std::string folder() {
  return conformance::file("cases");
}

class Conformance : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::is_directory(folder())) GTEST_SKIP() << conformance::missing(folder());
  }
  static const LoadedCases& loaded() {
    static const LoadedCases cases = load_cases({folder()});
    return cases;
  }
  static std::string problems(const CaseResult& result) {
    std::string text;
    for (const CheckResult& check : result.checks)
      for (const std::string& problem : check.problems)
        text += "\n  check " + std::to_string(check.index) + " " + check.check.from.text() + " -> " +
                check.check.to.text() + ": " + problem;
    return text;
  }
  // How many cases with a check that `plant` could spoil were seen to fail.
  static void expect_planted_errors_seen(const std::function<bool(Check&)>& plant) {
    std::size_t planted = 0;
    for (const PolicyCase& original : loaded().cases) {
      if (original.skipped) continue;
      PolicyCase spoiled = original;
      bool any = false;
      for (Check& check : spoiled.checks)
        if (!any) any = plant(check);
      if (!any) continue;
      ++planted;
      EXPECT_FALSE(run_model(spoiled).passed) << original.id;
    }
    EXPECT_GT(planted, 0u);
  }
};

TEST_F(Conformance, EveryCaseIsRead) {
  EXPECT_EQ(loaded().findings.errors(), 0u) << loaded().findings.to_string();
  EXPECT_EQ(loaded().cases.size(), loaded().files);
}

TEST_F(Conformance, EveryCasePasses) {
  std::size_t passed = 0;
  for (const PolicyCase& test_case : loaded().cases) {
    const CaseResult result = run_model(test_case);
    if (result.skipped) {
      EXPECT_FALSE(test_case.required.empty()) << test_case.id << ": " << *result.skipped;
      continue;
    }
    EXPECT_TRUE(result.passed) << result.id << problems(result);
    passed += result.passed ? 1 : 0;
  }
  EXPECT_GE(passed, kAtLeastPassed);
  RecordProperty("passed", static_cast<int>(passed));
}

TEST_F(Conformance, ATurnedVerdictFails) {
  expect_planted_errors_seen([](Check& check) {
    check.expect = check.expect == policy::Action::Allow ? policy::Action::Deny : policy::Action::Allow;
    return true;
  });
}

TEST_F(Conformance, ATurnedDirectionFails) {
  expect_planted_errors_seen([](Check& check) {
    if (!check.ingress) return false;
    check.ingress = *check.ingress == policy::Action::Allow ? policy::Action::Deny : policy::Action::Allow;
    return true;
  });
}

TEST_F(Conformance, AWrongRuleFails) {
  expect_planted_errors_seen([](Check& check) {
    if (!check.decides || !check.decides->rule) return false;
    *check.decides->rule += 1000;
    return true;
  });
}

TEST_F(Conformance, AWrongPolicyFails) {
  expect_planted_errors_seen([](Check& check) {
    if (!check.decides || !check.decides->policy) return false;
    *check.decides->policy = "x" + *check.decides->policy;
    return true;
  });
}

}  // namespace
}  // namespace tierlog::lab
