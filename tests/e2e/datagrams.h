// One-way datagrams between two hosts of a lab, counted at both ends. To the kernel each of them asks anew,
// so each is judged by the rules, established or not.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/net_types.h"

namespace tierlog::testing {

inline constexpr std::uint16_t kAllowed = 7001;
inline constexpr std::uint16_t kDenied = 7002;

// In memory that both ends see (live_node.h, Shared).
struct Datagrams {
  std::atomic<std::uint64_t> allowed_sent{0}, denied_sent{0}, allowed_received{0}, denied_received{0};
  std::atomic<bool> ready{false}, stop{false}, fast{false};
  std::atomic<bool> pause{false}, paused{false};  // asked for; the sender's answer
};

// Until killed: counts what comes on both ports, over both families.
int receive_datagrams(Datagrams& traffic);
// Until `stop`: to each address, one port as often as the other; about 20,000 a second each, or as many as go.
int send_datagrams(Datagrams& traffic, const std::vector<IpAddr>& to);
// As many as go, to these ports of one address; counts in `sent`.
int flood(const std::atomic<bool>& stop, const IpAddr& to, const std::vector<std::uint16_t>& ports,
          std::atomic<std::uint64_t>& sent);
// 0 when it was sent.
int send_one(const IpAddr& to, std::uint16_t port);

}  // namespace tierlog::testing
