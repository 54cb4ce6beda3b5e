// `tierlog diff` and `tierlog recommend`: recorded flows under other policies, policies from recorded flows.
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/filters.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/target.h"
#include "policy/lint.h"
#include "policy/load.h"
#include "query/names.h"
#include "query/recommend.h"
#include "query/replay.h"

namespace tierlog::cli {
namespace {

using Json = nlohmann::ordered_json;
using query::Change;

struct DiffOptions {
  TargetOptions target;
  FilterOptions filters;
  std::vector<std::string> files;
  std::string output = "table";
  bool quiet_same_verdict = false;
};

Json to_json(const query::Decision& decision) {
  return {{"action", decision.allows ? "allow" : "deny"},
          {"policy", decision.policy.empty() ? Json() : Json(decision.policy)},
          {"policy_kind", decision.policy_kind.empty() ? Json() : Json(decision.policy_kind)},
          {"rule_index", decision.rule_index ? Json(*decision.rule_index) : Json()},
          {"direction", name(decision.direction)},
          {"reason", name(decision.reason)}};
}

std::string item_of(const Change& change) {
  const Json item{{"change", query::name(change.kind)},
                  {"from", change.from},
                  {"to", change.to},
                  {"port", change.port},
                  {"was", to_json(change.was)},
                  {"now", to_json(change.now)},
                  {"records", change.records},
                  {"flows", change.flows},
                  {"connections", change.connections},
                  {"packets", change.packets},
                  {"bytes", change.bytes},
                  {"last_time", format_rfc3339(change.last)},
                  {"record", change.record}};
  return item.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Cell title_cell(Change::Kind kind) {
  switch (kind) {
    case Change::Kind::NowDenied:
      return {"NOW DENIED", Style::Deny};
    case Change::Kind::NowAllowed:
      return {"NOW ALLOWED", Style::Allow};
    case Change::Kind::OtherPolicy:
      break;
  }
  return {"OTHER POLICY"};
}

// A denied flow has no connections: its distinct flows are counted.
std::string amount(const Change& change) {
  if (change.was.allows && change.connections > 0) return with_commas(change.connections) + " conns";
  return counted(change.flows, "flow");
}

// "99.8 %", but "100 %" only when nothing is missing.
std::string share(std::uint64_t part, std::uint64_t whole) {
  if (part == whole) return "100 %";
  char text[16];
  std::snprintf(text, sizeof text, "%.1f %%", static_cast<double>(part * 1000 / whole) / 10);
  return text;
}

std::string headline(const query::Replay& replay, const std::string& range) {
  const auto& coverage = replay.coverage;
  std::string text = "Replayed " + counted(coverage.replayed, "recorded flow");
  if (coverage.records > 0)
    text += " (" + share(coverage.replayed, coverage.records) +
            (range.empty() ? " of all" : " of those" + range) + ")";
  text += " against " + counted(replay.policies, "policy") + "; ";
  if (replay.changes.empty()) return text + "nothing changes.";
  return text + counted(replay.changes.size(), "group") +
         (replay.changes.size() == 1 ? " changes." : " change.");
}

std::vector<std::string> left_out(const query::Coverage& coverage) {
  std::vector<std::string> notes;
  for (const auto& [why, records] : coverage.left_out)
    notes.push_back(counted(records, "record") + " left out: they " + why);
  return notes;
}

Result<policy::PolicySet> load_files(const std::vector<std::string>& files) {
  if (files.empty())
    return fail(ErrorCode::InvalidArgument,
                "-f PATH is missing: the policy files or folder to compare with, all that would be in force");
  policy::Loaded loaded = policy::load_paths(files);
  loaded.findings.sort();
  if (loaded.findings.has_errors()) return fail(ErrorCode::InvalidArgument, loaded.findings.to_string());
  for (const Diagnostic& warning : loaded.findings.all()) say(warning.to_string());
  return std::move(loaded.set);
}

Listing diff_listing(const query::Replay& replay) {
  const auto words = [](const char* title, std::size_t least) {
    return Column{title, Align::Left, least, Cut::Middle, 0, false, 0, 0};
  };
  Listing listing({words("CHANGE", 0), Column{"HOW MUCH", Align::Right, 0, Cut::End, 0, false, 0, 0},
                   words("FROM", 14), words("TO", 14), words("PORT", 0), words("WAS", 18), words("NOW", 18),
                   Column{"LAST", Align::Left, 0, Cut::End, 0, true, 0, 0},
                   Column{"RECORD", Align::Left, 0, Cut::End, 0, true, 0, 0}});
  for (const Change& change : replay.changes) {
    listing.items.push_back(item_of(change));
    listing.table.add({title_cell(change.kind), amount(change), change.from, change.to, change.port,
                       Cell(to_text(change.was), change.was.allows ? Style::Allow : Style::Deny),
                       Cell(to_text(change.now), change.now.allows ? Style::Allow : Style::Deny),
                       format_for_people(change.last), change.record});
  }
  return listing;
}

Result<int> diff(const DiffOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output));
  TL_ASSIGN(store::FlowQuery asked, to_query(options.filters, SystemClock().wall()));
  TL_ASSIGN(const policy::PolicySet policies, load_files(options.files));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  TL_TRY(query::require_known_names(reader, asked));
  TL_ASSIGN(query::Replay replay, query::replay(reader, policies, asked, [](std::uint64_t flows) {
              progress("replaying: " + with_commas(flows) + " distinct flows");
            }));
  progress("");
  const std::size_t all = replay.changes.size();
  if (options.quiet_same_verdict)
    std::erase_if(replay.changes, [](const Change& c) { return c.kind == Change::Kind::OtherPolicy; });
  Listing listing = diff_listing(replay);
  listing.notes = left_out(replay.coverage);
  if (all > replay.changes.size())
    listing.notes.push_back(counted(all - replay.changes.size(), "group") +
                            " decided by another policy with the same verdict not shown");
  const std::string told = headline(replay, range_text(options.filters, asked));
  const bool table = format == Format::Table || format == Format::Wide;
  if (table) {
    out(told + "\n");
    if (!replay.changes.empty()) out("\n");
  } else {
    listing.notes.insert(listing.notes.begin(), told);
  }
  if (replay.coverage.records == 0)
    listing.empty =
        "no record is in this time; choose another --since, or `tierlog flows` to see what there is";
  const bool differs = replay.changes_a_verdict();
  if (table && differs) listing.summary = "exit 1: verdicts change";
  print(listing, format);
  return differs ? kNo : kDone;
}

struct RecommendOptions {
  TargetOptions target;
  FilterOptions filters;
  std::string name_of_namespace, kind = "calico";
};

Result<int> recommend(const RecommendOptions& options) {
  if (options.name_of_namespace.empty())
    return fail(ErrorCode::InvalidArgument, "--namespace NS is missing: whose pods to make policies for");
  if (options.kind != "calico" && options.kind != "kubernetes")
    return fail(ErrorCode::InvalidArgument,
                "--kind \"" + options.kind + "\" is unknown; expected calico or kubernetes");
  TL_ASSIGN(const store::FlowQuery asked, to_query(options.filters, SystemClock().wall()));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  const auto form = options.kind == "calico" ? query::PolicyForm::Calico : query::PolicyForm::Kubernetes;
  TL_ASSIGN(const query::Recommendation made,
            query::recommend(reader, options.name_of_namespace, form, asked));
  for (const std::string& note : left_out(made.coverage)) say(note);
  for (const std::string& note : made.notes) say(note);
  if (made.policies == 0) {
    say("no allowed connection of " + options.name_of_namespace + " is recorded" +
        range_text(options.filters, asked) + ": nothing can be recommended; try a longer --since");
    return kDone;
  }
  out("# What " + options.name_of_namespace + " was allowed and did" + range_text(options.filters, asked) +
      ": " + counted(made.coverage.flows, "distinct flow") + ". Everything else is denied for these pods.\n" +
      "# Compare before applying: tierlog diff -f FOLDER-WITH-ALL-POLICIES\n" + made.yaml);
  say("made " + counted(made.policies, "policy") +
      "; traffic that did not happen in this time would be denied");
  return kDone;
}

}  // namespace

