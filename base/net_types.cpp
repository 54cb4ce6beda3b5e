#include "base/net_types.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>
#include <string>
#include <utility>

namespace tierlog {
namespace {

std::optional<unsigned> parse_number(std::string_view text, unsigned limit) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > limit) return std::nullopt;
  return value;
}

void clear_host_bits(IpAddr& address, std::uint8_t prefix) {
  for (std::size_t i = 0; i < address.size(); ++i) {
    const int keep = std::clamp(static_cast<int>(prefix) - static_cast<int>(i * 8), 0, 8);
    address.bytes[i] = static_cast<std::uint8_t>(address.bytes[i] & (0xff00 >> keep));
  }
}

constexpr std::pair<const char*, std::uint8_t> kProtocolNames[] = {
    {"icmp", protocol::kIcmp}, {"tcp", protocol::kTcp},   {"udp", protocol::kUdp},
    {"icmpv6", protocol::kIcmpV6}, {"sctp", protocol::kSctp}, {"udplite", protocol::kUdpLite}};

}  // namespace

std::optional<IpAddr> IpAddr::parse(std::string_view text) {
  const std::string copy(text);
  IpAddr address;
  if (::inet_pton(AF_INET, copy.c_str(), address.bytes.data()) == 1) return address;
  address.family = Family::V6;
  if (::inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1) return address;
  return std::nullopt;
}

IpAddr IpAddr::v4(std::uint32_t host_order) {
  IpAddr address;
  const std::uint32_t network_order = htonl(host_order);
  std::memcpy(address.bytes.data(), &network_order, sizeof network_order);
  return address;
}

IpAddr IpAddr::v6(const std::array<std::uint8_t, 16>& network_order) {
  return {Family::V6, network_order};
}

std::string IpAddr::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  ::inet_ntop(family == Family::V4 ? AF_INET : AF_INET6, bytes.data(), text, sizeof text);
  return text;
}

std::optional<Cidr> Cidr::parse(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = IpAddr::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  if (slash == std::string_view::npos) return host(*address);
  const auto prefix = parse_number(text.substr(slash + 1), address->bits());
  if (!prefix) return std::nullopt;
  Cidr cidr{*address, static_cast<std::uint8_t>(*prefix)};
  clear_host_bits(cidr.address, cidr.prefix);
  return cidr;
}

bool Cidr::contains(const IpAddr& other) const {
  if (other.family != address.family) return false;
  IpAddr masked = other;
  clear_host_bits(masked, prefix);
  return masked == address;
}

bool Cidr::contains(const Cidr& other) const { return other.prefix >= prefix && contains(other.address); }

IpAddr Cidr::last() const {
  IpAddr end = address;
  for (std::size_t i = 0; i < end.size(); ++i) {
    const int keep = std::clamp(static_cast<int>(prefix) - static_cast<int>(i * 8), 0, 8);
    end.bytes[i] = static_cast<std::uint8_t>(end.bytes[i] | (0xff >> keep));
  }
  return end;
}

std::string Cidr::to_string() const { return address.to_string() + "/" + std::to_string(prefix); }

std::string PortRange::to_string() const {
  return first == last ? std::to_string(first) : std::to_string(first) + ":" + std::to_string(last);
}

namespace protocol {

bool has_ports(std::uint8_t number) {
  return number == kTcp || number == kUdp || number == kSctp || number == kUdpLite;
}

bool is_icmp(std::uint8_t number) { return number == kIcmp || number == kIcmpV6; }

std::optional<std::uint8_t> parse(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const auto& [name_text, number] : kProtocolNames)
    if (lower == name_text) return number;
  const auto number = parse_number(lower, 255);
  if (!number || *number == 0) return std::nullopt;
  return static_cast<std::uint8_t>(*number);
}

std::string name(std::uint8_t number) {
  for (const auto& [name_text, known] : kProtocolNames)
    if (number == known) return name_text;
  return std::to_string(number);
}

}  // namespace protocol
}  // namespace tierlog

std::size_t std::hash<tierlog::IpAddr>::operator()(const tierlog::IpAddr& address) const noexcept {
  std::uint64_t words[2];
  std::memcpy(words, address.bytes.data(), sizeof words);
  std::uint64_t h = words[0] * 0x9e3779b97f4a7c15ULL + static_cast<std::uint64_t>(address.family);
  h ^= h >> 32;
  h = (h + words[1]) * 0xc2b2ae3d27d4eb4fULL;
  return static_cast<std::size_t>(h ^ (h >> 29));
}
