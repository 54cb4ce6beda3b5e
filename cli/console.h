// cli/console.h - the terminal: answers to stdout, everything said beside them to stderr.
#pragma once

#include <string_view>

#include "base/result.h"
#include "cli/table.h"

namespace tierlog::cli {

void out(std::string_view text);
// One line on stderr; made printable, newline added.
void say(std::string_view line);
// A line on stderr that the next one overwrites, where that is a terminal; empty: takes it away.
void progress(std::string_view line);
// Says the error and returns its exit code.
int complain(const Error& error);
// Says `sentence` and returns kBadInput.
int misuse(std::string_view sentence);
int exit_code_of(ErrorCode code);

// Colour only on a terminal and unless NO_COLOR is set; COLUMNS, else the terminal's width; nothing is cut
// where there is neither.
View stdout_view(bool wide = false);
// Everything written so far is out; false (said on stderr) when it could not be written.
bool flush_stdout();

}  // namespace tierlog::cli
