// `tierlog store`: is the flow index whole, make it smaller, take records out of it.
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/filters.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/target.h"
#include "cli/text.h"
#include "query/items.h"
#include "query/names.h"
#include "store/check.h"
#include "store/export.h"
#include "store/patterns.h"
#include "store/record_json.h"

namespace tierlog::cli {
namespace {

using Stopwatch = std::chrono::steady_clock;

// How far long work is: on a terminal one line that changes, elsewhere a line now and then.
class Progress {
 public:
  ~Progress() { clear(); }
  void show(const std::string& stage, double share) {
    const auto now = Stopwatch::now();
    if (now < next_) return;
    next_ = now + (terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10'000));
    const std::string text = stage + ": " + std::to_string(std::lround(share * 100)) + " %";
    if (terminal_)
      std::fprintf(stderr, "\r\033[K%s", text.c_str());
    else
      say(text);
    shown_ = terminal_;
  }
  void clear() {
    if (shown_) std::fprintf(stderr, "\r\033[K");
    shown_ = false;
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
  // Work that is done at once needs no line.
  Stopwatch::time_point next_ = Stopwatch::now() + std::chrono::milliseconds(500);
};

struct StoreOptions {
  TargetOptions target;
  FilterOptions filters;
  std::string output = "table", format = "jsonl";
  std::string file;
  bool rewrite = false;
};

Result<std::string> existing_database(const TargetOptions& target) {
  // Opened once so that its absence and its faults are told in the words of all commands.
  TL_ASSIGN(const Place place, find_database(target));
  TL_TRY(open_database(target));
  return place.path;
}

std::string check_json(const store::CheckReport& report) {
  const nlohmann::ordered_json json{
      {"whole", report.damage.empty()},  {"records", report.records}, {"rolled_up", report.rolled_records},
      {"peers", report.peers},           {"texts", report.texts},     {"bytes", report.bytes},
      {"free_bytes", report.free_bytes}, {"damage", report.damage}};
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string check_text(const std::string& path, const store::CheckReport& report) {
  std::string text;
  for (const std::string& finding : report.damage) text += printable(finding) + "\n";
  if (!report.damage.empty())
    return text + path + ": DAMAGED, " + counted(report.damage.size(), "finding") +
           ". A daemon that meets the damage keeps the file aside and begins a new one; `sqlite3 " + path +
           " .recover` reads what can be read\n";
  return path + ": whole · " + counted(static_cast<std::uint64_t>(report.records), "record") + " of " +
         counted(static_cast<std::uint64_t>(report.peers), "peer") + " · sums of " +
         with_commas(static_cast<std::uint64_t>(report.rolled_records)) + " are right, " +
         with_commas(static_cast<std::uint64_t>(report.records - report.rolled_records)) +
         " are not summed yet · " + bytes_text(static_cast<std::uint64_t>(report.bytes)) + ", " +
         bytes_text(static_cast<std::uint64_t>(report.free_bytes)) + " of it free\n";
}

Result<int> check(const StoreOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output, kTextOrJson));
  TL_ASSIGN(const Place place, find_database(options.target));
  Progress progress;
  auto report = store::check_flow_index(
      place.path, [&progress](const std::string& stage, double share) { progress.show(stage, share); });
  progress.clear();
  if (!report && report.error().code == ErrorCode::NotFound) TL_TRY(open_database(options.target));
  if (!report) return fail(report.error());
  out(format == Format::Json ? check_json(*report) + "\n" : check_text(place.path, *report));
  return report->damage.empty() ? kDone : kNo;
}

Result<int> compact(const StoreOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output, kTextOrJson));
  TL_ASSIGN(const std::string path, existing_database(options.target));
  Progress progress;
  const auto done = store::compact_flow_index(
      path, options.rewrite,
      [&progress](const std::string& stage, double share) { progress.show(stage, share); });
  progress.clear();
  if (!done && done.error().code == ErrorCode::Refused)
    return fail(done.error().in("only who may write the flow index can make it smaller"));
  if (!done && done.error().code == ErrorCode::Unavailable)
    return fail(ErrorCode::Unavailable,
                done.error().message +
                    "; a daemon that writes all the time is in the way of --rewrite: stop it first");
  if (!done) return fail(done.error());
  const auto before = static_cast<std::uint64_t>(done->bytes_before);
  const auto after = static_cast<std::uint64_t>(done->bytes_after);
  if (format == Format::Json)
    out("{\"bytes_before\":" + std::to_string(before) + ",\"bytes_after\":" + std::to_string(after) + "}\n");
  else
    out(path + ": " + bytes_text(before) + " -> " + bytes_text(after) + "\n");
  return kDone;
}

Result<void> redirect_stdout(const std::string& file) {
  if (file.empty() || file == "-") return {};
  if (::access(file.c_str(), F_OK) == 0)
    return fail(ErrorCode::InvalidArgument, file + " is there already; expected the name of a new file");
  if (std::freopen(file.c_str(), "w", stdout) != nullptr) return {};
  return fail(Error::from_errno(errno, "open", file));
}

// Half a file is none.
Error not_written(const std::string& file) {
  if (file.empty() || file == "-") return {ErrorCode::Io, "the output could not be written", 0};
  const Error cause = Error::from_errno(errno, "write", file);
  ::unlink(file.c_str());
  return cause;
}

Result<int> export_records(const StoreOptions& options) {
  if (options.format != "csv" && options.format != "jsonl" && options.format != "sqlite")
    return fail(ErrorCode::InvalidArgument,
                "unknown format \"" + options.format + "\"; expected csv, jsonl or sqlite");
  TL_ASSIGN(store::FlowQuery query, to_query(options.filters, SystemClock().wall()));
  TL_ASSIGN(store::FlowReader reader, open_database(options.target));
  for (const store::FieldFilter& filter : query.filters)
    if (filter.field == store::FieldFilter::Field::Policy && !filter.negate)
      for (const std::string& value : store::split_values(filter.values))
        TL_TRY(query::require_policies(reader, value));
  TL_TRY(query::require_known_names(reader, query));
  Progress progress;
  if (options.format == "sqlite") {
    if (options.file.empty() || options.file == "-")
      return fail(ErrorCode::InvalidArgument, "an SQLite file needs a name; expected `--format sqlite FILE`");
    TL_ASSIGN(const std::uint64_t count,
              store::export_flow_index(reader, query, options.file,
                                       [&progress](double share) { progress.show("exported", share); }));
    progress.clear();
    say(counted(count, "record") + " in " + options.file + "; `tierlog flows --db " + options.file +
        "` reads it");
    return kDone;
  }
  TL_TRY(redirect_stdout(options.file));
  TL_ASSIGN(const store::Origin origin, reader.origin());
  ItemStream items(options.format == "csv" ? Format::Csv : Format::Jsonl, store::record_keys());
  TL_ASSIGN(const std::uint64_t count,
            store::for_each_record(
                reader, query, [&](std::span<const store::StoredRecord> page, double share) -> Result<void> {
                  for (const store::StoredRecord& stored : page) items.print(query::item_of(stored.record, origin));
                  if (std::fflush(stdout) != 0) return fail(not_written(options.file));
                  progress.show("exported", share);
                  return {};
                }));
  progress.clear();
  say(counted(count, "record"));
  return kDone;
}

using Action = Result<int> (*)(const StoreOptions&);

std::function<int()> runner(std::shared_ptr<StoreOptions> options, Action action) {
  return [options = std::move(options), action] {
    const auto code = action(*options);
    return code ? *code : complain(code.error());
  };
}

Command check_command() {
  const auto options = std::make_shared<StoreOptions>();
  Command command;
  command.name = "store check";
  command.summary = "is the flow index whole: its structure, the names of its records, its sums";
  command.description =
      "Reads the whole file: the structure of the database, that every record finds the pods, rules and "
      "lists it "
      "refers "
      "to, and that the sums by minute and hour are those of the records. Works beside a running daemon and "
      "takes "
      "about a minute for ten million records.";
  command.options = {output_option(options->output, kTextOrJson)};
  add_database_options(command.options, options->target);
  command.examples = {{"tierlog store check", "The node's flow index"},
                      {"tierlog store check --db copy.db", "A copy of one"},
                      {"tierlog store check -o json | jq .damage", "For scripts"}};
  command.exit_codes =
      "0  whole\n1  damaged: each finding is a line\n2  bad usage or a file that is no flow database\n3  no "
      "database there";
  command.run = runner(options, check);
  return command;
}

Command compact_command() {
  const auto options = std::make_shared<StoreOptions>();
  Command command;
  command.name = "store compact";
  command.summary = "gives free space of the flow index back to the disk";
  command.description =
      "What retention took away leaves free pages, which are used again before the file grows; the daemon "
      "gives them "
      "back only when they are many. This gives all of them back, in steps that a running daemon does not "
      "notice. "
      "--rewrite makes the file anew: it needs as much room again on the same disk, and is refused while somebody "
      "writes; what the daemon has to write meanwhile waits.";
  command.options = {{"--rewrite", "", "make the file anew, as dense as it gets", &options->rewrite},
                     output_option(options->output, kTextOrJson)};
  add_database_options(command.options, options->target);
  command.examples = {{"tierlog store compact", "Beside the running daemon"},
                      {"tierlog store compact --rewrite", "As dense as it gets"},
                      {"tierlog store compact --db copy.db --rewrite", "A copy"}};
  command.exit_codes =
      "0  done\n2  bad usage or a file that is no flow database\n3  no database there, no right to write it, "
      "or "
      "somebody else writes";
  command.run = runner(options, compact);
  return command;
}

Command export_command() {
  const auto options = std::make_shared<StoreOptions>();
  Command command;
  command.name = "store export";
  command.summary = "flow records as CSV, JSON lines or a flow database of their own, all that match";
  command.description =
      "Writes every record that the filters and the time range leave, oldest first, to FILE or stdout. jsonl "
      "and csv "
      "have the keys of a record (docs/records.md). sqlite makes a new flow database that every command and "
      "view "
      "reads (`--db FILE`), with the policies and pods of their time.";
  command.positionals = {{"FILE", "where to; stdout when it is missing or \"-\"", &options->file}};
  command.options = {{"--format", "FORM", "csv, jsonl or sqlite (default jsonl)", &options->format}};
  add_filter_options(command.options, options->filters);
  add_time_options(command.options, options->filters);
  add_database_options(command.options, options->target);
  command.examples = {
      {"tierlog store export --since 1h > hour.jsonl", "The last hour as JSON lines"},
      {"tierlog store export --format csv --action deny denied.csv", "All denied records for a spreadsheet"},
      {"tierlog store export --format sqlite --namespace tenant-01 case.db", "To look at elsewhere"}};
  command.exit_codes =
      "0  done, also when nothing matches\n1  a policy or lab that was named is unknown\n2  bad usage, a "
      "file that is "
      "no flow database, or FILE is there already\n3  no database there";
  command.run = runner(options, export_records);
  return command;
}

}  // namespace

std::vector<Command> store_commands() {
  return {check_command(), compact_command(), export_command()};
}

}  // namespace tierlog::cli
