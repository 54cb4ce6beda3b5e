// cli/exit_code.h - what the programs' exit codes say; the same for every command.
#pragma once

namespace tierlog::cli {

enum ExitCode : int {
  kDone = 0,      // also an empty listing and the explanation of a denial
  kNo = 1,        // the answer is no: a test differs, a named thing is unknown
  kBadInput = 2,  // bad input or usage
  kRefused = 3,   // the kernel or the daemon refused, or is not there
};

}  // namespace tierlog::cli
