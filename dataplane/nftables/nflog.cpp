#include "dataplane/nftables/nflog.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "dataplane/conntrack_message.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr int kReceiveBytes = 64 << 20;
constexpr std::size_t kReadBytes = 512 * 1024;
constexpr std::uint32_t kFlushAfter = 1;  // unit: 10 ms
constexpr std::uint32_t kCopyRange = 128;

std::uint16_t read16(const std::uint8_t* p) {
  return static_cast<std::uint16_t>(p[0] << 8 | p[1]);
}
std::uint32_t read32(const std::uint8_t* p) {
  return std::uint32_t{read16(p)} << 16 | read16(p + 2);
}
std::uint64_t read64(const std::uint8_t* p) {
  return std::uint64_t{read32(p)} << 32 | read32(p + 4);
}

void decode_transport(std::span<const std::uint8_t> segment, VerdictEvent& into) {
  if (protocol::has_ports(into.protocol) && segment.size() >= 4) {
    into.source_port = read16(segment.data());
    into.destination_port = read16(segment.data() + 2);
    if (into.protocol == protocol::kTcp && segment.size() >= 14) into.tcp_flags = segment[13];
  } else if (protocol::is_icmp(into.protocol) && segment.size() >= 2) {
    into.icmp_type = segment[0];
    into.icmp_code = segment[1];
    if (segment.size() >= 6) into.icmp_id = read16(segment.data() + 4);
  }
}

bool decode_v4(std::span<const std::uint8_t> packet, VerdictEvent& into) {
  constexpr std::size_t kHeader = 20;
  const std::size_t header = static_cast<std::size_t>(packet[0] & 0xf) * 4;
  if (packet.size() < kHeader || header < kHeader) return false;
  into.length = read16(packet.data() + 2);
  into.protocol = packet[9];
  into.source = IpAddr::v4(read32(packet.data() + 12));
  into.destination = IpAddr::v4(read32(packet.data() + 16));
  const bool later_fragment = (read16(packet.data() + 6) & 0x1fff) != 0;
  if (!later_fragment && packet.size() > header) decode_transport(packet.subspan(header), into);
  return true;
}

bool decode_v6(std::span<const std::uint8_t> packet, VerdictEvent& into) {
  constexpr std::size_t kHeader = 40;
  if (packet.size() < kHeader) return false;
  into.length = static_cast<std::uint32_t>(read16(packet.data() + 4) + kHeader);
  into.source.family = into.destination.family = Family::V6;
  std::memcpy(into.source.bytes.data(), packet.data() + 8, 16);
  std::memcpy(into.destination.bytes.data(), packet.data() + 24, 16);
  std::uint8_t next = packet[6];
  std::size_t offset = kHeader;
  constexpr int kMostExtensions = 8;
  for (int i = 0; i < kMostExtensions; ++i) {
    const bool options = next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS;
    const bool fragment = next == IPPROTO_FRAGMENT;
    if (!options && !fragment) break;
    if (packet.size() < offset + 8) break;
    const std::uint8_t* extension = packet.data() + offset;
    if (fragment && (read16(extension + 2) & 0xfff8) != 0) {
      into.protocol = extension[0];
      return true;
    }
    next = extension[0];
    offset += fragment ? 8 : (static_cast<std::size_t>(extension[1]) + 1) * 8;
  }
  into.protocol = next;
  if (offset < packet.size()) decode_transport(packet.subspan(offset), into);
  return true;
}

// "tl:A", "tl:C", "tl:D", "tl:O" (the id is the packet's mark), "tl:S" (no id) or "tl:<8 hex>L|D|S".
bool decode_prefix(std::string_view prefix, std::uint32_t mark, VerdictEvent& into) {
  if (prefix.rfind("tl:", 0) != 0) return false;
  prefix.remove_prefix(3);
  if (prefix == "A" || prefix == "C" || prefix == "D" || prefix == "O") {
    into.kind = prefix == "A"   ? EventKind::Allowed
                : prefix == "O" ? EventKind::Overflow
                                : EventKind::Denied;
    into.in_connection = prefix == "C";
    into.rule = RuleId{mark};
    return mark != 0;
  }
  if (prefix == "S") {
    into.kind = EventKind::Stateless;
    return true;
  }
  std::uint32_t id = 0;
  constexpr std::size_t kDigits = 8;
  if (prefix.size() != kDigits + 1) return false;
  const auto [end, error] = std::from_chars(prefix.data(), prefix.data() + kDigits, id, 16);
  if (error != std::errc() || end != prefix.data() + kDigits) return false;
  switch (prefix.back()) {
    case 'L':
      into.kind = EventKind::Logged;
      break;
    case 'D':
      into.kind = EventKind::Denied;
      break;
    case 'S':
      into.kind = EventKind::Stateless;
      break;
    default:
      return false;
  }
  into.rule = RuleId{id};
  return id != 0;
}

