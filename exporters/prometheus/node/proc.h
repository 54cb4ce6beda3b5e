// exporters/prometheus/node/proc.h - the kernel's protocol counters, as /proc/net has them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tierlog::prometheus {

using Statistics = std::vector<std::pair<std::string, std::uint64_t>>;  // by the kernel's names, each once

struct Protocols {
  Statistics tcp;  // Tcp, TcpExt
  Statistics ip;   // Ip, IpExt, Ip6…
  Statistics udp;  // Udp, Udp6…
};

// Settings and what goes up and down among them (RtoMin, CurrEstab, Forwarding, …) is left out.
Protocols parse_protocols(std::string_view snmp, std::string_view netstat, std::string_view snmp6);
// Of this process's network namespace; what cannot be read is empty.
Protocols read_protocols();

// Where the kernel tells no reasons: what its counters call drops, by a name like theirs.
Statistics drops_of(const Protocols& protocols);

}  // namespace tierlog::prometheus
