// `tierlog lint` and `tierlog selector`: is what stands in the files right?
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/items.h"
#include "cli/output.h"
#include "endpoints/topology.h"
#include "policy/lint.h"
#include "policy/load.h"
#include "policy/selector.h"

namespace tierlog::cli {
namespace {

struct LintOptions {
  std::vector<std::string> paths;
  std::string topology;
  std::string output = "table";
  bool strict = false;
};

struct SelectorOptions {
  std::optional<std::string> expression;  // "" is one: it selects everything
  std::optional<std::string> labels;
};

std::string summary_of(const Diagnostics& findings, std::size_t files, std::size_t policies) {
  const std::string where = " in " + counted(files, "file");
  if (findings.all().empty()) return counted(policies, "policy") + where + ": nothing to complain about";
  std::string text;
  if (findings.errors() > 0) text = counted(findings.errors(), "error");
  if (findings.warnings() > 0) text += (text.empty() ? "" : ", ") + counted(findings.warnings(), "warning");
  return text + where;
}

void print_findings(const Diagnostics& findings, const std::string& summary, Format format) {
  if (format == Format::Table || format == Format::Wide) {
    for (const Diagnostic& finding : findings.all()) say(finding.to_string());
    out(summary + "\n");
    return;
  }
  Listing listing({});
  for (const Diagnostic& finding : findings.all()) listing.items.push_back(item_of(finding));
  listing.notes.push_back(summary);
  print(listing, format);
}

Diagnostics as_errors(const Diagnostics& findings) {
  Diagnostics errors;
  for (const Diagnostic& finding : findings.all()) errors.error(finding.place, finding.message);
  return errors;
}

Result<int> lint_paths(const LintOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  policy::Loaded loaded = policy::load_paths(options.paths);
  Diagnostics findings = loaded.findings;
  std::optional<endpoints::LoadedTopology> topology;
  if (!options.topology.empty()) {
    topology = endpoints::load_topology(options.topology);
    findings.add(topology->findings);
  }
  policy::Cluster cluster;
  if (topology) cluster = std::move(topology->topology.cluster);
  policy::add_objects(cluster, loaded.set);
  // Warnings about what is only partly understood would be guesses.
  if (!findings.has_errors())
    findings.add(policy::lint(loaded.set, cluster.endpoints.empty() && !topology ? nullptr : &cluster));
  if (options.strict) findings = as_errors(findings);
  findings.sort();
  print_findings(findings, summary_of(findings, loaded.files, loaded.set.policies.size()), format);
  return findings.has_errors() ? kBadInput : kDone;
}

// "a=b,c=d" -> labels.
Result<policy::Labels> read_labels(const std::string& text) {
  policy::Labels labels;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t end = std::min(text.find(',', from), text.size());
    const std::string pair = text.substr(from, end - from);
    const auto equals = pair.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail(ErrorCode::InvalidArgument,
                  "--labels: \"" + pair + "\" is no label; expected key=value,key=value");
    if (!labels.emplace(pair.substr(0, equals), pair.substr(equals + 1)).second)
      return fail(ErrorCode::InvalidArgument, "--labels: \"" + pair.substr(0, equals) + "\" is given twice");
    from = end + 1;
  }
  return labels;
}

int bad_selector(const std::string& expression, const policy::SelectorError& error) {
  say("selector:1:" + std::to_string(error.offset + 1) + ": " + error.message);
  const std::string before = printable(std::string_view(expression).substr(0, error.offset));
  say("  " + expression);
  say("  " + std::string(display_width(before), ' ') + "^");
  return kBadInput;
}

int check_selector(const SelectorOptions& options) {
  const auto selector = policy::Selector::parse(*options.expression);
  if (!selector) return bad_selector(*options.expression, selector.error());
  if (!options.labels) {
    out(selector->canonical() + "\n");
    return kDone;
  }
  const auto labels = read_labels(*options.labels);
  if (!labels) return complain(labels.error());
  const bool matches = selector->matches(*labels);
  out(matches ? "true\n" : "false\n");
  return matches ? kDone : kNo;
}

}  // namespace

Command lint_command() {
  const auto options = std::make_shared<LintOptions>();
  Command command;
  command.name = "lint";
  command.summary = "checks policy files: syntax, fields, selectors, tiers, rules that can never match";
  command.description =
      "Reads policy files (folders: every *.yaml, *.yml and *.json in them, not deeper) exactly as the "
      "daemon does "
      "and says everything that is wrong, each as FILE:LINE:COL: what is wrong; what was expected. What "
      "loads but "
      "probably does not do what was meant is a warning: a policy with Log rules only (it drops), a tier "
      "that no "
      "Tier object declares, a rule behind one that takes the same traffic, domain names (nothing looks them up: "
      "such a rule allows nothing, or denies everything).\n\n"
      "Findings go to stderr; with -o json, jsonl or csv they are the items on stdout.";
  command.positionals = {{"PATH", "policy files and folders; - is standard input", &options->paths, true}};
  command.options = {{"--strict", "", "warnings are errors", &options->strict},
                     {"--topology", "FILE", "also warn about policies that select no pod of this topology",
                      &options->topology},
                     output_option(options->output, kAllFormats)};
  command.examples = {
      {"tierlog lint policies/", "A folder"},
      {"tierlog lint --strict policies/ --topology topology.yaml",
       "Before a merge, with the pods the policies are meant for"},
      {"kubectl get networkpolicies -A -o yaml | tierlog lint -", "What a cluster has"},
      {"tierlog lint -o json policies/ | jq '.items[] | .message'", "For an editor or a pipeline"}};
  command.exit_codes = "0  no errors (with --strict: no warnings either)\n2  findings, or bad usage";
  command.run = [options] {
    const auto code = lint_paths(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

Command selector_command() {
  const auto options = std::make_shared<SelectorOptions>();
  Command command;
  command.name = "selector";
  command.summary = "a selector's canonical form, or whether it matches labels";
  command.description =
      "Without --labels prints the expression in its canonical form: what Tierlog understood. With --labels "
      "prints "
      "true or false. Labels that an endpoint has beside its own are projectcalico.org/name, …/namespace, "
      "…/orchestrator, …/serviceaccount, and those of its namespace under pcns.";
  command.positionals = {{"EXPRESSION", "a selector, quoted for the shell", &options->expression, true}};
  command.options = {{"--labels", "K=V,…", "labels to try; \"\" = none", &options->labels}};
  command.examples = {
      {"tierlog selector \"role == 'db' && env in {'prod', 'stage'}\"", "What was understood"},
      {"tierlog selector \"role != 'db'\" --labels \"\"", "Does it match without the label? (true)"},
      {"tierlog selector \"has(role)\" --labels app=web || echo no", "In a script"}};
  command.exit_codes =
      "0  valid, or it matches\n1  it does not match\n2  no selector, no labels, or bad usage";
  command.run = [options] { return check_selector(*options); };
  return command;
}

}  // namespace tierlog::cli
