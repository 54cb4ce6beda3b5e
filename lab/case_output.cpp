// Results of policy test cases as JSON and as JUnit XML.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "lab/cases.h"

namespace tierlog::lab {
namespace {

using Json = nlohmann::ordered_json;

Json or_null(const std::optional<std::string>& text) {
  return text ? Json(*text) : Json(nullptr);
}
Json or_null(const std::optional<int>& number) {
  return number ? Json(*number) : Json(nullptr);
}
Json or_null(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

Json to_json(const std::optional<Decider>& decider) {
  if (!decider) return nullptr;
  return {{"direction", name(decider->direction)},
          {"tier", or_null(decider->tier)},
          {"policy", or_null(decider->policy)},
          {"rule", or_null(decider->rule)},
          {"rule_id", number(decider->rule_id)}};
}

Json to_json(const TraceLine& line) {
  Json json{{"direction", name(line.direction)},
            {"tier", or_null(line.tier)},
            {"policy", or_null(line.policy)},
            {"rule_index", or_null(line.rule_index)},
            {"result", policy::name(line.result)}};
  if (line.staged) json["staged"] = true;
  return json;
}

Json to_json(const CheckResult& result) {
  Json trace = Json::array();
  for (const TraceLine& line : result.observed.trace) trace.push_back(to_json(line));
  Json json{{"index", result.index},
            {"expect", result.check.expect == policy::Action::Allow ? "allow" : "deny"},
            {"verdict", name(result.observed.verdict)},
            {"passed", result.passed},
            {"problems", result.problems},
            {"decides", to_json(result.observed.decides)},
            {"trace", std::move(trace)}};
  if (result.skipped) json["skipped"] = *result.skipped;
  return json;
}

Json to_json(const CaseResult& result) {
  Json checks = Json::array();
  for (const CheckResult& check : result.checks) checks.push_back(to_json(check));
  return {{"id", result.id},
          {"file", result.file},
          {"passed", result.passed},
          {"skipped", or_null(result.skipped)},
          {"checks", std::move(checks)}};
}

// Text for an XML attribute or element; characters that XML 1.0 forbids become "?".
std::string xml(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? '?' : c;
    }
  }
  return result;
}

std::string seconds(std::chrono::nanoseconds took) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", std::chrono::duration<double>(took).count());
  return text;
}

std::string failure(const CaseResult& result) {
  std::string text;
  for (const CheckResult& check : result.checks)
    for (const std::string& problem : check.problems)
      text += "check " + std::to_string(check.index) + " (" + check.check.from.text() + " to " +
              check.check.to.text() + "): " + problem + "\n";
  return text;
}

std::string first_problem(const CaseResult& result) {
  for (const CheckResult& check : result.checks)
    if (!check.problems.empty()) return check.problems.front();
  return "failed";
}

std::string testcase(const CaseResult& result, const std::string& via) {
  std::string text = "  <testcase classname=\"tierlog." + xml(via) + "\" name=\"" + xml(result.id) +
                     "\" file=\"" + xml(result.file) + "\" time=\"" + seconds(result.took) + "\"";
  if (result.skipped) return text + "><skipped message=\"" + xml(*result.skipped) + "\"/></testcase>\n";
  if (result.passed) return text + "/>\n";
  return text + "><failure message=\"" + xml(first_problem(result)) + "\">" + xml(failure(result)) +
         "</failure></testcase>\n";
}

}  // namespace

std::size_t CaseResults::passed() const {
  return static_cast<std::size_t>(
      std::count_if(cases.begin(), cases.end(), [](const CaseResult& c) { return c.passed && !c.skipped; }));
}

std::size_t CaseResults::failed() const {
  return cases.size() - passed() - skipped();
}

std::size_t CaseResults::skipped() const {
  return static_cast<std::size_t>(
      std::count_if(cases.begin(), cases.end(), [](const CaseResult& c) { return c.skipped.has_value(); }));
}

nlohmann::ordered_json to_json(const CaseResults& results) {
  Json cases = Json::array();
  for (const CaseResult& result : results.cases) cases.push_back(to_json(result));
  return {{"via", results.via},
          {"cases", std::move(cases)},
          {"passed", results.passed()},
          {"failed", results.failed()},
          {"skipped", results.skipped()}};
}

std::string to_junit(const CaseResults& results) {
  std::string text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"tierlog test via " +
                     xml(results.via) + "\" tests=\"" + std::to_string(results.cases.size()) +
                     "\" failures=\"" + std::to_string(results.failed()) + "\" errors=\"0\" skipped=\"" +
                     std::to_string(results.skipped()) + "\">\n";
  for (const CaseResult& result : results.cases) text += testcase(result, results.via);
  return text + "</testsuite>\n";
}

}  // namespace tierlog::lab
