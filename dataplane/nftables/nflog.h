// dataplane/nftables/nflog.h - NFLOG messages of our group -> VerdictEvents.
//
//   kernel log statements --netlink--> [NflogSource] --> dataplane/events.h
//
// Nobody is woken per packet: the kernel sends after 10 ms or a full buffer, the owner drains on a
// timer. The kernel numbers the messages of the group, so every lost one is known.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/handle.h"
#include "dataplane/events.h"

namespace tierlog::dataplane::nftables {

struct DecodedLog {
  VerdictEvent event;
  std::optional<std::uint32_t> sequence;
};

// One NFULNL_MSG_PACKET's attributes (what follows the nfgenmsg header). nullopt: not one of ours, or
// too short to name a flow. Pure; never reads outside `attributes` whatever they say.
std::optional<DecodedLog> decode_log(std::span<const std::uint8_t> attributes, WallTime now);

// Tuple, flags and length of an IPv4 or IPv6 packet of which only the front may be there.
bool decode_packet(std::span<const std::uint8_t> packet, VerdictEvent& into);

class NflogSource final : public EventSource {
 public:
  // Binds the group in this process's network namespace. Errors: Refused (no permission, or another
  // process holds the group: EPERM as well).
  static Result<std::unique_ptr<NflogSource>> open(std::uint16_t group);

  Result<bool> drain(std::vector<VerdictEvent>& into, std::size_t limit) override;
  EventLoss loss() const override { return loss_; }
  bool tell_translations(bool wanted) override;
  int fd() const { return socket_.get(); }  // borrowed, to wait on

 private:
  explicit NflogSource(Fd socket);
  Result<void> configure(std::uint16_t group);
  void take(std::span<const std::uint8_t> datagram, std::vector<VerdictEvent>& into, WallTime now);

  Fd socket_;
  std::vector<std::uint8_t> buffer_;
  std::optional<std::uint32_t> next_sequence_;
  std::uint16_t group_ = 0;
  bool can_translate_ = false;  // the kernel has NETFILTER_NETLINK_GLUE_CT
  bool tells_translations_ = false;
  EventLoss loss_;
};

}  // namespace tierlog::dataplane::nftables
