// `tierlog policies` and `tierlog rules`: the board, and each rule with its books.
#include <algorithm>
#include <map>
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/items.h"
#include "cli/output.h"
#include "cli/policy_names.h"
#include "cli/target.h"

namespace tierlog::cli {
namespace {

struct BoardOptions {
  TargetOptions target;
  std::string output = "table";
};

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

std::vector<Column> board_columns() {
  return {words("TIER", 8),
          numeric("ORDER"),
          words("POLICY", 16, Cut::Middle),
          words("KIND"),
          numeric("SELECTS"),
          numeric("ALLOWED"),
          numeric("DENIED"),
          numeric("PASSED"),
          numeric("LOGGED"),
          words("LAST HIT", 12),
          numeric("POLICY ORDER", true),
          numeric("REV", true),
          extra("SELECTOR"),
          extra("SOURCE")};
}

std::string order_text(const std::optional<double>& order) {
  if (!order) return "-";
  const auto whole = static_cast<std::int64_t>(*order);
  return static_cast<double>(whole) == *order ? std::to_string(whole) : std::to_string(*order);
}

std::string last_hit_text(const store::PolicyActivity& activity, WallTime now) {
  std::string text = ago(activity.last_hit, now);
  if (activity.policy.endpoints_selected == 0) text += " · selects no endpoint";
  return text;
}

std::vector<Cell> board_cells(const store::PolicyActivity& activity, bool first_of_tier, WallTime now) {
  const store::PolicyRow& policy = activity.policy;
  const auto count = [&](std::uint64_t value) { return policy.staged ? "-" : with_commas(value); };
  const Style style = policy.staged ? Style::Staged : Style::Plain;
  Cell denied = policy.staged ? Cell("would " + with_commas(activity.staged_denied), Style::Staged)
                              : Cell(with_commas(activity.denied), activity.denied > 0 ? Style::Deny : style);
  return {first_of_tier ? policy.tier : "",
          first_of_tier ? activity.tier_order : "",
          Cell(under_tier(policy.display), style),
          Cell(policy.short_kind, style),
          with_commas(policy.endpoints_selected),
          Cell(count(activity.allowed), !policy.staged && activity.allowed > 0 ? Style::Allow : style),
          denied,
          count(activity.passed),
          count(activity.logged),
          last_hit_text(activity, now),
          order_text(policy.order),
          std::to_string(policy.revision),
          or_dash(policy.selector),
          or_dash(policy.source)};
}

bool is_built_in(const std::string& tier) {
  return tier == "kube-admin" || tier == "default" || tier == "kube-baseline";
}

// Tiers in order, each with its policies; a tier of the user's without any gets a line of its own.
void fill_board(Listing& board, const std::vector<store::TierRow>& tiers,
                const std::vector<store::PolicyActivity>& activities) {
  const WallTime now = SystemClock().wall();
  std::map<std::string, std::size_t> policies_of;
  for (const auto& activity : activities) ++policies_of[activity.policy.tier];
  auto next = activities.begin();
  const auto add_policies_of = [&](const std::string& tier) {
    for (bool first = true; next != activities.end() && next->policy.tier == tier; ++next, first = false)
      board.table.add(board_cells(*next, first, now));
  };
  for (const store::TierRow& tier : tiers) {
    if (policies_of[tier.name] == 0 && !is_built_in(tier.name))
      board.table.add({tier.name, order_text(tier.order), "(no policy)"});
    add_policies_of(tier.name);
  }
  while (next != activities.end()) add_policies_of(next->policy.tier);
}

Result<int> show_board(const BoardOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  TL_ASSIGN(const auto activities, reader.policies());
  TL_ASSIGN(const auto tiers, reader.tiers());
  Listing board(board_columns());
  for (const store::PolicyActivity& activity : activities) board.items.push_back(item_of(activity));
  if (activities.empty()) {
    board.empty =
        "no policy is loaded: put policy files into a folder that tierlogd reads, or start a lab with "
        "`tierlog lab up TOPOLOGY -f POLICIES`";
  } else {
    fill_board(board, tiers, activities);
  }
  const auto since = reader.since();
  board.summary = "allowed counts connections, denied counts packets" +
                  (since ? ", since " + format_for_people(*since).substr(0, 16) : "") +
                  " · `tierlog rules POLICY` for each rule";
  print(board, format);
  return kDone;
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
          numeric("KERNEL BYTES", true),
          extra("IN THE KERNEL"),
          extra("STATE"),
          extra("SOURCE")};
}

// A reserved id has no index and belongs to a direction; an end of tier names what was asked.
std::string rule_name(const store::RuleRow& rule) {
  const std::string text = rule_text(rule.direction, rule.rule_index, rule.reason);
  return rule.rule_index ? text : text + " " + std::string(name(rule.direction));
}

std::string rule_description(const store::RuleRow& rule) {
  if (!rule.text.empty()) return rule.text;
  std::string text = rule.action;
  if (rule.rule_index == -1) {
    text += " " + std::string(name(rule.direction)) + " when none of its policies decided";
    for (std::size_t i = 0; i < rule.also_policies.size(); ++i)
      text += (i == 0 ? ": " : ", ") + rule.also_policies[i];
  }
  return text;
}

Style action_style(const std::string& action) {
  return action == "Deny" ? Style::Deny : action == "Allow" ? Style::Allow : Style::Plain;
}

std::vector<Cell> rule_cells(const store::RuleActivity& activity) {
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
    TL_ASSIGN(policies, require_policies(reader, options.policy));
  }
  const bool one = policies.size() == 1;
  TL_ASSIGN(const auto rules, reader.rules(options.policy, options.all));
  Listing listing(rule_columns(one));
  for (const store::RuleActivity& rule : rules) {
    listing.table.add(rule_cells(rule));
    listing.items.push_back(item_of(rule));
  }
  listing.summary = books(rules, one ? " of " + policies.front() : "");
  listing.empty =
      options.policy.empty()
          ? "no rule is known: the daemon has not loaded policies yet (`tierlog status`)"
          : "no rule of it is enforced now; `tierlog rules " + options.policy + " --all` shows earlier ones";
  print(listing, format);
  return kDone;
}

}  // namespace

Command policies_command() {
  const auto options = std::make_shared<BoardOptions>();
  Command command;
  command.name = "policies";
  command.summary = "the board: tiers and policies in order, what each allowed, denied, passed and logged";
  command.description =
      "Shows all policies as they are asked: tiers in order, in each its policies in order (ns/name; "
      "cluster-wide "
      "ones /name). KIND: NP and GNP are Calico's, KNP is Kubernetes' NetworkPolicy, an S in front means "
      "staged: "
      "such a policy decides nothing and the board says what it would have denied. SELECTS counts "
      "endpoints.\n\n"
      "ALLOWED counts connections, DENIED, PASSED and LOGGED count packets.";
  command.options = {output_option(options->output, kAllFormats)};
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog policies", "The board"},
      {"tierlog policies -o wide", "With order, revision, selector and file of each policy"},
      {"tierlog policies -o json | jq '.items[] | select(.endpoints_selected == 0) | .policy'",
       "Policies that select nothing"}};
  command.exit_codes = kListingExitCodes;
  command.run = [options] {
    const auto code = show_board(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

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
