// `tierlog rules`: each rule with its id and its books.
#include <algorithm>
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/items.h"
#include "cli/output.h"
#include "cli/target.h"
#include "query/names.h"

namespace tierlog::cli {
namespace {

struct RuleOptions {
  TargetOptions target;
  std::string policy;
  std::string output = "table";
  bool all = false;
};

Column numeric(const char* title, bool wide_only = false) {
  return {title, Align::Right, 0, Cut::End, 0, wide_only, 0, 0};
}
Column words(const char* title, std::size_t least = 0, Cut cut = Cut::End) {
  return {title, Align::Left, least, cut, 0, false, 0, 0};
}
Column extra(const char* title) {
  return {title, Align::Left, 0, Cut::End, 0, true, 0, 0};
}

// The rules of one policy need no column that repeats its name.
std::vector<Column> rule_columns(bool of_one_policy) {
  Column policy = words("POLICY", 16, Cut::Middle);
  policy.wide_only = of_one_policy;
  return {words("ID"),
          policy,
          words("RULE"),
          numeric("REV"),
          words("TEXT", 16),
          numeric("KERNEL"),
          numeric("RECORDED"),
          numeric("UNATTR"),
          numeric("SUPPR"),
          words("LAST HIT"),
          numeric("KERNEL BYTES", true),
          extra("IN THE KERNEL"),
          extra("STATE"),
          extra("SOURCE")};
}

// A reserved id has no index and belongs to a direction; an end of tier names what was asked.
std::string rule_name(const store::RuleRow& rule) {
  const std::string text = rule_text(rule.direction, rule.rule_index, rule.reason);
  const bool of_direction = rule.rule_index && *rule.rule_index >= 0;  // "ingress[2]" says it itself
  return of_direction ? text : text + " " + std::string(name(rule.direction));
}

std::string rule_description(const store::RuleRow& rule) {
  if (rule.rule_index != -1) return rule.text.empty() ? rule.action : rule.text;
  std::string text = rule.action;
  if (!rule.also_policies.empty()) {
    text += " when none decided of";
    for (std::size_t i = 0; i < rule.also_policies.size(); ++i)
      text += (i == 0 ? " " : ", ") + rule.also_policies[i];
  }
  return text;
}

Style action_style(const std::string& action) {
  return action == "Deny" ? Style::Deny : action == "Allow" ? Style::Allow : Style::Plain;
}

std::vector<Cell> rule_cells(const store::RuleActivity& activity, WallTime now) {
  const store::RuleRow& rule = activity.rule;
  char mark[16];
  std::snprintf(mark, sizeof mark, "0x%08x", number(rule.id));
  // Pass and Log rules count what matched them; no record is owed for that.
  const bool decides = rule.action == "Allow" || rule.action == "Deny";
  return {to_hex(rule.id),
          or_dash(rule.policy),
          Cell(rule_name(rule), action_style(rule.action)),
          rule.revision == 0 ? "-" : std::to_string(rule.revision),
          rule_description(rule),
          with_commas(activity.kernel_packets),
          decides ? with_commas(activity.recorded_packets) : "-",
          decides ? with_commas(activity.unattributed) : "-",
          with_commas(activity.suppressed),
          ago(activity.last_hit, now),
          with_commas(activity.kernel_bytes),
          mark,
          activity.live ? "enforced" : "earlier",
          or_dash(rule.source)};
}

std::string books(const std::vector<store::RuleActivity>& rules, const std::string& of) {
  std::uint64_t kernel = 0, recorded = 0, missing = 0;
  for (const store::RuleActivity& activity : rules) {
    if (activity.rule.action != "Allow" && activity.rule.action != "Deny") continue;
    kernel += activity.kernel_packets;
    recorded += activity.recorded_packets;
    missing += activity.unattributed;
  }
  return counted(rules.size(), "rule") + of + " · verdict packets: " + with_commas(kernel) +
         " counted by the kernel, " + with_commas(recorded) + " recorded, " + with_commas(missing) +
         " unattributed";
}

Result<int> show_rules(const RuleOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  std::vector<std::string> policies;
  if (!options.policy.empty()) {
    TL_ASSIGN(policies, query::require_policies(reader, options.policy));
  }
  const bool one = policies.size() == 1;
  TL_ASSIGN(const auto rules, reader.rules(options.policy, options.all));
  const WallTime now = SystemClock().wall();
  Listing listing(rule_columns(one));
  for (const store::RuleActivity& rule : rules) {
    listing.table.add(rule_cells(rule, now));
    listing.items.push_back(item_of(rule));
  }
  listing.summary = books(rules, one ? " of " + policies.front() : "");
  listing.empty = query::no_rules(options.policy);
  print(listing, format);
  return kDone;
}

}  // namespace

Command rules_command() {
  const auto options = std::make_shared<RuleOptions>();
  Command command;
  command.name = "rules";
  command.summary = "rules with their ids and the books: kernel counter, recorded, unattributed";
  command.description =
      "Lists the rules of POLICY, or of all policies, with the id under which the kernel knows each (-o "
      "wide: also "
      "as it stands in packet marks, connection labels and log prefixes). For a rule that decides KERNEL = "
      "RECORDED + "
      "UNATTR holds, up to what is on its way; Pass and Log rules count what matched them and owe no "
      "records. SUPPR "
      "counts log messages that were held back by the limit for one flow.\n\n"
      "The ends of tiers and what decides where no policy applies have ids too.";
  command.positionals = {{"POLICY", "name, ns/name, tier/ns/name, shell pattern or /RE2/", &options->policy}};
  command.options = {output_option(options->output, kAllFormats),
                     {"--all", "", "also rules of earlier revisions", &options->all}};
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog rules tenant-01-restrict", "The rules of one policy"},
      {"tierlog rules 'security//*' -o wide", "A tier's cluster-wide policies, with places in files"},
      {"tierlog rules --all -o csv", "Every rule there ever was, for a spreadsheet"}};
  command.exit_codes = kListingExitCodes;
  command.run = [options] {
    const auto code = show_rules(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
