// lab/daemon.h - tierlogd in a lab's node: its configuration file, its start, its readiness.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "lab/enter.h"

namespace tierlog::lab {

// Keys may be dotted: {"store.path", …} becomes `store: {path: …}`.
struct DaemonConfig {
  std::map<std::string, std::string> values;
  std::vector<std::string> policies;
};

// tierlogd.yaml. Numbers, booleans and what is written as a list or map ("[…]", "{…}") stand bare, everything
// else quoted.
std::string to_yaml(const DaemonConfig& config);

struct DaemonFiles {
  std::string program;
  std::string config;
  std::string log;  // its standard streams; appended
  std::string socket;
};

// Starts it and waits until it answers `status`. Errors: with the end of its log when it died.
Result<ProcessId> start_tierlogd(const Place& node, const DaemonFiles& files);

}  // namespace tierlog::lab
