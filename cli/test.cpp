// `tierlog test`: policy test cases, judged.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/output.h"
#include "lab/case_ebpf.h"
#include "lab/case_nftables.h"
#include "lab/cases.h"

namespace tierlog::cli {
namespace {

constexpr const char* kForms = "table|json|junit";

struct TestOptions {
  std::vector<std::string> cases;
  std::string via = "model";
  std::string output = "table";
};

std::string check_line(const lab::CheckResult& result) {
  const lab::Check& check = result.check;
  std::string text = "      check " + std::to_string(result.index) + ": " + check.from.text() + " -> " +
                     check.to.text() + " " +
                     port_text(check.protocol, check.port, check.icmp_type, check.icmp_code) + ": ";
  for (std::size_t i = 0; i < result.problems.size(); ++i) text += (i == 0 ? "" : "; ") + result.problems[i];
  if (!check.place.file.empty()) text += "  (" + check.place.to_string() + ")";
  return text;
}

// "ingress[1]", "end-of-tier", as rules are called everywhere.
std::string rule_name(Direction direction, const std::optional<int>& index) {
  if (!index) return "no rule matched";
  if (*index < 0) return "end-of-tier";
  return std::string(name(direction)) + "[" + std::to_string(*index) + "]";
}

std::string decider_line(const lab::Decider& decider) {
  std::string text = std::string(12, ' ') + "decided by ";
  if (!decider.policy) return text + "no policy, " + std::string(name(decider.direction));
  text += *decider.policy + " " + rule_name(decider.direction, decider.rule);
  if (decider.rule == -1) text += " of " + std::string(name(decider.direction));
  return text + ", rule id " + to_hex(decider.rule_id);
}

std::string trace_line(const lab::TraceLine& line) {
  const std::string who = line.policy.empty() ? line.tier : line.policy;
  return std::string(12, ' ') + padded(std::string(name(line.direction)), 9) +
         (who.empty() ? "no policy is left to ask" : who + " " + rule_name(line.direction, line.rule_index)) +
         ": " + std::string(policy::name(line.result)) + (line.staged ? " (staged)" : "");
}

void print_failure(const lab::CheckResult& check) {
  out(printable(check_line(check)) + "\n");
  const lab::Observed& seen = check.observed;
  if (seen.decides) out(printable(decider_line(*seen.decides)) + "\n");
  for (const lab::TraceLine& line : seen.trace) out(printable(trace_line(line)) + "\n");
}

void print_case(const lab::CaseResult& result, bool colour) {
  const Style style = result.skipped ? Style::Staged : result.passed ? Style::Allow : Style::Deny;
  const char* word = result.skipped ? "SKIP" : result.passed ? "ok" : "FAIL";
  std::string line = styled(padded(word, 6), style, colour) + printable(result.id);
  if (result.skipped) line += "  " + printable(*result.skipped);
  const auto left_out = static_cast<std::size_t>(std::count_if(
      result.checks.begin(), result.checks.end(), [](const auto& c) { return c.skipped.has_value(); }));
  if (!result.skipped && result.passed) line += "  " + counted(result.checks.size() - left_out, "check");
  if (!result.skipped && left_out > 0) line += ", " + with_commas(left_out) + " not sent";
  out(line + "\n");
  for (const lab::CheckResult& check : result.checks)
    if (!check.passed && !result.skipped && !check.skipped) print_failure(check);
}

void print_results(const lab::CaseResults& results) {
  const bool colour = stdout_view().colour;
  for (const lab::CaseResult& result : results.cases) print_case(result, colour);
  out(counted(results.passed(), "case") + " passed, " + with_commas(results.failed()) + " failed, " +
      with_commas(results.skipped()) + " skipped, via " + results.via + "\n");
}

Result<void> check_options(const TestOptions& options) {
  if (options.output != "table" && options.output != "json" && options.output != "junit")
    return fail(ErrorCode::InvalidArgument,
                "-o \"" + options.output + "\" is no output form here; expected " + kForms);
  if (options.via != "model" && options.via != "nftables" && options.via != "ebpf")
    return fail(ErrorCode::InvalidArgument,
                "--via \"" + options.via + "\" is unknown; expected model, nftables or ebpf");
  return {};
}

Result<lab::CaseResults> run_via(const std::string& via, const std::vector<lab::PolicyCase>& cases) {
  lab::CaseResults results{via, {}};
  if (via == "model") {
    for (const lab::PolicyCase& test_case : cases) results.cases.push_back(lab::run_model(test_case));
    return results;
  }
  const bool shows = ::isatty(STDERR_FILENO) == 1;
  lab::PacketRun run;
  run.progress = [&](std::size_t done) {
    if (shows) std::fprintf(stderr, "\r%zu of %zu cases", done, cases.size());
  };
  TL_ASSIGN(results.cases, via == "ebpf" ? lab::run_ebpf(cases, run) : lab::run_nftables(cases, run));
  if (shows) std::fprintf(stderr, "\r\033[K");
  return results;
}

Result<int> run_cases(const TestOptions& options) {
  TL_TRY(check_options(options));
  const lab::LoadedCases loaded = lab::load_cases(options.cases);
  for (const Diagnostic& finding : loaded.findings.all()) say(finding.to_string());
  const bool mistakes = loaded.findings.has_errors();
  if (loaded.cases.empty() && mistakes) return kBadInput;
  if (loaded.cases.empty())
    return fail(ErrorCode::InvalidArgument,
                "no test case in " + counted(loaded.files, "file") +
                    "; a case is a *.yaml, *.yml or *.json file with topology, policies and checks");
  TL_ASSIGN(const lab::CaseResults results, run_via(options.via, loaded.cases));
  if (options.output == "json") {
    out(lab::to_json(results).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  } else if (options.output == "junit") {
    out(lab::to_junit(results));
  } else {
    print_results(results);
  }
  if (!mistakes) return results.failed() > 0 ? kNo : kDone;
  say("the cases with mistakes, named above, were not run");
  return kBadInput;
}

}  // namespace

Command test_command() {
  const auto options = std::make_shared<TestOptions>();
  Command command;
  command.name = "test";
  command.summary = "runs policy test cases: who may connect to whom, and who decides";
  command.description =
      "A case is a YAML or JSON file with a small world (topology), whole policy objects and checks: from, "
      "to, "
      "protocol, port, the expected verdict and optionally the direction, tier, policy and rule that has to "
      "decide. --via model asks the reference evaluator, the same that `tierlog explain` shows. --via "
      "nftables and --via ebpf send "
      "each check as a real packet between network namespaces that they make and take away again, read from "
      "a flow "
      "index who decided, and also fail where the evaluator says anything else; they need root.";
  command.positionals = {{"CASE", "case files and folders of them", &options->cases, true}};
  command.options = {{"--via", "HOW", "model (default), nftables or ebpf", &options->via},
                     output_option(options->output, kForms)};
  command.examples = {
      {"tierlog test examples/cases", "All cases of a folder"},
      {"sudo tierlog test --via nftables examples/cases", "The same with real packets"},
      {"tierlog test cases/tenant-01.yaml -o json | jq '.cases[].checks[] | select(.passed | not)'",
       "What failed, with traces"},
      {"tierlog test cases/ -o junit > report.xml", "For a pipeline"}};
  command.exit_codes =
      "0  every case passed (or was skipped)\n1  a check failed\n2  bad cases (the others run) or bad usage\n3  the kernel "
      "refused (not root)";
  command.run = [options] {
    const auto code = run_cases(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
