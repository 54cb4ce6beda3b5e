// exporters/prometheus/node/node_source.h - the node's metrics: twelve in the names of AKS Network
// Observability, each beside its modern twin; and what of pods only the kernel's tracepoints know.
//
//   /proc/net, sock_diag, rtnetlink, ethtool, BPF --> [NodeMetrics] --families--> collector.h
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "exporters/prometheus/collector.h"
#include "exporters/prometheus/node/events.h"
#include "exporters/prometheus/node/links.h"
#include "exporters/prometheus/node/proc.h"
#include "exporters/prometheus/node/sockets.h"

namespace tierlog::prometheus {

class NodeMetrics : public NodeSource {
 public:
  // `events` may be null: reasons then come from /proc, flags and what of pods needs them are absent.
  NodeMetrics(std::unique_ptr<KernelEvents> events, std::size_t remotes, const Clock& clock);

  void pod_families(Exposition& out, const Context& context) override;
  void node_families(Exposition& out, const Context& context) override;

 private:
  struct Reason {
    std::string name, direction;
    std::uint64_t packets = 0, bytes = 0;
    bool since_start = false;  // counted by the BPF programs of this process
  };
  using Forwarded = std::array<std::uint64_t, 4>;  // packets and bytes received, the same sent
  struct Way {                                     // both names of one quantity
    Metric kappie, modern;
  };
  Forwarded add_uplinks(const std::vector<Link>& links);
  void add_sockets(const std::vector<std::pair<IpAddr, PodKey>>& rows);
  std::vector<Link> read(const Context& context);
  std::vector<Reason> reasons(const Context& context, const Protocols& protocols,
                              const std::vector<Link>& links);
  std::pair<std::uint64_t, std::uint64_t> others_of_netfilter(std::uint64_t packets, std::uint64_t bytes,
                                                              const Context& context);
  void sockets(Exposition& out, Metric state, Metric remote, const SocketCounts& counts, bool kappie) const;

  std::unique_ptr<KernelEvents> events_;
  std::size_t remotes_;
  const Clock& clock_;
  // Packets that netfilter dropped as the tracepoint counted them, by time: our own are known a little later.
  struct Netfilter {
    Nanoseconds when{};
    std::uint64_t packets = 0, bytes = 0;
  };
  std::deque<Netfilter> netfilter_;
  std::pair<std::uint64_t, std::uint64_t> ours_before_{}, all_before_{}, others_{};
  bool began_ = false;
  std::map<int, Forwarded> uplinks_;  // by index, as they were read last
  Forwarded forwarded_{};
  bool forwarding_ = false;                   // there was an uplink
  std::map<IpAddr, TcpOfAddress> addresses_;  // as they were read last
  std::map<PodKey, TcpOfAddress> pods_;
};

}  // namespace tierlog::prometheus
