#include "dataplane/nftables/expr.h"

#include <linux/if_ether.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "dataplane/nftables/constants.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::uint32_t kTransportSource = 0;
constexpr std::uint32_t kTransportDestination = 2;
constexpr std::uint8_t kOriginalDirection = 0;  // IP_CT_DIR_ORIGINAL

Phrase load_protocol(std::uint32_t reg) {
  return just(MetaLoad{NFT_META_L4PROTO, reg});
}

// A label word is compared as all 16 bytes under a mask: the form that `nft list` can print.
Phrase load_word(std::uint32_t word) {
  Bytes mask(16, 0);
  std::memset(mask.data() + word * 4, 0xff, 4);
  return just(CtLoad{NFT_CT_LABELS, 0}) + just(Mask{0, mask});
}

std::uint32_t address_offset(Family family, Side side) {
  if (family == Family::V4) return side == Side::Source ? 12 : 16;
  return side == Side::Source ? 8 : 24;
}

std::uint32_t port_offset(Side side) {
  return side == Side::Source ? kTransportSource : kTransportDestination;
}

}  // namespace

Phrase& Phrase::operator+=(Expression expression) {
  expressions.push_back(std::move(expression));
  return *this;
}

Phrase& Phrase::operator+=(const Phrase& other) {
  expressions.insert(expressions.end(), other.expressions.begin(), other.expressions.end());
  return *this;
}

Phrase operator+(Phrase left, const Phrase& right) {
  left += right;
  return left;
}

Phrase just(Expression expression) {
  Phrase phrase;
  phrase += std::move(expression);
  return phrase;
}

Bytes big_endian16(std::uint16_t value) {
  return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value & 0xff)};
}

Bytes host_word(std::uint32_t value) {
  Bytes bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

Bytes address_bytes(const IpAddr& address) {
  return {address.bytes.begin(),
          std::next(address.bytes.begin(), static_cast<std::ptrdiff_t>(address.size()))};
}

Bytes interface_bytes(const std::string& name) {
  Bytes bytes(IFNAMSIZ, 0);
  std::copy_n(name.begin(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1), bytes.begin());
  return bytes;
}

Phrase family_is(Family family) {
  const auto number = static_cast<std::uint8_t>(family == Family::V4 ? AF_INET : AF_INET6);
  return just(MetaLoad{NFT_META_NFPROTO, 0}) + just(Compare{0, NFT_CMP_EQ, {number}});
}

Phrase frame_family_is(Family family) {
  return just(MetaLoad{NFT_META_PROTOCOL, 0}) +
         just(Compare{0, NFT_CMP_EQ, big_endian16(family == Family::V4 ? ETH_P_IP : ETH_P_IPV6)});
}

Phrase protocol_is(std::uint8_t number) {
  return load_protocol(0) + just(Compare{0, NFT_CMP_EQ, {number}});
}
Phrase protocol_is_not(std::uint8_t number) {
  return load_protocol(0) + just(Compare{0, NFT_CMP_NEQ, {number}});
}
Phrase protocol_in(const std::string& set) {
  return load_protocol(0) + just(Lookup{set, 0});
}
Phrase protocol_not_in(const std::string& set) {
  return load_protocol(0) + just(Lookup{set, 0, true});
}

Phrase load_address(Family family, Side side, std::uint32_t reg) {
  const std::uint32_t length = family == Family::V4 ? 4 : 16;
  return just(PayloadLoad{NFT_PAYLOAD_NETWORK_HEADER, address_offset(family, side), length, reg});
}

Phrase address_in(Family family, Side side, const std::string& set, bool negate) {
  return load_address(family, side, 0) + just(Lookup{set, 0, negate});
}

Phrase address_in_net(Side side, const Cidr& net, bool negate) {
  const Family family = net.address.family;
  const auto op = static_cast<std::uint32_t>(negate ? NFT_CMP_NEQ : NFT_CMP_EQ);
  Bytes value = address_bytes(net.address);
  if (net.prefix % 8 == 0) {
    value.resize(net.prefix / 8);
    return just(PayloadLoad{NFT_PAYLOAD_NETWORK_HEADER, address_offset(family, side), net.prefix / 8u, 0}) +
           just(Compare{0, op, std::move(value)});
  }
  Bytes mask(value.size(), 0);
  for (std::size_t bit = 0; bit < net.prefix; ++bit) mask[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
  return load_address(family, side, 0) + just(Mask{0, std::move(mask)}) + just(Compare{0, op, std::move(value)});
}

Phrase load_port(Side side, std::uint32_t reg) {
  return just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, port_offset(side), 2, reg});
}

