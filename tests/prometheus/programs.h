// tests/prometheus/programs.h - Debian's prometheus and promtool, where scripts/install-deps --test puts
// them.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace tierlog::testing {

// Empty: it is not on this machine.
inline std::string prometheus_program(const std::string& name) {
  for (const char* folder : {"/usr/local/lib/tierlog-tests/", "/usr/bin/", "/usr/local/bin/"})
    if (::access((folder + name).c_str(), X_OK) == 0) return folder + name;
  return "";
}

struct Told {
  int code = -1;
  std::string text;  // stdout and stderr
};

// Runs a shell command to its end.
inline Told run_shell(const std::string& command) {
  Told told;
  FILE* pipe = ::popen(("{ " + command + "; } 2>&1").c_str(), "r");
  if (pipe == nullptr) return told;
  char buffer[4096];
  while (const std::size_t count = std::fread(buffer, 1, sizeof buffer, pipe))
    told.text.append(buffer, count);
  const int status = ::pclose(pipe);
  told.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return told;
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace tierlog::testing
