#include "dataplane/conntrack_message.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink_conntrack.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace tierlog::dataplane {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t kLabelWords = 4;
constexpr std::size_t kEgressWord = 0;
constexpr std::size_t kIngressWord = 1;
constexpr std::size_t kFlagWord = 3;

// Calls `each(type, value)`; false when the attributes do not fit into what holds them.
template <typename Each>
bool for_each_attribute(Bytes bytes, const Each& each) {
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr header{};
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > bytes.size()) return false;
    each(header.nla_type & NLA_TYPE_MASK, bytes.subspan(sizeof header, header.nla_len - sizeof header));
    bytes = bytes.subspan(std::min<std::size_t>(bytes.size(), NLA_ALIGN(header.nla_len)));
  }
  return true;
}

// A number in network byte order; 0 when it is too short.
template <typename T>
T read_number(Bytes value) {
  if (value.size() < sizeof(T)) return 0;
  T result = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) result = static_cast<T>(result << 8 | value[i]);
  return result;
}

bool read_address(Family family, Bytes value, IpAddr& into) {
  into = IpAddr{};
  into.family = family;
  if (value.size() != into.size()) return false;
  std::memcpy(into.bytes.data(), value.data(), value.size());
  return true;
}

// Both addresses must be there.
bool read_addresses(Bytes nested, ConnectionTuple& into) {
  int found = 0;
  const bool sound = for_each_attribute(nested, [&](int type, Bytes value) {
    const Family family = type == CTA_IP_V4_SRC || type == CTA_IP_V4_DST ? Family::V4 : Family::V6;
    if (type == CTA_IP_V4_SRC || type == CTA_IP_V6_SRC)
      found += read_address(family, value, into.source) ? 1 : 0;
    else if (type == CTA_IP_V4_DST || type == CTA_IP_V6_DST)
      found += read_address(family, value, into.destination) ? 1 : 0;
  });
  return sound && found == 2;
}

void read_protocol(int type, Bytes value, ConnectionTuple& into) {
  switch (type) {
    case CTA_PROTO_NUM:
      into.protocol = read_number<std::uint8_t>(value);
      break;
    case CTA_PROTO_SRC_PORT:
      into.source_port = read_number<std::uint16_t>(value);
      break;
    case CTA_PROTO_DST_PORT:
      into.destination_port = read_number<std::uint16_t>(value);
      break;
    case CTA_PROTO_ICMP_TYPE:
    case CTA_PROTO_ICMPV6_TYPE:
      into.icmp_type = read_number<std::uint8_t>(value);
      break;
    case CTA_PROTO_ICMP_CODE:
    case CTA_PROTO_ICMPV6_CODE:
      into.icmp_code = read_number<std::uint8_t>(value);
      break;
    case CTA_PROTO_ICMP_ID:
    case CTA_PROTO_ICMPV6_ID:
      into.icmp_id = read_number<std::uint16_t>(value);
      break;
    default:
      break;
  }
}

bool read_tuple(Bytes nested, ConnectionTuple& into) {
  bool addresses = false;
  bool sound = true;
  const auto each = [&](int type, Bytes value) {
    if (type == CTA_TUPLE_IP) addresses = read_addresses(value, into);
    if (type == CTA_TUPLE_PROTO)
      sound = for_each_attribute(value, [&](int inner, Bytes number) { read_protocol(inner, number, into); });
  };
  return for_each_attribute(nested, each) && sound && addresses;
}

bool read_counters(Bytes nested, std::uint64_t& packets, std::uint64_t& bytes) {
  return for_each_attribute(nested, [&](int type, Bytes value) {
    if (type == CTA_COUNTERS_PACKETS) packets = read_number<std::uint64_t>(value);
    if (type == CTA_COUNTERS_BYTES) bytes = read_number<std::uint64_t>(value);
  });
}

bool read_times(Bytes nested, Connection& into) {
  return for_each_attribute(nested, [&](int type, Bytes value) {
    const auto ns = static_cast<std::int64_t>(read_number<std::uint64_t>(value));
    if (ns <= 0) return;
    if (type == CTA_TIMESTAMP_START) into.started = from_ns(ns);
    if (type == CTA_TIMESTAMP_STOP) into.ended = from_ns(ns);
  });
}

bool read_tcp_state(Bytes nested, Connection& into) {
  bool sound = true;
  return for_each_attribute(nested,
                            [&](int type, Bytes value) {
                              if (type != CTA_PROTOINFO_TCP) return;
                              sound = for_each_attribute(value, [&](int inner, Bytes state) {
                                if (inner == CTA_PROTOINFO_TCP_STATE)
                                  into.tcp_state = read_number<std::uint8_t>(state);
                              });
                            }) &&
         sound;
}

