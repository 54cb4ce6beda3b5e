// daemon/instance_lock.h - one daemon a node, a socket and a store: files that are locked for life.
//
// A file may be removed by whoever holds its lock: who locks one that has no name any more begins again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::daemon {

class InstanceLock {
 public:
  enum class AtEnd : std::uint8_t { Keep, Remove };

  InstanceLock() = default;
  InstanceLock(const InstanceLock&) = delete;
  InstanceLock& operator=(const InstanceLock&) = delete;
  ~InstanceLock();
  // Locks the file at `path` (made when missing) and writes this process's pid into it. Errors:
  // Unavailable (another daemon holds it: the message names its pid), Io.
  Result<void> take(const std::string& path, AtEnd at_end = AtEnd::Keep);

 private:
  struct Held {
    Fd file;
    std::string path;
    AtEnd at_end;
  };
  std::vector<Held> held_;
};

// The lock of this network namespace: two daemons with different settings would still share its rules.
Result<std::string> node_lock_path();

}  // namespace tierlog::daemon
