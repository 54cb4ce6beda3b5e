// dataplane/ebpf/limits.h - how much there may be on one node: settings; maps are as large as they say.
//
//   tierlogd.yaml `ebpf:`, `tierlog compile --limits` --> [Limits] --> a Program is checked (encode_class.h,
//   address_table.h, installed.h), maps are made (programs.h)
//
// What is beyond a limit is refused before anything changes, with the number, the limit and whose it is.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "dataplane/ebpf/layout.h"
#include "policy/program.h"

namespace tierlog::dataplane::ebpf {

struct Limits {
  std::uint32_t endpoints = 8'192;     // that are enforced on this node, host endpoints among them
  std::uint32_t rules = 65'280;        // of all policies here, ends of tiers among them: each has a place to count in
  std::uint32_t matches = TL_POSITIONS;  // of one endpoint in one direction
  std::uint32_t sets = TL_SETS;        // that policies name and one address is in
  std::uint32_t flows = 262'144;       // connections; an interface of the node under policies has its own
  std::uint32_t denied = 65'536;       // denied and logged flows that are counted apart
  std::uint32_t services = 65'536;     // address, port and protocol of each
  std::uint32_t tuples = 131'072;      // answers that are remembered
  std::uint32_t segments = TL_SEGMENTS;  // of 4 MiB: classes and addresses

  auto operator<=>(const Limits&) const = default;
  // Entries of the maps that count by rule.
  std::uint32_t slots() const { return rules + TL_FIRST_SLOT; }
};

// As it stands in tierlogd.yaml behind `ebpf.`.
struct LimitSetting {
  std::string_view name;
  std::uint32_t Limits::*value;
  std::uint32_t least, most;
};
const std::array<LimitSetting, 9>& limit_settings();

// "max_rules=1000,max_sets=8"; what is not named is as by default. Errors: InvalidArgument.
Result<Limits> parse_limits(std::string_view text);

// "; 64 are the limit (ebpf.max_sets)"
std::string limit_text(std::uint32_t Limits::*value, const Limits& limits);

// What of a Program can be counted before anything is made of it. Errors: InvalidArgument.
Result<void> check_limits(const policy::Program& program, const Limits& limits);

}  // namespace tierlog::dataplane::ebpf
