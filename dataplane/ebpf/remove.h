// dataplane/ebpf/remove.h - where the programs' maps are kept, and taking all of ours out of a kernel.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/programs.h"

namespace tierlog::dataplane::ebpf {

// The folder for pinned maps of this layout, made; where no BPF file system is mounted at /sys/fs/bpf, one
// is. Errors: Refused.
Result<std::string> make_pin_folder();
struct OurFilter {
  std::string interface;
  int ifindex = 0;
  Hook hook{};
  bool of_node = false;
};
// In this network namespace. Errors: Refused.
Result<std::vector<OurFilter>> filters_of_ours();
// Our filters on all interfaces of this network namespace, then the pinned maps of every layout; returns what
// was there. Filters and maps of others stay.
Result<std::vector<std::string>> remove_programs();

}  // namespace tierlog::dataplane::ebpf