struct RawLog {
  std::string_view prefix;
  std::uint32_t mark = 0;
  std::span<const std::uint8_t> payload;
  std::span<const std::uint8_t> connection;
};

// Beyond that it is no time (and would not fit nanoseconds): the message is malformed.
constexpr std::uint64_t kLatestSecond = 9'000'000'000;

bool take_attribute(std::uint16_t type, std::span<const std::uint8_t> value, RawLog& raw, DecodedLog& into) {
  switch (type) {
    case NFULA_PREFIX:
      raw.prefix = {reinterpret_cast<const char*>(value.data()), value.size()};
      if (const auto end = raw.prefix.find('\0'); end != std::string_view::npos)
        raw.prefix = raw.prefix.substr(0, end);
      return true;
    case NFULA_PAYLOAD:
      raw.payload = value;
      return true;
    case NFULA_CT:
      raw.connection = value;
      return true;
    case NFULA_TIMESTAMP:
      if (value.size() < 16) return false;
      if (read64(value.data()) > kLatestSecond || read64(value.data() + 8) >= 1'000'000) return false;
      into.event.time = WallTime(std::chrono::seconds(read64(value.data())) +
                                 std::chrono::microseconds(read64(value.data() + 8)));
      return true;
    default:
      break;
  }
  if (type != NFULA_MARK && type != NFULA_SEQ && type != NFULA_IFINDEX_INDEV && type != NFULA_IFINDEX_OUTDEV)
    return true;
  if (value.size() < 4) return false;
  const std::uint32_t number_value = read32(value.data());
  if (type == NFULA_MARK) raw.mark = number_value;
  if (type == NFULA_SEQ) into.sequence = number_value;
  if (type == NFULA_IFINDEX_INDEV) into.event.in_interface = number_value;
  if (type == NFULA_IFINDEX_OUTDEV) into.event.out_interface = number_value;
  return true;
}

constexpr std::uint16_t kWithConnection = NFULNL_CFG_F_SEQ | NFULNL_CFG_F_CONNTRACK;

// The packet is its connection's first: the original tuple says where it was sent.
void take_translation(std::span<const std::uint8_t> attributes, VerdictEvent& into) {
  const auto connection = decode_connection(attributes);
  if (!connection || connection->original.source != into.source) return;
  const ConnectionTuple& sent = connection->original;
  if (sent.destination == into.destination && sent.destination_port == into.destination_port) return;
  if (!protocol::has_ports(into.protocol) && sent.destination == into.destination) return;
  into.addressed = Addressed{sent.destination, sent.destination_port};
}

}  // namespace

bool decode_packet(std::span<const std::uint8_t> packet, VerdictEvent& into) {
  if (packet.empty()) return false;
  if (packet[0] >> 4 == 4) return decode_v4(packet, into);
  if (packet[0] >> 4 == 6) return decode_v6(packet, into);
  return false;
}

std::optional<DecodedLog> decode_log(std::span<const std::uint8_t> attributes, WallTime now) {
  DecodedLog decoded;
  decoded.event.time = now;
  RawLog raw;
  constexpr std::size_t kHeader = 4;
  while (attributes.size() >= kHeader) {
    std::uint16_t length = 0;
    std::uint16_t type = 0;
    std::memcpy(&length, attributes.data(), 2);
    std::memcpy(&type, attributes.data() + 2, 2);
    if (length < kHeader || length > attributes.size()) return std::nullopt;
    if (!take_attribute(type & NLA_TYPE_MASK, attributes.subspan(kHeader, length - kHeader), raw, decoded))
      return std::nullopt;
    attributes = attributes.subspan(std::min<std::size_t>(attributes.size(), (length + 3u) & ~3u));
  }
  if (!decode_prefix(raw.prefix, raw.mark, decoded.event) || !decode_packet(raw.payload, decoded.event))
    return std::nullopt;
  if (!raw.connection.empty()) take_translation(raw.connection, decoded.event);
  return decoded;
}

NflogSource::NflogSource(Fd socket) : socket_(std::move(socket)), buffer_(kReadBytes) {}

Result<std::unique_ptr<NflogSource>> NflogSource::open(std::uint16_t group) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) return fail(Error::from_errno(errno, "open", "NFLOG socket"));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
    return fail(Error::from_errno(errno, "bind", "NFLOG socket"));
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBytes, sizeof kReceiveBytes) < 0)
    return fail(Error::from_errno(errno, "enlarge the buffer of", "NFLOG socket"));
  std::unique_ptr<NflogSource> source(new NflogSource(std::move(socket)));
  TL_TRY(source->configure(group));
  source->group_ = group;
  return source;
}

