// tests/cli/program.h - the built tierlog as a child process, with an environment of its own.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace tierlog::cli::testing_program {

struct Outcome {
  int code = -1;  // 128 + signal when one ended it
  std::string out, err;
};

using Words = std::vector<std::string>;
using Variables = std::map<std::string, std::string>;

// Runs it to its end. The environment is PATH, HOME and `variables` only; no terminal anywhere.
Outcome run(const Words& words, const Variables& variables = {});

// One that goes on: its output is read while it runs.
class Running {
 public:
  explicit Running(const Words& words, const Variables& variables = {});
  ~Running();  // ends it if it still runs
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  // Waits until stdout (or stderr) holds `text`; false when it does not come within a long time.
  bool wait_for_out(const std::string& text);
  bool wait_for_err(const std::string& text);
  // Waits until stdout takes no more: nobody reads it meanwhile.
  bool wait_for_full_out() const;
  // Returns when the program took the signal, while nobody reads what it writes.
  bool interrupt_with(int signal) const;
  // Sends the signal and waits for the end.
  Outcome end_with(int signal);
  const std::string& out() const { return outcome_.out; }

 private:
  bool wait_for(const std::string& text, int& pipe, std::string& into);
  void drain();

  pid_t child_ = -1;
  int out_ = -1, err_ = -1;
  Outcome outcome_;
};

}  // namespace tierlog::cli::testing_program