Command diff_command() {
  const auto options = std::make_shared<DiffOptions>();
  Command command;
  command.name = "diff";
  command.summary = "which recorded flows would change verdict under these policies";
  command.description =
      "Judges every recorded flow again by the policies of -f, with the pods, labels, network sets and "
      "namespaces of the time it was recorded, and lists what comes out differently: newly denied first, "
      "then "
      "newly allowed, then what another policy decides with the same verdict. -f names the whole set that "
      "would be in force, not only what is new.\n\n"
      "Flows that policies do not decide (spoofed, invalid, in mid-stream) are left out; the first line says "
      "how much of the recorded traffic was covered, notes say why the rest was not. Reads the database "
      "alone.";
  const std::string group = "Options";
  command.options = {
      {"-f,--file", "PATH", "policy files and folders, all that would be in force", &options->files, group,
       true},
      output_option(options->output, kAllFormats),
      {"--verdicts-only", "", "leaves out what only another policy decides", &options->quiet_same_verdict}};
  add_time_options(command.options, options->filters);
  add_filter_options(command.options, options->filters);
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog diff -f examples/policies --since 24h", "Would these files change anything?"},
      {"tierlog diff -f proposed/ --since 7d --namespace tenant-01", "Only what concerns one namespace"},
      {"tierlog diff -f proposed/ --verdicts-only -o json | jq '.items[] | select(.change == "
       "\"now-denied\")'",
       "What would break, for a pipeline (exit code 1 when a verdict changes)"}};
  command.exit_codes =
      "0  no verdict changes\n1  verdicts change\n2  bad usage or bad files (all findings on stderr)\n"
      "3  no flow database";
  command.run = [options] {
    const auto code = diff(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

Command recommend_command() {
  const auto options = std::make_shared<RecommendOptions>();
  Command command;
  command.name = "recommend";
  command.summary = "least-privilege policies for a namespace, from what was recorded as allowed";
  command.description =
      "Prints policies that allow exactly the recorded allowed connections of a namespace's pods: a policy "
      "for "
      "each workload, pods named by their labels, ports by number, what is no pod by its addresses (in "
      "network "
      "sets, or ipBlocks). Everything else is denied for these pods once they are applied, so record for "
      "long "
      "enough, and look at `tierlog diff` first.\n\n"
      "The YAML goes to stdout, notes on what it leaves out to stderr.";
  command.options = {{"--namespace", "NS", "whose pods", &options->name_of_namespace},
                     {"--kind", "KIND", "calico (default) or kubernetes", &options->kind}};
  add_time_options(command.options, options->filters);
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog recommend --namespace tenant-01 --since 7d > recommended.yaml", "From the last week"},
      {"tierlog recommend --namespace monitoring --kind kubernetes", "As Kubernetes NetworkPolicies"},
      {"tierlog recommend --namespace tenant-02 > r.yaml && tierlog lint r.yaml && tierlog diff -f r.yaml",
       "Check what comes out, and that it keeps what was recorded"}};
  command.exit_codes = "0  printed\n1  no such namespace\n2  bad usage\n3  no flow database";
  command.run = [options] {
    const auto code = recommend(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