// The words are the kernel's registers, so in this machine's byte order.
void read_labels(Bytes value, Connection& into) {
  std::array<std::uint32_t, kLabelWords> words{};
  if (value.size() < sizeof words) return;
  std::memcpy(words.data(), value.data(), sizeof words);
  into.has_labels = true;
  into.labels = {RuleId{words[kEgressWord]}, RuleId{words[kIngressWord]}, words[kFlagWord]};
}

// What is neither a tuple nor a plain number.
bool read_nested(int type, Bytes value, Connection& into) {
  switch (type) {
    case CTA_COUNTERS_ORIG:
      return read_counters(value, into.packets_out, into.bytes_out);
    case CTA_COUNTERS_REPLY:
      return read_counters(value, into.packets_in, into.bytes_in);
    case CTA_TIMESTAMP:
      return read_times(value, into);
    case CTA_PROTOINFO:
      return read_tcp_state(value, into);
    default:
      return true;
  }
}

void put_address(nlmsghdr* message, const IpAddr& address, std::uint16_t v4, std::uint16_t v6) {
  mnl_attr_put(message, address.family == Family::V4 ? v4 : v6, address.size(), address.bytes.data());
}

void put_icmp(nlmsghdr* message, const ConnectionTuple& tuple) {
  const bool v4 = tuple.protocol == protocol::kIcmp;
  mnl_attr_put_u8(message, v4 ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE, tuple.icmp_type);
  mnl_attr_put_u8(message, v4 ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE, tuple.icmp_code);
  mnl_attr_put_u16(message, v4 ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID, htons(tuple.icmp_id));
}

}  // namespace

std::optional<Connection> decode_connection(Bytes attributes) {
  Connection connection;
  bool original = false;
  bool reply = false;
  bool sound = true;
  const auto each = [&](int type, Bytes value) {
    if (type == CTA_TUPLE_ORIG)
      original = read_tuple(value, connection.original);
    else if (type == CTA_TUPLE_REPLY)
      reply = read_tuple(value, connection.reply);
    else if (type == CTA_STATUS)
      connection.status = read_number<std::uint32_t>(value);
    else if (type == CTA_ID)
      connection.id = read_number<std::uint32_t>(value);
    else if (type == CTA_ZONE)
      connection.zone = read_number<std::uint16_t>(value);
    else if (type == CTA_LABELS)
      read_labels(value, connection);
    else
      sound = read_nested(type, value, connection) && sound;
  };
  if (!for_each_attribute(attributes, each) || !sound || !original || !reply) return std::nullopt;
  return connection;
}

namespace {

void put_tuple(nlmsghdr* message, std::uint16_t type, const ConnectionTuple& tuple) {
  nlattr* outer = mnl_attr_nest_start(message, type);
  nlattr* addresses = mnl_attr_nest_start(message, CTA_TUPLE_IP);
  put_address(message, tuple.source, CTA_IP_V4_SRC, CTA_IP_V6_SRC);
  put_address(message, tuple.destination, CTA_IP_V4_DST, CTA_IP_V6_DST);
  mnl_attr_nest_end(message, addresses);
  nlattr* transport = mnl_attr_nest_start(message, CTA_TUPLE_PROTO);
  mnl_attr_put_u8(message, CTA_PROTO_NUM, tuple.protocol);
  if (protocol::is_icmp(tuple.protocol)) {
    put_icmp(message, tuple);
  } else {
    mnl_attr_put_u16(message, CTA_PROTO_SRC_PORT, htons(tuple.source_port));
    mnl_attr_put_u16(message, CTA_PROTO_DST_PORT, htons(tuple.destination_port));
  }
  mnl_attr_nest_end(message, transport);
  mnl_attr_nest_end(message, outer);
}

}  // namespace

void put_entry(nlmsghdr* message, const Connection& connection, EntryId with_id) {
  put_tuple(message, CTA_TUPLE_ORIG, connection.original);
  if (connection.zone != 0) mnl_attr_put_u16(message, CTA_ZONE, htons(connection.zone));
  if (with_id == EntryId::With) mnl_attr_put_u32(message, CTA_ID, htonl(connection.id));
}

void put_reply(nlmsghdr* message, const ConnectionTuple& reply) {
  put_tuple(message, CTA_TUPLE_REPLY, reply);
}

void put_labels(nlmsghdr* message, const ConnectionLabels& labels) {
  std::array<std::uint32_t, kLabelWords> words{};
  std::array<std::uint32_t, kLabelWords> mask{};
  words[kEgressWord] = number(labels.egress);
  words[kIngressWord] = number(labels.ingress);
  words[kFlagWord] = labels.flags;
  mask[kEgressWord] = mask[kIngressWord] = mask[kFlagWord] = 0xffffffff;
  mnl_attr_put(message, CTA_LABELS, sizeof words, words.data());
  mnl_attr_put(message, CTA_LABELS_MASK, sizeof mask, mask.data());
}

}  // namespace tierlog::dataplane
