// cli/commands.h - the groups of commands, one file each; commands.cpp puts them in order.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"

namespace tierlog::cli {

Command flows_command();
Command denied_command();
Command policies_command();
Command rules_command();
Command endpoints_command();
Command status_command();
Command explain_command();
Command diff_command();
Command recommend_command();
Command compile_command();
Command lint_command();
Command selector_command();
Command test_command();
std::vector<Command> store_commands();
std::vector<Command> lab_commands();
Command version_command();

// Parts that many commands share.
Option output_option(std::string& into, const char* forms);
inline constexpr const char* kListingExitCodes =
    "0  done, also when nothing matches\n1  a policy or lab that was named is unknown\n"
    "2  bad usage or a file that is no flow database\n3  no database or daemon there";

}  // namespace tierlog::cli
