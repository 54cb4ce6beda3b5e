#include "dataplane/ebpf/connections.h"

#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_conntrack_tcp.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

namespace tierlog::dataplane::ebpf {
namespace {

constexpr std::uint8_t kFin = 0x01, kSyn = 0x02, kReset = 0x04, kAck = 0x10;

ConnectionTuple reversed(const ConnectionTuple& tuple) {
  ConnectionTuple back = tuple;
  std::swap(back.source, back.destination);
  std::swap(back.source_port, back.destination_port);
  return back;
}

std::uint8_t answer_to(std::uint8_t protocol_number, std::uint8_t question) {
  if (protocol_number == protocol::kIcmpV6) return static_cast<std::uint8_t>(question + 1);
  return question == 8 ? 0 : static_cast<std::uint8_t>(question + 1);
}
// The type of the question that this one answers.
std::uint8_t question_of(std::uint8_t protocol_number, std::uint8_t answer) {
  if (protocol_number == protocol::kIcmpV6) return static_cast<std::uint8_t>(answer - 1);
  return answer == 0 ? 8 : static_cast<std::uint8_t>(answer - 1);
}

void put(const IpAddr& address, std::uint8_t (&into)[16]) {
  std::copy(address.bytes.begin(), address.bytes.begin() + static_cast<std::ptrdiff_t>(address.size()), into);
}

// One end's view of it; `needed`: the directions that are judged here.
KnownFlow flow_of(const ConnectionTuple& tuple, std::uint8_t needed, const Connection& connection, std::uint64_t now) {
  const bool icmp = protocol::is_icmp(tuple.protocol);
  const std::uint16_t from = icmp ? tuple.icmp_id : tuple.source_port;
  const std::uint16_t to = icmp ? tuple.icmp_id : tuple.destination_port;
  std::uint8_t source[16] = {}, destination[16] = {};
  put(tuple.source, source);
  put(tuple.destination, destination);
  std::uint64_t a[2], b[2];
  std::memcpy(a, source, 16);
  std::memcpy(b, destination, 16);
  // As make_key() in flow.bpf.h orders them.
  const bool swap = a[0] != b[0] ? a[0] > b[0] : a[1] != b[1] ? a[1] > b[1] : from > to;
  KnownFlow entry;
  std::memcpy(entry.key.low, swap ? destination : source, 16);
  std::memcpy(entry.key.high, swap ? source : destination, 16);
  entry.key.low_port = swap ? to : from;
  entry.key.high_port = swap ? from : to;
  entry.key.protocol = tuple.protocol;
  entry.key.family = tuple.source.family == Family::V6 ? 6 : 4;
  if (icmp) {
    entry.key.icmp_type = swap ? answer_to(tuple.protocol, tuple.icmp_type) : tuple.icmp_type;
    entry.key.icmp_code = tuple.icmp_code;
  }
  entry.flow.first = entry.flow.last = now;
  if ((connection.status & IPS_SEEN_REPLY) != 0) {
    entry.flow.packets[1] = 1;
    entry.flow.tcp[1] = tuple.protocol == protocol::kTcp ? kAck : TL_SPOKE;
  }
  entry.flow.high_begins = swap ? 1 : 0;
  entry.flow.needed = entry.flow.allowed = needed;
  entry.flow.told = 1;
  return entry;
}

}  // namespace

std::vector<KnownFlow> flows_of(const Connection& connection, const std::function<bool(const IpAddr&)>& is_here,
                                std::uint64_t now) {
  const ConnectionTuple& original = connection.original;
  const ConnectionTuple arriving = reversed(connection.reply);  // as its destination sees it
  const auto egress = static_cast<std::uint8_t>(is_here(original.source) ? TL_BIT_EGRESS : 0);
  const auto ingress = static_cast<std::uint8_t>(is_here(arriving.destination) ? TL_BIT_INGRESS : 0);
  const bool translated = original.source != arriving.source || original.destination != arriving.destination ||
                          original.source_port != arriving.source_port ||
                          original.destination_port != arriving.destination_port;
  std::vector<KnownFlow> found;
  if (!translated) {
    if ((egress | ingress) != 0)
      found.push_back(flow_of(original, static_cast<std::uint8_t>(egress | ingress), connection, now));
    return found;
  }
  if (egress != 0) {
    found.push_back(flow_of(original, egress, connection, now));
    if (original.destination != arriving.destination || original.destination_port != arriving.destination_port) {
      put(arriving.destination, found.back().flow.backend);
      found.back().flow.backend_port = arriving.destination_port;
    }
  }
  if (ingress != 0) {
    found.push_back(flow_of(arriving, ingress, connection, now));
    if (original.source != arriving.source) put(original.source, found.back().flow.real_source);
  }
  return found;
}

std::uint8_t tcp_state_of(const tl_flow& flow) {
  const std::uint8_t either = flow.tcp[0] | flow.tcp[1], both = flow.tcp[0] & flow.tcp[1];
  if ((either & kReset) != 0) return TCP_CONNTRACK_CLOSE;
  if ((both & kFin) != 0) return TCP_CONNTRACK_TIME_WAIT;
  if ((either & kFin) != 0) return TCP_CONNTRACK_FIN_WAIT;
  if (!is_answered(flow)) return TCP_CONNTRACK_SYN_SENT;
  return (flow.tcp[0] & (kSyn | kAck)) == kSyn ? TCP_CONNTRACK_SYN_RECV : TCP_CONNTRACK_ESTABLISHED;
}

Connection connection_of(const tl_flow_key& key, const tl_flow& flow, Nanoseconds offset) {
  Connection connection;
  ConnectionTuple& tuple = connection.original;
  tuple.source = address_of(flow.high_begins != 0 ? key.high : key.low, key.family);
  if (std::any_of(std::begin(flow.real_source), std::end(flow.real_source), [](auto byte) { return byte != 0; }))
    tuple.source = address_of(flow.real_source, key.family);
  tuple.destination = address_of(flow.high_begins != 0 ? key.low : key.high, key.family);
  tuple.protocol = key.protocol;
  const std::uint16_t source = flow.high_begins != 0 ? key.high_port : key.low_port;
  if (protocol::is_icmp(key.protocol)) {
    tuple.icmp_id = source;
    // The key has what `low` sends: of an exchange that `high` begins, the answer.
    tuple.icmp_type = flow.high_begins != 0 ? question_of(key.protocol, key.icmp_type) : key.icmp_type;
    tuple.icmp_code = key.icmp_code;
  } else {
    tuple.source_port = source;
    tuple.destination_port = flow.high_begins != 0 ? key.low_port : key.high_port;
  }
  connection.reply = reversed(tuple);
  if (flow.backend_port != 0) {
    tuple.apart = true;
    connection.reply.source = address_of(flow.backend, key.family);
    connection.reply.source_port = flow.backend_port;
  }
  connection.has_labels = true;
  connection.labels.egress = RuleId{flow.rules[TL_EGRESS]};
  connection.labels.ingress = RuleId{flow.rules[TL_INGRESS]};
  if ((flow.cut & TL_BIT_EGRESS) != 0) connection.labels.flags |= kLabelCutEgress;
  if ((flow.cut & TL_BIT_INGRESS) != 0) connection.labels.flags |= kLabelCutIngress;
  connection.packets_out = flow.packets[0];
  connection.bytes_out = flow.bytes[0];
  connection.packets_in = flow.packets[1];
  connection.bytes_in = flow.bytes[1];
  connection.status = IPS_CONFIRMED;
  if (is_answered(flow)) connection.status |= IPS_SEEN_REPLY;
  if (key.protocol == protocol::kTcp) connection.tcp_state = tcp_state_of(flow);
  // Ports that come again begin at another time.
  connection.id = static_cast<std::uint32_t>(flow.first >> 10) | 1u;
  connection.started = WallTime(Nanoseconds(static_cast<std::int64_t>(flow.first)) + offset);
  return connection;
}

Result<bool> EbpfConnections::drain(std::vector<Connection>& ended, std::size_t) {
  const Nanoseconds offset = wall_offset();
  const auto add = [&](const tl_flow_key& key, const tl_flow& flow, std::uint64_t at) {
    Connection& connection = ended.emplace_back(connection_of(key, flow, offset));
    connection.has_labels = false;
    connection.ended = WallTime(Nanoseconds(static_cast<std::int64_t>(at)) + offset);
  };
  for (const tl_ended& end : events_.take_ended()) add(end.key, end.flow, end.time);
  for (const KnownFlow& end : backend_.take_ended()) add(end.key, end.flow, end.flow.last);
  return false;
}

Result<void> EbpfConnections::dump(const std::function<void(const Connection&)>& each) {
  const Nanoseconds offset = wall_offset();
  TL_ASSIGN(const auto flows, backend_.read_flows());
  for (const KnownFlow& entry : flows)
    if (entry.flow.told != 0) each(connection_of(entry.key, entry.flow, offset));
  return {};
}

Result<void> EbpfConnections::count_full() {
  TL_ASSIGN(loss_.table_full, backend_.read_flows_refused());
  return {};
}

}  // namespace tierlog::dataplane::ebpf
