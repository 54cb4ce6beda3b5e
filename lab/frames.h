// lab/frames.h - frames that no honest network stack sends, and whether they arrive.
//
//   FrameSpec --[build]--> bytes --[send_frames, inside a pod]--> AF_PACKET on its interface
//   receiver: AF_PACKET on its interface --[watch]--> seen, or the sentinel that was sent after it
// Every frame carries a mark that nobody else sends. A frame counts as lost when the sentinel, which went
// the same way later, is there without it: no time-out decides.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"

namespace tierlog::lab {

using Mac = std::array<std::uint8_t, 6>;
using Bytes = std::vector<std::uint8_t>;

inline constexpr Mac kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
// Where IP multicast goes on a link.
Mac multicast_mac(const IpAddr& group);

// What a frame is; whatever is not said is as an honest one has it.
struct FrameSpec {
  Mac source{}, destination{};
  std::vector<std::uint16_t> tags;  // 0x8100, 0x88a8, outermost first, each with VLAN id 0
  std::uint16_t ethertype = 0;      // 0: as the addresses say; another one carries only the mark
  IpAddr from, to;
  std::uint8_t protocol = protocol::kUdp;
  std::uint16_t source_port = 40'000, port = 0;
  std::uint8_t tcp_flags = 0x02;
  std::uint8_t icmp_type = 0, icmp_code = 0;
  std::uint16_t icmp_id = 0x1234;
  std::uint16_t fragment_offset = 0;  // in units of 8 bytes
  bool more_fragments = false;
  std::uint32_t fragment_id = 1;
  std::string mark;  // 8 bytes or more
};
Bytes build(const FrameSpec& frame);
// ARP reply, or neighbour advertisement to `to`: "`claimed` is at `source`". It carries no mark; the
// claimed address is what to look for.
Bytes claim(const Mac& source, const Mac& destination, const IpAddr& claimed, const IpAddr& to);
// What to look for in such a claim.
std::string claim_mark(const Mac& source, const IpAddr& claimed);

// From here on: inside a host (Lab::run_in, Lab::start_in).
inline constexpr const char* kPodInterface = "eth0";
Result<Mac> own_mac(const std::string& interface = kPodInterface);
// In this order, from one CPU, so that they stay in it.
Result<void> send_frames(const std::vector<Bytes>& frames, const std::string& interface = kPodInterface);

// Sees everything that is delivered to an interface, promiscuous, from its opening on.
class Watch {
 public:
  static Result<Watch> open(const std::string& interface = kPodInterface);
  Watch(Watch&& other) noexcept;
  Watch& operator=(Watch&&) = delete;
  ~Watch();
  // The marks (of `wanted`) that came before `sentinel`, in the order of `wanted`. Errors: Unavailable
  // when the sentinel does not come in time.
  Result<std::vector<bool>> until(const std::string& sentinel, const std::vector<std::string>& wanted,
                                  std::chrono::milliseconds timeout) const;

 private:
  explicit Watch(int socket) : socket_(socket) {}
  int socket_;
};

}  // namespace tierlog::lab
