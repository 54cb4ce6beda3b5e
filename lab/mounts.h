// lab/mounts.h - what the file system looks like inside a lab: the machine's, with private places on top.
//
//   /proc, /sys      of the lab's own pid and net namespaces       /sys/fs/bpf   empty
//   /run             empty but for netns/, tierlog/ and what `visible` names
//   /etc/hosts       the lab's own, so that pods have names
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace tierlog::lab {

struct MountPlan {
  std::string folder;                // the lab's, reachable from both sides
  std::string hosts_file;            // becomes /etc/hosts
  std::string socket;                // tierlogd's, also found at its usual place
  std::vector<std::string> visible;  // files and folders that are needed inside
};

// For a process that has just got a mount namespace of its own, and its pid and net namespaces.
Result<void> mount_lab(const MountPlan& plan);
// The same for one more node of that lab: what a node has for itself is put over what the lab has.
Result<void> mount_node(const std::string& socket);

}  // namespace tierlog::lab
