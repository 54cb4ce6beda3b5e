#include "cli/target.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "base/diagnostics.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "endpoints/control.h"
#include "lab/lab.h"

namespace tierlog::cli {
namespace {

constexpr const char* kGroup = "Where to look";

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

void add_lab_option(std::vector<Option>& options, TargetOptions& target) {
  const bool known = std::any_of(options.begin(), options.end(),
                                 [](const Option& option) { return option.names == "--lab"; });
  if (!known)
    options.push_back({"--lab", "NAME", "the lab to look at, when several are running", &target.lab, kGroup});
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Both paths are found the same way; only where they lie in a lab differs.
struct Lookup {
  const std::string& option;
  const char* variable_name;
  const char* fallback;
  std::string (lab::Lab::*in_lab)() const;
};

Result<Place> look_up(const TargetOptions& target, const Lookup& lookup) {
  if (!lookup.option.empty()) return Place{lookup.option, Place::From::Option};
  if (target.lab.empty()) {
    const std::string named = variable(lookup.variable_name);
    if (!named.empty()) return Place{named, Place::From::Variable};
    if (lab::Lab::running().empty()) return Place{lookup.fallback, Place::From::Default};
  }
  TL_ASSIGN(const std::string name, choose_lab(target.lab));
  TL_ASSIGN(const lab::Lab lab, lab::Lab::find(name));
  if (target.lab.empty()) say("using lab \"" + name + "\"");
  return Place{(lab.*lookup.in_lab)(), Place::From::Lab};
}

Error absent_database(const Place& place) {
  const std::string what = "no flow database at " + place.path;
  switch (place.from) {
    case Place::From::Option:
      return {ErrorCode::InvalidArgument, what + " (--db)", 0};
    case Place::From::Variable:
      return {ErrorCode::InvalidArgument, what + " (TIERLOG_DB)", 0};
    case Place::From::Lab:
      return {ErrorCode::Unavailable, what + "; has the lab's tierlogd started?", 0};
    case Place::From::Default:
      break;
  }
  return {ErrorCode::Unavailable,
          what +
              ": tierlogd has never run on this node. Start it, or `tierlog lab up TOPOLOGY`, or name a "
              "database with --db FILE",
          0};
}

}  // namespace

void add_database_options(std::vector<Option>& options, TargetOptions& target) {
  options.push_back({"--db", "FILE", "the flow database to read; needs no daemon", &target.db, kGroup});
  add_lab_option(options, target);
}

void add_socket_options(std::vector<Option>& options, TargetOptions& target) {
  options.push_back({"--socket", "PATH", "the socket of the daemon to ask", &target.socket, kGroup});
  add_lab_option(options, target);
}

Result<std::string> choose_lab(const std::string& wanted) {
  const std::vector<std::string> running = lab::Lab::running();
  if (running.empty())
    return fail(ErrorCode::NotFound, "no lab is running; `tierlog lab up TOPOLOGY` starts one");
  const std::string name = !wanted.empty() ? wanted : running.size() == 1 ? running.front() : "default";
  if (std::find(running.begin(), running.end(), name) != running.end()) return name;
  if (wanted.empty())
    return fail(ErrorCode::InvalidArgument,
                "several labs are running (" + joined(running) + "); choose one with --lab NAME");
  const std::string close = nearest(wanted, running);
  return fail(ErrorCode::NotFound, "no lab \"" + wanted + "\" is running" +
                                       (close.empty() ? "" : "; did you mean " + close + "?") +
                                       " (running: " + joined(running) + ")");
}

Result<Place> find_database(const TargetOptions& target) {
  return look_up(target, {target.db, "TIERLOG_DB", kDefaultDatabase, &lab::Lab::database});
}

Result<Place> find_socket(const TargetOptions& target) {
  return look_up(target, {target.socket, "TIERLOG_SOCKET", endpoints::kDefaultSocket, &lab::Lab::socket});
}

Result<store::FlowReader> open_database(const TargetOptions& target) {
  TL_ASSIGN(const Place place, find_database(target));
  std::error_code ignored;
  if (std::filesystem::is_directory(place.path, ignored))
    return fail(ErrorCode::InvalidArgument, place.path + " is a folder; expected a flow database, such as " +
                                                (std::filesystem::path(place.path) / "flows.db").string());
  auto reader = store::FlowReader::open(place.path);
  if (!reader && reader.error().code == ErrorCode::NotFound) return fail(absent_database(place));
  return reader;
}

}  // namespace tierlog::cli
