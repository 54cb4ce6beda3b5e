// dataplane/ebpf/stations.h - which interfaces of the node programs stand at, and as what.
//
//   policy/program.h, kernel's interfaces --[stations_of]--> Attached --> installed.h (entries), programs.h (filters)
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/installed.h"
#include "policy/program.h"

namespace tierlog::dataplane {
class Links;
}

namespace tierlog::dataplane::ebpf {

// Indices of interfaces by name, asked for again only when the kernel said that some interface changed: a change of
// policies asks for thousands.
class Interfaces {
 public:
  Interfaces();
  ~Interfaces();
  // Changes that are waiting are taken.
  void look();
  std::uint32_t index_of(const std::string& name);  // 0: there is none

 private:
  std::unique_ptr<Links> changes_;  // null where the kernel tells of none: nothing is remembered
  std::unordered_map<std::string, std::uint32_t> known_;
};

// Pods' interfaces, in the Program's order; behind them those of the node itself that a host endpoint is about, or all
// (`carries`: who sent what comes in must be noted). Loopback, ports of bridges and bridges of pods are never the
// node's. An interface that is not there is left out. Errors: InvalidArgument, a host endpoint's interface has frames
// that are not Ethernet's; Refused.
Result<std::vector<Attached>> stations_of(const policy::Program& program, bool carries, Interfaces& interfaces);

}  // namespace tierlog::dataplane::ebpf
