// exporters/prometheus/node/events.h - what the kernel's tracepoints told the BPF program (events.bpf.c),
// read back.
//
//   skb:kfree_skb, net:*, tcp:* --BPF--> shared memory (kernel.h) --[KernelEvents]--> node_source.h
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"

namespace tierlog::prometheus {

struct Drop {
  std::string reason;  // the kernel's name without SKB_DROP_REASON_: "NO_SOCKET"
  bool egress = false;
  std::uint64_t packets = 0, bytes = 0;
};

struct TcpOfAddress {
  std::uint64_t retransmissions = 0;
  std::uint64_t rtt_us = 0, rtt_samples = 0;
};

inline constexpr std::array<const char*, 8> kTcpFlags{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"};

class KernelEvents {
 public:
  // Loads and attaches; needs the privileges that the daemon gives up afterwards. What this kernel does not
  // have is left out. Errors: Refused, Io when nothing can be had (no BTF, no BPF).
  static Result<std::unique_ptr<KernelEvents>> open();
  ~KernelEvents();

  bool has_drops() const;  // the kernel tells reasons (5.17 and later)
  std::vector<Drop> drops() const;  // of every reason that the kernel knows, also where it is 0
  std::array<std::uint64_t, 8> flags() const;
  // Of these interfaces flags are counted.
  void set_uplinks(const std::vector<int>& indexes);
  // Sums of these addresses' sockets are kept from now on; those of others are forgotten.
  void watch(const std::vector<IpAddr>& addresses);
  TcpOfAddress of(const IpAddr& address) const;

 private:
  struct Impl;
  explicit KernelEvents(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::prometheus
