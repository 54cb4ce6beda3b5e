// dataplane/ebpf/connections.h - the programs' flow map as living and ended connections.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "dataplane/connection_source.h"
#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/events.h"

namespace tierlog::dataplane::ebpf {

class EbpfConnections final : public ConnectionSource {
 public:
  // Both live longer.
  EbpfConnections(EbpfBackend& backend, EbpfEvents& events) : backend_(backend), events_(events) {}

  Result<bool> drain(std::vector<Connection>& ended, std::size_t limit) override;
  Result<void> dump(const std::function<void(const Connection&)>& each) override;
  // A pod's packets are seen before any translation.
  Result<std::optional<Connection>> find_by_reply(const ConnectionTuple&) override {
    return std::optional<Connection>();
  }
  const ConntrackLoss& loss() const override { return loss_; }
  Result<void> count_full() override;
  int fd() const override { return -1; }

 private:
  EbpfBackend& backend_;
  EbpfEvents& events_;
  ConntrackLoss loss_;
};

// As the programs would have noted it, had they seen its beginning: one entry, or two where its destination was
// translated; none where nobody is here. They are judged at their next packet. `now`: monotonic, nanoseconds.
std::vector<KnownFlow> flows_of(const Connection& connection, const std::function<bool(const IpAddr&)>& is_here,
                                std::uint64_t now);
// What the flags that were seen make of a TCP connection, in conntrack's words (TCP_CONNTRACK_…).
std::uint8_t tcp_state_of(const tl_flow& flow);
// Whether its other end sent anything. An ICMP error about it is counted among that end's packets and is no answer.
inline bool is_answered(const tl_flow& flow) {
  return flow.tcp[1] != 0;
}
// `offset`: wall clock minus monotonic clock.
Connection connection_of(const tl_flow_key& key, const tl_flow& flow, Nanoseconds offset);

}  // namespace tierlog::dataplane::ebpf
