// base/net_types.h - addresses, prefixes, ports and protocols, as every module names them.
//
// Address bytes are kept in network order (first byte = most significant), so comparing bytes compares
// addresses. Ports and protocol numbers are plain host-order integers.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tierlog {

enum class Family : std::uint8_t { V4 = 4, V6 = 6 };

// An IPv4 or IPv6 address. An IPv4 address uses the first four bytes, the rest are zero.
struct IpAddr {
  Family family = Family::V4;
  std::array<std::uint8_t, 16> bytes{};

  static std::optional<IpAddr> parse(std::string_view text);
  static IpAddr v4(std::uint32_t host_order);
  static IpAddr v6(const std::array<std::uint8_t, 16>& network_order);
  std::string to_string() const;
  std::size_t size() const { return family == Family::V4 ? 4 : 16; }
  std::uint8_t bits() const { return family == Family::V4 ? 32 : 128; }

  auto operator<=>(const IpAddr&) const = default;
};

// A prefix. `address` has its host bits cleared: "10.1.2.3/8" parses to 10.0.0.0/8.
struct Cidr {
  IpAddr address;
  std::uint8_t prefix = 0;

  // "10.0.0.0/8", "fd00::/64", or a bare address (prefix = all bits).
  static std::optional<Cidr> parse(std::string_view text);
  static Cidr host(const IpAddr& address) { return {address, address.bits()}; }
  bool contains(const IpAddr& other) const;
  bool contains(const Cidr& other) const;
  IpAddr last() const;  // the highest address in the prefix
  std::string to_string() const;

  auto operator<=>(const Cidr&) const = default;
};

struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;  // inclusive

  bool contains(std::uint16_t port) const { return first <= port && port <= last; }
  std::string to_string() const;
  auto operator<=>(const PortRange&) const = default;
};

// IP protocol numbers that have names of their own here; any other number is legal.
namespace protocol {
inline constexpr std::uint8_t kIcmp = 1;
inline constexpr std::uint8_t kTcp = 6;
inline constexpr std::uint8_t kUdp = 17;
inline constexpr std::uint8_t kIcmpV6 = 58;
inline constexpr std::uint8_t kSctp = 132;
inline constexpr std::uint8_t kUdpLite = 136;

bool has_ports(std::uint8_t number);  // tcp, udp, sctp, udplite
bool is_icmp(std::uint8_t number);    // icmp, icmpv6
// "TCP", "tcp", "ICMPv6", "132"; nothing for what is no protocol. 0 is not one.
std::optional<std::uint8_t> parse(std::string_view text);
// "tcp", "icmpv6", …, or the number.
std::string name(std::uint8_t number);
}  // namespace protocol

}  // namespace tierlog

template <>
struct std::hash<tierlog::IpAddr> {
  std::size_t operator()(const tierlog::IpAddr& address) const noexcept;
};
