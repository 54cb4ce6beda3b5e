// cli/command.h - a command as data: its options, its help and what it does.
//
//   commands.cpp (the list) --> parse.cpp (argv -> bound values) --> Command::run -> exit code
//                          `--> help.cpp (`--help`)
//
// The values that options are bound to live in what `run` captures.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tierlog::cli {

// Where an argument's value goes: a flag, one value, a value that may be absent, or several.
using Binding = std::variant<bool*, std::string*, std::optional<std::string>*, std::vector<std::string>*>;

struct Option {
  std::string names;  // "-o,--output": at most one short and any number of long ones
  std::string value;  // "FORMAT"; empty for a flag
  std::string help;
  Binding into;
  std::string group = "Options";
  bool many = false;    // takes all words up to the next option: -f a.yaml b.yaml
  bool hidden = false;  // not in the help
};

struct Positional {
  std::string name;  // "POLICY"
  std::string help;
  Binding into;
  bool required = false;
};

struct Example {
  std::string command;
  std::string what;
};

struct Command {
  std::string name;         // "flows", "lab up"
  std::string summary;      // one line, for the list of commands
  std::string description;  // paragraphs, one line each; help.cpp wraps them
  std::vector<Positional> positionals;
  std::vector<Option> options;
  std::vector<Example> examples;
  std::string exit_codes;                // what they mean here, one a line
  std::optional<std::string> rest_name;  // "CMD": what stands behind "--"
  std::vector<std::string>* rest = nullptr;
  std::function<int()> run;
};

// All commands, in the order in which the help lists them (commands.cpp).
std::vector<Command> all_commands();

// Runs what the words after the program's name ask for; its exit code. Usage errors are said on stderr.
int run_command(const std::vector<Command>& commands, const std::vector<std::string>& words);

std::string program_help(const std::vector<Command>& commands);
std::string command_help(const Command& command);
// `text` broken at blanks so that no line is longer than `width`; every line begins with `indent` blanks.
std::string wrapped(const std::string& text, std::size_t indent, std::size_t width = 100);

}  // namespace tierlog::cli
