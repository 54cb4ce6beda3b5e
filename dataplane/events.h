// dataplane/events.h - what the kernel tells: the one event type of all back ends.
//
//   NFLOG, ring buffer --[EventSource]--> VerdictEvent --> logger/
//   sets, maps         --[Backend::read_denied]--> DeniedCount --> logger/
//
// Numbers are in host byte order.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/net_types.h"
#include "base/result.h"
#include "base/time.h"

namespace tierlog::dataplane {

enum class EventKind : std::uint8_t {
  Allowed,    // the first packet of an allowed connection, after both directions agreed; one per direction
  Denied,     // a packet of a denied flow: its first, then one per interval
  Logged,     // a packet that matched a Log rule; the decision comes as another event
  Overflow,   // a denied packet that found the deny set full
  Stateless,  // a packet without a connection that both directions allowed: a flow's first, then one per
              // interval; no id
};

// Where a packet was sent before its destination was translated: a Service.
struct Addressed {
  IpAddr address;
  std::uint16_t port = 0;

  bool operator==(const Addressed&) const = default;
};

struct VerdictEvent {
  EventKind kind{};
  RuleId rule{};
  WallTime time{};  // the packet's, else the time of reading
  IpAddr source;
  IpAddr destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0;  // 0 without ports
  std::uint16_t destination_port = 0;
  std::uint8_t icmp_type = 0;
  std::uint8_t icmp_code = 0;
  std::uint16_t icmp_id = 0;       // of messages that ask for an answer: tells two pings apart
  std::uint8_t tcp_flags = 0;      // as in the header: fin 1, syn 2, rst 4, psh 8, ack 16
  std::uint32_t length = 0;        // the packet's L3 length in bytes, not the copy's
  std::uint32_t in_interface = 0;  // ifindex, 0 = none
  std::uint32_t out_interface = 0;
  // Denied only: a packet of a connection that was allowed until the policies changed. Each is told by itself
  // and stands in no deny set.
  bool in_connection = false;
  // Denied only: what let it leave its source told so by itself, as an allowed connection.
  bool alone = false;
  std::optional<Addressed> addressed;  // where it is known and not `destination`
  bool apart = false;  // allowed only: its entry is of ConnectionTuple's kind of that name
};

// What was lost on the way to us, cumulative.
struct EventLoss {
  std::uint64_t sequence_gaps = 0;  // messages the kernel numbered and we never saw
  std::uint64_t overruns = 0;       // ENOBUFS told by the socket
  std::uint64_t undecodable = 0;    // messages that made no sense
  std::uint64_t ring_full = 0;      // messages that found no room in the ring buffer
  std::uint64_t logs_untold = 0;    // packets that matched more Log rules than can be told of one
  std::uint64_t left_behind = 0;    // entries of an earlier version's maps that could not be taken over

  std::uint64_t messages() const { return sequence_gaps + overruns + undecodable + ring_full; }
};

class EventSource {
 public:
  virtual ~EventSource() = default;
  // Appends what is waiting, without blocking, at most about `limit` events. Returns false when the
  // source is empty now, true when there may be more.
  virtual Result<bool> drain(std::vector<VerdictEvent>& into, std::size_t limit) = 0;
  virtual EventLoss loss() const = 0;
  // Whether events shall say where a packet was sent before its destination was translated: it makes each
  // message longer. False: this source cannot say so, whoever wants to know asks elsewhere.
  virtual bool tell_translations(bool) { return false; }
};

// One aggregated denied flow as the kernel counts it, cumulative while its entry lives.
struct DeniedCount {
  RuleId rule{};  // None: packets without a connection that both directions allowed
  IpAddr source;
  IpAddr destination;
  std::uint8_t protocol = 0;
  std::uint16_t port_or_icmp = 0;  // destination port; type << 8 | code for ICMP; else 0
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  Nanoseconds idle{};  // since its last packet
  bool alone = false;  // as of its events
};

}  // namespace tierlog::dataplane
