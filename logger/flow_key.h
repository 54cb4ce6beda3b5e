// logger/flow_key.h - what the kernel's sets tell flows apart by: no source port, and the rule belongs to it.
#pragma once

#include <cstdint>

#include "base/ids.h"
#include "base/net_types.h"
#include "dataplane/events.h"

namespace tierlog::logger {

struct FlowKey {
  RuleId rule{};
  IpAddr source, destination;
  std::uint8_t protocol = 0;
  std::uint16_t port_or_icmp = 0;  // destination port; type << 8 | code for ICMP; else 0
  bool alone = false;              // not counted where it left its source: that is told by itself

  bool operator==(const FlowKey&) const = default;
};

struct FlowKeyHash {
  std::size_t operator()(const FlowKey& key) const noexcept {
    constexpr std::size_t kSpread = 0x9e3779b97f4a7c15ULL;
    std::size_t h = std::hash<IpAddr>()(key.source);
    h = h * kSpread + std::hash<IpAddr>()(key.destination);
    h = h * kSpread + number(key.rule);
    // Ports are often a row of numbers: they must not come into a row of slots.
    h = (h * kSpread + (std::size_t{key.alone} << 24 | std::size_t{key.protocol} << 16 | key.port_or_icmp)) * kSpread;
    return h ^ h >> 32;
  }
};

inline FlowKey key_of(const dataplane::VerdictEvent& event) {
  std::uint16_t port = 0;
  if (protocol::has_ports(event.protocol))
    port = event.destination_port;
  else if (protocol::is_icmp(event.protocol))
    port = static_cast<std::uint16_t>(event.icmp_type << 8 | event.icmp_code);
  return {event.rule, event.source, event.destination, event.protocol, port, event.alone};
}

}  // namespace tierlog::logger
