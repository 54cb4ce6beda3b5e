// Building frames byte by byte.
#include <cstring>

#include "lab/frames.h"

namespace tierlog::lab {
namespace {

void put8(Bytes& out, unsigned value) {
  out.push_back(static_cast<std::uint8_t>(value & 0xff));
}
void put16(Bytes& out, unsigned value) {
  put8(out, value >> 8);
  put8(out, value);
}
void put32(Bytes& out, std::uint32_t value) {
  put16(out, value >> 16);
  put16(out, value & 0xffff);
}
template <typename Range>
void put_all(Bytes& out, const Range& bytes) {
  for (const auto byte : bytes) put8(out, static_cast<unsigned char>(byte));
}
void put_address(Bytes& out, const IpAddr& address) {
  out.insert(out.end(), address.bytes.begin(),
             address.bytes.begin() + static_cast<std::ptrdiff_t>(address.size()));
}

std::uint32_t sum_of(const Bytes& bytes, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    const unsigned low = i + 1 < bytes.size() ? bytes[i + 1] : 0U;
    sum += (static_cast<unsigned>(bytes[i]) << 8) + low;
  }
  return sum;
}

std::uint16_t folded(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum & 0xffff);
}

void set16(Bytes& bytes, std::size_t at, std::uint16_t value) {
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value & 0xff);
}

std::uint8_t on_wire(const FrameSpec& frame) {
  const bool v6_ping = frame.protocol == protocol::kIcmp && frame.to.family == Family::V6;
  return v6_ping ? protocol::kIcmpV6 : frame.protocol;
}

// Of the addresses, the length and the protocol.
std::uint32_t pseudo_header(const IpAddr& from, const IpAddr& to, std::uint8_t number, std::size_t size) {
  Bytes header;
  put_address(header, from);
  put_address(header, to);
  put32(header, static_cast<std::uint32_t>(size));
  put32(header, number);
  return sum_of(header);
}

// As SCTP wants it: reflected, the Castagnoli polynomial.
std::uint32_t crc32c(const Bytes& bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return ~crc;
}

// An INIT, with the mark in a parameter that a receiver passes over.
Bytes sctp_init(const FrameSpec& frame) {
  const std::size_t padding = (4 - frame.mark.size() % 4) % 4;
  Bytes out;
  put16(out, frame.source_port);
  put16(out, frame.port);
  put32(out, 0);  // no verification tag yet
  put32(out, 0);  // checksum
  put16(out, 0x0100);
  put16(out, static_cast<unsigned>(20 + 4 + frame.mark.size()));
  put32(out, 0x12345678);  // initiate tag
  put32(out, 65536);       // receiver window
  put16(out, 1);
  put16(out, 1);
  put32(out, 1);
  put16(out, 0x8001);
  put16(out, static_cast<unsigned>(4 + frame.mark.size()));
  put_all(out, frame.mark);
  out.resize(out.size() + padding);
  const std::uint32_t crc = crc32c(out);
  for (std::size_t i = 0; i < 4; ++i) out[8 + i] = static_cast<std::uint8_t>(crc >> (8 * i) & 0xff);
  return out;
}

