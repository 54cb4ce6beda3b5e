// `tierlog status`: is the node well? What the daemon answers to `status`, on one screen.
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/target.h"
#include "endpoints/control.h"

namespace tierlog::cli {
namespace {

using Json = nlohmann::json;

struct StatusOptions {
  TargetOptions target;
  std::string output = "table";
};

// A daemon of another version may answer with less: what is absent reads as 0, "" or nothing.
template <typename T>
T get(const Json& object, const char* key, T fallback = {}) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  try {
    return found->get<T>();
  } catch (const Json::exception&) {
    return fallback;
  }
}

const Json& part(const Json& object, const char* key) {
  static const Json kNothing = Json::object();
  const auto found = object.find(key);
  return found == object.end() ? kNothing : *found;
}

std::string line(const char* label, const std::string& text) {
  return padded(label, 13) + printable(text) + "\n";
}

std::string headline(const Json& status) {
  const bool in_sync = get<bool>(status, "in_sync");
  return "tierlogd " + get<std::string>(status, "version") + " on " + get<std::string>(status, "node") +
         " · up " + format_duration(Nanoseconds(get<std::int64_t>(status, "uptime_ns"))) + " · dataplane " +
         get<std::string>(status, "dataplane") +
         (get<std::string>(status, "enforcement") == "audit" ? " · AUDIT: nothing is dropped" : "") +
         " · policies " + (in_sync ? "in sync" : "NOT IN SYNC") + " (" +
         counted(get<std::uint64_t>(status, "policies"), "policy") + ", " +
         counted(get<std::uint64_t>(status, "rules"), "rule") + ", revision " +
         std::to_string(get<std::uint64_t>(status, "revision")) + ")";
}

// " (1,596 not-running, 3 unknown)"
std::string causes_text(const Json& books) {
  std::string text;
  const Json& causes = part(books, "causes");
  if (!causes.is_object()) return {};
  for (const auto& [cause, packets] : causes.items())
    if (packets.is_number_unsigned())
      text += (text.empty() ? " (" : ", ") + with_commas(packets.get<std::uint64_t>()) + " " + cause;
  if (const auto fresh = get<std::uint64_t>(books, "undeclared"); fresh > 0)
    text += (text.empty() ? " (" : ", ") + with_commas(fresh) + " not declared yet";
  return text.empty() ? text : text + ")";
}

// `refused`: the flow index takes nothing at the moment, so what the kernel counted is told as it was before.
std::string books_text(const Json& books, bool refused) {
  const auto kernel = get<std::uint64_t>(books, "kernel");
  const auto recorded = get<std::uint64_t>(books, "recorded");
  const auto missing = get<std::uint64_t>(books, "unattributed");
  const bool balanced = kernel == recorded + missing;
  std::string text = with_commas(kernel) + " verdicts counted by the kernel " + (balanced ? "=" : "vs") +
                     " " + with_commas(recorded) + " recorded + " + with_commas(missing) + " unattributed" +
                     causes_text(books) + "       ";
  if (balanced) return text + (missing == 0 ? "OK" : "MISSING: see `tierlog rules`");
  const auto difference = static_cast<std::int64_t>(kernel) - static_cast<std::int64_t>(recorded + missing);
  if (difference < 0 && refused) return text + "the kernel's counts are older: the flow index refuses them";
  return text + (difference > 0 ? with_commas(static_cast<std::uint64_t>(difference)) + " on their way"
                                : with_commas(static_cast<std::uint64_t>(-difference)) + " TOO MANY");
}

std::string connections_text(const Json& kernel) {
  const Json& connections = part(kernel, "connections");
  std::string text = with_commas(get<std::uint64_t>(connections, "cut")) + " cut by policy changes (" +
                     with_commas(get<std::uint64_t>(connections, "cut_now")) + " now), " +
                     with_commas(get<std::uint64_t>(connections, "relabelled")) +
                     " went on under another rule";
  if (get<bool>(kernel, "sparing_midstream")) text += " · older than the first start: let be";
  return text;
}

std::string repairs_text(const Json& kernel) {
  const auto tables = get<std::uint64_t>(kernel, "table_repairs");
  const auto bridges = get<std::uint64_t>(kernel, "bridge_repairs");
  if (tables + bridges == 0) return "none";
  return "tables " + with_commas(tables) + ", bridge netfilter " + with_commas(bridges) +
         ": SOMEBODY CHANGES WHAT ENFORCES";
}

std::string verdicts_text(const Json& verdicts) {
  const auto per_second = get<double>(verdicts, "per_second");
  char rate[32];
  std::snprintf(rate, sizeof rate, per_second < 10 ? "%.1f" : "%.0f", per_second);
  return (per_second < 1000 ? rate : short_count(static_cast<std::uint64_t>(per_second))) +
         std::string("/s now · behind by ") +
         format_duration(Nanoseconds(get<std::int64_t>(verdicts, "behind_ns")));
}

std::string store_text(const Json& store) {
  std::string text = get<std::string>(store, "path") + "  " + bytes_text(get<std::uint64_t>(store, "bytes"));
  if (const auto limit = get<std::uint64_t>(store, "max_bytes"); limit > 0)
    text += " of " + bytes_text(limit);
  text += " · " + short_count(get<std::uint64_t>(store, "records")) + " records";
  if (const auto oldest = parse_rfc3339(get<std::string>(store, "oldest_time")))
    text += " · oldest " + ago(*oldest, SystemClock().wall());
  const auto problem = get<std::string>(store, "problem");
  return problem.empty() ? text : text + " · NOT WRITTEN: " + problem;
}

std::string export_text(const Json& target) {
  const auto error = get<std::string>(target, "error");
  const auto time = parse_rfc3339(get<std::string>(target, "delivered_time"));
  std::string text = get<std::string>(target, "name") + " " + get<std::string>(target, "target") +
                     "   delivered up to " + (time ? format_for_people(*time) + " UTC" : "nothing yet") +
                     " (record " + with_commas(get<std::uint64_t>(target, "delivered_sequence")) + "), " +
                     with_commas(get<std::uint64_t>(target, "waiting")) + " waiting";
  if (const auto expired = get<std::uint64_t>(target, "expired"); expired > 0)
    text += " · " + with_commas(expired) + " LOST: retention took them first";
  if (const auto skipped = get<std::uint64_t>(target, "skipped"); skipped > 0)
    text += " · " + with_commas(skipped) + " skipped: too large for a message";
  if (const auto retries = get<std::uint64_t>(target, "retries"); retries > 0)
    text += " · " + with_commas(retries) + (retries == 1 ? " retry" : " retries");
  if (const auto filter = get<std::string>(target, "filter"); !filter.empty()) text += " · " + filter;
  return error.empty() ? text : text + " · FAILING: " + error;
}

// Each entry on its own line, the label on the first.
template <typename TextOf>
std::string lines(const char* label, const Json& entries, const std::string& none, TextOf text_of) {
  if (!entries.is_array() || entries.empty()) return line(label, none);
  std::string text;
  for (const Json& entry : entries) text += line(text.empty() ? label : "", text_of(entry));
  return text;
}

// All findings on the set that is not in force, one a line.
std::string finding_lines(const std::string& error) {
  std::string text;
  std::istringstream findings(error);
  for (std::string finding; std::getline(findings, finding);)
    text += line(text.empty() ? "sync error" : "", finding);
  return text;
}

// Which policies are in force, where that is not simply what the files say.
std::string line_of_source(const Json& status) {
  const auto source = get<std::string>(status, "source");
  if (source == "last-good")
    return line("IN FORCE", "the last good set, of " +
                                get<std::string>(status, "in_force_since").substr(0, 19) +
                                "Z, NOT what the files say");
  if (source == "nothing")
    return line("IN FORCE", "NO POLICY SET: all traffic of endpoints is denied (reason not-ready)");
  return "";
}

std::string names(const Json& list) {
  std::string text;
  if (list.is_array())
    for (const Json& one : list)
      if (one.is_string()) text += (text.empty() ? "" : ", ") + one.get<std::string>();
  return text;
}

std::string status_text(const Json& status) {
  std::string text = printable(headline(status)) + "\n";
  const auto error = get<std::string>(status, "sync_error");
  text += line_of_source(status);
  text += finding_lines(error);
  text += line("endpoints", with_commas(get<std::uint64_t>(status, "endpoints")) + " (" +
                                with_commas(get<std::uint64_t>(status, "programmed")) + " programmed)");
  if (status.contains("log_rate"))
    text += line("log rate", get<std::string>(status, "log_rate") +
                                 " of each Log rule, unless its policy says otherwise");
  if (status.contains("verdicts")) text += line("verdicts", verdicts_text(part(status, "verdicts")));
  if (const auto audited = names(part(status, "audited_namespaces")); !audited.empty())
    text +=
        line("audited", "namespaces " + audited + ": what policies deny there is recorded and not dropped");
  if (const auto apart = names(part(status, "host_network")); !apart.empty())
    text += line("host network", apart + ": have the node's address, their policies are not enforced");
  text += line("books", books_text(part(status, "books"), !get<std::string>(part(status, "store"), "problem").empty()));
  if (status.contains("kernel")) {
    text += line("connections", connections_text(part(status, "kernel")));
    text += line("repairs", repairs_text(part(status, "kernel")));
  }
  text += line("store", store_text(part(status, "store")));
  text += lines("exports", part(status, "exports"), "none", export_text);
  if (status.contains("http"))
    text += line("http", status["http"].is_string() ? get<std::string>(status, "http") + " (/metrics, /api/v1)" : "none");
  text += lines("warnings", part(status, "warnings"), "none", [](const Json& warning) {
    return warning.is_string() ? warning.get<std::string>() : warning.dump();
  });
  return text;
}

// Nobody listens when there is no socket or nobody behind it; all else is a daemon that has no time.
bool nobody_listens(const Error& cause) {
  return cause.errno_value == ENOENT || cause.errno_value == ECONNREFUSED;
}

Error no_daemon(const Place& socket, const Error& cause) {
  const bool in_lab = socket.from == Place::From::Lab;
  std::string what;
  // Whoever the daemon does not know is hung up on, or does not come to the socket at all.
  if (cause.errno_value == EACCES || cause.errno_value == EPERM || (cause.errno_value == EPIPE && ::geteuid() != 0))
    what = "you may not ask it: expected root or a member of group tierlog";
  else if (!nobody_listens(cause))
    what = "it runs but is busy (loading many rules takes seconds) or hangs: ask again, and look at its log" +
           std::string(in_lab ? " in the lab's folder" : "");
  else if (in_lab)
    what = "the lab's daemon has ended: `tierlog lab down` and `tierlog lab up` start anew";
  else
    what = "start it (`systemctl start tierlogd`), or a lab (`tierlog lab up TOPOLOGY`)";
  return {ErrorCode::Unavailable,
          cause.message + "; " + what +
              ". What was loaded stays in force; `tierlog flows` and `tierlog denied` need no daemon",
          cause.errno_value};
}

Result<int> show(const StatusOptions& options) {
  TL_ASSIGN(const Format format, parse_format(options.output, kTextOrJson));
  TL_ASSIGN(const Place socket, find_socket(options.target));
  const auto answer = endpoints::call(socket.path, Json{{"op", "status"}});
  if (!answer && answer.error().code == ErrorCode::Unavailable)
    return fail(no_daemon(socket, answer.error()));
  if (!answer) return fail(answer.error());
  const Json& status = answer->contains("status") ? (*answer)["status"] : *answer;
  out(format == Format::Json ? indented(status.dump()) : status_text(status));
  return kDone;
}

}  // namespace

Command status_command() {
  const auto options = std::make_shared<StatusOptions>();
  Command command;
  command.name = "status";
  command.summary = "health of the daemon: policies in sync, endpoints, the books, store, exports, warnings";
  command.description =
      "Asks the daemon how it is. books: the kernel counts every verdict, and each is either recorded or "
      "declared "
      "unattributed; a difference is on its way, or a loss that the warnings name. policies NOT IN SYNC: the "
      "last good "
      "set is in force, and the sync error says what is wrong with the new one.";
  command.options = {output_option(options->output, kTextOrJson)};
  add_socket_options(command.options, options->target);
  command.examples = {{"tierlog status", "On one screen"},
                      {"tierlog status -o json | jq .books", "The books, for a script"},
                      {"tierlog status --lab default", "Of a lab by name"}};
  command.exit_codes = "0  the daemon answered\n1  no such lab\n2  bad usage\n3  no daemon answers";
  command.run = [options] {
    const auto code = show(*options);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
