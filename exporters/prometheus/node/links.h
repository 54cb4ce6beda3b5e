// exporters/prometheus/node/links.h - the node's interfaces and their counters: rtnetlink, ethtool.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace tierlog::prometheus {

struct Link {
  int index = 0;
  std::string name;
  bool loopback = false;
  bool default_route = false;  // some default route of the main table goes out here
  std::uint64_t rx_packets = 0, rx_bytes = 0, tx_packets = 0, tx_bytes = 0, rx_dropped = 0, tx_dropped = 0;
  std::vector<std::pair<std::string, std::uint64_t>>
      statistics;  // all of rtnetlink's, by name ("rx_packets")
};

// Of this process's network namespace, in the kernel's order. Errors: Refused, Io.
Result<std::vector<Link>> read_links();
// What the interface's driver counts under names of its own; empty when it does not.
std::vector<std::pair<std::string, std::uint64_t>> driver_statistics(const std::string& interface);

}  // namespace tierlog::prometheus
