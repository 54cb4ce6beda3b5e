// dataplane/connection.h - one entry of the kernel's connection table, as it is dumped or as it ended.
//
//   ctnetlink --[dataplane/conntrack.h]--> Connection --> logger/connections.h (bytes), daemon/ (cuts)
//
// Numbers are in host byte order.
#pragma once

#include <cstdint>
#include <optional>

#include "base/ids.h"
#include "base/net_types.h"
#include "base/time.h"

namespace tierlog::dataplane {

// One direction of a connection. What a protocol does not have is 0.
struct ConnectionTuple {
  IpAddr source;
  IpAddr destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0;  // GRE: the key
  std::uint16_t destination_port = 0;
  std::uint8_t icmp_type = 0;
  std::uint8_t icmp_code = 0;
  std::uint16_t icmp_id = 0;
  // The way out of its source, where what a Service's address made of it is followed by another entry.
  bool apart = false;

  auto operator<=>(const ConnectionTuple&) const = default;
};

// Bits of word 3 of the connection's label: a policy change ended it, by the source's egress or by the
// destination's ingress.
inline constexpr std::uint32_t kLabelCutEgress = 1;
inline constexpr std::uint32_t kLabelCutIngress = 2;
inline constexpr std::uint32_t kLabelCut = kLabelCutEgress | kLabelCutIngress;

// The words of the connection's label that are ours; word 2 is left alone.
struct ConnectionLabels {
  RuleId egress{};          // word 0: the rule that let it out of its source
  RuleId ingress{};         // word 1: the rule that let it into its destination
  std::uint32_t flags = 0;  // word 3

  bool operator==(const ConnectionLabels&) const = default;
};

struct Connection {
  ConnectionTuple original;  // as its originator sends it
  ConnectionTuple reply;     // as it is answered; differs from `original` reversed where there is NAT
  // False: the entry has no room for labels or none was ever written; `labels` are zero then. An ended
  // connection comes without them.
  bool has_labels = false;
  ConnectionLabels labels;
  std::uint64_t packets_out = 0, bytes_out = 0;  // by the originator
  std::uint64_t packets_in = 0, bytes_in = 0;    // back to it
  std::uint32_t status = 0;                      // IPS_… of linux/netfilter/nf_conntrack_common.h
  std::uint8_t tcp_state = 0;                    // TCP_CONNTRACK_…; 0 when it is no TCP
  std::uint16_t zone = 0;
  std::uint32_t id = 0;  // the kernel's for this entry: another one where the same tuple came again
  // Known where nf_conntrack_timestamp was set when it began.
  std::optional<WallTime> started;
  std::optional<WallTime> ended;
};

// The connection as policies and log messages see it: behind the translation of destinations, before that
// of sources, so from the real client to the real server.
inline ConnectionTuple forward_view(const Connection& connection) {
  ConnectionTuple view = connection.original;
  view.destination = connection.reply.source;
  view.destination_port = connection.reply.source_port;
  // A log message names ports only where they are ports.
  if (!protocol::has_ports(view.protocol)) view.source_port = view.destination_port = 0;
  return view;
}

}  // namespace tierlog::dataplane
