#include "cli/commands.h"

#include <iterator>
#include <memory>

#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/output.h"

namespace tierlog::cli {

Option output_option(std::string& into, const char* forms) {
  return {"-o,--output", "FORM", std::string("how to print: ") + forms + " (default table)", &into};
}

Command version_command() {
  const auto output = std::make_shared<std::string>("table");
  Command command;
  command.name = "version";
  command.summary = "the version of this program";
  command.description = "Prints the version of tierlog. `tierlog status` shows that of the running daemon.";
  command.options = {output_option(*output, kTextOrJson)};
  command.examples = {{"tierlog version", "Name and version"},
                      {"tierlog --version", "The same"},
                      {"tierlog version -o json", "For scripts"}};
  command.exit_codes = "0  always\n2  bad usage";
  command.run = [output]() -> int {
    const auto format = parse_format(*output, kTextOrJson);
    if (!format) return complain(format.error());
    if (*format == Format::Json) {
      out("{\"version\":\"" TIERLOG_VERSION "\"}\n");
    } else {
      out("tierlog " TIERLOG_VERSION "\n");
    }
    return kDone;
  };
  return command;
}

std::vector<Command> all_commands() {
  std::vector<Command> commands = {
      denied_command(),   flows_command(),   explain_command(),   diff_command(),   recommend_command(),
      policies_command(), rules_command(),   endpoints_command(), status_command(), lint_command(),
      selector_command(), compile_command(), test_command()};
  for (std::vector<Command> group : {store_commands(), lab_commands()})
    std::move(group.begin(), group.end(), std::back_inserter(commands));
  commands.push_back(version_command());
  return commands;
}

}  // namespace tierlog::cli
