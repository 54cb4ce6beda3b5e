// exporters/prometheus/node/sockets.h - the node's TCP and UDP sockets, by sock_diag: what `ss -a` lists.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

#include "base/net_types.h"
#include "base/result.h"

namespace tierlog::prometheus {

// In the kernel's order, from 1.
inline constexpr std::array<std::string_view, 11> kTcpStates{
    "ESTABLISHED", "SYN_SENT",   "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
    "CLOSE",       "CLOSE_WAIT", "LAST_ACK", "LISTEN",    "CLOSING"};

struct SocketCounts {
  std::array<std::uint64_t, kTcpStates.size()> tcp{};  // IPv4 and IPv6
  // TCP sockets that have another side; an IPv4 address inside IPv6 counts as IPv4.
  std::map<std::pair<IpAddr, std::uint16_t>, std::uint64_t> remotes;
  std::uint64_t udp = 0;
};

// Of this process's network namespace. Errors: Refused, Io.
Result<SocketCounts> count_sockets();

}  // namespace tierlog::prometheus
