// The text of --help: what a manual page would say, made from the command's own description.
#include <algorithm>
#include <sstream>

#include "cli/command.h"
#include "cli/text.h"

namespace tierlog::cli {
namespace {

constexpr std::size_t kIndent = 4;

std::string heading(const std::string& title) {
  return "\n" + title + "\n";
}

std::string usage(const Command& command) {
  std::string line = "tierlog " + command.name;
  for (const Positional& positional : command.positionals) {
    const bool many = std::holds_alternative<std::vector<std::string>*>(positional.into);
    const std::string name = positional.name + (many ? "…" : "");
    line += positional.required ? " " + name : " [" + name + "]";
  }
  if (!command.options.empty()) line += " [OPTIONS]";
  if (command.rest_name) line += " -- " + *command.rest_name;
  return line;
}

std::string option_head(const Option& option) {
  std::string head;
  std::istringstream names(option.names);
  for (std::string name; std::getline(names, name, ',');) head += (head.empty() ? "" : ", ") + name;
  if (!option.value.empty()) head += " " + option.value;
  return option.many ? head + "…" : head;
}

std::string described(const std::string& head, const std::string& help, std::size_t column) {
  const std::string body = wrapped(help, column);
  if (display_width(head) + kIndent + 2 > column) return std::string(kIndent, ' ') + head + "\n" + body;
  return std::string(kIndent, ' ') + padded(head, column - kIndent) + body.substr(column);
}

std::string options_text(const Command& command) {
  std::vector<std::string> groups;
  for (const Option& option : command.options)
    if (!option.hidden && std::find(groups.begin(), groups.end(), option.group) == groups.end())
      groups.push_back(option.group);
  std::string text;
  for (const std::string& group : groups) {
    text += heading(group);
    for (const Option& option : command.options)
      if (!option.hidden && option.group == group) text += described(option_head(option), option.help, 32);
  }
  return text;
}

}  // namespace

std::string wrapped(const std::string& text, std::size_t indent, std::size_t width) {
  std::string result;
  std::istringstream paragraphs(text);
  for (std::string paragraph; std::getline(paragraphs, paragraph);) {
    std::istringstream words(paragraph);
    std::string line(indent, ' ');
    bool fresh = true;
    for (std::string word; words >> word;) {
      if (!fresh && display_width(line) + 1 + display_width(word) > width) {
        result += line + "\n";
        line = std::string(indent, ' ');
        fresh = true;
      }
      line += (fresh ? "" : " ") + word;
      fresh = false;
    }
    result += (fresh ? "" : line) + "\n";
  }
  return result;
}

std::string command_help(const Command& command) {
  std::string text = "tierlog " + command.name + " - " + command.summary + "\n";
  text += heading("Usage") + std::string(kIndent, ' ') + usage(command) + "\n";
  text += heading("Description") + wrapped(command.description, kIndent);
  if (!command.positionals.empty()) {
    text += heading("Arguments");
    for (const Positional& positional : command.positionals)
      text += described(positional.name, positional.help, 32);
    if (command.rest_name)
      text += described("-- " + *command.rest_name, "the command and its own options", 32);
  }
  text += options_text(command);
  text += heading("Examples");
  for (const Example& example : command.examples)
    text += wrapped(example.what + ":", kIndent) + std::string(kIndent + 4, ' ') + example.command + "\n";
  text += heading("Exit code") + wrapped(command.exit_codes, kIndent);
  return text;
}

std::string program_help(const std::vector<Command>& commands) {
  std::string text =
      "tierlog - which rule of which policy in which tier allowed or denied a connection, and why\n";
  text += heading("Usage") + "    tierlog COMMAND [ARGUMENTS] [OPTIONS]\n    tierlog COMMAND --help\n";
  text += heading("Commands");
  for (const Command& command : commands) text += described(command.name, command.summary, 20);
  text += heading("Where a command looks");
  text += wrapped(
      "--db FILE and --socket PATH, else the variables TIERLOG_DB and TIERLOG_SOCKET, else the lab that is "
      "running (--lab NAME when there are several), else /var/lib/tierlog/flows.db and "
      "/run/tierlog/tierlogd.sock. Listings read the flow database and need no daemon.",
      kIndent);
  text += heading("Examples");
  text +=
      "    tierlog lab up examples/topologies/tenants.yaml -f examples/policies\n"
      "    tierlog denied --since 1h\n"
      "    tierlog explain --from tenant-02/web --to tenant-01/db --port 5432\n";
  return text;
}

}  // namespace tierlog::cli
