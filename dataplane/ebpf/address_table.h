// dataplane/ebpf/address_table.h - which groups every address is in, as an object of the arena.
//
//   sets, port sets, endpoints --[encode_addresses]--> Blob (layout.h, struct tl_addresses) --> arena
//
// Addresses that are in the same groups share an identity, whose number never gets another meaning: what is
// remembered by numbers (the tuple cache) needs no clearing.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/blob.h"
#include "dataplane/ebpf/cells.h"
#include "dataplane/ebpf/limits.h"
#include "policy/program.h"

namespace tierlog::dataplane::ebpf {

class IdentityNumbers {
 public:
  std::uint32_t of(const std::vector<std::uint32_t>& groups, std::uint16_t flags) {
    const auto next = static_cast<std::uint32_t>(numbers_.size() + 1);
    return numbers_.try_emplace({flags, groups}, next).first->second;
  }

 private:
  std::map<std::pair<std::uint16_t, std::vector<std::uint32_t>>, std::uint32_t> numbers_;
};

// For all groups in use. Errors: InvalidArgument with the limit and the number that is beyond it.
Result<Blob> encode_addresses(const policy::Program& program, const GroupNumbers& groups,
                              IdentityNumbers& identities, const Limits& limits = {});

}  // namespace tierlog::dataplane::ebpf