// Without asking for an answer: messages of packets are between it and us.
bool NflogSource::tell_translations(bool wanted) {
  if (!can_translate_) return false;
  if (wanted == tells_translations_) return true;
  tells_translations_ = wanted;
  std::array<char, 256> request{};
  nlmsghdr* header = mnl_nlmsg_put_header(request.data());
  header->nlmsg_type = static_cast<std::uint16_t>((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG);
  header->nlmsg_flags = NLM_F_REQUEST;
  auto* netfilter = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
  netfilter->res_id = htons(group_);
  mnl_attr_put_u16(header, NFULA_CFG_FLAGS,
                   htons(wanted ? kWithConnection : std::uint16_t{NFULNL_CFG_F_SEQ}));
  static_cast<void>(::send(socket_.get(), header, header->nlmsg_len, 0));
  return true;
}

Result<void> NflogSource::configure(std::uint16_t group) {
  const std::string about = "NFLOG group " + std::to_string(group);
  std::uint32_t sequence = 1;
  const auto send = [&](const auto& fill) -> Result<void> {
    std::array<char, 512> request{};
    nlmsghdr* header = mnl_nlmsg_put_header(request.data());
    header->nlmsg_type = static_cast<std::uint16_t>((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_CONFIG);
    header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    header->nlmsg_seq = ++sequence;
    auto* netfilter = static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(nfgenmsg)));
    netfilter->res_id = htons(group);
    fill(header);
    if (::send(socket_.get(), header, header->nlmsg_len, 0) < 0)
      return fail(Error::from_errno(errno, "configure", about));
    std::array<char, 4096> answer{};
    const ssize_t got = ::recv(socket_.get(), answer.data(), answer.size(), 0);
    if (got < static_cast<ssize_t>(NLMSG_HDRLEN + sizeof(nlmsgerr)))
      return fail(Error::from_errno(got < 0 ? errno : EPROTO, "configure", about));
    const auto* error =
        static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(reinterpret_cast<const nlmsghdr*>(answer.data())));
    if (error->error == -EPERM)
      return fail(Error::from_errno(EPERM, "configure", about)
                      .in("another process holds the group, or CAP_NET_ADMIN is missing"));
    if (error->error != 0) return fail(Error::from_errno(-error->error, "configure", about));
    return {};
  };
  TL_TRY(send([](nlmsghdr* header) {
    const nfulnl_msg_config_cmd command{NFULNL_CFG_CMD_BIND};
    mnl_attr_put(header, NFULA_CFG_CMD, sizeof command, &command);
  }));
  // EOPNOTSUPP where the kernel was made without the glue between its logs and its connections.
  can_translate_ = send([](nlmsghdr* header) {
                     mnl_attr_put_u16(header, NFULA_CFG_FLAGS, htons(kWithConnection));
                   }).has_value();
  return send([](nlmsghdr* header) {
    nfulnl_msg_config_mode mode{};
    mode.copy_range = htonl(kCopyRange);
    mode.copy_mode = NFULNL_COPY_PACKET;
    mnl_attr_put(header, NFULA_CFG_MODE, sizeof mode, &mode);
    mnl_attr_put_u32(header, NFULA_CFG_TIMEOUT, htonl(kFlushAfter));
    mnl_attr_put_u16(header, NFULA_CFG_FLAGS, htons(NFULNL_CFG_F_SEQ));
  });
}

Result<bool> NflogSource::drain(std::vector<VerdictEvent>& into, std::size_t limit) {
  const WallTime now = SystemClock().wall();
  const std::size_t enough = into.size() + limit;
  while (into.size() < enough) {
    const ssize_t got = ::recv(socket_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (got >= 0) {
      take({buffer_.data(), static_cast<std::size_t>(got)}, into, now);
    } else if (errno == ENOBUFS) {
      ++loss_.overruns;  // how many messages: the sequence gap tells
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      return fail(Error::from_errno(errno, "read", "NFLOG socket"));
    }
  }
  return true;
}

void NflogSource::take(std::span<const std::uint8_t> datagram, std::vector<VerdictEvent>& into,
                       WallTime now) {
  int length = static_cast<int>(datagram.size());
  for (const auto* header = reinterpret_cast<const nlmsghdr*>(datagram.data()); mnl_nlmsg_ok(header, length);
       header = mnl_nlmsg_next(header, &length)) {
    if (header->nlmsg_type != ((NFNL_SUBSYS_ULOG << 8) | NFULNL_MSG_PACKET)) continue;
    const auto* body = static_cast<const std::uint8_t*>(mnl_nlmsg_get_payload(header));
    const std::size_t size = mnl_nlmsg_get_payload_len(header);
    if (size < sizeof(nfgenmsg)) {
      ++loss_.undecodable;
      continue;
    }
    const auto decoded = decode_log({body + sizeof(nfgenmsg), size - sizeof(nfgenmsg)}, now);
    if (!decoded) {
      ++loss_.undecodable;
      continue;
    }
    if (decoded->sequence) {
      if (next_sequence_) loss_.sequence_gaps += *decoded->sequence - *next_sequence_;
      next_sequence_ = *decoded->sequence + 1;
    }
    into.push_back(decoded->event);
  }
}

}  // namespace tierlog::dataplane::nftables
