#include <gtest/gtest.h>

#include <sstream>

#include "cli/command.h"
#include "cli/text.h"

namespace tierlog::cli {
namespace {

TEST(Wrapped, BreaksAtBlanks) {
  EXPECT_EQ(wrapped("one two three", 2, 9), "  one two\n  three\n");
  EXPECT_EQ(wrapped("one\n\ntwo", 0, 20), "one\n\ntwo\n");
  EXPECT_EQ(wrapped("averyveryverylongword", 2, 8), "  averyveryverylongword\n");
}

TEST(CommandHelp, TellsUsageOptionsExamplesAndCodes) {
  std::string policy, output;
  std::vector<std::string> files;
  bool flag = false;
  Command command;
  command.name = "denied";
  command.summary = "who was denied";
  command.description = "Lists denied flows.";
  command.positionals = {{"POLICY", "its name", &policy}};
  command.options = {{"-o,--output", "FORM", "how to print", &output},
                     {"-f,--file", "PATH", "files", &files, "Options", true},
                     {"--follow", "", "goes on", &flag, "Which part"},
                     {"--not-follow", "", "never shown", &flag, "Which part", false, true}};
  command.examples = {{"tierlog denied", "All"}};
  command.exit_codes = "0  done";
  EXPECT_EQ(command_help(command),
            "tierlog denied - who was denied\n"
            "\nUsage\n    tierlog denied [POLICY] [OPTIONS]\n"
            "\nDescription\n    Lists denied flows.\n"
            "\nArguments\n    POLICY                      its name\n"
            "\nOptions\n"
            "    -o, --output FORM           how to print\n"
            "    -f, --file PATH…            files\n"
            "\nWhich part\n    --follow                    goes on\n"
            "\nExamples\n    All:\n        tierlog denied\n"
            "\nExit code\n    0 done\n");
}

}  // namespace
}  // namespace tierlog::cli
