// dataplane/ebpf/older_maps.h - pinned maps of another layout, or of other sizes: what they hold is taken over.
//
//   /sys/fs/bpf/tierlog/v2, v3-1 --[OlderMaps]--> maps of this process
//
// The programs of the process before go on with their maps until each filter has been replaced. So it is done twice:
// everything before the first program of this process is attached, and what came since once the last one of the others
// is gone; then the folders go. Counters are never added to: what maps before counted stands beside them, so it
// can be told any number of times. A start that is broken off goes on at the next one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "dataplane/ebpf/limits.h"
#include "dataplane/ebpf/programs.h"

namespace tierlog::dataplane::ebpf {

class OlderMaps {
 public:
  // Folders beside `pins`; maps in `pins` that have other sizes are moved into one first. Nothing, where there are none.
  // Errors: Refused.
  static Result<std::unique_ptr<OlderMaps>> find(const std::string& pins, const Limits& limits);

  // Into the maps of `programs`, which are attached nowhere yet. Errors: Refused.
  Result<void> copy(Programs& programs, const Limits& limits);
  // No older program runs any more: what came since, and the folders go. Errors: Refused.
  Result<void> finish(Programs& programs, const Limits& limits);

  // Ring buffers that may hold messages; borrowed.
  std::vector<int> rings() const;
  bool has_flows() const { return has_flows_; }
  // One line for people: what was taken over, and what could not be.
  std::string told() const;

 private:
  struct Folder {
    std::string path, name;
    std::uint32_t layout = 0, number = 0;
    std::map<std::string, Fd> maps;  // those whose entries are known here
  };
  using Totals = std::map<std::uint32_t, tl_counter>;  // by rule; reserved ones by their id

  Result<void> open(Folder& folder);
  Result<Totals> totals() const;
  Result<void> write_counters(Programs& programs, const Limits& limits);
  Result<void> write_losses(Programs& programs);
  Result<void> copy_flows(Programs& programs);
  Result<void> copy_denied(Programs& programs);
  Result<void> merge_flows(const Programs& programs);
  Result<void> merge_denied(const Programs& programs);

  std::vector<Folder> folders_;  // oldest first
  bool has_flows_ = false;
  std::unordered_map<std::string, tl_flow> flows_;  // as they were copied, by key
  std::unordered_map<std::string, tl_denied> denied_;
  std::size_t counters_ = 0;
  std::uint64_t left_flows_ = 0, left_denied_ = 0, left_counters_ = 0, left_unread_ = 0;
  std::vector<std::string> unread_;  // folders
};

}  // namespace tierlog::dataplane::ebpf