Phrase port_in(Side side, const PortRange& range) {
  if (range.first == range.last)
    return load_port(side, 0) + just(Compare{0, NFT_CMP_EQ, big_endian16(range.first)});
  return load_port(side, 0) + just(Compare{0, NFT_CMP_GTE, big_endian16(range.first)}) +
         just(Compare{0, NFT_CMP_LTE, big_endian16(range.last)});
}

Phrase port_not_in(Side side, const PortRange& range) {
  return load_port(side, 0) + just(Compare{0, NFT_CMP_NEQ, big_endian16(range.first)});
}

Phrase port_in_set(Side side, const std::string& set, bool negate) {
  return load_port(side, 0) + just(Lookup{set, 0, negate});
}

Phrase endpoint_port_in(Family family, Side side, const std::string& set, bool negate) {
  const std::uint32_t after_address = family == Family::V4 ? 1 : 4;
  return load_address(family, side, 0) + load_protocol(after_address) + load_port(side, after_address + 1) +
         just(Lookup{set, 0, negate});
}

Phrase icmp_is(std::uint8_t type, std::optional<std::uint8_t> code, bool negate) {
  Bytes value{type};
  if (code) value.push_back(*code);
  const auto length = static_cast<std::uint32_t>(value.size());
  return just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, length, 0}) +
         just(Compare{0, static_cast<std::uint32_t>(negate ? NFT_CMP_NEQ : NFT_CMP_EQ), std::move(value)});
}

Phrase ct_state_in(std::uint32_t bits) {
  return just(CtLoad{NFT_CT_STATE, 0}) + just(Mask{0, host_word(bits)}) +
         just(Compare{0, NFT_CMP_NEQ, host_word(0)});
}

Phrase ct_first_packet() {
  return just(CtLoad{NFT_CT_STATUS, 0}) + just(Mask{0, host_word(IPS_CONFIRMED)}) +
         just(Compare{0, NFT_CMP_EQ, host_word(0)});
}

Phrase ct_word_is_zero(std::uint32_t word) {
  return load_word(word) + just(Compare{0, NFT_CMP_EQ, Bytes(16, 0)});
}

Phrase ct_word_is_not_zero(std::uint32_t word) {
  return just(CtLoad{NFT_CT_LABELS, 0}) + just(Compare{word, NFT_CMP_NEQ, host_word(0)});
}

Phrase ct_word_has(std::uint32_t word, std::uint32_t bits) {
  Bytes mask(16, 0);
  const Bytes value = host_word(bits);
  std::copy(value.begin(), value.end(), mask.begin() + word * 4);
  return just(CtLoad{NFT_CT_LABELS, 0}) + just(Mask{0, mask}) + just(Compare{0, NFT_CMP_NEQ, Bytes(16, 0)});
}

Phrase ct_word_in(std::uint32_t word, const std::string& set) {
  return just(CtLoad{NFT_CT_LABELS, 0}) + just(Lookup{set, word});
}

Phrase ct_original() {
  return just(CtLoad{NFT_CT_DIRECTION, 0}) + just(Compare{0, NFT_CMP_EQ, {kOriginalDirection}});
}

Phrase ct_word_set(std::uint32_t word, RuleId id) {
  Bytes label(16, 0);
  const Bytes value = host_word(number(id));
  std::copy(value.begin(), value.end(), label.begin() + word * 4);
  return just(LoadBytes{0, std::move(label)}) + just(CtSet{NFT_CT_LABELS, 0});
}

Phrase ct_word_to_verdict(std::uint32_t word, const std::string& map) {
  return just(CtLoad{NFT_CT_LABELS, 0}) + just(Lookup{map, word, false, true});
}

Phrase mark_set(RuleId id) {
  return just(LoadBytes{0, host_word(number(id))}) + just(MetaSet{NFT_META_MARK, 0});
}

Phrase mark_is_not(RuleId id) {
  return just(MetaLoad{NFT_META_MARK, 0}) + just(Compare{0, NFT_CMP_NEQ, host_word(number(id))});
}

Phrase jump(std::string chain) {
  return just(Verdict{VerdictKind::Jump, std::move(chain)});
}
Phrase go_to(std::string chain) {
  return just(Verdict{VerdictKind::Goto, std::move(chain)});
}

}  // namespace tierlog::dataplane::nftables
