// `tierlog policies`: the board; with --history the revisions of one (policy_history.h).
#include <algorithm>
#include <map>
#include <memory>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/policy_history.h"
#include "cli/target.h"
#include "query/board.h"

namespace tierlog::cli {
namespace {

using query::BoardRow;

struct BoardOptions {
  TargetOptions target;
  std::string output = "table";
  std::string history;
  std::optional<std::string> unused;
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
          numeric("ALLOWED/S", true),
          numeric("DENIED/S", true),
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

std::string per_second(std::uint64_t count) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f",
                static_cast<double>(count) / static_cast<double>(query::kRateOver.count()));
  return text;
}

std::vector<Cell> board_cells(const BoardRow& row, bool first_of_tier, WallTime now) {
  const store::PolicyActivity& activity = row.activity;
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
          policy.staged ? "-" : per_second(row.rate.connections),
          policy.staged ? "-" : per_second(row.rate.denied_packets),
          order_text(policy.order),
          std::to_string(policy.revision),
          or_dash(policy.selector),
          or_dash(policy.source)};
}

bool is_built_in(const std::string& tier) {
  return tier == "kube-admin" || tier == "default" || tier == "kube-baseline";
}

// Tiers in order, each with its policies; a tier of the user's without any gets a line of its own.
void fill_board(Listing& board, const std::vector<store::TierRow>& tiers, const std::vector<BoardRow>& rows) {
  const WallTime now = SystemClock().wall();
  std::map<std::string, std::size_t> policies_of;
  for (const BoardRow& row : rows) ++policies_of[row.activity.policy.tier];
  auto next = rows.begin();
  const auto add_policies_of = [&](const std::string& tier) {
    for (bool first = true; next != rows.end() && next->activity.policy.tier == tier; ++next, first = false)
      board.table.add(board_cells(*next, first, now));
  };
  for (const store::TierRow& tier : tiers) {
    if (policies_of[tier.name] == 0 && !is_built_in(tier.name))
      board.table.add({tier.name, order_text(tier.order), "(no policy)"});
    add_policies_of(tier.name);
  }
  while (next != rows.end()) add_policies_of(next->activity.policy.tier);
}

Result<int> show_board(const BoardOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  if (!options.history.empty()) return show_history(reader, options.history, format);
  TL_ASSIGN(const query::Board found, query::board(reader, options.unused, SystemClock().wall()));
  TL_ASSIGN(const auto tiers, reader.tiers());
  Listing board(board_columns());
  board.notes = found.notes;
  board.empty = found.empty;
  for (const BoardRow& row : found.rows) board.items.push_back(query::item_of(row));
  if (!found.rows.empty()) fill_board(board, options.unused ? std::vector<store::TierRow>() : tiers, found.rows);
  const auto since = reader.since();
  board.summary = "allowed counts connections, denied counts packets" +
                  (since ? ", since " + format_for_people(*since).substr(0, 16) : "") +
                  " · `tierlog rules POLICY` for each rule";
  print(board, format);
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
      "ALLOWED counts connections, DENIED, PASSED and LOGGED count packets. The rates of -o wide are of the "
      "last "
      "minute. Rules that can never match are named below the board.";
  command.options = {
      output_option(options->output, kAllFormats),
      {"--unused", "WHEN", "only policies that nothing has hit since: 30d, or a time", &options->unused},
      {"--history", "POLICY", "the revisions of a policy: what changed and what each decided",
       &options->history}};
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog policies", "The board"},
      {"tierlog policies -o wide", "With rates, order, revision, selector and file of each policy"},
      {"tierlog policies --unused 30d", "What could go: nothing has hit it in a month"},
      {"tierlog policies --history tenant-01-restrict", "What was changed when, and what it decided then"},
      {"tierlog policies -o json | jq '.items[] | select(.endpoints_selected == 0) | .policy'",
       "Policies that select nothing"}};
  command.exit_codes = kListingExitCodes;
  command.run = [options] {
    const auto code = show_board(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
