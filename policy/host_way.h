// policy/host_way.h - inside of the evaluator: the host endpoints that a packet passes, and what they say.
#pragma once

#include <cstdint>
#include <optional>

#include "policy/evaluate.h"

namespace tierlog::policy {

struct HostWay {
  std::uint32_t in = kNone;   // into program.hosts: where it comes in
  std::uint32_t out = kNone;  // and where it goes out
  bool to_node = false;       // the node itself is its destination
  bool from_node = false;     // or its source
};

// By the packet's interfaces; where those are unknown, by the node's addresses, and for what is forwarded the
// only host endpoint or that of all interfaces. What pods send and get passes none at their side.
HostWay host_way(const Program& program, const Packet& packet);

// All stages of one side in the kernel's order. Nothing: no policy there says anything.
std::optional<DirectionVerdict> host_says(const Program& program, const HostWay& way, Direction direction,
                                          const Packet& packet, Detail detail);

}  // namespace tierlog::policy
