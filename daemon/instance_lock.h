// daemon/instance_lock.h - one daemon a node, a socket and a store: files that are locked for life.
#pragma once

#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::daemon {

class InstanceLock {
 public:
  // Locks the file at `path` (made when missing) and writes this process's pid into it. Errors:
  // Unavailable (another daemon holds it: the message names its pid), Io.
  Result<void> take(const std::string& path);

 private:
  std::vector<Fd> held_;
};

// The lock of this network namespace: two daemons with different settings would still share its rules.
Result<std::string> node_lock_path();

}  // namespace tierlog::daemon