Bytes transport(const FrameSpec& frame) {
  Bytes out;
  std::size_t checksum_at = 0;
  const std::uint8_t number = on_wire(frame);
  if (number == protocol::kUdp) {
    put16(out, frame.source_port);
    put16(out, frame.port);
    put16(out, static_cast<unsigned>(8 + frame.mark.size()));
    checksum_at = 6;
    put16(out, 0);
  } else if (number == protocol::kTcp) {
    put16(out, frame.source_port);
    put16(out, frame.port);
    put32(out, 1'000'000);
    put32(out, (frame.tcp_flags & 0x10) != 0 ? 2'000'000 : 0);
    put8(out, 5 << 4);
    put8(out, frame.tcp_flags);
    put16(out, 64'000);
    checksum_at = 16;
    put32(out, 0);
  } else if (protocol::is_icmp(number)) {
    put8(out, frame.icmp_type);
    put8(out, frame.icmp_code);
    checksum_at = 2;
    put16(out, 0);
    put16(out, frame.icmp_id);
    put16(out, 1);
  } else if (number == protocol::kUdpLite) {
    put16(out, frame.source_port);
    put16(out, frame.port);
    put16(out, 0);  // the checksum covers all of it
    checksum_at = 6;
    put16(out, 0);
  } else if (number == protocol::kSctp) {
    return sctp_init(frame);
  }
  put_all(out, frame.mark);
  const bool with_addresses = number != protocol::kIcmp;
  const std::uint32_t start =
      with_addresses ? pseudo_header(frame.from, frame.to, number, out.size()) : std::uint32_t{0};
  if (checksum_at != 0) set16(out, checksum_at, folded(sum_of(out, start)));
  return out;
}

Bytes ipv4(const FrameSpec& frame, const Bytes& payload) {
  Bytes out;
  put16(out, 0x4500);
  put16(out, static_cast<unsigned>(20 + payload.size()));
  put16(out, frame.fragment_id & 0xffff);
  put16(out, (frame.more_fragments ? 0x2000U : 0U) | frame.fragment_offset);
  put8(out, 64);
  put8(out, on_wire(frame));
  put16(out, 0);
  put_address(out, frame.from);
  put_address(out, frame.to);
  set16(out, 10, folded(sum_of(out)));
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

Bytes ipv6(const FrameSpec& frame, const Bytes& payload) {
  const bool fragment = frame.more_fragments || frame.fragment_offset != 0;
  Bytes out;
  put32(out, 0x60000000);
  put16(out, static_cast<unsigned>(payload.size() + (fragment ? 8 : 0)));
  put8(out, fragment ? 44 : on_wire(frame));
  put8(out, 64);
  put_address(out, frame.from);
  put_address(out, frame.to);
  if (fragment) {
    put8(out, on_wire(frame));
    put8(out, 0);
    put16(out, static_cast<unsigned>(frame.fragment_offset << 3) | (frame.more_fragments ? 1U : 0U));
    put32(out, frame.fragment_id);
  }
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

Bytes ethernet(const Mac& source, const Mac& destination, const std::vector<std::uint16_t>& tags,
               std::uint16_t ethertype) {
  Bytes out;
  put_all(out, destination);
  put_all(out, source);
  for (const std::uint16_t tag : tags) {
    put16(out, tag);
    put16(out, 0);
  }
  put16(out, ethertype);
  return out;
}

void append(Bytes& to, const Bytes& more) {
  to.insert(to.end(), more.begin(), more.end());
  if (to.size() < 60) to.resize(60);
}

}  // namespace

Mac multicast_mac(const IpAddr& group) {
  const auto& b = group.bytes;
  if (group.family == Family::V6) return {0x33, 0x33, b[12], b[13], b[14], b[15]};
  return {0x01, 0x00, 0x5e, static_cast<std::uint8_t>(b[1] & 0x7f), b[2], b[3]};
}

Bytes build(const FrameSpec& frame) {
  const bool v4 = frame.to.family == Family::V4;
  const auto usual = static_cast<std::uint16_t>(v4 ? 0x0800 : 0x86dd);
  Bytes out =
      ethernet(frame.source, frame.destination, frame.tags, frame.ethertype == 0 ? usual : frame.ethertype);
  Bytes payload;
  if (frame.ethertype != 0) {
    put_all(payload, frame.mark);
  } else if (frame.fragment_offset != 0) {  // no header of the protocol, only what follows it
    put_all(payload, frame.mark);
    payload = v4 ? ipv4(frame, payload) : ipv6(frame, payload);
  } else {
    payload = transport(frame);
    payload = v4 ? ipv4(frame, payload) : ipv6(frame, payload);
  }
  append(out, payload);
  return out;
}

Bytes claim(const Mac& source, const Mac& destination, const IpAddr& claimed, const IpAddr& to) {
  Bytes body;
  if (claimed.family == Family::V4) {
    Bytes out = ethernet(source, destination, {}, 0x0806);
    put32(body, 0x00010800);
    put32(body, 0x06040002);  // reply
    put_all(body, source);
    put_address(body, claimed);
    put_all(body, destination);
    put_address(body, to);
    append(out, body);
    return out;
  }
  Bytes out = ethernet(source, destination, {}, 0x86dd);
  put32(body, 0x88000000);  // neighbour advertisement
  put32(body, 0x20000000);  // override
  put_address(body, claimed);
  put16(body, 0x0201);  // the address on the link
  put_all(body, source);
  set16(body, 2, folded(sum_of(body, pseudo_header(claimed, to, protocol::kIcmpV6, body.size()))));
  Bytes whole;
  put32(whole, 0x60000000);
  put16(whole, static_cast<unsigned>(body.size()));
  put8(whole, protocol::kIcmpV6);
  put8(whole, 255);
  put_address(whole, claimed);
  put_address(whole, to);
  whole.insert(whole.end(), body.begin(), body.end());
  append(out, whole);
  return out;
}

std::string claim_mark(const Mac& source, const IpAddr& claimed) {
  Bytes bytes;
  if (claimed.family == Family::V4) {
    put_all(bytes, source);
    put_address(bytes, claimed);
  } else {
    put_address(bytes, claimed);
    put16(bytes, 0x0201);
    put_all(bytes, source);
  }
  return {bytes.begin(), bytes.end()};
}

}  // namespace tierlog::lab
