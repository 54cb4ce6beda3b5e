#include "dataplane/ebpf/connections.h"

#include <linux/netfilter/nf_conntrack_common.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace tierlog::dataplane::ebpf {
namespace {

ConnectionTuple reversed(const ConnectionTuple& tuple) {
  ConnectionTuple back = tuple;
  std::swap(back.source, back.destination);
  std::swap(back.source_port, back.destination_port);
  return back;
}

// The type of the question that this one answers.
std::uint8_t question_of(std::uint8_t protocol_number, std::uint8_t answer) {
  if (protocol_number == protocol::kIcmpV6) return static_cast<std::uint8_t>(answer - 1);
  return answer == 0 ? 8 : static_cast<std::uint8_t>(answer - 1);
}

}  // namespace

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
  if (flow.packets[1] > 0) connection.status |= IPS_SEEN_REPLY;
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
