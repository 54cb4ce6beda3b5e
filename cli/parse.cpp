// The words of the command line -> the values that a command's options are bound to. The only file that
// sees CLI11; its messages are replaced by sentences that say what was meant.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "base/diagnostics.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/text.h"

namespace tierlog::cli {
namespace {

using Words = std::vector<std::string>;

bool is_option(const std::string& word) {
  return word.size() > 1 && word[0] == '-';
}

std::vector<std::string> names_of(const Option& option) {
  return CLI::detail::split(option.names, ',');
}

bool has_name(const Option& option, const std::string& name) {
  const auto names = names_of(option);
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The command that the first words name: "lab up" before "lab"; nullptr when there is none.
const Command* find_command(const std::vector<Command>& commands, const Words& words) {
  for (std::size_t length : {2u, 1u}) {
    if (words.size() < length) continue;
    const std::string name = length == 2 ? words[0] + " " + words[1] : words[0];
    for (const Command& command : commands)
      if (command.name == name) return &command;
  }
  return nullptr;
}

int unknown_command(const std::vector<Command>& commands, const Words& words) {
  std::vector<std::string> names, group;
  for (const Command& command : commands) {
    names.push_back(command.name);
    if (command.name.starts_with(words[0] + " ")) group.push_back(command.name);
  }
  if (!group.empty()) {
    std::string list;
    for (const std::string& name : group) list += (list.empty() ? "" : ", ") + name;
    if (words.size() > 1 && (words[1] == "--help" || words[1] == "-h" || words[1] == "help")) {
      std::size_t widest = 0;
      for (const std::string& name : group) widest = std::max(widest, name.size());
      for (const Command& command : commands)
        if (command.name.starts_with(words[0] + " "))
          out("  " + padded("tierlog " + command.name, widest + 10) + command.summary + "\n");
      return kDone;
    }
    return misuse("\"" + words[0] + "\" needs one of: " + list + " (`tierlog --help` says what they do)");
  }
  std::string close = nearest(words[0], names);
  for (const std::string& name : names)  // "deny" is no typing error, but it is clear what is meant
    if (close.empty() && words[0].size() >= 3 && name.starts_with(words[0].substr(0, 3))) close = name;
  return misuse("unknown command \"" + words[0] + "\"" +
                (close.empty() ? "" : "; did you mean " + close + "?") + " (`tierlog --help` lists all)");
}

// `--not --policy x` -> `--not-policy x`: every filter has such a hidden twin, so the order of options
// needs no further care.
Result<Words> join_not(const Words& words, const Command& command) {
  Words joined;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] != "--not") {
      joined.push_back(words[i]);
      continue;
    }
    const std::string next = i + 1 < words.size() ? words[++i] : "";
    const std::string name = next.substr(0, next.find('='));
    const std::string twin = name.starts_with("--") ? "--not-" + name.substr(2) : "";
    const bool known = std::any_of(command.options.begin(), command.options.end(),
                                   [&](const Option& option) { return has_name(option, twin); });
    if (!known)
      return fail(ErrorCode::InvalidArgument,
                  "--not negates the filter that follows it, for example --not --policy NAME; " +
                      (next.empty() ? std::string("nothing follows it") : "\"" + next + "\" is no filter"));
    joined.push_back(twin + next.substr(name.size()));
  }
  return joined;
}

struct AddArgument {
  CLI::App& app;
  std::string names;
  std::string help;

  CLI::Option* operator()(bool* into) const { return app.add_flag(names, *into, help); }
  CLI::Option* operator()(std::string* into) const { return app.add_option(names, *into, help); }
  CLI::Option* operator()(std::optional<std::string>* into) const {
    return app.add_option_function<std::string>(
        names, [into](const std::string& v) { *into = v; }, help);
  }
  CLI::Option* operator()(std::vector<std::string>* into) const { return app.add_option(names, *into, help); }
};

void add_arguments(CLI::App& app, const Command& command) {
  for (const Option& option : command.options) {
    CLI::Option* added = std::visit(AddArgument{app, option.names, option.help}, option.into);
    if (std::holds_alternative<std::vector<std::string>*>(option.into)) added->allow_extra_args(option.many);
  }
  for (const Positional& positional : command.positionals) {
    std::visit(AddArgument{app, positional.name, positional.help}, positional.into);
  }
}

bool was_given(const Positional& positional) {
  if (const auto* one = std::get_if<std::string*>(&positional.into)) return !(*one)->empty();
  if (const auto* several = std::get_if<std::vector<std::string>*>(&positional.into))
    return !(*several)->empty();
  if (const auto* maybe = std::get_if<std::optional<std::string>*>(&positional.into))
    return (*maybe)->has_value();
  return true;
}

// One sentence for what CLI11 could not place.
std::string unexpected(const Command& command, const std::string& word) {
  const std::string hint = " (`tierlog " + command.name + " --help` shows all)";
  if (!is_option(word)) return "\"" + word + "\" is one argument too many" + hint;
  std::vector<std::string> known;
  for (const Option& option : command.options)
    if (!option.hidden)
      for (const std::string& name : names_of(option)) known.push_back(name);
  const std::string name = word.substr(0, word.find('='));
  const std::string close = nearest(name, known);
  return "unknown option \"" + name + "\" of " + command.name +
         (close.empty() ? "" : "; did you mean " + close + "?") + hint;
}

int parse_failed(const Command& command, const CLI::ParseError& error) {
  const std::string hint = " (`tierlog " + command.name + " --help` shows all)";
  return misuse("tierlog " + command.name + ": " + error.what() + hint);
}

int parse_and_run(const Command& command, Words words) {
  CLI::App app;
  app.allow_extras();
  app.set_help_flag("-h,--help");
  add_arguments(app, command);
  try {
    std::reverse(words.begin(), words.end());  // as CLI11 wants them
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    out(command_help(command));
    return kDone;
  } catch (const CLI::ParseError& error) {
    return parse_failed(command, error);
  }
  Words left = app.remaining();
  std::stable_partition(left.begin(), left.end(), is_option);
  if (!left.empty()) return misuse(unexpected(command, left.front()));
  for (const Positional& positional : command.positionals)
    if (positional.required && !was_given(positional))
      return misuse(positional.name + " is missing: " + positional.help + " (`tierlog " + command.name +
                    " --help` shows examples)");
  return command.run();
}

int dispatch(const Command& command, Words words) {
  words.erase(words.begin(), words.begin() + 1 + std::count(command.name.begin(), command.name.end(), ' '));
  if (command.rest_name) {
    const auto dashes = std::find(words.begin(), words.end(), "--");
    if (dashes != words.end()) {
      command.rest->assign(dashes + 1, words.end());
      words.erase(dashes, words.end());
    }
  }
  auto joined = join_not(words, command);
  if (!joined) return complain(joined.error());
  return parse_and_run(command, std::move(*joined));
}

}  // namespace

int run_command(const std::vector<Command>& commands, const std::vector<std::string>& words) {
  if (words.empty()) {
    say("a command is missing; `tierlog --help` lists all");
    return kBadInput;
  }
  if (words[0] == "--help" || words[0] == "-h" || words[0] == "help") {
    const Command* named = find_command(commands, Words(words.begin() + 1, words.end()));
    out(named != nullptr ? command_help(*named) : program_help(commands));
    return kDone;
  }
  const Words name = words[0] == "--version" ? Words{"version"} : words;
  const Command* command = find_command(commands, name);
  if (command == nullptr) return unknown_command(commands, words);
  return dispatch(*command, name);
}

}  // namespace tierlog::cli
