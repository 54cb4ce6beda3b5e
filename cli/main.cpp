// tierlog - the user's command. See cli/command.h for how it is put together.
#include <exception>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/exit_code.h"

int main(int argc, char** argv) {
  using namespace tierlog::cli;
  try {
    const int code = run_command(all_commands(), std::vector<std::string>(argv + 1, argv + argc));
    return flush_stdout() ? code : kRefused;
  } catch (const std::exception& error) {
    say(std::string("internal error: ") + error.what());
    return kRefused;
  }
}
