// lab/case_wire.h - a bare node for policy test cases: pods as links, packets by the thousand.
//
//   pod's end of a veth --frame--> [node's namespace: routing, the rules under test] --> another pod's end
// Two network namespaces that live as long as the Wire: the node's, in which the calling thread stays, and
// one that holds the other end of every link. Nothing listens there and nobody answers: whether a packet
// arrives is seen by a packet socket, and that it does not by a sentinel that went the same way later.
// Addresses that are no pod's are behind a link of their own, the outside.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/net_types.h"
#include "base/result.h"
#include "lab/frames.h"
#include "policy/evaluate.h"

namespace tierlog::lab {

struct WirePod {
  std::vector<IpAddr> addresses;
  // As the node knows its link; filled in by Wire::make.
  std::string interface;
  std::string mac;
};

struct Shot {
  policy::Packet packet;
  std::uint16_t icmp_id = 0;
};

struct Arrival {
  bool delivered = false;
  bool returned = false;  // it came back to its sender inside an ICMP error
};

class Wire {
 public:
  // The calling thread is in the node's namespace afterwards, so give it a thread of its own.
  // Errors: Refused without CAP_SYS_ADMIN and CAP_NET_ADMIN.
  static Result<std::unique_ptr<Wire>> make(std::vector<WirePod> pods);
  const std::vector<WirePod>& pods() const { return pods_; }

  // Sends all of them, in order, and waits until each that is let through must have arrived.
  Result<std::vector<Arrival>> shoot(const std::vector<Shot>& shots);
  // Forgets every connection.
  Result<void> flush_connections();

 private:
  Wire() = default;
  Result<void> make_links();
  std::size_t link_of(const IpAddr& address) const;  // 0: outside
  Result<void> send(const Fd& socket, int interface, const Bytes& frame) const;
  Result<void> wait_for(const Fd& socket, std::size_t sentinels, std::vector<Arrival>* arrivals,
                        const std::vector<Shot>* shots);

  std::vector<WirePod> pods_;
  std::map<IpAddr, std::size_t> links_;  // 1…: pods
  std::vector<int> node_index_, far_index_;
  Fd far_namespace_, node_socket_, far_socket_;
  std::uint32_t round_ = 0;
};

// Why a kernel does not forward such a packet whatever the rules say; empty when it does.
std::string unroutable(const policy::Packet& packet);

}  // namespace tierlog::lab
